"""`avenir compare`: what several encoders, or several worlds, make of the same clips."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avenir.cli.arguments import RunsAndSettings, Trust, opened, parted
from avenir.errors import AvenirError

if TYPE_CHECKING:
    from avenir.evaluation.compare_encoders import EncoderComparison


def compare(
    words: RunsAndSettings,
    video: Annotated[Path | None, typer.Option(help="One video, instead of held-out data.")] = None,
    clips: Annotated[int, typer.Option(min=1, help="Held-out clips to judge on.")] = 16,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="How long a clip is, or how far ahead is imagined.")
    ] = 2.0,
    observe: Annotated[
        float, typer.Option(min=0.01, help="Seconds that worlds observe first.")
    ] = 1.0,
    start: Annotated[float, typer.Option(min=0, help="Second at which the video begins.")] = 0.0,
    noise: Annotated[
        str, typer.Option(help="Noise on what worlds observe, to see what they bear: 0.1,0.3")
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("comparison"),
    trust: Trust = None,
) -> None:
    """Show what models make of the same clips: Model 1 | Model 2 | … | truth, on one page.

    Encoders send clips through and back; worlds, runs with a predictor, continue them, and the page
    shows how each drifts. The clips are held out from the data of the first run; those of --video
    go through encoders. Below each model stand its numbers.
    """
    from avenir.console import PrintedReport, say
    from avenir.evaluation.compare_encoders import (
        NamedWorld,
        clips_of_video,
        finest_settings,
        held_out_clips,
    )
    from avenir.evaluation.compare_encoders import compare as compare_encoders
    from avenir.evaluation.compare_worlds import compare_worlds
    from avenir.training.objectives import make_source
    from avenir.training.recipe import data_of

    runs, overrides = parted(words)
    if video is not None and overrides:
        raise AvenirError(
            f"{' '.join(overrides)} and --video were given; settings are of held-out data: "
            "leave one of the two out"
        )
    noises = _numbers(noise)
    worlds = {name: opened(run, trust) for name, run in runs.items()}
    first = next(iter(runs))
    data = {} if video is not None else data_of(runs[first], overrides, trust or ())
    about = "Held out from " + (" ".join(overrides) or f"the data of {first}")
    command, report = " ".join(["avenir", *sys.argv[1:]]), PrintedReport()
    if video is None and all(world.predictor is not None for world in worlds.values()):
        source = make_source(data)
        page = compare_worlds(
            worlds, source, clips, observe, seconds, noises, out, about, command, report, say
        )
        say(f"page: {page}")
        return
    if noises:
        raise AvenirError(
            f"--noise {noise} was given; it is put on what worlds observe before they go on: give "
            "runs with a predictor, and no --video"
        )
    if video is not None:
        about, shown = video.name, clips_of_video(video, [*worlds.values()], seconds, start)
    else:
        source = make_source(data | finest_settings(data, [*worlds.values()]))
        shown = held_out_clips(source, seconds, clips)
    models = [NamedWorld(name, world) for name, world in worlds.items()]
    for line in _summary(compare_encoders(models, shown, out, about, command, report)):
        say(line)
    say(f"page: {out / 'comparison.html'}")


def _numbers(text: str) -> list[float]:
    """Parse numbers above 0 with commas between them."""
    try:
        numbers = [float(word) for word in text.split(",") if word]
        if all(0 < number < math.inf for number in numbers):
            return list(dict.fromkeys(numbers))
    except ValueError:
        pass
    raise AvenirError(f"--noise {text} was given; say numbers above 0: --noise 0.1,0.3")


def _summary(comparison: "EncoderComparison") -> list[str]:
    width = max(len(model.name) for model in comparison.models)
    lines = []
    for model in comparison.models:
        found = model.reconstruction
        assert found.psnr is not None and found.ssim is not None
        rate = (
            "" if found.bits_per_pixel is None else f", {found.bits_per_pixel:.3f} bits per pixel"
        )
        codes = "" if found.codes is None else f", {found.codes.usage:.1%} of its codes in use"
        lines.append(
            f"{model.name:{width}}  PSNR {found.psnr.mean:.2f} dB, SSIM {found.ssim.mean:.3f}, "
            f"{found.numbers_ratio:.1f} times fewer numbers{rate}{codes}"
        )
    return lines
