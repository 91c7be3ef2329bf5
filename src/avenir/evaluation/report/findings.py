"""The few sentences a reader takes away, each with its number and how sure it is.

Says no more than an interval allows: where it holds zero, no difference could be told.
"""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from avenir.evaluation.metrics.bootstrap import Interval
from avenir.evaluation.metrics.frames import METRICS
from avenir.evaluation.metrics.score_table import Row
from avenir.evaluation.questions.action_control import Control, Counterfactuals, Steered
from avenir.evaluation.questions.box_control import BoxControl
from avenir.evaluation.questions.latent_actions import Agreement
from avenir.evaluation.questions.novel_views import ImaginedViews
from avenir.evaluation.questions.prediction import METHODS, Continuation
from avenir.evaluation.questions.text_control import Obedience
from avenir.evaluation.results import Evaluation

_RIVALS = ("copy_last", "nearest", "mean_image")


class Finding(NamedTuple):
    """A number, the sentence that explains it, how sure it is, and whether that is good."""

    number: str
    sentence: str
    bounds: str = ""
    tone: str = ""


def findings(evaluation: Evaluation) -> str:
    """Return the findings as an HTML list."""
    items = []
    continuation = evaluation.continuation
    if continuation is not None:
        items.append(_against_rivals(continuation, "moving_psnr"))
        if "ego_error" in continuation.curves:
            items.append(_against_rivals(continuation, "ego_error"))
    if evaluation.control is not None:
        items.append(_actions(evaluation.control))
    if evaluation.counterfactuals is not None:
        items += _steering(evaluation.counterfactuals)
    if evaluation.agreement is not None:
        items.append(_agreement(evaluation.agreement))
    if evaluation.obedience is not None:
        items.append(_obedience(evaluation.obedience))
    if evaluation.boxes is not None:
        items.append(_boxes(evaluation.boxes))
    if evaluation.imagined_views is not None:
        items.append(_imagined_views(evaluation.imagined_views))
    reconstruction = evaluation.reconstruction
    decodes = evaluation.album is None
    if decodes and reconstruction.psnr is not None and reconstruction.psnr.mean is not None:
        items.append(
            Finding(
                f"{reconstruction.psnr.mean:.1f} dB",
                f"PSNR of held-out clips through the encoder and back, "
                f"{reconstruction.numbers_ratio:,.1f} times fewer numbers than pixels hold.",
            )
        )
    parts = (
        f'<li><strong class="{item.tone}">{escape(item.number)}</strong>'
        f"<small>{escape(item.sentence)}</small><small>{escape(item.bounds)}</small></li>"
        for item in items
    )
    return f'<ul class="findings" aria-label="Findings">{"".join(parts)}</ul>'


def tone(difference: Interval | None, higher_is_better: bool) -> str:
    """Return `good` or `bad` when an interval leaves out zero, otherwise nothing."""
    if difference is None or difference.low is None or difference.high is None:
        return ""
    if difference.low <= 0 <= difference.high:
        return ""
    return "good" if (difference.low > 0) == higher_is_better else "bad"


def _against_rivals(continuation: Continuation, metric: str) -> Finding:
    """Compare the world's one sample with the best of what needs no world, over one second."""
    seconds = _near_one_second(continuation.rows)
    rows = {row.method: row for row in _of(continuation.rows, metric, seconds)}
    about = METRICS[metric]
    rivals = [rows[m] for m in _RIVALS if m in rows and rows[m].value.mean is not None]
    best = (max if about.higher_is_better else min)(
        rivals, key=lambda row: row.value.mean or 0.0, default=None
    )
    if best is None or best.difference is None or best.difference.mean is None:
        return Finding("–", f"{about.label}: nothing moved that could be scored.")
    when = f"{seconds:g} s ahead" if seconds is not None else "over all frames"
    sure = tone(best.difference, about.higher_is_better)
    verdict = {
        "good": "better than",
        "bad": "worse than",
        "": "not to be told from",
    }[sure]
    ours = rows["world"].value.mean
    return Finding(
        f"{best.difference.mean:+.2f} {about.unit}".replace("-", "−"),
        f"{about.label} {when}: one sample ({ours:.2f} {about.unit}) is {verdict} the best that "
        f"needs no world, {METHODS[best.method]} ({best.value.mean:.2f}).",
        _bounds(best.difference),
        sure,
    )


def _actions(control: Control) -> Finding:
    metric = "moving_psnr"
    rows = _of(control.rows, metric, None)
    row = next((row for row in rows if row.method == "shuffled"), None)
    if row is None or row.difference is None or row.difference.mean is None:
        return Finding("–", "Actions: nothing moved that could be scored.")
    sure = tone(row.difference, True)
    verdict = {
        "good": "Actions matter: true ones do better than another recording’s",
        "bad": "True actions do worse than another recording’s",
        "": "No effect of actions could be told: true against another recording’s",
    }[sure]
    return Finding(
        f"{row.difference.mean:+.2f} dB".replace("-", "−"),
        f"{verdict}, PSNR of moving pixels over all frames.",
        _bounds(row.difference),
        sure,
    )


