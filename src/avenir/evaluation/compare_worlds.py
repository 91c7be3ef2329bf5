"""Several worlds on the same held-out pasts: how each drifts, and whether its actions matter.

Measures what `worlds_page.py` shows. Trains nothing and prints nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from avenir.card import seconds_per_step
from avenir.console import Report
from avenir.data import Source
from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.evaluation.compare_encoders import NUM_SHOWN
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.independence import check_judge
from avenir.evaluation.nearest_decoder import groups_in, with_nearest_decoder
from avenir.evaluation.questions.action_control import measure_shuffled_actions
from avenir.evaluation.questions.drift import ImaginedClip, measure_drift
from avenir.evaluation.readers.readout import Readout, evaluator_for
from avenir.evaluation.worlds_page import ComparedWorld, WorldComparison, write_comparison
from avenir.world import World

_BATCH = 8
"""Clips imagined side by side."""


def compare_worlds(
    worlds: Mapping[str, World],
    source: Source,
    num_clips: int,
    observe: float,
    seconds: float,
    noises: Sequence[float],
    folder: Path,
    about: str,
    command: str,
    report: Report,
    say: Callable[[str], None],
) -> Path:
    """Continue the same held-out pasts with every world; return the page that was written.

    `observe` seconds are the past, `seconds` are imagined; `noises` are standard deviations of
    noise on the past, to measure what it does. `about` says on the page where the clips come from;
    `say` is called with what is found on the way. Raises AvenirError for worlds whose size or rate
    is not the source's.
    """
    source = source.labelled()
    for name, world in worlds.items():
        _check(name, world, source)
    past, horizon = (max(1, round(each * source.fps)) for each in (observe, seconds))
    windows = source.spread("test", past + horizon, num_clips)
    held_out = HeldOut(source, windows, past, horizon, 1, _BATCH, 0)
    device = next(iter(worlds.values())).encoder.latent_mean.device
    readout, evaluator = Readout.of(source, device), _evaluator(worlds, source, say)
    compared: list[ComparedWorld] = []
    films: list[list[ImaginedClip]] = []
    for name, world in worlds.items():
        of_this = partial(_report_of, name, report)
        first = past % world.encoder.compression.t  # as when it imagines: the oldest are left out
        discover = partial(world.discovered, first=first) if world.discovers else None
        own = held_out._replace(discover=discover)
        found, film = _measured(name, world, own, readout, evaluator, noises, of_this)
        say(f"{name}: {found.drift.frames_per_second:.0f} frames per second")
        compared.append(found)
        films.append(film)
    comparison = WorldComparison(
        about=about, command=command, fps=source.fps, worlds=tuple(compared)
    )
    return write_comparison(folder, comparison, films)


def _check(name: str, world: World, source: Source) -> None:
    if (world.card.fps, world.card.size) != (source.fps, source.size):
        raise AvenirError(
            f"{name!r} lives at {world.card.size} and {world.card.fps:g} fps, and the data of "
            f"the first world gives {source.size} at {source.fps:g}: compare worlds of one "
            "size and rate"
        )


def _evaluator(
    worlds: Mapping[str, World], source: Source, say: Callable[[str], None]
) -> Encoder | None:
    """Return what compares sets of clips; none where it is not independent of every world."""
    device = next(iter(worlds.values())).encoder.latent_mean.device
    evaluator = evaluator_for(source, device)
    if evaluator is None:
        return None
    try:
        for world in worlds.values():
            check_judge(evaluator.card, world.card)
    except AvenirError as error:
        say(f"sets of clips are not compared: {error}")
        return None
    return evaluator.encoder


def _report_of(name: str, report: Report, what: str, done: int, total: int) -> None:
    report(f"{name}, {what}", done, total)


def _measured(
    name: str,
    world: World,
    held_out: HeldOut,
    readout: Readout | None,
    evaluator: Encoder | None,
    noises: Sequence[float],
    report: Report,
) -> tuple[ComparedWorld, list[ImaginedClip]]:
    """Measure how one world drifts and whether its actions matter."""
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
    compared = ComparedWorld(
        name=name,
        key=known.get("key"),
        predictor=world.card.predictor["kind"],
        num_parameters=sum(p.numel() for p in world.parameters()),
        device=known.get("device", "cpu"),
        train_seconds=None if each is None else each * known["steps"],
        train_gib=known.get("memory_gib"),
        nearest_decoder=groups_in(world),
        drift=drift,
        control=control,
    )
    return compared, film
