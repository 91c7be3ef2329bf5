"""What happens in frames, read by a frozen network and held to what is known of them.

In frames of the synthetic world a segmenter reads where things are: errors in pixels. It ships
beside this file; it was trained by `recipes/synthetic_segmenter.toml` on training recordings alone.
In a robot's frames a regressor reads its state. Frames may be imagined, decoded, or real: how well
real test frames are read is reported before anything is judged.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import max_pool2d

from avenir.clip import Batch
from avenir.config import Config
from avenir.data import Source
from avenir.data.synthetic.things import Class
from avenir.encoders import Encoder
from avenir.encoders.regressor import Regressor
from avenir.encoders.segmenter import Segmenter
from avenir.evaluation.baselines import Past, frames_of
from avenir.evaluation.metrics.bootstrap import Interval, interval
from avenir.evaluation.metrics.frames import Scores, compare
from avenir.shapes import Latents, Video
from avenir.world import World

FOLDER = Path(__file__).parent / "synthetic_segmenter"

CUT_OFF = 16.0
"""In pixels: no error counts more, and what is missing altogether counts as much."""

_PEAK = 0.4
"""Height from which a peak of the map of middles is a thing."""

_SEEN = 0.5
"""Share of a thing that must show before not finding it is an error."""


_HIDDEN = 0.1
"""Most of a thing that shows when it is hidden."""


class Reading(NamedTuple):
    """What a segmenter reads from frames."""

    ego: Float[Tensor, "b T 2"]
    """x, y of the middle of the ego's pixels; NaN where it is not seen."""
    classes: Int[Tensor, "b T H W"]
    """What every pixel shows."""
    objects: Bool[Tensor, "b T H W"]
    """The middles of other things: cars, trucks, motorbikes, pedestrians."""


class ReadoutScore(Config):
    """How well real frames of held-out recordings are read: the floor of every reading."""

    num_clips: int
    """Test recordings read."""
    num_frames: int
    """Frames of each."""
    ego_iou: Interval
    """Overlap of the ego's pixels, read and true."""
    ego_error: Interval
    """In pixels, on frames where half of the ego shows or more."""
    object_error: Interval
    """In pixels."""
    large_iou: Interval
    """Overlap of the pixels of cars and trucks."""
    small_iou: Interval
    """Overlap of the pixels of motorbikes and pedestrians."""
    pixel_accuracy: Interval
    """Share of pixels given their right class."""


def evaluator_for(source: Source, device: torch.device | str) -> World | None:
    """Open the evaluator that ships with the package for a source: the reader of its frames.

    None where none does, and for sizes it was not trained on.
    """
    name = source.readers.get("segmentation")
    if name is None:
        return None
    world = World.load(Path(__file__).parent / name, device)
    return world if world.card.size == source.size else None