def _steering(counterfactuals: Counterfactuals) -> list[Finding]:
    rows = [row for row in counterfactuals.rows if row.num_pairs and row.seconds <= 1]
    if not rows:
        return []
    row: Steered = rows[-1]
    share = row.right_way
    assert share.mean is not None
    bounds = "Too few recordings for an interval."
    if share.low is not None and share.high is not None:
        bounds = f"95 % interval {share.low:.0%} to {share.high:.0%}."
    sentence = (
        f"of egos, steered to the left and to the right, are imagined apart the right way after "
        f"{row.seconds:g} s; {row.num_pairs:,} pairs."
    )
    chance = Interval(
        mean=share.mean - 0.5,
        low=None if share.low is None else share.low - 0.5,
        high=None if share.high is None else share.high - 0.5,
    )
    return [Finding(f"{share.mean:.0%}", sentence, bounds, tone(chance, True))]


def _agreement(agreement: Agreement) -> Finding:
    """Say whether codes and true actions have to do with each other."""
    found, dealt = agreement.adjusted, agreement.shuffled
    assert found.mean is not None and dealt.mean is not None
    apart = found.low is not None and dealt.high is not None and found.low > dealt.high
    verdict = "agree with" if apart else "cannot be told to have to do with"
    return Finding(
        f"{found.mean:.2f}",
        f"Discovered actions {verdict} the true ones: adjusted mutual information of "
        f"{agreement.num_used} codes with {agreement.num_kinds} kinds of true action, 1 if they "
        f"were the same; dealt out to other moments {dealt.mean:.2f}. Here its "
        "true actions are those that it reads in the true future.",
        _bounds(found),
        "good" if apart else "bad",
    )


def _obedience(obedience: Obedience) -> Finding:
    """Say how often what was asked for came, and how often it was what was said."""
    more, known, new = obedience.more_than_refused, obedience.known, obedience.held_out
    shares = [each.mean for each in (more, known.appears, obedience.refused, known.both)]
    difference, came, otherwise, right = (0.0 if share is None else share for share in shares)
    unseen = new.both.mean
    also = "" if unseen is None else f", and in {unseen:.0%} of pairs that training never shows"
    return Finding(
        f"{difference:+.0%}".replace("-", "−"),
        f"Something flies in within {obedience.seconds:g} s more often when words ask for it "
        f"({came:.0%}) than when they refuse it ({otherwise:.0%}). Kind and colour are those that "
        f"were said in {right:.0%}{also}.",
        _bounds(more),
        tone(more, True),
    )


def _boxes(boxes: BoxControl) -> Finding:
    """Say how many more boxes are filled where nobody could foretell that something is."""
    told, untold, more = boxes.moved, boxes.moved_untold, boxes.more_than_moved_untold
    return Finding(
        f"{more.mean or 0.0:+.0%}".replace("-", "−"),
        f"Told where the things of another recording are, it fills {told.mean or 0.0:.0%} of "
        f"these boxes with what was said, and {untold.mean or 0.0:.0%} when nothing is told. "
        f"Of true ones it fills {boxes.told.mean or 0.0:.0%} and {boxes.untold.mean or 0.0:.0%}, "
        f"the simulator {boxes.read.mean or 0.0:.0%}.",
        _bounds(more),
        tone(more, True),
    )


def _imagined_views(imagined: ImaginedViews) -> Finding:
    """Say by how much the worst view that is imagined beats the nearest one that is given."""
    worst = min(imagined.views, key=lambda view: view.more_than_nearest.mean or 0.0)
    gain, warped = worst.more_than_nearest.mean or 0.0, worst.warped.mean or 0.0
    return Finding(
        f"{gain:+.1f} dB".replace("-", "−"),
        f"A view that is not given, imagined from the others: so much nearer to what its camera "
        f"saw than the nearest given view in its place, for the worst of {len(imagined.views)} "
        f"views. Moved to where it belongs by the true geometry, that reaches {warped:.1f} dB and "
        f"what is imagined {worst.imagined.mean or 0.0:.1f}.",
        _bounds(worst.more_than_nearest),
        tone(worst.more_than_nearest, True),
    )


def _of(rows: Sequence[Row], metric: str, seconds: float | None) -> list[Row]:
    return [row for row in rows if row.metric == metric and row.seconds == seconds]


def _near_one_second(rows: Sequence[Row]) -> float | None:
    horizons = [row.seconds for row in rows if row.seconds is not None and row.seconds <= 1]
    return max(horizons, default=None)


def _bounds(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "Too few recordings for an interval."
    return f"95 % interval {interval.low:+.2f} to {interval.high:+.2f}.".replace("-", "−")
