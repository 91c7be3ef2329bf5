"""`avenir compare`: the same clips through several encoders and back, beside the truth."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avenir.cli.arguments import RunsAndSettings, parted
from avenir.errors import AvenirError

if TYPE_CHECKING:
    from avenir.clip import Clip
    from avenir.data import Window
    from avenir.evaluation.comparison import Comparison
    from avenir.world import World

    Clips = dict[Window, Clip]


def compare(
    words: RunsAndSettings,
    video: Annotated[Path | None, typer.Option(help="One video, instead of held-out data.")] = None,
    clips: Annotated[int, typer.Option(min=1, help="Held-out clips to judge on.")] = 16,
    seconds: Annotated[float, typer.Option(min=0.01, help="How long a clip is.")] = 2.0,
    start: Annotated[float, typer.Option(min=0, help="Second at which the video begins.")] = 0.0,
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("comparison"),
) -> None:
    """Show what encoders keep of the same clips: Model 1 | Model 2 | … | truth, on one page.

    The clips are held out from the data of the first run, or come from --video. Below each model
    stand its PSNR, SSIM, compression and bits per pixel.
    """
    from avenir.evaluation.comparison import Model
    from avenir.evaluation.comparison import compare as judge
    from avenir.training.log import Preparation, say
    from avenir.world import load

    runs, overrides = parted(words)
    if video is not None and overrides:
        raise AvenirError(
            f"{' '.join(overrides)} and --video were given; settings are of held-out data: "
            "leave one of the two out"
        )
    models = [Model(name, load(run)) for name, run in runs.items()]
    worlds = [model.world for model in models]
    if video is not None:
        about, shown = video.name, _of_video(video, worlds, seconds, start)
    else:
        about = "Held out from " + (" ".join(overrides) or f"the data of {models[0].name}")
        shown = _held_out(next(iter(runs.values())), overrides, worlds, seconds, clips)
    command = " ".join(["avenir", *sys.argv[1:]])
    comparison = judge(models, shown, out, about, command, Preparation())
    for line in _summary(comparison):
        say(line)
    say(f"page: {out / 'comparison.html'}")


def _finest(worlds: Sequence["World"]) -> tuple[tuple[int, int], float]:
    """Return the largest size and the highest rate: every world's frames are made from these."""
    heights, widths = zip(*(world.card.size for world in worlds), strict=True)
    return (max(heights), max(widths)), max(world.card.fps for world in worlds)


def _of_video(video: Path, worlds: Sequence["World"], seconds: float, start: float) -> "Clips":
    from avenir.data import Recording, Window
    from avenir.video import read

    size, fps = _finest(worlds)
    clip = read(video, seconds, start, fps, size)
    return {Window(Recording(clip.name, start + clip.seconds), start, clip.num_frames): clip}


def _held_out(
    run: Path, overrides: Sequence[str], worlds: Sequence["World"], seconds: float, count: int
) -> "Clips":
    from avenir.registry import find
    from avenir.training.recipe import data_of
    from avenir.training.tasks import make_source

    size, fps = _finest(worlds)
    table = data_of(run, overrides)
    known = find("data", table["kind"]).Config.model_fields
    table |= {key: value for key, value in {"size": size, "fps": fps}.items() if key in known}
    source = make_source(table)
    windows = source.spread("test", max(1, round(seconds * source.fps)), count)
    return {window: source.clip(window) for window in windows}


def _summary(comparison: "Comparison") -> list[str]:
    width = max(len(model.name) for model in comparison.models)
    lines = []
    for model in comparison.models:
        found = model.reconstruction
        assert found.psnr is not None and found.ssim is not None
        rate = (
            "" if found.bits_per_pixel is None else f", {found.bits_per_pixel:.3f} bits per pixel"
        )
        lines.append(
            f"{model.name:{width}}  PSNR {found.psnr.mean:.2f} dB, SSIM {found.ssim.mean:.3f}, "
            f"{found.numbers_ratio:.1f} times fewer numbers{rate}"
        )
    return lines
