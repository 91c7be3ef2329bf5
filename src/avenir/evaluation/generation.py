"""How good what a world imagines is, as numbers that can be compared over training.

A judge holds everything that stays the same while worlds are compared: held-out clips, the noise
they are continued with, and how an independent evaluator (distances.py) sees the true futures.
Knows one sample per clip, and nothing of training.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from avenir.clip import Batch
from avenir.device import generator, seed_of
from avenir.encoders import Encoder
from avenir.evaluation.baselines import copy_last, frames_of
from avenir.evaluation.continuation import Imagines, Task, ceiling, score
from avenir.evaluation.distances import (
    Features,
    coverage,
    features_of,
    frechet,
    kernel_distance,
)
from avenir.evaluation.metrics import METRICS, Metric
from avenir.evaluation.readout import Readout, StateReadout
from avenir.shapes import Video

Marks = dict[str, float]
"""One number per metric: means over clips and frames, and distances between sets of clips."""

MARKS = METRICS | {
    "kernel_distance": Metric("Kernel distance to real clips", "", False),
    "frechet": Metric("Fréchet distance to real clips", "", False),
    "frechet_codec": Metric("Fréchet distance to own reconstructions", "", False),
    "coverage": Metric("Coverage of real clips", "", True),
}
"""Every metric of a mark. `frechet_codec` is to the same encoder's reconstructions of the true
futures, so that what its decoder blurs counts on both sides."""


class Judge:
    """Marks worlds, encoders and the last frame held on the same clips with the same noise."""

    def __init__(
        self, task: Task, evaluator: Encoder, readout: Readout | StateReadout | None
    ) -> None:
        self.task, self.evaluator, self.readout = task, evaluator, readout
        self.batches: list[Batch] = [
            batch for _, batch in task.batches("reading", lambda what, done, total: None)
        ]
        self.true = torch.cat([self._seen(self._parts(batch)[1]) for batch in self.batches])
        self.codec: Tensor | None = None

    def real(self) -> Marks:
        """Mark real clips: how well true futures are read, and how far others are from them.

        The others are as many, of training recordings: no distance of imagined clips can be asked
        to be smaller.
        """
        read: dict[str, list[Tensor]] = {}
        for batch in self.batches if self.readout is not None else ():
            assert self.readout is not None
            _, true = self._parts(batch)
            for name, value in self.readout.compare(true, batch, self.task.past).items():
                read.setdefault(name, []).append(value.flatten())
        source, frames = self.task.source, self.task.past + self.task.horizon
        seed = seed_of("real", self.task.seed)
        others = source.draw("train", frames, len(self.task.windows), seed)
        task = self.task._replace(windows=others)
        seen = [
            self._seen(self._parts(batch)[1])
            for _, batch in task.batches("reading", lambda what, done, total: None)
        ]
        distances = self._distances(torch.cat(seen), task.groups)
        return {name: float(torch.cat(parts).nanmean()) for name, parts in read.items()} | distances

    @torch.no_grad()
    def encoder(self, encoder: Encoder) -> Marks:
        """Mark true futures sent through an encoder and back: the codec's floor.

        Its reconstructions are what `frechet_codec` of later worlds is measured to.
        """
        made = [ceiling(encoder, *self._parts(batch)) for batch in self.batches]
        marks, self.codec = self._marks(made, None)
        return marks

    @torch.no_grad()
    def world(self, world: Imagines) -> Marks:
        """Mark one imagined future of every clip."""
        made = []
        for number, batch in enumerate(self.batches):
            past, _ = self._parts(batch)
            device = world.encoder.latent_mean.device
            chance = generator("generation", self.task.seed, number, device=device)
            signals = self.task.steering(batch)
            pieces = world.imagine(past, signals, self.task.horizon, 1, chance)
            made.append(torch.cat([piece.cpu() for piece in pieces], dim=1).clamp(-1, 1))
        return self._marks(made, self.codec)[0]

    def last_frame_held(self) -> Marks:
        """Mark what needs no world."""
        made = [copy_last(self._parts(batch)[0], self.task.horizon) for batch in self.batches]
        return self._marks(made, self.codec)[0]

    def _marks(self, made: Sequence[Video], codec: Tensor | None) -> tuple[Marks, Tensor]:
        scores: dict[str, list[Tensor]] = {}
        for video, batch in zip(made, self.batches, strict=True):
            past, true = self._parts(batch)
            for name, value in score(video, true, past, batch, self.readout).items():
                scores.setdefault(name, []).append(value.flatten())
        marks = {name: float(torch.cat(parts).nanmean()) for name, parts in scores.items()}
        seen = torch.cat([self._seen(video) for video in made])
        marks |= self._distances(seen, self.task.groups)
        if codec is not None:
            marks["frechet_codec"] = frechet(codec, seen)
        return marks, seen

    def _distances(self, seen: Features, groups: Sequence[str]) -> Marks:
        distance = kernel_distance(self.true, seen, self.task.groups, groups).mean
        return {
            "kernel_distance": float("nan") if distance is None else distance,
            "frechet": frechet(self.true, seen),
            "coverage": coverage(self.true, seen),
        }

    def _parts(self, batch: Batch) -> tuple[Video, Video]:
        past, true = frames_of(batch).split((self.task.past, self.task.horizon), dim=1)
        return past, true

    def _seen(self, video: Video) -> Tensor:
        return features_of(self.evaluator, video)
