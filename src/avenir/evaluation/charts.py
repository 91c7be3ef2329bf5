"""Curves with their spread as SVG that takes its colours and letters from the page around it.

Knows methods by the class of their line, `line-world` and so on, and nothing of what they mean.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from avenir.evaluation.intervals import Curve

WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 40


class Scale(NamedTuple):
    """Maps values to pixels, linearly."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def chart(curves: Mapping[str, Curve], labels: Mapping[str, str], fps: float, title: str) -> str:
    """Draw one metric of several methods against the seconds ahead."""
    count = max(len(curve.mean) for curve in curves.values())
    x = Scale(0, count / fps, _LEFT, WIDTH - _RIGHT)
    ticks = _ticks(*_range(curves))
    y = Scale(ticks[0], ticks[-1], HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(x, y, ticks)]
    parts += [_band(curve, method, x, y, fps) for method, curve in curves.items()]
    parts += [_line(curve, method, labels[method], x, y, fps) for method, curve in curves.items()]
    described = "; ".join(
        f"{labels[method]}: {_first(curve.mean):.2f} at the first frame, "
        f"{_first(curve.mean[::-1]):.2f} at the last"
        for method, curve in curves.items()
    )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)} against the horizon. {escape(described)}.">'
        f"{''.join(parts)}</svg>"
    )


def _grid(x: Scale, y: Scale, ticks: Sequence[float]) -> str:
    parts = []
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{x.start} {y(tick):.1f}H{x.end}"/>')
        parts.append(
            f'<text x="{x.start - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in _ticks(0.0, x.high):
        if tick <= x.high + 1e-9:
            parts.append(f'<path class="tick" d="M{x(tick):.1f} {y.start}v5"/>')
            parts.append(
                f'<text x="{x(tick):.1f}" y="{y.start + 19}" text-anchor="middle">{tick:g}</text>'
            )
    parts.append(f'<path class="axis" d="M{x.start} {y.start}H{x.end}"/>')
    parts.append(
        f'<text x="{(x.start + x.end) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        "seconds ahead</text>"
    )
    return "".join(parts)


def _line(curve: Curve, method: str, label: str, x: Scale, y: Scale, fps: float) -> str:
    path, pen = [], "M"
    for index, value in enumerate(curve.mean):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{x((index + 1) / fps):.1f} {y(value):.1f}")
        pen = "L"
    name = f"<title>{escape(label)}</title>"
    return f'<path class="line line-{method}" d="{"".join(path)}">{name}</path>'


def _band(curve: Curve, method: str, x: Scale, y: Scale, fps: float) -> str:
    rows = [
        (x((index + 1) / fps), y(low), y(high))
        for index, (low, high) in enumerate(zip(curve.low, curve.high, strict=True))
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
