"""How good what a world imagines is, as numbers that can be compared over training.

A judge holds everything that stays the same while worlds are compared: held-out clips, the noise
they are continued with, and how an independent evaluator (distances.py) sees the true futures.
Knows one sample per clip, and nothing of training.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from html import escape
from math import isnan

import torch
from torch import Tensor

from avenir.clip import Batch
from avenir.config import Config
from avenir.console import Report, silent
from avenir.device import seed_of
from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.evaluation.baselines import ceiling, copy_last
from avenir.evaluation.held_out import HeldOut, Imagines, imagined
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
from avenir.evaluation.question import About, Measured, Question, QuestionInputs
from avenir.evaluation.readers.readout import Readout, StateReadout, evaluator_for, score
from avenir.evaluation.report.findings import minus
from avenir.evaluation.report.html import section
from avenir.evaluation.report.tables import count, title_of
from avenir.shapes import Video
from avenir.world import World

SetScores = dict[str, float]
"""One number per metric: means over clips and frames, and distances between sets of clips."""

SET_METRICS = METRICS | {
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

_SETS = {
    "world": "world, one sample",
    "copy_last": "last frame held",
    "codec": "codec, true futures",
    "real": "real clips of training",
}
"""Sets of clips, in the order of their table."""

_FEWEST = 8
"""Clips below which sets are not compared."""


class Generation(Config):
    """What is imagined as a set of clips, beside sets that need no world and the floors."""

    evaluator: str | None = None
    """Whose features clips are compared in; none: they were not compared."""
    left_out: str | None = None
    """Why they were not."""
    num_clips: int = 0
    """Clips in each set."""
    scores: dict[str, SetScores] = {}
    """By method: `world`, `copy_last`, `codec`; `real` are as many clips of training recordings."""
    in_steps: dict[int, SetScores] = {}
    """The world's, by the number of steps in which it drew every chunk."""


class SetScorer:
    """Marks worlds, encoders and the last frame held on the same clips with the same noise."""

    def __init__(
        self,
        held_out: HeldOut,
        evaluator: Encoder,
        readout: Readout | StateReadout | None,
        report: Report = silent,
    ) -> None:
        self.held_out, self.evaluator, self.readout, self.report = (
            held_out,
            evaluator,
            readout,
            report,
        )
        # One look serves both where who reads what happens is the evaluator as well.
        self.shared = readout is not None and readout.encoder is evaluator
        self.codec: Features | None = None
        self.true, self._read = self._true()

    @cached_property
    def real(self) -> SetScores:
        """Mark real clips: how well true futures are read, and how far others are from them.

        The others are as many, of training recordings: no distance of imagined clips can be asked
        to be smaller.
        """
        frames, seed = (
            self.held_out.past + self.held_out.horizon,
            seed_of("real", self.held_out.seed),
        )
        others = self.held_out.source.draw("train", frames, len(self.held_out.windows), seed)
        held_out = self.held_out._replace(windows=others)
        seen = [
            features_of(self.evaluator, self.held_out.split(batch)[1])
            for _, batch in held_out.batches("seeing other real clips", self.report)
        ]
        return self._read | self._distances(torch.cat(seen), [w.recording.name for w in others])

    @torch.no_grad()
    def encoder(self, encoder: Encoder) -> SetScores:
        """Mark true futures sent through an encoder and back: the codec's floor.

        Its reconstructions are what the marks to a codec of later worlds are measured to.
        """
        self.codec = None
        marks, self.codec = self._marks(
            "reconstructing", lambda number, batch: ceiling(encoder, *self.held_out.split(batch))
        )
        return marks

    @torch.no_grad()
    def world(self, world: Imagines) -> SetScores:
        """Mark one imagined future of every clip."""

        def future(number: int, batch: Batch) -> Video:
            held_out, (past, _) = self.held_out, self.held_out.split(batch)
            signals = held_out.steering(batch)
            return imagined(
                world, past, signals, held_out.horizon, "generation", held_out.seed, number
            )

        return self._marks("imagining", future)[0]

    def last_frame_held(self) -> SetScores:
        """Mark what needs no world."""
        return self._marks(
            "holding the last frame",
            lambda number, batch: copy_last(self.held_out.split(batch)[0], self.held_out.horizon),
        )[0]

    def _marks(self, what: str, make: Callable[[int, Batch], Video]) -> tuple[SetScores, Features]:
        scores: dict[str, list[Tensor]] = {}
        features = []
        for number, batch in enumerate(batch for _, batch in self._batches(what)):
            past, true = self.held_out.split(batch)
            video = make(number, batch)
            seen = seen_by(self.evaluator, video)
            features.append(described(seen))
            latents = seen if self.shared else None
            for name, value in score(video, true, past, batch, self.readout, seen=latents).items():
                scores.setdefault(name, []).append(value.flatten())
        marks = _means(scores)
        every = torch.cat(features)
        marks |= self._distances(every, self.held_out.groups)
        if self.codec is not None:
            groups = self.held_out.groups
            marks["kernel_codec"] = _kernel(self.codec, every, groups, groups)
            marks["frechet_codec"] = frechet(self.codec, every)
        return marks, every

    def _distances(self, seen: Features, groups: Sequence[str]) -> SetScores:
        return {
            "kernel_distance": _kernel(self.true, seen, self.held_out.groups, groups),
            "frechet": frechet(self.true, seen),
            "coverage": coverage(self.true, seen),
        }

    def _true(self) -> tuple[Features, SetScores]:
        """Look at the true futures: their features, and how well what happens is read in them."""
        features, scores = [], dict[str, list[Tensor]]()
        for _, batch in self._batches("seeing real clips"):
            _, true = self.held_out.split(batch)
            seen = seen_by(self.evaluator, true)
            features.append(described(seen))
            if self.readout is not None:
                latents = seen if self.shared else None
                read = self.readout.compare(true, batch, self.held_out.past, seen=latents)
                for name, value in read.items():
                    scores.setdefault(name, []).append(value.flatten())
        return torch.cat(features), _means(scores)

    def _batches(self, what: str) -> Iterator[tuple[int, Batch]]:
        # Read anew for every set: clips of all batches together need not fit in memory.
        return self.held_out.batches(what, self.report)


