"""The few sentences a reader takes away, each with its number and how sure it is.

Says no more than an interval allows: where it holds zero, no difference could be told.
"""

from collections.abc import Iterable
from html import escape
from typing import NamedTuple

from avenir.evaluation.metrics.bootstrap import Interval


class Finding(NamedTuple):
    """A number, the sentence that explains it, how sure it is, and whether that is good."""

    number: str
    sentence: str
    bounds: str = ""
    tone: str = ""


def findings_list(findings: Iterable[Finding]) -> str:
    """Return findings as an HTML list."""
    parts = (
        f'<li><strong class="{item.tone}">{escape(item.number)}</strong>'
        f"<small>{escape(item.sentence)}</small><small>{escape(item.bounds)}</small></li>"
        for item in findings
    )
    return f'<ul class="findings" aria-label="Findings">{"".join(parts)}</ul>'


def tone(difference: Interval | None, higher_is_better: bool) -> str:
    """Return `good` or `bad` when an interval leaves out zero, otherwise nothing."""
    if difference is None or difference.low is None or difference.high is None:
        return ""
    if difference.low <= 0 <= difference.high:
        return ""
    return "good" if (difference.low > 0) == higher_is_better else "bad"


def bounds(interval: Interval) -> str:
    """Write an interval as a sentence."""
    if interval.low is None or interval.high is None:
        return "Too few recordings for an interval."
    return minus(f"95 % interval {interval.low:+.2f} to {interval.high:+.2f}.")


def minus(text: str) -> str:
    """Write hyphens as minus signs."""
    return text.replace("-", "\u2212")
