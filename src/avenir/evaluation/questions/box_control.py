"""Do things come where boxes say? With the true boxes, those of another recording, and none.

A box is filled when a frozen segmenter sees its class in a good part of it. Where things truly are
a world may predict from the past alone; where those of another recording are it cannot. The
overlap of whole classes with the truth is GAIA-2's measure of boxes (2503.20523).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from avenir.clip import Batch
from avenir.config import Config
from avenir.console import Report
from avenir.data.synthetic.things import MOVING
from avenir.evaluation.baselines import ceiling
from avenir.evaluation.held_out import HeldOut, Imagines, imagined, of_another_recording
from avenir.evaluation.metrics.bootstrap import Interval
from avenir.evaluation.question import About, Measured, Question, QuestionInputs
from avenir.evaluation.readers.readout import Readout, class_overlap
from avenir.evaluation.report.findings import Finding, bounds, tone
from avenir.evaluation.report.html import section
from avenir.evaluation.report.tables import plain_table, written
from avenir.shapes import BOX_NUMBERS

_SECONDS = 2.0
"""Imagined."""

_FILLED = 1 / 3
"""Share of a box that must show its class: a thing that is turned or half hidden fills no more."""

_SMALLEST = 20.0
"""Pixels of a box that counts."""


class BoxControl(Config):
    """What comes where it is given, and what without being given."""

    num_clips: int
    """Windows."""
    seconds: float
    """Imagined."""
    given: Interval
    """Share of true boxes that are filled when they are given."""
    absent: Interval
    """Share of them that are when no boxes of the future are given."""
    read: Interval
    """Share of them that are in the simulator's own frames."""
    kept: Interval
    """Share of them that are in these frames encoded and decoded: what the tokenizer leaves."""
    moved: Interval
    """Share of another recording's boxes that are filled when these are given."""
    moved_absent: Interval
    """Share of these that are when nothing is given."""
    more_than_absent: Interval
    """How many more true boxes are filled when they are given."""
    more_than_moved_absent: Interval
    """How many more of another recording's are."""
    overlap: Interval
    """Intersection over union, of pixels of everything that moves, with the truth: given."""
    overlap_absent: Interval
    """The same, when nothing is given."""
    overlap_read: Interval
    """The same, of the simulator's own frames."""


class _Ways(NamedTuple):
    """Scores of windows, one each; NaN where no box counts."""

    given: Float[Tensor, " b"]
    absent: Float[Tensor, " b"]
    read: Float[Tensor, " b"]
    kept: Float[Tensor, " b"]
    moved: Float[Tensor, " b"]
    moved_absent: Float[Tensor, " b"]
    overlap: Float[Tensor, " b"]
    overlap_absent: Float[Tensor, " b"]
    overlap_read: Float[Tensor, " b"]


def measure_box_control(
    world: Imagines, held_out: HeldOut, readout: Readout | None, report: Report
) -> BoxControl | None:
    """Tell every window where things are, where others are, and nothing.

    None where the data have no boxes, or no reader knows their frames.
    """
    if "boxes" not in held_out.source.signals or readout is None:
        return None
    held_out = held_out.cut(round(_SECONDS * held_out.source.fps))
    found = [
        _ways(world, held_out, batch, readout, start)
        for start, batch in held_out.batches("boxes", report)
    ]
    every = _Ways(*map(torch.cat, zip(*found, strict=True)))

    def mean(values: Tensor) -> Interval:
        return held_out.mean(values, values.isfinite())

    return BoxControl(
        num_clips=len(held_out.windows),
        seconds=held_out.horizon / held_out.source.fps,
        **{name: mean(values) for name, values in every._asdict().items()},
        more_than_absent=mean(every.given - every.absent),
        more_than_moved_absent=mean(every.moved - every.moved_absent),
    )


def _ways(world: Imagines, held_out: HeldOut, batch: Batch, readout: Readout, start: int) -> _Ways:
    windows = held_out.windows[start : start + held_out.batch_size]
    past, true = held_out.split(batch)
    steering, f_t = held_out.steering(batch), world.encoder.compression.t
    own = batch.signals["boxes"]
    # What stands alone in a batch has no other recording to take boxes from: then its own.
    partners = [of_another_recording(windows, row) for row in range(len(windows))]
    others = own[[row if partner is None else partner for row, partner in enumerate(partners)]]
    alone = torch.tensor([partner is None for partner in partners])

    def future(boxes: Tensor) -> Int[Tensor, "b F H W"]:
        signals = steering | {"boxes": torch.cat([own[:, : held_out.past], boxes], dim=1)}
        made = imagined(world, past, signals, held_out.horizon, "boxes", held_out.seed, start)
        return readout.read(made).classes

    mine, theirs = own[:, held_out.past :], others[:, held_out.past :]
    given, moved, absent = future(mine), future(theirs), future(mine * torch.nan)
    real, classes = readout.read(true).classes, batch.signals["segmentation"][:, held_out.past :]
    # What cannot be decoded keeps no pictures: what is imagined is made of true ones.
    kept = ceiling(world.encoder, past, true) if world.encoder.can_decode else true

    def filled(seen: Tensor, boxes: Tensor) -> Float[Tensor, " b"]:
        # Latent frames are given the boxes of their last frame.
        return share_filled(seen[:, f_t - 1 :: f_t], boxes[:, f_t - 1 :: f_t])

    def overlap(seen: Tensor) -> Float[Tensor, " b"]:
        return class_overlap(seen, classes, MOVING).nanmean(1)

    return _Ways(
        given=filled(given, mine),
        absent=filled(absent, mine),
        read=filled(real, mine),
        kept=filled(readout.read(kept).classes, mine),
        moved=filled(moved, theirs).masked_fill(alone, torch.nan),
        moved_absent=filled(absent, theirs).masked_fill(alone, torch.nan),
        overlap=overlap(given),
        overlap_absent=overlap(absent),
        overlap_read=overlap(real),
    )