def _means(scores: Mapping[str, Sequence[Tensor]]) -> SetScores:
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
    held_out: HeldOut,
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
    if len(held_out.windows) < _FEWEST:
        raise AvenirError(
            f"{len(held_out.windows)} clips were given; sets of fewer than {_FEWEST} tell nothing: "
            "ask for more"
        )
    judge = SetScorer(held_out, evaluator.encoder, readout, report)
    codec, in_steps = judge.encoder(world.encoder), {}
    for number in steps:
        with world.predictor.in_steps(number):
            in_steps[number] = judge.world(world)
    return Generation(
        evaluator=evaluator.card.name,
        num_clips=len(held_out.windows),
        scores={
            "world": judge.world(world),
            "copy_last": judge.last_frame_held(),
            "codec": codec,
            "real": judge.real,
        },
        in_steps=in_steps,
    )


class GenerationQuestion(Question):
    """What is imagined, as a set of clips."""

    Answer = Generation
    order = 20

    def applies(self, asked: QuestionInputs) -> bool:
        """Ask worlds that predict."""
        return asked.world.predictor is not None

    def measure(self, asked: QuestionInputs) -> Measured:
        """Compare sets of clips, or say why not; an evaluator that was given must be able to."""
        source, device = asked.held_out.source, asked.world.encoder.latent_mean.device
        evaluator = asked.evaluator or evaluator_for(source, device)
        if evaluator is None:
            reason = "no evaluator ships for this data: name a run of your own with --evaluator"
            return Measured(Generation(left_out=reason))
        try:
            found = measure_generation(
                asked.world,
                asked.held_out,
                evaluator,
                asked.readout,
                asked.report,
                asked.settings.steps,
            )
        except AvenirError as error:
            if asked.evaluator is not None:
                raise
            found = Generation(left_out=str(error))
        return Measured(found)

    def section(self, measured: Measured, about: About) -> str:
        """Lay sets out below each other."""
        found = measured.answer
        assert isinstance(found, Generation)
        note = (
            f"Futures of {found.num_clips:,} clips as one set, beside the true futures, in "
            f"the features of {found.evaluator!r}, which nothing here was taught by. Real "
            "clips, as many of training recordings, say how small a distance can be; the codec’s, "
            "how small imagining exactly the right latents would make it."
        )
        if found.left_out is not None:
            note = f"Not compared: {found.left_out}."
        table = "" if found.left_out is not None else distance_table(found)
        return section("sets", "As a set of clips", note, table)


def distance_table(generation: Generation) -> str:
    """Lay out sets of clips, one below the other."""
    head = "".join(f'<th scope="col">{title_of(SET_METRICS[name])}</th>' for name in DISTANCES)
    body = ""
    sets = [(method, label, generation.scores[method]) for method, label in _SETS.items()]
    sets[1:1] = [
        ("in steps", f"… in {count(steps, 'step')}", marks)
        for steps, marks in generation.in_steps.items()
    ]
    for method, label, marks in sets:
        cells = (f"{marks[name]:.3g}" if name in marks else "–" for name in DISTANCES)
        line = "".join(f"<td>{minus(cell)}</td>" for cell in cells)
        ours = ' class="ours"' if method == "world" else ""
        body += f'<tr{ours}><th scope="row">{escape(label)}</th>{line}</tr>'
    return (
        '<div class="scroll"><table><thead><tr><th scope="col"></th>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
