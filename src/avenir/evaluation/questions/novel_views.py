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
from avenir.console import Report
from avenir.data import Source
from avenir.device import generator
from avenir.evaluation.baselines import frames_of, reconstructed
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.metrics.bootstrap import Interval, interval
from avenir.evaluation.metrics.frames import BEST_PSNR, psnr
from avenir.evaluation.question import About, Measured, Question, QuestionInputs
from avenir.evaluation.report.findings import Finding, bounds, tone
from avenir.evaluation.report.html import section
from avenir.evaluation.report.pictures import embedded
from avenir.evaluation.report.tables import plain_table, written
from avenir.shapes import CAMERA_NUMBERS, Frames, Video
from avenir.world import World


class NovelView(Config):
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


class NovelViews(Config):
    """Views that were imagined."""

    num_clips: int
    num_frames: int
    """Of every clip."""
    views: tuple[NovelView, ...]
    """From left to right."""


Scores = dict[str, Float[Tensor, " b"]]
"""One per clip, by the names of `NovelView`."""


class ViewPictures(NamedTuple):
    """A clip to look at: the true views, and each as it was imagined from the others."""

    true: Frames
    made: Frames


@torch.no_grad()
def measure_novel_views(
    world: World, held_out: HeldOut, report: Report
) -> tuple[NovelViews, ViewPictures] | None:
    """Hide and imagine every view in turn.

    None for worlds of one view, for predictors that were not taught to, and where the source does
    not know the geometry of the cameras.
    """
    known = held_out.source.knows_geometry
    if not known or world.predictor is None or not world.predictor.inpaints:
        return None
    f_t, views = world.encoder.compression.t, range(world.card.views)
    held_out = held_out.cut(f_t * ((held_out.past + held_out.horizon) // f_t) - held_out.past)
    rows: list[list[Scores]] = []
    pictures: list[ViewPictures] = []
    for start, batch in held_out.batches("imagined views", report):
        video, signals = frames_of(batch), held_out.steering(batch)
        for name in ("boxes", *(["actions"] if held_out.discover else [])):
            signals.pop(name, None)  # it says what the hidden view shows
        made = torch.stack(
            [_imagined(world, video, signals, view, held_out.seed, start)[view] for view in views]
        )
        kept = _apart(reconstructed(world.encoder, video), len(views))
        true = _apart(video, len(views))
        cameras = batch.signals["cameras"][:, 0].unflatten(1, (-1, CAMERA_NUMBERS))
        rows.append(
            [
                _scores(held_out.source, view, true, made[view], kept[view], cameras)
                for view in views
            ]
        )
        pictures = pictures or [
            ViewPictures(*(to_frames(_beside(each[:, 0])) for each in (true, made)))
        ]

    def found(view: int, name: str) -> Interval:
        values = torch.cat([row[view][name] for row in rows])
        return interval(values, held_out.groups, held_out.seed)

    names = NovelView.model_fields
    every = tuple(NovelView(**{name: found(view, name) for name in names}) for view in views)
    num_frames = held_out.past + held_out.horizon
    return NovelViews(
        num_clips=len(held_out.windows), num_frames=num_frames, views=every
    ), pictures[0]


def _apart(video: Video, views: int) -> Float[Tensor, "views b T C H W"]:
    return rearrange(video, "b T C H (views W) -> views b T C H W", views=views)


def _beside(video: Float[Tensor, "views T C H W"]) -> Float[Tensor, "T C H wide"]:
    return rearrange(video, "views T C H W -> T C H (views W)")


def _imagined(
    world: World, video: Video, signals: dict[str, Tensor], view: int, seed: int, start: int
) -> Float[Tensor, "views b T C H W"]:
    rng = generator("views", seed, start, view, device=world.encoder.latent_mean.device)
    made = world.imagine_views(video, signals, [view], rng)
    return _apart(made.clamp(-1, 1).cpu(), world.card.views)


def _scores(
    source: Source,
    view: int,
    true: Float[Tensor, "views b T C H W"],
    made: Video,
    kept: Video,
    cameras: Float[Tensor, "b views 16"],
) -> Scores:
    """Score one view, by the names of `NovelView`."""
    others = [other for other in range(len(true)) if other != view]
    size = made.shape[-2], made.shape[-1]
    in_place = torch.stack([psnr(true[other], true[view]).mean(1) for other in others])
    best, nearest = in_place.max(dim=0)
    brought = [
        _brought(true[other], *source.correspondence(cameras[:, view], cameras[:, other], size))
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


class NovelViewsQuestion(Question):
    """What a camera sees that is not given."""

    Answer = NovelViews
    order = 80

    def applies(self, asked: QuestionInputs) -> bool:
        """Ask worlds that predict."""
        return asked.world.predictor is not None

    def measure(self, asked: QuestionInputs) -> Measured | None:
        """Hide and imagine every view in turn; the first clip is there to look at."""
        found = measure_novel_views(asked.world, asked.held_out, asked.report)
        return None if found is None else Measured(*found)

    def findings(self, answer: NovelViews, about: About) -> list[Finding]:
        """Compare the worst view with the nearest one that is given."""
        return [_finding(answer)]

    def section(self, measured: Measured, about: About) -> str:
        """Show true and imagined views above each other."""
        imagined, pictures = measured.answer, measured.pictures
        assert isinstance(imagined, NovelViews)
        both = torch.cat([pictures.true, pictures.made], dim=-2)
        scale = max(1, 768 // both.shape[-1])
        large = both.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
        film = embedded([large], about.fps)
        return section(
            "views",
            "What does a camera see that is not given?",
            f"Every view in turn is hidden for all of {imagined.num_frames} frames and imagined "
            f"from the others, in {imagined.num_clips:,} clips. Above what the cameras saw of one "
            "clip, below each view as it was imagined.",
            f'<video class="sheet" controls loop muted playsinline aria-label="Views, true and '
            f'imagined" src="data:video/mp4;base64,{film}"></video>'
            f'<div class="tables">{novel_views_table(imagined)}</div>',
        )


def novel_views_table(imagined: NovelViews) -> str:
    """Lay out every view that was imagined from the others, and what stands beside it."""
    head = ["imagined", "nearest given view", "difference", "… moved by geometry", "tokenizer"]
    head += ["agrees where others see it", "… the truth does"]
    lines = [
        (
            f"view {number}",
            [written(getattr(view, name), ".2f") for name in NovelView.model_fields],
        )
        for number, view in enumerate(imagined.views)
    ]
    return plain_table("PSNR of a view that is not given, dB", [("", head), *lines])


def _finding(imagined: NovelViews) -> Finding:
    """Say by how much the worst view that is imagined beats the nearest one that is given."""
    worst = min(imagined.views, key=lambda view: view.more_than_nearest.mean or 0.0)
    gain, warped = worst.more_than_nearest.mean or 0.0, worst.warped.mean or 0.0
    return Finding(
        f"{gain:+.1f} dB".replace("-", "−"),
        f"A view that is not given, imagined from the others: so much nearer to what its camera "
        f"saw than the nearest given view in its place, for the worst of {len(imagined.views)} "
        f"views. Moved to where it belongs by the true geometry, that reaches {warped:.1f} dB and "
        f"what is imagined {worst.imagined.mean or 0.0:.1f}.",
        bounds(worst.more_than_nearest),
        tone(worst.more_than_nearest, True),
    )