class Readout:
    """Reads frames of the size the segmenter was trained on, and compares with labels."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder.eval()

    @classmethod
    def of(cls, source: Source, device: torch.device | str) -> "Readout | None":
        """Open the shipped segmenter when the source is a world it can read and has labels."""
        if not source.has_labels:
            return None
        world = evaluator_for(source, device)
        return None if world is None else cls(world.encoder)

    @torch.no_grad()
    def read(self, video: Video, seen: Latents | None = None) -> Reading:
        """Say where the ego and other things are; `seen` are its encoder's latents, if known."""
        if seen is not None:
            mean, std = self.encoder.latent_mean, self.encoder.latent_std
            logits = seen.to(mean.device) * std + mean
        else:
            # A held picture, such as the last frame expanded over the horizon, is read once.
            held = video.shape[1] > 1 and video.stride(1) == 0
            logits = self._logits(video[:, :1] if held else video)
            logits = logits.expand(-1, video.shape[1], -1, -1, -1)
        classes = logits[:, :, :-1].argmax(2).cpu()
        things = _peaks(logits[:, :, -1].sigmoid()).cpu()
        return Reading(_middle(classes == Class.EGO), classes, things)

    def compare(
        self,
        made: Video,
        batch: Batch,
        past: int,
        first: int = 0,
        seen: Latents | None = None,
    ) -> Scores:
        """Score made frames against the labels of a batch from frame `first` after its past on."""
        here = slice(past + first, past + first + made.shape[1])
        labels = {n: s[:, here] for n, s in batch.signals.items()}
        objects = batch.signals["objects"]
        clear, hidden = _clear(objects, made.shape[-2:]), objects[..., 3] <= _HIDDEN
        returned = _returned(clear, hidden, past)[:, here]
        reading = self.read(made, seen)
        true = labels["segmentation"]
        shows = labels["ego_visible"][..., 0] >= _SEEN
        nothing = torch.tensor(torch.nan)
        # The middle of what shows, on both sides: a bridge hides the same of either.
        error = reading.ego - _middle(true == Class.EGO)
        error = error.norm(dim=-1).nan_to_num(torch.inf).clamp(max=CUT_OFF)
        return {
            "ego_error": torch.where(shows, error, nothing),
            "ego_iou": torch.where(
                shows, class_overlap(reading.classes, true, (Class.EGO,)), nothing
            ),
            "object_error": _object_errors(reading.objects, labels["objects"]),
            "returned_error": _returned_errors(reading.objects, labels["objects"], returned),
            "large_iou": class_overlap(reading.classes, true, (Class.CAR, Class.TRUCK)),
            "small_iou": class_overlap(reading.classes, true, (Class.MOTORBIKE, Class.PEDESTRIAN)),
        }

    @torch.no_grad()
    def held_out(self, source: Source, num_clips: int = 64, num_frames: int = 8) -> ReadoutScore:
        """Read real frames of test recordings."""
        windows = source.spread("test", num_frames, num_clips)
        scores: dict[str, list[Tensor]] = {}
        for start in range(0, len(windows), 16):
            batch = source.read(windows[start : start + 16])
            video = frames_of(batch)
            read = self._logits(video)[:, :, :-1].argmax(2).cpu()
            right = (read == batch.signals["segmentation"]).float().mean((2, 3))
            for name, value in (self.compare(video, batch, 0) | {"pixel_accuracy": right}).items():
                scores.setdefault(name, []).append(value.nanmean(1))
        groups = [window.recording.name for window in windows]
        known = scores.keys() & ReadoutScore.model_fields.keys()  # nothing returns without a past
        values = {name: interval(torch.cat(scores[name]), groups) for name in known}
        return ReadoutScore(num_clips=len(windows), num_frames=num_frames, **values)

    def _logits(self, video: Video) -> Float[Tensor, "b T c H W"]:
        device = self.encoder.latent_mean.device
        # A few frames at a time: activations hold many times the numbers of a frame.
        parts = [self.encoder.raw_posterior(p.to(device)).mean for p in video.split(8, dim=1)]
        return torch.cat(parts, dim=1)


class StateReadout:
    """Reads a recorded signal, such as a robot's state, from frames; compares with the record."""

    def __init__(self, encoder: Regressor) -> None:
        self.encoder = encoder

    def compare(
        self,
        made: Video,
        batch: Batch,
        past: int,
        first: int = 0,
        seen: Latents | None = None,
    ) -> Scores:
        """Score made frames from frame `first` after a batch's past on: root mean square."""
        device = self.encoder.latent_mean.device
        here = slice(past + first, past + first + made.shape[1])
        signal = batch.signals[self.encoder.config.signal][:, here]
        if seen is None:
            seen = self.encoder.encode(made.to(device))
        error = self.encoder.read(seen.to(device)) - self.encoder.normalised(signal.to(device))
        return {"state_error": error.square().mean(2).sqrt().cpu()}


def readout_of(
    source: Source, evaluator: World, device: torch.device | str
) -> Readout | StateReadout | None:
    """Return the reader of what happens in a source's frames; none where there is none."""
    if isinstance(evaluator.encoder, Regressor):
        return StateReadout(evaluator.encoder)
    if source.has_labels and isinstance(evaluator.encoder, Segmenter):
        return Readout(evaluator.encoder)
    return Readout.of(source, device)


