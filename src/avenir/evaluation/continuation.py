"""How the continuation ages: scores at every frame of the horizon, beside what needs no world.

A world's single sample, the mean of several and the best of them stand beside the last frame held,
the mean training image, the nearest training past's own future, and the codec's ceiling: the true
future encoded and decoded. The mean of samples does better on PSNR because it blurs, and the best
is chosen by who knows the truth, clip by clip and metric by metric: bounds, not video.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from einops import reduce
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from avenir.clip import Batch, to_frames
from avenir.config import Config
from avenir.data import Source, Window
from avenir.device import generator
from avenir.encoders import Encoder
from avenir.evaluation.baselines import NearestPast, Past, copy_last, frames_of, mean_image
from avenir.evaluation.intervals import Curve, Interval, interval
from avenir.evaluation.metrics import METRICS, Scores, compare
from avenir.evaluation.readout import Readout, StateReadout
from avenir.evaluation.reconstruction import reconstructed
from avenir.evaluation.settings import Report
from avenir.evaluation.tally import Row, Tally, horizons
from avenir.shapes import Actions, Frames, Latents, Video

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


@runtime_checkable
class Imagines(Protocol):
    """What is evaluated: a `World`, or anything that continues as one does."""

    encoder: Encoder

    def imagine(
        self,
        past: Video,
        signals: dict[str, Tensor],
        horizon: int,
        samples: int,
        generator: torch.Generator,
    ) -> Iterator[Video]:
        """Yield pieces `(b k) T C H W` of the `horizon` frames after `past`."""
        ...


_OBSERVED = {"boxes", "state"}
"""Signals that are no steering: they say what is to be foretold."""


class Task(NamedTuple):
    """What to measure on: held-out windows of `past + horizon` frames."""

    source: Source
    windows: Sequence[Window]
    past: int
    horizon: int
    num_samples: int
    batch_size: int
    seed: int
    discover: Callable[[Video], Actions] | None = None
    """How a world reads actions of its own in video; none: it takes those that were recorded."""

    @property
    def groups(self) -> list[str]:
        """Name the recording of every window."""
        return [window.recording.name for window in self.windows]

    def batches(self, what: str, report: Report) -> Iterator[tuple[int, Batch]]:
        """Yield every batch with the index of its first clip, telling how far it is."""
        for start in range(0, len(self.windows), self.batch_size):
            report(what, start, len(self.windows))
            yield start, self.source.read(self.windows[start : start + self.batch_size])
        report(what, len(self.windows), len(self.windows))

    def steering(self, batch: Batch, past: int | None = None) -> dict[str, Tensor]:
        """Take the signals that may steer a world; labels are no business of its own.

        Nor is what will be seen: where things and machines are it is told of the `past` alone, as
        many frames as are observed.
        """
        if self.discover is not None:
            return {"actions": self.discover(frames_of(batch))}
        signals = {n: signal for n, signal in batch.signals.items() if n in self.source.signals}
        for name in _OBSERVED & signals.keys():
            signals[name] = signals[name].clone()
            signals[name][:, self.past if past is None else past :] = torch.nan
        return signals

    def cut(self, most: int) -> "Task":
        """Return the same pasts with a horizon of at most so many frames."""
        horizon = min(most, self.horizon)
        windows = [replace(w, num_frames=self.past + horizon) for w in self.windows]
        return self._replace(windows=windows, horizon=horizon)

    def mean(self, values: Float[Tensor, " b"], counts: Bool[Tensor, " b"]) -> Interval:
        """Take the mean over the windows that count; none where none does."""
        names = [name for name, kept in zip(self.groups, counts.tolist(), strict=True) if kept]
        return interval(values[counts], names, self.seed) if names else Interval(mean=None)

    def split(self, batch: Batch) -> tuple[Video, Video]:
        """Return what is observed of a batch, and what truly followed."""
        past, true = frames_of(batch).split((self.past, self.horizon), dim=1)
        return past, true


def of_another_recording(windows: Sequence[Window], index: int) -> int | None:
    """Return which of some windows, from `index` on and round, is the next of another recording."""
    own, count = windows[index].recording.name, len(windows)
    after = ((index + step) % count for step in range(1, count))
    return next((i for i in after if windows[i].recording.name != own), None)


@torch.no_grad()
def imagined(
    world: Imagines, past: Video, signals: dict[str, Tensor], horizon: int, *seed: int | str
) -> Video:
    """Return one whole future of every clip, in the range of pixels; `seed` names its chance."""
    chance = generator(*seed, device=world.encoder.latent_mean.device)
    pieces = world.imagine(past, signals, horizon, 1, chance)
    return torch.cat([piece.cpu() for piece in pieces], dim=1).clamp(-1, 1)


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


def score(
    made: Video,
    true: Video,
    past: Past,
    batch: Batch,
    readout: Readout | StateReadout | None,
    first: int = 0,
    seen: Latents | None = None,
) -> Scores:
    """Score a continuation by its pixels and, where there is a key to them, its things.

    `made` and `true` are its frames from frame `first` on; `seen` is what the readout's encoder
    makes of them, where that is known.
    """
    scores = compare(made, true, past[:, -1:])
    if readout is not None:
        scores |= readout.compare(made, batch, past.shape[1], first, seen)
    return scores


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


@torch.no_grad()
def ceiling(encoder: Encoder, past: Past, true: Video) -> Video:
    """Send the true future through the codec, its groups where a world's groups are."""
    extra = past.shape[1] % encoder.compression.t
    made = reconstructed(encoder, torch.cat([past[:, extra:], true], dim=1))
    return made[:, past.shape[1] - extra :].clamp(-1, 1)
