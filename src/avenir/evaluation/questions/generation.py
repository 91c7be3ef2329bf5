"""How good what a world imagines is, as numbers that can be compared over training.

A judge holds everything that stays the same while worlds are compared: held-out clips, the noise
they are continued with, and how an independent evaluator (distances.py) sees the true futures.
Knows one sample per clip, and nothing of training.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from math import isnan

import torch
from torch import Tensor

from avenir.clip import Batch
from avenir.config import Config
from avenir.device import seed_of
from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.evaluation.baselines import ceiling, copy_last
from avenir.evaluation.held_out import Imagines, Task, imagined
from avenir.evaluation.independence import check_judge
from avenir.evaluation.metrics.distribution import (
    Features,
    coverage,
    described,
    features_of,
    frechet,
    kernel_distance,
    seen_by,
)
from avenir.evaluation.metrics.frames import METRICS, Metric
from avenir.evaluation.readers.readout import Readout, StateReadout, score
from avenir.evaluation.settings import Report
from avenir.shapes import Video
from avenir.world import World

Marks = dict[str, float]
"""One number per metric: means over clips and frames, and distances between sets of clips."""

MARKS = METRICS | {
    "kernel_distance": Metric("Kernel distance to real clips", "", False),
    "frechet": Metric("Fréchet distance to real clips", "", False),
    "kernel_codec": Metric("Kernel distance to own reconstructions", "", False),
    "frechet_codec": Metric("Fréchet distance to own reconstructions", "", False),
    "coverage": Metric("Coverage of real clips", "", True),
}
"""Every metric of a mark. `kernel_codec` and `frechet_codec` are to the same encoder's
reconstructions of the true futures, so that what its decoder blurs counts on both sides."""


DISTANCES = ("kernel_distance", "kernel_codec", "frechet", "frechet_codec", "coverage")
"""Marks of sets of clips."""

_FEWEST = 8
"""Clips below which sets are not compared."""


class Generation(Config):
    """What is imagined as a set of clips, beside sets that need no world and the floors."""

    evaluator: str
    """Whose features clips are compared in."""
    num_clips: int
    """Clips in each set."""
    marks: dict[str, Marks]
    """By method: `world`, `copy_last`, `codec`; `real` are as many clips of training recordings."""
    in_steps: dict[int, Marks] = {}
    """The world's, by the number of steps in which it drew every chunk."""


