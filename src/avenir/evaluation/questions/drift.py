"""How rollouts age far beyond the length that worlds were trained on, and when they fail.

Beside a world on its own stands the same world given the true past at every latent frame, which
never drifts: what lies between the two is drift. Above both lies the future of another clip, of
another recording where there is one: a rollout as far from the truth as that has failed. Below lies
the codec. A picture that freezes may err little, so motion is given as a share of what truly moves.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from avenir.clip import Batch, Clip
from avenir.config import Config
from avenir.console import Report
from avenir.data import Window
from avenir.device import generator
from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.evaluation.baselines import ceiling, copy_last, frames_of
from avenir.evaluation.held_out import HeldOut, Imagines, imagined, of_another_recording
from avenir.evaluation.metrics.bootstrap import Curve, Interval, interval
from avenir.evaluation.metrics.distribution import features_of, kernel_distance
from avenir.evaluation.metrics.frames import METRICS
from avenir.evaluation.metrics.score_table import ScoreTable
from avenir.evaluation.readers.readout import Readout, score
from avenir.shapes import Video

WAYS = {
    "free": "on its own",
    "forced": "given the true past at every latent frame",
    "codec": "true future through its codec",
    "copy_last": "last frame held",
    "random": "another clip's future",
}
"""Ways to continue, and what they are called."""

SEGMENT = 8
"""Frames that are looked at together, as sets of clips."""


class Noised(Config):
    """How rollouts bear noise on the past; the same chance draws the undisturbed ones."""

    noise: float
    """Its standard deviation; pixels are in [-1, 1]."""
    early: dict[str, Interval]
    """By metric: how much is lost in the first trained length."""
    late: dict[str, Interval]
    """By metric: how much is still lost in the last: less where a world recovers."""


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
    segments: dict[str, Curve]
    """By way: kernel distance to the truth as sets of clips, segment by segment, which tells how
    pictures decay whatever happens in them; empty without an evaluator."""
    noised: tuple[Noised, ...]
    """By how much noise was on the past."""
    growth: dict[str, Interval]
    """By metric: how much worse it is in the last trained length than in the first, or in the
    second half of a shorter horizon, as a share of the way from the codec to another clip's
    future."""
    motion: Interval
    """How much changes from frame to frame in the last trained length, as a share of the truth."""
    frames_per_second: float
    """Frames imagined in a second, all clips together, decoding included."""


class ImaginedClip(NamedTuple):
    """A clip to look at: what was observed and imagined, and what truly was."""

    made: Clip
    seen: Clip


@torch.no_grad()
def measure_drift(
    world: Imagines,
    trained: int,
    task: HeldOut,
    readout: Readout | None,
    report: Report,
    num_shown: int = 0,
    noises: Sequence[float] = (),
    evaluator: Encoder | None = None,
) -> tuple[Drift, list[ImaginedClip]]:
    """Continue windows in every way, far ahead; `trained` frames are a training window's length.

    Also after `noises` of these standard deviations on the past, each on its own. With an evaluator
    sets of clips are compared as well. Keeps the first few clips to look at. Raises AvenirError
    when there is only one window.
    """
    if len(task.windows) < 2:
        raise AvenirError(
            "one clip was given; when a world has failed is judged by the future of another: ask "
            "for more clips"
        )
    if task.horizon < SEGMENT:
        evaluator = None
    scores, shown, spent = ScoreTable(), [], 0.0
    features: dict[str, list[list[Tensor]]] = {}
    motion: list[Tensor] = []
    for start, batch in task.batches("rolling out", report):
        past, true = task.split(batch)
        began = time.monotonic()
        signals = task.steering(batch)
        free = imagined(world, past, signals, task.horizon, "drift", task.seed, start)
        spent += time.monotonic() - began
        for way, video in chain(
            _ways(world, task, batch, start, free), _noised(world, task, batch, start, noises)
        ):
            scores.add(way, score(video, true, past, batch, readout))
            if evaluator is not None and way in WAYS:
                features.setdefault(way, []).append(_segments(evaluator, video))
        if evaluator is not None:
            features.setdefault("truth", []).append(_segments(evaluator, true))
        last = slice(max(0, task.horizon - trained), None)
        motion.append(_change(free[:, last]) / _change(true[:, last]).clamp(min=1e-6))
        for row in range(min(len(past), num_shown - len(shown))):
            name, fps = batch.names[row], task.source.fps
            made, seen = (torch.cat([past[row], x[row]])[None] for x in (free, true))
            shown.append(ImaginedClip(*(Clip.from_video(x, fps, name) for x in (made, seen))))
    table, groups, fps = scores.table(), task.groups, task.source.fps
    length = max(1, min(trained, task.horizon // 2))
    curves = scores.curves(groups, task.seed)
    return Drift(
        num_clips=len(task.windows),
        past=task.past,
        horizon=task.horizon,
        trained=trained,
        curves={
            name: {way: ways[way] for way in WAYS if way in ways} for name, ways in curves.items()
        },
        failure_seconds={name: failure(ways, name, fps) for name, ways in table.items()},
        segments=segment_distances(features, groups, task.seed),
        noised=tuple(
            Noised(
                noise=noise,
                early=_lost(table, noise, slice(0, length), groups, task.seed),
                late=_lost(table, noise, slice(-length, None), groups, task.seed),
            )
            for noise in noises
        ),
        growth={
            name: growth(ways, name, length, groups, task.seed) for name, ways in table.items()
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
    ways: dict[str, Tensor], metric: str, length: int, groups: list[str], seed: int
) -> Interval:
    """Return how much worse the last `length` frames are than the first, against the whole way.

    The whole way is from the codec to another clip's future; 1 has lost everything.
    """
    sign = -1 if METRICS[metric].higher_is_better else 1
    floor = ways["codec"] if "codec" in ways else torch.zeros(1)
    whole = sign * (ways["random"].nanmean() - floor.nanmean())
    free = ways["free"]
    worse = free[:, -length:].nanmean(1) - free[:, :length].nanmean(1)
    return interval(sign * worse / whole, groups, seed)


def segment_distances(
    features: Mapping[str, Sequence[Sequence[Tensor]]], groups: Sequence[str], seed: int
) -> dict[str, Curve]:
    """Return how far each way is from `truth` as a set of clips, segment by segment.

    Features are those of every batch and segment, `n d`.
    """
    joined = {
        way: [torch.cat(parts) for parts in zip(*batches, strict=True)]
        for way, batches in features.items()
    }
    true = joined.pop("truth", [])
    curves = {}
    for way, segments in joined.items():
        found = [
            kernel_distance(real, made, groups, groups, seed)
            for real, made in zip(true, segments, strict=True)
        ]
        curves[way] = Curve(
            mean=tuple(each.mean for each in found),
            low=tuple(each.low for each in found),
            high=tuple(each.high for each in found),
        )
    return curves


def _segments(evaluator: Encoder, video: Video) -> list[Tensor]:
    """Return the features of every whole segment of a batch."""
    whole = video[:, : video.shape[1] // SEGMENT * SEGMENT]
    return [features_of(evaluator, part) for part in whole.split(SEGMENT, dim=1)]


def _lost(
    table: dict[str, dict[str, Tensor]], noise: float, where: slice, groups: list[str], seed: int
) -> dict[str, Interval]:
    """Return how much worse rollouts from a noised past are, by metric."""
    lost = {}
    for name, ways in table.items():
        sign = -1 if METRICS[name].higher_is_better else 1
        difference = sign * (ways[_way_of(noise)] - ways["free"])[:, where].nanmean(1)
        lost[name] = interval(difference, groups, seed)
    return lost


def _way_of(noise: float) -> str:
    return f"noise {noise!r}"


def _noised(
    world: Imagines, task: HeldOut, batch: Batch, start: int, noises: Sequence[float]
) -> Iterator[tuple[str, Video]]:
    (past, _), signals = task.split(batch), task.steering(batch)
    rows = range(start, start + len(past))
    chances = [generator("noised", task.seed, row) for row in rows]
    noise = torch.stack([torch.randn(past.shape[1:], generator=rng) for rng in chances])
    for share in noises:
        seen = (past + share * noise).clamp(-1, 1)
        # The chance is that of the undisturbed rollouts: what differs is the noise.
        yield (
            _way_of(share),
            imagined(world, seen, signals, task.horizon, "drift", task.seed, start),
        )


def _ways(
    world: Imagines, task: HeldOut, batch: Batch, start: int, free: Video
) -> Iterator[tuple[str, Video]]:
    past, true = task.split(batch)
    yield "free", free
    yield "forced", _forced(world, task, batch, start)
    if world.encoder.can_decode:
        yield "codec", ceiling(world.encoder, past, true)
    yield "copy_last", copy_last(past, task.horizon)
    others = task.source.read([_other(task.windows, start + row) for row in range(len(past))])
    yield "random", task.split(others)[1]


def _forced(world: Imagines, task: HeldOut, batch: Batch, start: int) -> Video:
    """Imagine one latent frame at a time, from the true frames before it."""
    frames, f_t, made = frames_of(batch), world.encoder.compression.t, []
    for done in range(0, task.horizon, f_t):
        length = min(f_t, task.horizon - done)
        known = task.steering(batch, done + task.past)
        signals = {name: s[:, done : done + task.past + length] for name, s in known.items()}
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
