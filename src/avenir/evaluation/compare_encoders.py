"""Several encoders beside the truth: the same clips through each and back, on one page.

Every model sees the clips at its own size and rate, and is measured there. Writes
`comparison.json` and `comparison.html`. Trains nothing and prints nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from avenir.clip import Clip
from avenir.config import Config
from avenir.console import Report, silent
from avenir.data import Recording, Skipped, Source, Window
from avenir.errors import AvenirError
from avenir.evaluation.baselines import reconstructed
from avenir.evaluation.metrics.bootstrap import LEVEL, NUM_RESAMPLES
from avenir.evaluation.metrics.frames import BEST_PSNR
from avenir.evaluation.questions.reconstruction import Reconstruction, measure_reconstruction
from avenir.evaluation.report.html import details, page, resource, section
from avenir.evaluation.report.side_by_side import GAIN, Column, side_by_side
from avenir.evaluation.report.tables import facts_list, written
from avenir.files import write_whole
from avenir.registry import find
from avenir.splits import Split
from avenir.video import read
from avenir.world import World

FORMAT = 1
"""Version of `comparison.json`."""

NUM_SHOWN = 4
"""Clips on the page; all are measured."""

_TRUTH = {"Bits per pixel": "24 <small>raw video</small>"}
"""Facts of the truth."""


class NamedWorld(NamedTuple):
    """What is compared, under the name it has on the page."""

    name: str
    world: World


class ComparedEncoder(Config):
    """One model of a comparison."""

    name: str
    """As on the page."""
    key: str | None
    """The key of the run that made it."""
    fps: float
    """Frames per second it lives at, and was measured at."""
    size: tuple[int, int]
    """Height and width of its frames, likewise."""
    frames: str
    """Hash of the frames it saw: models with the same saw the same pixels."""
    reconstruction: Reconstruction
    """What its encoder keeps."""


class EncoderComparison(Config):
    """Everything measured of several models on the same clips: what `comparison.json` holds."""

    format: int = FORMAT
    """Version of this table."""
    about: str
    """Where the clips come from."""
    command: str
    """What was typed."""
    models: tuple[ComparedEncoder, ...]
    """In the order given."""


class Seen(Source):
    """Clips at hand, at the size and rate of a world. Nothing in it is for training."""

    def __init__(self, world: World, clips: Mapping[Window, Clip]) -> None:
        self.size, self.fps = world.card.size, world.card.fps
        self.signals, self.skipped = {}, list[Skipped]()
        fitted = {window: world.fitted(clip) for window, clip in clips.items()}
        self._clips = {replace(w, num_frames=c.num_frames): c for w, c in fitted.items()}

    @property
    def windows(self) -> list[Window]:
        """List one window for each clip."""
        return list(self._clips)

    def recordings(self, split: Split) -> list[Recording]:
        """List what the clips were cut from."""
        return list({w.recording: None for w in self.windows}) if split == "test" else []

    def clip(self, window: Window) -> Clip:
        """Look a clip up."""
        return self._clips[window]

    @property
    def fingerprint(self) -> str:
        """Hash the frames."""
        digest = hashlib.sha256()
        for clip in self._clips.values():
            digest.update(clip.frames.contiguous().numpy().tobytes())
        return digest.hexdigest()


def finest(worlds: Sequence[World]) -> tuple[tuple[int, int], float]:
    """Return the largest size and the highest rate: every world's frames are made from these."""
    heights, widths = zip(*(world.card.size for world in worlds), strict=True)
    return (max(heights), max(widths)), max(world.card.fps for world in worlds)


def finest_settings(data: Mapping[str, Any], worlds: Sequence[World]) -> dict[str, Any]:
    """Return the settings of `data` that make its frames as fine as any of the worlds sees them."""
    size, fps = finest(worlds)
    known = find("data", data["kind"]).Config.model_fields
    return {key: value for key, value in {"size": size, "fps": fps}.items() if key in known}


def clips_of_video(
    video: Path, worlds: Sequence[World], seconds: float, start: float
) -> dict[Window, Clip]:
    """Read one clip of a video, as finely as any of the worlds sees it."""
    size, fps = finest(worlds)
    clip = read(video, seconds, start, fps, size)
    return {Window(Recording(clip.name, start + clip.seconds), start, clip.num_frames): clip}


def held_out_clips(source: Source, seconds: float, count: int) -> dict[Window, Clip]:
    """Read clips of test recordings, evenly spread over them."""
    windows = source.spread("test", max(1, round(seconds * source.fps)), count)
    return {window: source.clip(window) for window in windows}


def compare(
    models: Sequence[NamedWorld],
    clips: Mapping[Window, Clip],
    folder: Path,
    about: str,
    command: str = "",
    report: Report = silent,
) -> EncoderComparison:
    """Send the same clips, all of one length, through every model's encoder and back.

    `about` says on the page where the clips come from. Raises AvenirError, before anything is
    measured, for an encoder that cannot decode.
    """
    for model in models:
        _check(model)
    compared, columns = [], []
    for model in models:
        found, column = _measured(model, clips, report)
        compared.append(found)
        columns.append(column)
    comparison = EncoderComparison(about=about, command=command, models=tuple(compared))
    write_whole(folder / "comparison.json", comparison.model_dump_json(indent=2) + "\n")
    write_whole(folder / "comparison.html", _page(comparison, columns))
    return comparison


def _check(model: NamedWorld) -> None:
    if not model.world.encoder.can_decode:
        raise AvenirError(
            f"{model.name!r} holds a {model.world.card.encoder['kind']!r}, an encoder that cannot "
            "decode, so there is nothing to lay beside the truth: compare runs whose encoder "
            "can, such as kind 'kl'; `avenir features` shows what this one sees"
        )


