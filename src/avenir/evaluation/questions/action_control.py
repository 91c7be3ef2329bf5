"""Do actions matter? The same past and the same noise under the true and under others' actions.

A world that listens loses when its future actions are another recording's; one that ignores them
does not. Paired clip by clip, so that the interval is that of the difference. Where a simulator
can say what would have been, the ego is steered to either side, and where it goes is held to that.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avenir.clip import Batch
from avenir.config import Config
from avenir.data.synthetic import Synthetic
from avenir.device import seed_of
from avenir.evaluation.held_out import Imagines, Task, imagined, of_another_recording
from avenir.evaluation.metrics.bootstrap import Curve, Interval, interval
from avenir.evaluation.metrics.correlation import Correlation, spearman
from avenir.evaluation.metrics.score_table import Row, Tally, horizons
from avenir.evaluation.readers.readout import Readout, score
from avenir.evaluation.settings import Report

_METRICS = ("moving_psnr", "ego_error")
"""What actions are expected to change."""

APART = 2.0
"""In pixels: egos that are truly no farther apart say nothing of which way they went."""

_SHOWS = 0.5
"""Share of the ego that must show to say where it is."""

_GENTLEST, _HARDEST = 0.3, 1.0
"""Between these it is steered, once to one side and once to the other."""


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
        steering = task.steering(batch)
        if "actions" not in steering or not rows:
            continue
        own = {name: signal[rows] for name, signal in steering.items()}
        theirs = shuffled(own["actions"], steering["actions"][partners], task.past)
        others = own | {"actions": theirs}
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


class Steered(Config):
    """Where the ego went in pairs of futures that differ in how it was steered."""

    seconds: float
    """After so long."""
    num_pairs: int
    """Pairs of which the egos are truly more than 2 px apart by then, and to be seen."""
    right_way: Interval
    """Share of them whose imagined egos are apart the same way; one that is lost is not."""
    read_right_way: Interval
    """The same of the simulator's frames: what reading alone gets wrong."""
    reach: Interval
    """How far apart they are imagined along the true way, as a share of how far they truly are."""
    rank_correlation: Correlation
    """Spearman's, of how far apart across they are imagined and truly are; lost ones nowhere."""
    psnr: Interval
    """PSNR of pixels that moved, of what is imagined against what the simulator says, in dB."""


class Counterfactuals(Config):
    """The same past steered to either side, imagined and simulated."""

    num_clips: int
    """Windows, each steered to both sides."""
    rows: tuple[Steered, ...]
    """By horizon."""


class _Side(NamedTuple):
    """Futures steered to one side, a batch of them."""

    ego: Float[Tensor, "b F 2"]
    """Where it truly is; NaN where it hardly shows."""
    imagined: Float[Tensor, "b F 2"]
    """Where it is read in what is imagined."""
    read: Float[Tensor, "b F 2"]
    """Where it is read in the simulator's frames."""
    psnr: Float[Tensor, "b F"]


def measure_counterfactuals(
    world: Imagines, task: Task, readout: Readout | None, report: Report
) -> Counterfactuals | None:
    """Steer every window to either side, from the same noise, beside a simulator that does so too.

    None where nobody knows what would have been, or nobody can read it; and of a world that would
    have to read its own actions in the simulator's answer.
    """
    if not isinstance(task.source, Synthetic) or readout is None or task.discover is not None:
        return None
    sides: tuple[list[_Side], list[_Side]] = ([], [])
    for start in range(0, len(task.windows), task.batch_size):
        report("steered to either side", start, len(task.windows))
        count = len(task.windows[start : start + task.batch_size])
        rng = np.random.default_rng(seed_of("counterfactual", task.seed, start))
        pedal = rng.uniform(-0.5, 1, count)
        for sign, gathered in zip((-1, 1), sides, strict=True):
            steer = sign * rng.uniform(_GENTLEST, _HARDEST, count)
            held = torch.tensor(np.stack([steer, pedal], axis=1), dtype=torch.float32)
            gathered.append(_side(world, task, task.source, readout, held, start))
    report("steered to either side", len(task.windows), len(task.windows))
    left, right = (_Side(*map(torch.cat, zip(*side, strict=True))) for side in sides)
    frames = horizons(task.horizon, task.source.fps)
    rows = [
        _steered(seconds, left, right, where.stop - 1, task)
        for seconds, where in frames.items()
        if seconds is not None
    ]
    return Counterfactuals(num_clips=len(task.windows), rows=tuple(rows))


def _side(
    world: Imagines,
    task: Task,
    source: Synthetic,
    readout: Readout,
    held: Float[Tensor, "b 2"],
    start: int,
) -> _Side:
    """Hold an action in windows from `start` on, in the simulator and in the world."""
    actions = held[:, None].expand(-1, task.horizon, -1)
    batch = source.instead(task.windows[start : start + len(held)], actions)
    past, true = task.split(batch)
    steering = task.steering(batch)
    made = imagined(world, past, steering, task.horizon, "control", task.seed, start)
    ego, visible = (batch.signals[name][:, task.past :] for name in ("ego", "ego_visible"))
    return _Side(
        torch.where(visible >= _SHOWS, ego, torch.nan),
        readout.read(made).ego,
        readout.read(true).ego,
        score(made, true, past, batch, None)["moving_psnr"],
    )


def _steered(seconds: float, left: _Side, right: _Side, frame: int, task: Task) -> Steered:
    """Sum up pairs at one frame."""
    apart, imagined, read = (
        there[:, frame] - here[:, frame] for here, there in zip(left[:3], right[:3], strict=True)
    )
    counts = apart.norm(dim=-1) > APART
    groups = [name for name, kept in zip(task.groups, counts.tolist(), strict=True) if kept]
    true, made, read = apart[counts], imagined[counts], read[counts]
    along = (made * true).sum(-1) / true.square().sum(-1)
    psnr = (left.psnr[counts, frame] + right.psnr[counts, frame]) / 2

    def mean(values: Tensor) -> Interval:
        return interval(values, groups, task.seed) if groups else Interval(mean=None)

    return Steered(
        seconds=seconds,
        num_pairs=len(groups),
        right_way=mean(_same_way(made, true).float()),
        read_right_way=mean(_same_way(read, true).float()),
        reach=mean(along.nan_to_num()),
        rank_correlation=spearman(made[:, 0].nan_to_num().numpy(), true[:, 0].numpy(), task.seed),
        psnr=mean(psnr),
    )


def _same_way(these: Float[Tensor, "n 2"], those: Float[Tensor, "n 2"]) -> Bool[Tensor, " n"]:
    """Say which point the same way; what is not known does not."""
    return (these * those).sum(-1) > 0


def shuffled(own: Tensor, other: Tensor, past: int) -> Tensor:
    """Replace what leads to future frames; the action at the last observed frame is the first."""
    return torch.cat([own[:, : past - 1], other[:, past - 1 :]], dim=1)
