"""`avenir compare`: what several encoders, or several worlds, make of the same clips."""

import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avenir.cli.arguments import RunsAndSettings, Trust, opened, parted
from avenir.errors import AvenirError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from avenir.clip import Clip
    from avenir.data import Window
    from avenir.encoders import Encoder
    from avenir.evaluation.compare_encoders import Comparison
    from avenir.evaluation.held_out import HeldOut
    from avenir.evaluation.questions.drift import Shown
    from avenir.evaluation.readers.readout import Readout
    from avenir.evaluation.settings import Report
    from avenir.evaluation.worlds_page import Aged
    from avenir.world import World

    Clips = dict[Window, Clip]


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
    tells how each ages. The clips are held out from the data of the first run; those of --video go
    through encoders. Below each model stand its numbers.
    """
    from avenir.evaluation.compare_encoders import Model
    from avenir.evaluation.compare_encoders import compare as judge
    from avenir.training.log import Preparation, say
    from avenir.training.recipe import data_of

    runs, overrides = parted(words)
    if video is not None and overrides:
        raise AvenirError(
            f"{' '.join(overrides)} and --video were given; settings are of held-out data: "
            "leave one of the two out"
        )
    noises = _numbers(noise)
    models = [Model(name, opened(run, trust)) for name, run in runs.items()]
    worlds = [model.world for model in models]
    data = {} if video is not None else data_of(runs[models[0].name], overrides, trust or ())
    if video is None and all(world.predictor is not None for world in worlds):
        page = _ageing(dict(models), data, overrides, clips, observe, seconds, noises, out)
        say(f"page: {page}")
        return
    if noises:
        raise AvenirError(
            f"--noise {noise} was given; it is put on what worlds observe before they go on: give "
            "runs with a predictor, and no --video"
        )
    if video is not None:
        about, shown = video.name, _of_video(video, worlds, seconds, start)
    else:
        about = "Held out from " + (" ".join(overrides) or f"the data of {models[0].name}")
        shown = _held_out(data, worlds, seconds, clips)
    command = " ".join(["avenir", *sys.argv[1:]])
    comparison = judge(models, shown, out, about, command, Preparation())
    for line in _summary(comparison):
        say(line)
    say(f"page: {out / 'comparison.html'}")


def _ageing(
    worlds: "Mapping[str, World]",
    data: dict[str, Any],
    overrides: Sequence[str],
    clips: int,
    observe: float,
    seconds: float,
    noises: Sequence[float],
    out: Path,
) -> Path:
    """Continue the same held-out pasts with every world."""
    from avenir.evaluation.held_out import HeldOut
    from avenir.evaluation.independence import check_judge
    from avenir.evaluation.readers.readout import Readout, evaluator_for
    from avenir.evaluation.worlds_page import Ageing, write_drift_report
    from avenir.training.log import Preparation, say
    from avenir.training.tasks import make_source

    source = make_source(data).labelled()
    past, horizon = (max(1, round(each * source.fps)) for each in (observe, seconds))
    task = HeldOut(source, source.spread("test", past + horizon, clips), past, horizon, 1, 8, 0)
    device = next(iter(worlds.values())).encoder.latent_mean.device
    readout, evaluator = Readout.of(source, device), evaluator_for(source, device)
    if evaluator is not None:
        try:
            for world in worlds.values():
                check_judge(evaluator.card, world.card)
        except AvenirError as error:
            say(f"sets of clips are not compared: {error}")
            evaluator = None
    told, aged, films = Preparation(), [], []
    for name, world in worlds.items():
        if (world.card.fps, world.card.size) != (source.fps, source.size):
            raise AvenirError(
                f"{name!r} lives at {world.card.size} and {world.card.fps:g} fps, and the data of "
                f"the first world gives {source.size} at {source.fps:g}: compare worlds of one "
                "size and rate"
            )

        def report(what: str, done: int, total: int, name: str = name) -> None:
            told(f"{name}, {what}", done, total)

        judge = None if evaluator is None else evaluator.encoder
        first = past % world.encoder.compression.t  # as when it imagines: the oldest are left out
        discover = partial(world.discovered, first=first) if world.discovers else None
        own = task._replace(discover=discover)
        one, film = _aged(name, world, own, readout, judge, noises, report)
        say(f"{name}: {one.drift.frames_per_second:.0f} frames per second")
        aged.append(one)
        films.append(film)
    ageing = Ageing(
        about="Held out from " + (" ".join(overrides) or f"the data of {aged[0].name}"),
        command=" ".join(["avenir", *sys.argv[1:]]),
        fps=source.fps,
        worlds=tuple(aged),
    )
    return write_drift_report(out, ageing, films)


def _aged(
    name: str,
    world: "World",
    held_out: "HeldOut",
    readout: "Readout | None",
    evaluator: "Encoder | None",
    noises: Sequence[float],
    report: "Report",
) -> "tuple[Aged, list[Shown]]":
    """Measure how one world ages and whether its actions matter."""
    from avenir.evaluation.compare_encoders import NUM_SHOWN
    from avenir.evaluation.nearest_decoder import groups_in, with_nearest_decoder
    from avenir.evaluation.questions.action_control import measure_shuffled_actions
    from avenir.evaluation.questions.drift import measure_drift
    from avenir.evaluation.worlds_page import Aged
    from avenir.training.estimate import seconds_per_step

    world = with_nearest_decoder(world, held_out.source, report)
    assert world.predictor is not None and world.card.predictor is not None
    trained = world.predictor.num_train_frames * world.encoder.compression.t
    drift, film = measure_drift(
        world, trained, held_out, readout, report, NUM_SHOWN, noises, evaluator
    )
    control = None
    if world.conditioner is not None:
        control = measure_shuffled_actions(world, held_out.cut(trained), readout, report)
    known = world.card.provenance
    each = seconds_per_step(known)
    aged = Aged(
        name=name,
        key=known.get("key"),
        predictor=world.card.predictor["kind"],
        num_parameters=sum(p.numel() for p in world.parameters()),
        device=known.get("device", "cpu"),
        train_seconds=None if each is None else each * known["steps"],
        train_gib=known.get("memory_gib"),
        album=groups_in(world),
        drift=drift,
        control=control,
    )
    return aged, film


def _numbers(text: str) -> list[float]:
    """Parse numbers above 0 with commas between them."""
    try:
        numbers = [float(word) for word in text.split(",") if word]
        if all(0 < number < math.inf for number in numbers):
            return list(dict.fromkeys(numbers))
    except ValueError:
        pass
    raise AvenirError(f"--noise {text} was given; say numbers above 0: --noise 0.1,0.3")


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
    data: dict[str, Any], worlds: Sequence["World"], seconds: float, count: int
) -> "Clips":
    from avenir.registry import find
    from avenir.training.tasks import make_source

    size, fps = _finest(worlds)
    known = find("data", data["kind"]).Config.model_fields
    finest = {key: value for key, value in {"size": size, "fps": fps}.items() if key in known}
    source = make_source(data | finest)
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
        codes = "" if found.codes is None else f", {found.codes.usage:.1%} of its codes in use"
        lines.append(
            f"{model.name:{width}}  PSNR {found.psnr.mean:.2f} dB, SSIM {found.ssim.mean:.3f}, "
            f"{found.numbers_ratio:.1f} times fewer numbers{rate}{codes}"
        )
    return lines
