"""How the continuation ages: scores at every frame of the horizon, beside what needs no world.

A world's single sample, the mean of several and the best of them stand beside the last frame held,
the mean training image, the nearest training past's own future, and the codec's ceiling: the true
future encoded and decoded. The mean of samples does better on PSNR because it blurs, and the best
is chosen by who knows the truth, clip by clip and metric by metric: bounds, not video.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from einops import reduce
from jaxtyping import UInt8
from torch import Tensor

from avenir.clip import Batch, to_frames
from avenir.config import Config
from avenir.device import generator
from avenir.evaluation.baselines import NearestPast, ceiling, copy_last, mean_image
from avenir.evaluation.held_out import Imagines, Task
from avenir.evaluation.metrics.bootstrap import Curve
from avenir.evaluation.metrics.frames import METRICS, Scores
from avenir.evaluation.metrics.score_table import Row, Tally, horizons
from avenir.evaluation.readers.readout import Readout, StateReadout, score
from avenir.evaluation.settings import Report
from avenir.shapes import Frames, Video

METHODS = {
    "world": "world, one sample",
    "world_mean": "world, mean of samples",
    "world_best": "world, best of samples",
    "copy_last": "last frame held",
    "nearest": "nearest training past",
    "mean_image": "mean training image",
    "codec": "codec, true future",
    "truth": "true frames",
}
"""Every way to continue, in the order of tables. `truth` appears in what is read from frames: it
is the reader's own error."""


class Continuation(Config):
    """The continuation against the horizon."""

    num_clips: int
    """Held-out windows continued."""
    num_recordings: int
    """Recordings they come from."""
    past: int
    """Frames observed."""
    horizon: int
    """Frames imagined."""
    num_samples: int
    """Futures in the mean of samples."""
    num_train_windows: int
    """Training pasts among which the nearest was sought."""
    curves: dict[str, dict[str, Curve]]
    """By metric and method."""
    rows: tuple[Row, ...]
    """Numbers at chosen horizons."""


@dataclass(frozen=True)
class Example:
    """One clip to look at: frames `T C H W`."""

    name: str
    past: UInt8[Tensor, "_ C H W"]
    true: Frames
    made: dict[str, Frames]
    """By method."""


def measure_continuation(
    world: Imagines,
    task: Task,
    num_train_windows: int,
    num_examples: int,
    readout: Readout | None,
    report: Report,
) -> tuple[Continuation, list[Example]]:
    """Continue every window in every way and score it; keep the first few to look at."""
    mean = mean_image(task.source, num_train_windows, task.seed)
    nearest = NearestPast(
        task.source, task.past, task.horizon, num_train_windows, task.seed, report
    )
    tally, examples = Tally(), []
    for start, batch in task.batches("continuation", report):
        past, true = task.split(batch)
        shown = max(0, min(num_examples - len(examples), len(past)))
        kept: dict[str, Frames] = {}
        imagined = _imagined(world, task, batch, start, readout)
        tally.add("world", imagined.scores[0])
        kept["world"] = to_frames(imagined.first[:shown])
        if task.num_samples > 1:
            tally.add("world_best", best_of(imagined.scores))
        ways = _ways(world, task, batch, nearest, mean)
        for method, video in chain([("world_mean", imagined.mean)], ways):
            tally.add(method, score(video, true, past, batch, readout))
            kept[method] = to_frames(video[:shown])
        if readout is not None:
            tally.add("truth", readout.compare(true, batch, task.past))
        examples += [
            Example(
                batch.names[row],
                to_frames(past[row]),
                to_frames(true[row]),
                {method: frames[row] for method, frames in kept.items()},
            )
            for row in range(shown)
        ]
    return Continuation(
        num_clips=len(task.windows),
        num_recordings=len(set(task.groups)),
        past=task.past,
        horizon=task.horizon,
        num_samples=task.num_samples,
        num_train_windows=len(nearest.windows),
        curves=tally.curves(task.groups, task.seed),
        rows=tally.rows(task.groups, task.seed, "world", horizons(task.horizon, task.source.fps)),
    ), examples


def best_of(samples: Sequence[Scores]) -> Scores:
    """Return every clip's scores of the sample that is best over the horizon, by each metric."""
    best = {}
    for name in samples[0]:
        each = torch.stack([scores[name] for scores in samples])
        means = each.nanmean(2) if METRICS[name].higher_is_better else -each.nanmean(2)
        chosen = means.nan_to_num(-torch.inf).argmax(0)
        best[name] = each[chosen, torch.arange(each.shape[1])]
    return best


def _ways(
    world: Imagines, task: Task, batch: Batch, nearest: NearestPast, mean: Tensor
) -> Iterator[tuple[str, Video]]:
    """Continue a batch in every way that needs no world, and through its codec."""
    past, true = task.split(batch)
    yield "copy_last", copy_last(past, task.horizon)
    yield "nearest", nearest.continuation(past)
    yield "mean_image", mean.expand_as(true)
    if world.encoder.can_decode:
        yield "codec", ceiling(world.encoder, past, true)


class _Imagined(NamedTuple):
    first: Video
    """The first sample."""
    mean: Video
    """The mean of all."""
    scores: list[Scores]
    """Of every sample."""


@torch.no_grad()
def _imagined(
    world: Imagines,
    task: Task,
    batch: Batch,
    start: int,
    readout: Readout | StateReadout | None,
) -> _Imagined:
    """Imagine and score piece by piece; never hold all samples at full length."""
    past, true = task.split(batch)
    chance = generator("continuation", task.seed, start, device=world.encoder.latent_mean.device)
    k, done, first, mean = task.num_samples, 0, [], []
    scores: list[list[Scores]] = [[] for _ in range(k)]
    for piece in world.imagine(past, task.steering(batch), task.horizon, k, chance):
        piece = piece.clamp(-1, 1)
        first.append(piece[::k].cpu())
        mean.append(reduce(piece, "(b k) ... -> b ...", "mean", k=k).cpu())
        here = true[:, done : done + piece.shape[1]]
        for sample in range(k):
            made = piece[sample::k].cpu()
            scores[sample].append(score(made, here, past, batch, readout, done))
        done += piece.shape[1]
    joined = [
        {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}
        for parts in scores
    ]
    return _Imagined(torch.cat(first, 1), torch.cat(mean, 1), joined)
