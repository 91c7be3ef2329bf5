"""Do actions matter? The same past and the same noise under the true and under others' actions.

A world that listens loses when its future actions are another recording's; one that ignores them
does not. Paired clip by clip, so that the interval is that of the difference.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from avenir.clip import Batch
from avenir.config import Config
from avenir.data import Window
from avenir.device import generator
from avenir.evaluation.baselines import frames_of
from avenir.evaluation.continuation import Imagines, Task, score
from avenir.evaluation.intervals import Curve
from avenir.evaluation.readout import Readout
from avenir.evaluation.settings import Report
from avenir.evaluation.tally import Row, Tally, horizons

_METRICS = ("moving_psnr", "ego_error")
"""What actions are expected to change."""


class Control(Config):
    """True against shuffled actions."""

    num_clips: int
    """Windows continued twice."""
    num_recordings: int
    """Recordings they come from."""
    curves: dict[str, dict[str, Curve]]
    """By metric, then `true` and `shuffled`."""
    rows: tuple[Row, ...]
    """Numbers at chosen horizons; `difference` is true minus shuffled."""


def measure_control(
    world: Imagines, task: Task, readout: Readout | None, report: Report
) -> Control | None:
    """Continue every window under its own and under another recording's actions.

    None when nothing steers, or when no batch holds two recordings.
    """
    tally, groups = Tally(), []
    for start, batch in task.batches("true and shuffled actions", report):
        windows = task.windows[start : start + task.batch_size]
        rows, partners = _partners(windows)
        own = {name: signal[rows] for name, signal in task.steering(batch).items()}
        if not own or not rows:
            continue
        others = {
            name: shuffled(signal, task.steering(batch)[name][partners], task.past)
            for name, signal in own.items()
        }
        past, true = frames_of(batch)[rows].split((task.past, task.horizon), dim=1)
        kept = Batch(None, {name: signal[rows] for name, signal in batch.signals.items()})
        for method, signals in (("true", own), ("shuffled", others)):
            made = _imagined(world, task, past, signals, start)
            scores = score(made, true, past, kept, readout)
            tally.add(method, {name: scores[name] for name in _METRICS if name in scores})
        groups += [windows[row].recording.name for row in rows]
    if not groups:
        return None
    frames = horizons(task.horizon, task.source.fps)
    return Control(
        num_clips=len(groups),
        num_recordings=len(set(groups)),
        curves=tally.curves(groups, task.seed),
        rows=tally.rows(groups, task.seed, "true", frames),
    )


def shuffled(own: Tensor, other: Tensor, past: int) -> Tensor:
    """Replace what leads to future frames; the action at the last observed frame is the first."""
    return torch.cat([own[:, : past - 1], other[:, past - 1 :]], dim=1)


def _partners(windows: Sequence[Window]) -> tuple[list[int], list[int]]:
    """Give every row the next one of another recording; rows without one are left out."""
    rows, partners = [], []
    for row, window in enumerate(windows):
        following = ((row + step) % len(windows) for step in range(1, len(windows)))
        for other in following:
            if windows[other].recording.name != window.recording.name:
                rows.append(row)
                partners.append(other)
                break
    return rows, partners


@torch.no_grad()
def _imagined(
    world: Imagines, task: Task, past: Tensor, signals: dict[str, Tensor], start: int
) -> Tensor:
    chance = generator("control", task.seed, start, device=world.encoder.latent_mean.device)
    pieces = world.imagine(past, signals, task.horizon, 1, chance)
    return torch.cat([piece.cpu() for piece in pieces], dim=1)