def class_overlap(
    read: Int[Tensor, "b T H W"], true: UInt8[Tensor, "b T H W"], classes: Sequence[int]
) -> Float[Tensor, "b T"]:
    """Return intersection over union of the pixels of some classes; NaN where truth has none."""
    ours, theirs = (torch.isin(each, torch.tensor(classes)) for each in (read, true))
    either = (ours | theirs).sum((2, 3))
    iou = (ours & theirs).sum((2, 3)) / either
    return torch.where(theirs.any(3).any(2), iou, torch.nan)


def _middle(mask: Bool[Tensor, "b T H W"]) -> Float[Tensor, "b T 2"]:
    """Return x, y of the middle of a mask; NaN where it is empty."""
    count = mask.sum((2, 3))
    x = (mask.sum(2) * torch.arange(mask.shape[3])).sum(2) / count
    y = (mask.sum(3) * torch.arange(mask.shape[2])).sum(2) / count
    return torch.stack([x, y], dim=-1)


def _peaks(heat: Float[Tensor, "b T H W"]) -> Bool[Tensor, "b T H W"]:
    """Mark what is high and the highest of its 3×3 neighbourhood."""
    return (heat > _PEAK) & (heat == max_pool2d(heat, 3, stride=1, padding=1))


def _object_errors(
    found: Bool[Tensor, "b T H W"], objects: Float[Tensor, "b T n 4"]
) -> Float[Tensor, "b T"]:
    """Return the symmetric Chamfer distance between things found and things there, per frame.

    Half of it is the mean distance from each thing of which half shows to the nearest one found;
    half is the mean distance from each one found to the nearest of which anything shows. Every
    distance counts at most `CUT_OFF`, which is also the error of finding nothing where things are.
    """
    errors, shown = torch.empty(found.shape[:2]), _clear(objects, found.shape[-2:])
    for i in range(found.shape[0]):
        for j in range(found.shape[1]):
            read = found[i, j].nonzero().flip(-1).float()
            there, kind, visible = objects[i, j, :, :2], *objects[i, j, :, 2:].unbind(-1)
            clear, any_of = there[shown[i, j]], there[(kind > 0) & (visible > 0)]
            errors[i, j] = (_to_nearest(clear, read) + _to_nearest(read, any_of)) / 2
            if len(clear) and not len(read):
                errors[i, j] = CUT_OFF
    return errors


def _clear(objects: Float[Tensor, "b T n 4"], size: Sequence[int]) -> Bool[Tensor, "b T n"]:
    """Say of which things half shows, their middles inside the picture."""
    (x, y, kind, visible), (height, width) = objects.unbind(-1), size
    inside = (kind > 0) & (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    return inside & (visible >= _SEEN)


def _returned(
    clear: Bool[Tensor, "b T n"], hidden: Bool[Tensor, "b T n"], past: int
) -> Bool[Tensor, "b T n"]:
    """Say which things were clear in the past, then hidden, at its end or later, and are back."""
    known = clear[:, :past].any(1, keepdim=True)
    gone = hidden.clone()
    gone[:, : max(0, past - 1)] = False
    return known & clear & gone.cummax(1).values


def _returned_errors(
    found: Bool[Tensor, "b T H W"],
    objects: Float[Tensor, "b T n 4"],
    returned: Bool[Tensor, "b T n"],
) -> Float[Tensor, "b T"]:
    """Return the mean distance from things that are back to the nearest one found; NaN of none."""
    errors = torch.full(found.shape[:2], torch.nan)
    for i, j in returned.any(2).nonzero().tolist():
        read = found[i, j].nonzero().flip(-1).float()
        errors[i, j] = _to_nearest(objects[i, j, returned[i, j], :2], read)
    return errors


def _to_nearest(these: Float[Tensor, "n 2"], those: Float[Tensor, "m 2"]) -> Tensor:
    if not len(these):
        return torch.zeros(())
    if not len(those):
        return torch.tensor(CUT_OFF)
    return torch.cdist(these, those).min(1).values.clamp(max=CUT_OFF).mean()


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