def share_filled(
    classes: Int[Tensor, "b t H W"], boxes: Float[Tensor, "b t s"]
) -> Float[Tensor, " b"]:
    """Say what share of the boxes of each clip show their class; NaN where no box counts."""
    height, width = classes.shape[-2:]
    rows = boxes.unflatten(-1, (-1, BOX_NUMBERS))
    counts = (rows[..., 5] > 0) & (rows[..., 2] * rows[..., 3] * height * width >= _SMALLEST)
    filled = torch.zeros(len(classes))
    for clip, frame, box in counts.nonzero().tolist():
        x, y, w, h, _, category = rows[clip, frame, box].tolist()
        top, bottom = round((y - h / 2) * height), round((y + h / 2) * height)
        left, right = round((x - w / 2) * width), round((x + w / 2) * width)
        inside = classes[clip, frame, top:bottom, left:right]
        shown = (inside == MOVING[int(category) - 1]).float().mean()
        filled[clip] += shown >= _FILLED
    return filled / counts.sum((1, 2))


class BoxControlQuestion(Question):
    """Whether things come where boxes say."""

    Answer = BoxControl
    order = 70

    def applies(self, asked: QuestionInputs) -> bool:
        """Ask worlds that take boxes."""
        return asked.world.predictor is not None and "boxes" in asked.world.takes

    def measure(self, asked: QuestionInputs) -> Measured | None:
        """Give true boxes, those of another recording, and none."""
        found = measure_box_control(asked.world, asked.held_out, asked.readout, asked.report)
        return None if found is None else Measured(found)

    def findings(self, answer: BoxControl, about: About) -> list[Finding]:
        """Say how many more boxes are filled when they are given."""
        return [_finding(answer)]

    def section(self, measured: Measured, about: About) -> str:
        """Lay out which boxes were filled."""
        boxes = measured.answer
        assert isinstance(boxes, BoxControl)
        return section(
            "boxes",
            "Do things come where boxes say?",
            f"The same past and the same noise, {boxes.seconds:g} s imagined: given the boxes of "
            "what truly follows, of another recording, and none. A box is filled when a third of "
            "it shows its class, as a frozen network reads it.",
            f'<div class="tables">{box_table(boxes)}</div>',
        )


def box_table(boxes: BoxControl) -> str:
    """Lay out which boxes were filled, given and absent."""
    lines = [
        ("where things truly are, given", [boxes.given, boxes.overlap]),
        ("… none given", [boxes.absent, boxes.overlap_absent]),
        ("… difference", [boxes.more_than_absent]),
        ("… simulator, read alike", [boxes.read, boxes.overlap_read]),
        ("… simulator, through the tokenizer", [boxes.kept]),
        ("where those of another recording are, given", [boxes.moved]),
        ("… none given", [boxes.moved_absent]),
        ("… difference", [boxes.more_than_moved_absent]),
    ]
    cells = [
        (name, [written(each, ".0%") for each in found] + [""] * (2 - len(found)))
        for name, found in lines
    ]
    head = ["boxes filled", "overlap of what moves with the truth"]
    return plain_table("What boxes bring", [("", head), *cells])


def _finding(boxes: BoxControl) -> Finding:
    """Say how many more boxes are filled where the past does not show that something is."""
    given, absent, more = boxes.moved, boxes.moved_absent, boxes.more_than_moved_absent
    return Finding(
        f"{more.mean or 0.0:+.0%}".replace("-", "−"),
        f"Given the boxes of another recording, it fills {given.mean or 0.0:.0%} of "
        f"these boxes with their class, and {absent.mean or 0.0:.0%} when no boxes are given. "
        f"Of true ones it fills {boxes.given.mean or 0.0:.0%} and {boxes.absent.mean or 0.0:.0%}, "
        f"the simulator {boxes.read.mean or 0.0:.0%}.",
        bounds(more),
        tone(more, True),
    )