def _measured(
    model: NamedWorld, clips: Mapping[Window, Clip], report: Report
) -> tuple[ComparedEncoder, Column]:
    name, (card, encoder) = model.name, (model.world.card, model.world.encoder)
    source = Seen(model.world, clips)

    def report_of_this(what: str, done: int, total: int) -> None:
        report(f"{name}, {what}", done, total)

    # One clip at a time, as they are decoded to be shown.
    reconstruction = measure_reconstruction(encoder, source, source.windows, 1, 0, report_of_this)
    compared = ComparedEncoder(
        name=name,
        key=card.provenance.get("key"),
        fps=card.fps,
        size=card.size,
        frames=source.fingerprint,
        reconstruction=reconstruction,
    )
    chosen = np.linspace(0, len(clips) - 1, min(NUM_SHOWN, len(clips))).round().astype(int)
    seen = [_named(source, source.windows[i]) for i in chosen]
    return compared, Column(name, seen, [_made(model.world, c) for c in seen], _facts(compared))


def _named(source: Source, window: Window) -> Clip:
    name = f"{window.recording.name} at {window.start_seconds:.1f}\u00a0s"
    return replace(source.clip(window), name=name)


@torch.no_grad()
def _made(world: World, clip: Clip) -> Clip:
    return Clip.from_video(reconstructed(world.encoder, clip.video), clip.fps)


def _facts(compared: ComparedEncoder) -> dict[str, str]:
    found, (height, width) = compared.reconstruction, compared.size
    cell, channels = "×".join(map(str, found.compression)), found.latent_shape[1]
    bits = found.bits_per_pixel
    return {
        "PSNR, dB": written(found.psnr),
        "SSIM": written(found.ssim, ".3f"),
        "Compression": f"{found.numbers_ratio:.1f} times "
        f"<small>{cell}, {channels}\u00a0channel{'s' * (channels > 1)}</small>",
        "Codes in use": "numbers, not codes"
        if found.codes is None
        else f"{found.codes.usage:.1%} of {found.codes.vocabulary:,} "
        f"<small>as many as {found.codes.perplexity:,.0f} chosen equally</small>",
        "Bits per pixel": "no finite rate" if bits is None else f"at most {bits:.3f}",
        "Frames": f"{width}×{height} at {compared.fps:g} fps",
    }


def _page(comparison: EncoderComparison, columns: Sequence[Column]) -> str:
    models, command = comparison.models, comparison.command
    how = (f"<pre>{escape(command)}</pre>" if command else "") + details(
        "What each number means", facts_list(_definitions())
    )
    sections = [
        section("watch", "In step", _note(models), side_by_side(columns, _TRUTH)),
        section("how", "How it was measured", _care(models), how),
    ]
    title = " | ".join([*(model.name for model in models), "truth"])
    style = resource("comparison.css") + resource("side_by_side.css")
    return page("Avenir comparison", title, _lead(comparison), sections, style)


def _lead(comparison: EncoderComparison) -> str:
    first = comparison.models[0]
    found = first.reconstruction
    seconds = f"{found.num_frames / first.fps:.1f}\u00a0s"
    if found.num_clips == 1:
        return f"{comparison.about}: one clip of {seconds}, through each encoder and back."
    recordings = f"{found.num_recordings:,} recording{'s' * (found.num_recordings > 1)}"
    return (
        f"{comparison.about}: {found.num_clips:,} clips of {seconds} from {recordings}, "
        "through each encoder and back."
    )


def _note(models: Sequence[ComparedEncoder]) -> str:
    count, words = models[0].reconstruction.num_clips, "Space plays, arrow keys step."
    if count > NUM_SHOWN:
        words += (
            f" {NUM_SHOWN} of the {count:,} clips are shown, evenly spaced; numbers are of all."
        )
    if len({model.frames for model in models}) > 1:
        words += (
            " These models live at different sizes or rates: their PSNR and SSIM are of different "
            "pixels, so rank them by eye."
        )
    return words


def _care(models: Sequence[ComparedEncoder]) -> str:
    words = (
        "Every model is measured at its own size and rate. A latent that holds more numbers keeps "
        "more: compare models at an equal price."
    )
    if models[0].reconstruction.num_recordings == 1:
        words += " The clips are of one recording: there are no intervals."
    return words


def _definitions() -> dict[str, str]:
    return {
        "PSNR": "10·log10(1 / mean squared error) of every frame, pixels in [0, 1], at most "
        f"{BEST_PSNR:g} dB; the mean over frames and clips.",
        "SSIM": "Wang et al. 2004: 11×11 Gaussian window of deviation 1.5, mean over channels.",
        "Brackets": f"{100 * LEVEL:.0f} % intervals, from {NUM_RESAMPLES:,} draws of whole "
        "recordings with replacement.",
        "Compression": "numbers of the pixels for one number of the latents; then the frames, rows "
        "and columns that one latent stands for, and its channels.",
        "Codes in use": "chosen at least a hundredth as often as on average, on these clips; and "
        "the exponential of the entropy of how often each is chosen.",
        "Bits per pixel": "an upper bound on what the latents tell: log2 of the vocabulary for "
        "tokens, otherwise the divergence of the posterior from a standard normal.",
        "Difference": f"distance of every colour from the truth at the model’s own size, {GAIN} "
        "times magnified.",
        "Truth": "the clip as the model with the largest pictures sees it.",
    }