class Judge:
    """Marks worlds, encoders and the last frame held on the same clips with the same noise."""

    def __init__(
        self,
        task: Task,
        evaluator: Encoder,
        readout: Readout | StateReadout | None,
        report: Report = lambda what, done, total: None,
    ) -> None:
        self.task, self.evaluator, self.readout, self.report = task, evaluator, readout, report
        # One look serves both where who reads what happens is the evaluator as well.
        self.shared = readout is not None and readout.encoder is evaluator
        self.codec: Features | None = None
        self.true, self._read = self._true()

    @cached_property
    def real(self) -> Marks:
        """Mark real clips: how well true futures are read, and how far others are from them.

        The others are as many, of training recordings: no distance of imagined clips can be asked
        to be smaller.
        """
        frames, seed = self.task.past + self.task.horizon, seed_of("real", self.task.seed)
        others = self.task.source.draw("train", frames, len(self.task.windows), seed)
        task = self.task._replace(windows=others)
        seen = [
            features_of(self.evaluator, self.task.split(batch)[1])
            for _, batch in task.batches("seeing other real clips", self.report)
        ]
        return self._read | self._distances(torch.cat(seen), [w.recording.name for w in others])

    @torch.no_grad()
    def encoder(self, encoder: Encoder) -> Marks:
        """Mark true futures sent through an encoder and back: the codec's floor.

        Its reconstructions are what the marks to a codec of later worlds are measured to.
        """
        self.codec = None
        marks, self.codec = self._marks(
            "reconstructing", lambda number, batch: ceiling(encoder, *self.task.split(batch))
        )
        return marks

    @torch.no_grad()
    def world(self, world: Imagines) -> Marks:
        """Mark one imagined future of every clip."""

        def future(number: int, batch: Batch) -> Video:
            task, (past, _) = self.task, self.task.split(batch)
            signals = task.steering(batch)
            return imagined(world, past, signals, task.horizon, "generation", task.seed, number)

        return self._marks("imagining", future)[0]

    def last_frame_held(self) -> Marks:
        """Mark what needs no world."""
        return self._marks(
            "holding the last frame",
            lambda number, batch: copy_last(self.task.split(batch)[0], self.task.horizon),
        )[0]

    def _marks(self, what: str, make: Callable[[int, Batch], Video]) -> tuple[Marks, Features]:
        scores: dict[str, list[Tensor]] = {}
        features = []
        for number, batch in enumerate(batch for _, batch in self._batches(what)):
            past, true = self.task.split(batch)
            video = make(number, batch)
            seen = seen_by(self.evaluator, video)
            features.append(described(seen))
            latents = seen if self.shared else None
            for name, value in score(video, true, past, batch, self.readout, seen=latents).items():
                scores.setdefault(name, []).append(value.flatten())
        marks = _means(scores)
        every = torch.cat(features)
        marks |= self._distances(every, self.task.groups)
        if self.codec is not None:
            groups = self.task.groups
            marks["kernel_codec"] = _kernel(self.codec, every, groups, groups)
            marks["frechet_codec"] = frechet(self.codec, every)
        return marks, every

    def _distances(self, seen: Features, groups: Sequence[str]) -> Marks:
        return {
            "kernel_distance": _kernel(self.true, seen, self.task.groups, groups),
            "frechet": frechet(self.true, seen),
            "coverage": coverage(self.true, seen),
        }

    def _true(self) -> tuple[Features, Marks]:
        """Look at the true futures: their features, and how well what happens is read in them."""
        features, scores = [], dict[str, list[Tensor]]()
        for _, batch in self._batches("seeing real clips"):
            _, true = self.task.split(batch)
            seen = seen_by(self.evaluator, true)
            features.append(described(seen))
            if self.readout is not None:
                latents = seen if self.shared else None
                read = self.readout.compare(true, batch, self.task.past, seen=latents)
                for name, value in read.items():
                    scores.setdefault(name, []).append(value.flatten())
        return torch.cat(features), _means(scores)

    def _batches(self, what: str) -> Iterator[tuple[int, Batch]]:
        # Read anew for every set: clips of all batches together need not fit in memory.
        return self.task.batches(what, self.report)


def _means(scores: Mapping[str, Sequence[Tensor]]) -> Marks:
    """Average over clips and frames; what no frame can be scored by is left out."""
    means = {name: float(torch.cat(list(parts)).nanmean()) for name, parts in scores.items()}
    return {name: mean for name, mean in means.items() if not isnan(mean)}


def _kernel(
    one: Features, other: Features, groups: Sequence[str], other_groups: Sequence[str]
) -> float:
    distance = kernel_distance(one, other, groups, other_groups).mean
    return float("nan") if distance is None else distance


def measure_generation(
    world: World,
    task: Task,
    evaluator: World,
    readout: Readout | StateReadout | None,
    report: Report,
    steps: Sequence[int] = (),
) -> Generation:
    """Compare what a world imagines with what is real, as two sets of clips.

    Also when it draws in each of some numbers of `steps`. Raises AvenirError when the evaluator is
    not independent of what taught the world's encoder, or when there are too few clips.
    """
    assert world.predictor is not None
    check_judge(evaluator.card, world.card)
    if len(task.windows) < _FEWEST:
        raise AvenirError(
            f"{len(task.windows)} clips were given; sets of fewer than {_FEWEST} tell nothing: "
            "ask for more"
        )
    judge = Judge(task, evaluator.encoder, readout, report)
    codec, in_steps = judge.encoder(world.encoder), {}
    for number in steps:
        with world.predictor.in_steps(number):
            in_steps[number] = judge.world(world)
    return Generation(
        evaluator=evaluator.card.name,
        num_clips=len(task.windows),
        marks={
            "world": judge.world(world),
            "copy_last": judge.last_frame_held(),
            "codec": codec,
            "real": judge.real,
        },
        in_steps=in_steps,
    )
