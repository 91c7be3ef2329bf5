"""Numbers as HTML tables and lists, each with its interval. Knows no pictures and no curves."""

from collections.abc import Mapping, Sequence
from html import escape

from avenir.evaluation.metrics.bootstrap import Interval
from avenir.evaluation.metrics.frames import METRICS, Metric
from avenir.evaluation.metrics.score_table import ScoreRow
from avenir.evaluation.report.findings import minus, tone

CEILINGS = ("codec", "truth")
"""Methods that know the future: bounds, not competitors."""


def score_table(
    name: str, rows: Sequence[ScoreRow], labels: Mapping[str, str], reference: str
) -> str:
    """Lay one metric out, methods down and horizons across; nothing when it was not scored."""
    rows = [row for row in rows if row.metric == name]
    if not rows:
        return ""
    horizons = list(dict.fromkeys(row.seconds for row in rows))
    methods = [method for method in labels if any(row.method == method for row in rows)]
    cells = {(row.method, row.seconds): row for row in rows}
    metric = METRICS[name]
    head = "".join(
        f'<th scope="col">{"all frames" if seconds is None else f"{seconds:g} s"}</th>'
        for seconds in horizons
    )
    body = ""
    for method in methods:
        line = "".join(_cell(cells[method, seconds], metric) for seconds in horizons)
        ours = ' class="ours"' if method == reference else ""
        body += f'<tr{ours}><th scope="row">{escape(labels[method])}</th>{line}</tr>'
    return (
        f'<div class="scroll"><table><caption>{title_of(metric)}</caption>'
        f'<thead><tr><th scope="col"></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def plain_table(caption: str, lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Lay out lines, each a name and cells in HTML; the first is the head."""

    def line(tag: str, name: str, cells: Sequence[str]) -> str:
        inside = "".join(f"<{tag}>{cell}</{tag}>" for cell in cells)
        return f'<tr><th scope="row">{escape(name)}</th>{inside}</tr>'

    head, *body = lines
    rows = "".join(line("td", name, cells) for name, cells in body)
    title = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{title}<thead>{line("th", *head)}</thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def title_of(metric: Metric) -> str:
    """Name a metric with its unit and say which way is better."""
    unit = f", {metric.unit}" if metric.unit else ""
    better = "higher is better" if metric.higher_is_better else "lower is better"
    return f'{escape(metric.label)}{unit} <span class="note">· {better}</span>'


def _cell(row: ScoreRow, metric: Metric) -> str:
    digits = 2 if metric.unit else 3
    if row.value.mean is None:
        return "<td>–</td>"
    lines = [f"{row.value.mean:.{digits}f}", f"<small>{_bounds(row.value, digits)}</small>"]
    contest = row.method not in CEILINGS
    if contest and row.difference is not None and row.difference.mean is not None:
        ahead = row.difference.mean if metric.higher_is_better else 0 - row.difference.mean
        sure = tone(row.difference, metric.higher_is_better)
        bounds = _bounds(row.difference, digits, metric.higher_is_better)
        lines.append(f'<small class="{sure}">{minus(f"{ahead:+.{digits}f}")} {bounds}</small>')
    return f"<td>{''.join(lines)}</td>"


def facts_list(facts: Mapping[str, object]) -> str:
    """List names with what is known of them."""
    items = (f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    return f"<dl>{''.join(items)}</dl>"


def written(found: Interval | None, spec: str = ".2f") -> str:
    """Write a mean and, small, its bounds in HTML, each by a format such as `.2f`."""
    if found is None or found.mean is None:
        return "–"
    spec = f"z{spec}"  # no minus before a nought
    mean = minus(format(found.mean, spec))
    if found.low is None or found.high is None:
        return mean
    low, high = (minus(format(end, spec)) for end in (found.low, found.high))
    return f"{mean} <small>[{low},\u00a0{high}]</small>"


def with_bounds(interval: Interval, digits: int) -> str:
    """Write a mean and its bounds as text."""
    if interval.mean is None:
        return "–"
    return f"{interval.mean:.{digits}f} {_bounds(interval, digits)}".strip()


def _bounds(interval: Interval, digits: int, as_it_is: bool = True) -> str:
    """Write an interval, or that of its negative."""
    if interval.low is None or interval.high is None:
        return ""
    low, high = (interval.low, interval.high) if as_it_is else (0 - interval.high, 0 - interval.low)
    return minus(f"[{low:.{digits}f}, {high:.{digits}f}]")


def count(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
