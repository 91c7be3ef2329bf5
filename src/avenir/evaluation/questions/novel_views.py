"""Can it say what a camera saw that is not given? A view imagined from the others, in pixels.

Every view in turn is hidden for the whole of a clip, its past included, and imagined from all
others. Beside it stands what is there without imagining: the nearest of the given views in its
place, and the same brought to where it belongs by the true geometry of the cameras, its edge drawn
out. Where a given camera sees the same ground the two pictures must agree: cross-camera
consistency.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample

from avenir.clip import to_frames
from avenir.config import Config
from avenir.data.synthetic import Synthetic
from avenir.data.synthetic.rig import correspondence
from avenir.device import generator
from avenir.evaluation.baselines import frames_of, reconstructed
from avenir.evaluation.held_out import Task
from avenir.evaluation.metrics.bootstrap import Interval, interval
from avenir.evaluation.metrics.frames import BEST_PSNR, psnr
from avenir.evaluation.settings import Report
from avenir.shapes import CAMERA_NUMBERS, Frames, Video
from avenir.world import World


class ImaginedView(Config):
    """One view that is imagined from all others; PSNR in dB, the mean over the frames of a clip."""

    imagined: Interval
    """Against what its camera saw."""
    nearest: Interval
    """Of the given view that is most like it, in its place."""
    more_than_nearest: Interval
    """How much the first is above the second."""
    warped: Interval
    """Of that given view, moved to where the true geometry of the cameras says."""
    kept: Interval
    """Of the true view, encoded and decoded: what the tokenizer leaves to win."""
    consistency: Interval
    """Of what is imagined with what given cameras see of the same ground."""
    consistency_of_truth: Interval
    """Of the true view with that: how well it can be measured."""


class ImaginedViews(Config):
    """Views that were imagined."""

    num_clips: int
    num_frames: int
    """Of every clip."""
    views: tuple[ImaginedView, ...]
    """From left to right."""


Scores = dict[str, Float[Tensor, " b"]]
"""One per clip, by the names of `ImaginedView`."""


class Looks(NamedTuple):
    """A clip to look at: the true views, and each as it was imagined from the others."""

    true: Frames
    made: Frames


@torch.no_grad()
def measure_imagined_views(
    world: World, task: Task, report: Report
) -> tuple[ImaginedViews, Looks] | None:
    """Hide and imagine every view in turn.

    None for worlds of one view, for predictors that were not taught to, and where nobody knows the
    geometry of the cameras.
    """
    known = isinstance(task.source, Synthetic) and "cameras" in task.source.signals
    if not known or world.predictor is None or not world.predictor.inpaints:
        return None
    f_t, views = world.encoder.compression.t, range(world.card.views)
    task = task.cut(f_t * ((task.past + task.horizon) // f_t) - task.past)
    rows: list[list[Scores]] = []
    looks: list[Looks] = []
    for start, batch in task.batches("imagined views", report):
        video, signals = frames_of(batch), task.steering(batch)
        for told in ("boxes", *(["actions"] if task.discover else [])):
            signals.pop(told, None)  # it says what the hidden view shows
        made = torch.stack(
            [_imagined(world, video, signals, view, task.seed, start)[view] for view in views]
        )
        kept = _apart(reconstructed(world.encoder, video), len(views))
        true = _apart(video, len(views))
        cameras = batch.signals["cameras"][:, 0].unflatten(1, (-1, CAMERA_NUMBERS))
        rows.append([_scores(view, true, made[view], kept[view], cameras) for view in views])
        looks = looks or [Looks(*(to_frames(_beside(each[:, 0])) for each in (true, made)))]

    def found(view: int, name: str) -> Interval:
        values = torch.cat([row[view][name] for row in rows])
        return interval(values, task.groups, task.seed)

    names = ImaginedView.model_fields
    every = tuple(ImaginedView(**{name: found(view, name) for name in names}) for view in views)
    num_frames = task.past + task.horizon
    return ImaginedViews(num_clips=len(task.windows), num_frames=num_frames, views=every), looks[0]


def _apart(video: Video, views: int) -> Float[Tensor, "views b T C H W"]:
    return rearrange(video, "b T C H (views W) -> views b T C H W", views=views)


def _beside(video: Float[Tensor, "views T C H W"]) -> Float[Tensor, "T C H wide"]:
    return rearrange(video, "views T C H W -> T C H (views W)")


def _imagined(
    world: World, video: Video, signals: dict[str, Tensor], view: int, seed: int, start: int
) -> Float[Tensor, "views b T C H W"]:
    chance = generator("views", seed, start, view, device=world.encoder.latent_mean.device)
    made = world.imagine_views(video, signals, [view], chance)
    return _apart(made.clamp(-1, 1).cpu(), world.card.views)


def _scores(
    view: int,
    true: Float[Tensor, "views b T C H W"],
    made: Video,
    kept: Video,
    cameras: Float[Tensor, "b views 16"],
) -> Scores:
    """Score one view, by the names of `ImaginedView`."""
    others = [other for other in range(len(true)) if other != view]
    size = made.shape[-2], made.shape[-1]
    in_place = torch.stack([psnr(true[other], true[view]).mean(1) for other in others])
    best, nearest = in_place.max(dim=0)
    brought = [
        _brought(true[other], *correspondence(cameras[:, view], cameras[:, other], size))
        for other in others
    ]
    warped = torch.stack([picture for picture, _ in brought])[nearest, torch.arange(len(made))]
    imagined = psnr(made, true[view]).mean(1)
    return {
        "imagined": imagined,
        "nearest": best,
        "more_than_nearest": imagined - best,
        "warped": psnr(warped, true[view]).mean(1),
        "kept": psnr(kept, true[view]).mean(1),
        "consistency": _agreement(made, brought),
        "consistency_of_truth": _agreement(true[view], brought),
    }


def _brought(
    video: Video, where: Float[Tensor, "b H W 2"], inside: Bool[Tensor, "b H W"]
) -> tuple[Video, Bool[Tensor, "b H W"]]:
    """Look a view up where another one's pixels fall in it, its edge drawn out."""
    flat = rearrange(video, "b T C H W -> b (T C) H W")
    grid = (2 * where - 1).to(flat.dtype)
    seen = grid_sample(flat, grid, padding_mode="border", align_corners=False)
    return rearrange(seen, "b (T C) H W -> b T C H W", C=video.shape[2]), inside


def _agreement(
    video: Video, brought: Sequence[tuple[Video, Bool[Tensor, "b H W"]]]
) -> Float[Tensor, " b"]:
    """Return the PSNR to all other views together, where these see the same."""
    wrong = torch.zeros(len(video))
    places = torch.zeros(len(video))
    for picture, inside in brought:
        error = ((video - picture) / 2).square().mean((1, 2))
        wrong += (error * inside).sum((1, 2))
        places += inside.sum((1, 2))
    return -10 * (wrong / places).clamp(min=10 ** (-BEST_PSNR / 10)).log10()
