"""Do things come where boxes say? Told the truth, told of another recording, and told nothing.

A box is filled when a frozen segmenter sees its class in a good part of it. Where things truly are
a world may foretell from the past alone; where those of another recording are it cannot. The
overlap of whole classes with the truth is GAIA-2's measure of boxes (2503.20523).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from avenir.clip import Batch
from avenir.config import Config
from avenir.data.synthetic import Synthetic
from avenir.data.synthetic.things import MOVING
from avenir.evaluation.baselines import ceiling
from avenir.evaluation.held_out import Imagines, Task, imagined, of_another_recording
from avenir.evaluation.metrics.bootstrap import Interval
from avenir.evaluation.readers.readout import Readout, class_overlap
from avenir.evaluation.settings import Report
from avenir.shapes import BOX_NUMBERS

_SECONDS = 2.0
"""Imagined."""

_FILLED = 1 / 3
"""Share of a box that must show its class: a thing that is turned or half hidden fills no more."""

_SMALLEST = 20.0
"""Pixels of a box that counts."""


class BoxControl(Config):
    """What comes where it is told, and what without being told."""

    num_clips: int
    """Windows."""
    seconds: float
    """Imagined."""
    told: Interval
    """Share of true boxes that are filled when they are told."""
    untold: Interval
    """Share of them that are when nothing is told of the future."""
    read: Interval
    """Share of them that are in the simulator's own frames."""
    kept: Interval
    """Share of them that are in these frames encoded and decoded: what the tokenizer leaves."""
    moved: Interval
    """Share of another recording's boxes that are filled when these are told."""
    moved_untold: Interval
    """Share of these that are when nothing is told."""
    more_than_untold: Interval
    """How many more true boxes are filled when they are told."""
    more_than_moved_untold: Interval
    """How many more of another recording's are."""
    overlap: Interval
    """Intersection over union, of pixels of everything that moves, with the truth: told."""
    overlap_untold: Interval
    """The same, when nothing is told."""
    overlap_read: Interval
    """The same, of the simulator's own frames."""


class _Ways(NamedTuple):
    """Scores of windows, one each; NaN where no box counts."""

    told: Float[Tensor, " b"]
    untold: Float[Tensor, " b"]
    read: Float[Tensor, " b"]
    kept: Float[Tensor, " b"]
    moved: Float[Tensor, " b"]
    moved_untold: Float[Tensor, " b"]
    overlap: Float[Tensor, " b"]
    overlap_untold: Float[Tensor, " b"]
    overlap_read: Float[Tensor, " b"]


def measure_box_control(
    world: Imagines, task: Task, readout: Readout | None, report: Report
) -> BoxControl | None:
    """Tell every window where things are, where others are, and nothing.

    None where nobody knows boxes, or nobody can read what comes of them.
    """
    known = isinstance(task.source, Synthetic) and "boxes" in task.source.signals
    if not known or readout is None:
        return None
    task = task.cut(round(_SECONDS * task.source.fps))
    found = [
        _ways(world, task, batch, readout, start)
        for start, batch in task.batches("told where things are", report)
    ]
    every = _Ways(*map(torch.cat, zip(*found, strict=True)))

    def mean(values: Tensor) -> Interval:
        return task.mean(values, values.isfinite())

    return BoxControl(
        num_clips=len(task.windows),
        seconds=task.horizon / task.source.fps,
        **{name: mean(values) for name, values in every._asdict().items()},
        more_than_untold=mean(every.told - every.untold),
        more_than_moved_untold=mean(every.moved - every.moved_untold),
    )


def _ways(world: Imagines, task: Task, batch: Batch, readout: Readout, start: int) -> _Ways:
    windows = task.windows[start : start + task.batch_size]
    past, true = task.split(batch)
    steering, f_t = task.steering(batch), world.encoder.compression.t
    own = batch.signals["boxes"]
    # What stands alone in a batch has no other recording to be told of: then its own, as it was.
    partners = [of_another_recording(windows, row) for row in range(len(windows))]
    others = own[[row if partner is None else partner for row, partner in enumerate(partners)]]
    alone = torch.tensor([partner is None for partner in partners])

    def future(boxes: Tensor) -> Int[Tensor, "b F H W"]:
        signals = steering | {"boxes": torch.cat([own[:, : task.past], boxes], dim=1)}
        made = imagined(world, past, signals, task.horizon, "boxes", task.seed, start)
        return readout.read(made).classes

    mine, theirs = own[:, task.past :], others[:, task.past :]
    told, moved, untold = future(mine), future(theirs), future(mine * torch.nan)
    real, classes = readout.read(true).classes, batch.signals["segmentation"][:, task.past :]
    # What cannot be decoded keeps no pictures: what is imagined is made of true ones.
    kept = ceiling(world.encoder, past, true) if world.encoder.can_decode else true

    def filled(seen: Tensor, boxes: Tensor) -> Float[Tensor, " b"]:
        # Latent frames are told the boxes of their last frame.
        return share_filled(seen[:, f_t - 1 :: f_t], boxes[:, f_t - 1 :: f_t])

    def overlap(seen: Tensor) -> Float[Tensor, " b"]:
        return class_overlap(seen, classes, MOVING).nanmean(1)

    return _Ways(
        told=filled(told, mine),
        untold=filled(untold, mine),
        read=filled(real, mine),
        kept=filled(readout.read(kept).classes, mine),
        moved=filled(moved, theirs).masked_fill(alone, torch.nan),
        moved_untold=filled(untold, theirs).masked_fill(alone, torch.nan),
        overlap=overlap(told),
        overlap_untold=overlap(untold),
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
