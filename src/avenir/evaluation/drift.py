"""How rollouts age far beyond the length that worlds were trained on, and when they fail.

Beside a world on its own stands the same world given the true past at every latent frame, which
never drifts: what lies between the two is drift. Above both lies the future of another clip, of
another recording where there is one: a rollout as far from the truth as that has failed. Below lies
the codec. A picture that freezes may err little, so how much moves is told as a share of what truly
moves.
"""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from avenir.clip import Batch, Clip
from avenir.config import Config
from avenir.data import Window
from avenir.errors import AvenirError
from avenir.evaluation.baselines import copy_last, frames_of
from avenir.evaluation.continuation import (
    Imagines,
    Task,
    ceiling,
    imagined,
    of_another_recording,
    score,
)
from avenir.evaluation.intervals import Curve, Interval, interval
from avenir.evaluation.metrics import METRICS
from avenir.evaluation.readout import Readout
from avenir.evaluation.settings import Report
from avenir.evaluation.tally import Tally
from avenir.shapes import Video

WAYS = {
    "free": "on its own",
    "forced": "given the true past at every latent frame",
    "codec": "true future through its codec",
    "copy_last": "last frame held",
    "random": "another clip's future",
}
"""Ways to continue, and what they are called."""


class Drift(Config):
    """How one world's rollouts age."""

    num_clips: int
    """Held-out windows."""
    past: int
    """Frames observed."""
    horizon: int
    """Frames imagined."""
    trained: int
    """Frames of the windows that it was trained on."""
    curves: dict[str, dict[str, Curve]]
    """By metric and way, at every frame."""
    failure_seconds: dict[str, float | None]
    """By metric: how far ahead it is first no better than another clip's future; none: never
    within the horizon."""
    growth: dict[str, Interval]
    """By metric: how much worse it is in the last trained length than in the first, as a share of
    the way from the codec to another clip's future."""
    motion: Interval
    """How much changes from frame to frame in the last trained length, as a share of the truth."""
    frames_per_second: float
    """Frames imagined in a second, all clips together, decoding included."""


class Shown(NamedTuple):
    """A clip to look at: what was observed and imagined, and what truly was."""

    made: Clip
    seen: Clip


@torch.no_grad()
def measure_drift(
    world: Imagines,
    trained: int,
    task: Task,
    readout: Readout | None,
    report: Report,
    num_shown: int = 0,
) -> tuple[Drift, list[Shown]]:
    """Continue windows in every way, far ahead; `trained` frames are a training window's length.

    Keeps the first few clips to look at. Raises AvenirError when there is only one window.
    """
    if len(task.windows) < 2:
        raise AvenirError(
            "one clip was given; when a world has failed is told by the future of another: ask "
            "for more clips"
        )
    tally, shown, spent = Tally(), [], 0.0
    motion: list[Tensor] = []
    for start, batch in task.batches("rolling out", report):
        past, true = task.split(batch)
        began = time.monotonic()
        signals = task.steering(batch)
        free = imagined(world, past, signals, task.horizon, "drift", task.seed, start)
        spent += time.monotonic() - began
        for way, video in _ways(world, task, batch, start, free):
            tally.add(way, score(video, true, past, batch, readout))
        last = slice(max(0, task.horizon - trained), None)
        motion.append(_change(free[:, last]) / _change(true[:, last]).clamp(min=1e-6))
        for row in range(min(len(past), num_shown - len(shown))):
            name, fps = batch.names[row], task.source.fps
            made, seen = (torch.cat([past[row], x[row]])[None] for x in (free, true))
            shown.append(Shown(*(Clip.from_video(x, fps, name) for x in (made, seen))))
    table, groups, fps = tally.table(), task.groups, task.source.fps
    return Drift(
        num_clips=len(task.windows),
        past=task.past,
        horizon=task.horizon,
        trained=trained,
        curves=tally.curves(groups, task.seed),
        failure_seconds={name: failure(ways, name, fps) for name, ways in table.items()},
        growth={
            name: growth(ways, name, trained, groups, task.seed) for name, ways in table.items()
        },
        motion=interval(torch.cat(motion), groups, task.seed),
        frames_per_second=len(task.windows) * task.horizon / spent,
    ), shown


def failure(ways: dict[str, Tensor], metric: str, fps: float) -> float | None:
    """Return how far ahead `free` is first no better than `random`, in seconds; none: never.

    Ways hold scores `n T`; their means over clips are compared.
    """
    sign = 1 if METRICS[metric].higher_is_better else -1
    ahead = sign * (ways["free"].nanmean(0) - ways["random"].nanmean())
    failed = (ahead <= 0).nonzero()
    return None if len(failed) == 0 else (int(failed[0]) + 1) / fps


def growth(
    ways: dict[str, Tensor], metric: str, trained: int, groups: list[str], seed: int
) -> Interval:
    """Return how much worse the last `trained` frames are than the first, against the whole way.

    The whole way is from the codec to another clip's future; 1 has lost everything.
    """
    sign = -1 if METRICS[metric].higher_is_better else 1
    floor = ways["codec"] if "codec" in ways else torch.zeros(1)
    whole = sign * (ways["random"].nanmean() - floor.nanmean())
    free = ways["free"]
    worse = free[:, -trained:].nanmean(1) - free[:, :trained].nanmean(1)
    return interval(sign * worse / whole, groups, seed)


def _ways(
    world: Imagines, task: Task, batch: Batch, start: int, free: Video
) -> Iterator[tuple[str, Video]]:
    past, true = task.split(batch)
    yield "free", free
    yield "forced", _forced(world, task, batch, start)
    if world.encoder.can_decode:
        yield "codec", ceiling(world.encoder, past, true)
    yield "copy_last", copy_last(past, task.horizon)
    others = task.source.read([_other(task.windows, start + row) for row in range(len(past))])
    yield "random", task.split(others)[1]


def _forced(world: Imagines, task: Task, batch: Batch, start: int) -> Video:
    """Imagine one latent frame at a time, from the true frames before it."""
    frames, f_t, made = frames_of(batch), world.encoder.compression.t, []
    for done in range(0, task.horizon, f_t):
        length = min(f_t, task.horizon - done)
        signals = {
            n: s[:, done : done + task.past + length] for n, s in task.steering(batch).items()
        }
        past = frames[:, done : done + task.past]
        made.append(imagined(world, past, signals, length, "forced", task.seed, start, done))
    return torch.cat(made, dim=1)


def _other(windows: Sequence[Window], index: int) -> Window:
    """Return the next window of another recording; of only one, the window farthest from this."""
    other = of_another_recording(windows, index)
    return windows[(index + len(windows) // 2) % len(windows) if other is None else other]


def _change(video: Video) -> Tensor:
    """Return how much changes from one frame to the next: mean absolute difference per clip."""
    return video.diff(dim=1).abs().mean((1, 2, 3, 4))
