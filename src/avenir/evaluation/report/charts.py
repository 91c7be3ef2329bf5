"""Curves with their spread as SVG that takes its colours and letters from the page around it.

Knows methods by the class of their line, `line-world` and so on, and nothing of what they mean.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import cycle, islice
from typing import NamedTuple

from avenir.evaluation.metrics.bootstrap import Curve

WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 18, 12, 40
_COLOURS = (
    "#2563c9",
    "#d9480f",
    "#0b7a75",
    "#8e44ad",
    "#b8860b",
    "#7a8290",
    "#c2185b",
    "#5d7a1f",
    "#555",
    "#e0559b",
    "#12a5c4",
    "#5b3a1e",
)
_MOST_LINES = 4 * len(_COLOURS)


class Scale(NamedTuple):
    """Maps values to pixels, linearly."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


class Axis(NamedTuple):
    """Where along a chart the values of its curves stand."""

    at: Sequence[float]
    """One place per value."""
    label: str
    """What a place is."""
    log: bool = False
    """Whether equal ratios are equal lengths; ticks are then at the places themselves."""

    @classmethod
    def horizon(cls, num_frames: int, fps: float) -> "Axis":
        """Place frames by how far ahead they are."""
        return cls([(index + 1) / fps for index in range(num_frames)], "seconds ahead")

    @property
    def scale(self) -> Callable[[float], float]:
        """Return the pixel of a place."""
        if not self.log:
            return Scale(0, self.at[-1], _LEFT, WIDTH - _RIGHT)
        logs = Scale(math.log(self.at[0]), math.log(self.at[-1]), _LEFT, WIDTH - _RIGHT)
        return lambda place: logs(math.log(place))

    @property
    def ticks(self) -> Sequence[float]:
        """Return the places that are named."""
        if self.log:
            return self.at
        return [tick for tick in _ticks(0.0, self.at[-1]) if tick <= self.at[-1] + 1e-9]


def chart(curves: Mapping[str, Curve], labels: Mapping[str, str], axis: Axis, title: str) -> str:
    """Draw one metric of several methods along an axis."""
    ticks = _ticks(*_range(curves))
    x, y = axis.scale, Scale(ticks[0], ticks[-1], HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(axis, y, ticks)]
    for method, curve in curves.items():
        parts.append(_band(curve, method, [x(place) for place in axis.at], y))
    for method, curve in curves.items():
        parts.append(_line(curve, method, labels[method], [x(place) for place in axis.at], y))
    described = "; ".join(
        f"{labels[method]}: {_first(curve.mean):.2f} first, {_first(curve.mean[::-1]):.2f} last"
        for method, curve in curves.items()
    )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)} against {axis.label}. {escape(described)}.">'
        f"{''.join(parts)}</svg>"
    )


def charts(labels: Mapping[str, str], drawings: Sequence[tuple[str, str]]) -> str:
    """Lay out drawings, each with a title in HTML, below one legend."""
    legend = "".join(
        f'<li><svg viewBox="0 0 30 10" aria-hidden="true"><path class="line line-{method}" '
        f'd="M0 5H30"/></svg>{escape(label)}</li>'
        for method, label in labels.items()
    )
    cards = "".join(
        f'<figure class="card"><h3>{title}</h3>{drawing}</figure>' for title, drawing in drawings
    )
    return f'<ul class="legend">{legend}</ul><div class="charts">{cards}</div>'


def coloured(prefix: str, line: str = "", band: str = "") -> str:
    """Style lines `prefix0`, `prefix1` and so on, and their bands; after twelve, colours return.

    `line` and `band` are more of their style.
    """
    return "".join(
        f".line-{prefix}{i} {{ stroke: {colour}; {line} }} "
        f".chart .band.line-{prefix}{i} {{ fill: {colour}; {band} }}\n"
        for i, colour in enumerate(islice(cycle(_COLOURS), _MOST_LINES))
    )


def _grid(axis: Axis, y: Scale, ticks: Sequence[float]) -> str:
    parts, left, right, bottom = [], _LEFT, WIDTH - _RIGHT, y.start
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{left} {y(tick):.1f}H{right}"/>')
        parts.append(
            f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in axis.ticks:
        at = axis.scale(tick)
        parts.append(f'<path class="tick" d="M{at:.1f} {bottom}v5"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 19}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<path class="axis" d="M{left} {bottom}H{right}"/>')
    parts.append(
        f'<text x="{(left + right) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{axis.label}</text>'
    )
    return "".join(parts)


def _line(curve: Curve, method: str, label: str, x: Sequence[float], y: Scale) -> str:
    path, pen = [], "M"
    for at, value in zip(x, curve.mean, strict=True):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{at:.1f} {y(value):.1f}")
        pen = "L"
    name = f"<title>{escape(label)}</title>"
    return f'<path class="line line-{method}" d="{"".join(path)}">{name}</path>'


def _band(curve: Curve, method: str, x: Sequence[float], y: Scale) -> str:
    rows = [
        (at, y(low), y(high))
        for at, low, high in zip(x, curve.low, curve.high, strict=True)
        if low is not None and high is not None
    ]
    if len(rows) < 2:
        return ""
    outline = [f"{at:.1f} {high:.1f}" for at, _, high in rows]
    outline += [f"{at:.1f} {low:.1f}" for at, low, _ in reversed(rows)]
    return f'<path class="band line-{method}" d="M{"L".join(outline)}Z"/>'


def _range(curves: Mapping[str, Curve]) -> tuple[float, float]:
    values = [
        value
        for curve in curves.values()
        for bound in (curve.mean, curve.low, curve.high)
        for value in bound
        if value is not None
    ]
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high - low > 1e-6 else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from at or below `low` to at or above `high`."""
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * round_step for round_step in (1, 2, 5, 10) if power * round_step >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _first(values: Sequence[float | None]) -> float:
    return next((value for value in values if value is not None), math.nan)
