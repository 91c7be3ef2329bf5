"""Scores of several ways to continue the same clips, gathered batch by batch, paired clip by clip.

Knows metrics and methods by their names only.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from avenir.config import Config
from avenir.evaluation.metrics.bootstrap import Curve, Interval, curve, interval
from avenir.evaluation.metrics.frames import Scores


class ScoreRow(Config):
    """One number of the summary: a metric of a method at a horizon."""

    metric: str
    """A name in `metrics.METRICS`."""
    method: str
    """Whose continuation was scored."""
    seconds: float | None
    """How far ahead the scored frame is; none: the mean over all frames."""
    value: Interval
    """The score."""
    difference: Interval | None = None
    """The reference method minus this one, clip by clip; none for the reference itself."""


class ScoreTable:
    """Collects scores `b T` of every metric and method."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, list[Tensor]]] = {}

    def add(self, method: str, scores: Scores) -> None:
        """Append a batch of one method's scores."""
        for metric, values in scores.items():
            self._parts.setdefault(metric, {}).setdefault(method, []).append(values.cpu())

    def table(self) -> dict[str, dict[str, Float[Tensor, "n T"]]]:
        """Return scores of all clips by metric and method.

        A metric that nothing could be scored by is left out.
        """
        table = {
            metric: {method: torch.cat(parts) for method, parts in methods.items()}
            for metric, methods in self._parts.items()
        }
        return {
            metric: methods
            for metric, methods in table.items()
            if not all(scores.isnan().all() for scores in methods.values())
        }

    def curves(self, groups: Sequence[str], seed: int) -> dict[str, dict[str, Curve]]:
        """Return the mean and its spread at every frame, by metric and method."""
        return {
            metric: {method: curve(values, groups, seed) for method, values in methods.items()}
            for metric, methods in self.table().items()
        }

    def rows(
        self, groups: Sequence[str], seed: int, reference: str, frames: dict[float | None, slice]
    ) -> tuple[ScoreRow, ...]:
        """Return the summary at some horizons, each method beside the `reference`.

        `frames` says which frames each horizon stands for.
        """
        rows = []
        for metric, methods in self.table().items():
            for seconds, where in frames.items():
                ours = methods[reference][:, where].nanmean(1)
                for method, values in methods.items():
                    theirs = values[:, where].nanmean(1)
                    rows.append(
                        ScoreRow(
                            metric=metric,
                            method=method,
                            seconds=seconds,
                            value=interval(theirs, groups, seed),
                            difference=None
                            if method == reference
                            else interval(ours - theirs, groups, seed),
                        )
                    )
        return tuple(rows)


def horizons(num_frames: int, fps: float) -> dict[float | None, slice]:
    """Choose the horizons worth a row, and the frames of each: 0.5, 1, 2, 4 … s, and all."""
    chosen: dict[float | None, slice] = {}
    seconds = 0.5
    while round(seconds * fps) <= num_frames:
        last = round(seconds * fps)
        if last >= 1:
            chosen[seconds] = slice(last - 1, last)
        seconds *= 2
    chosen[None] = slice(0, num_frames)
    return chosen


def rows_of(rows: Sequence[ScoreRow], metric: str, seconds: float | None) -> list[ScoreRow]:
    """Take the rows of one metric at one horizon; none: over all frames."""
    return [row for row in rows if row.metric == metric and row.seconds == seconds]
