"""Do actions matter? The same past and the same noise under the true and under others' actions.

A world that listens loses when its future actions are another recording's; one that ignores them
does not. Paired clip by clip, so that the interval is that of the difference.
"""

import torch
from torch import Tensor

from avenir.clip import Batch
from avenir.config import Config
from avenir.evaluation.continuation import Imagines, Task, imagined, of_another_recording, score
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
        pairs = [(row, of_another_recording(windows, row)) for row in range(len(windows))]
        rows = [row for row, other in pairs if other is not None]
        partners = [other for _, other in pairs if other is not None]
        own = {name: signal[rows] for name, signal in task.steering(batch).items()}
        if not own or not rows:
            continue
        others = {
            name: shuffled(signal, task.steering(batch)[name][partners], task.past)
            for name, signal in own.items()
        }
        past, true = (video[rows] for video in task.split(batch))
        kept = Batch(None, {name: signal[rows] for name, signal in batch.signals.items()})
        for method, signals in (("true", own), ("shuffled", others)):
            made = imagined(world, past, signals, task.horizon, "control", task.seed, start)
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
