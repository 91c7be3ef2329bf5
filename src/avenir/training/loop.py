"""The only training loop: recipe in, run folder out.

Everything random in a step derives from (seed, step, rank), so a run that was stopped or killed
and goes on later gives, bit for bit, what it would have given without.
"""

import json
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from avenir.card import FORMAT, WEIGHTS, Card, parse_card
from avenir.clip import Progress
from avenir.console import PrintedReport, hush, say
from avenir.data import Source, batches
from avenir.device import best_device, device_name, generator, seed_of
from avenir.errors import AvenirError, DamagedError, TrainingError
from avenir.files import alone_in, remove, sweep, write_whole
from avenir.registry import code_in
from avenir.training.aligned import AlignedEncoderObjective, AlignedPredictorObjective
from avenir.training.checkpoint import STATE, load_state, save_state
from avenir.training.estimate import estimate, peak_bytes
from avenir.training.log import Log
from avenir.training.objectives import (
    DecoderObjective,
    EncoderObjective,
    Objective,
    PredictorObjective,
    make_card,
    make_source,
    trained_on,
)
from avenir.training.recipe import Recipe, how_far
from avenir.training.samples import write_samples
from avenir.training.step import TrainingStep
from avenir.world import World


def train(
    recipe: Recipe, runs: Path, folder: Path | None = None, trust: Iterable[str] = ()
) -> Path:
    """Train a recipe, its parents first, and return the run folder.

    A folder that already holds the finished run is returned as it is; an unfinished one goes on.
    Of code that is not ours, what the recipe names is run, and of its parents what `trust` names.
    """
    trust = {*trust, *code_in(recipe.model_dump())}
    folders = {
        role: train(each, runs, trust=trust) if isinstance(each, Recipe) else each
        for role, each in recipe.parents.items()
    }
    parents = {role: _finished(each, trust) for role, each in folders.items()}
    data = make_source(recipe.data)
    if data.skipped:
        say(f"{len(data.skipped)} recordings skipped:")
        for skipped in data.skipped:
            say(f"  {skipped.name}: {skipped.reason}")
    for note in data.notes:
        say(note)
    keys = {role: each.card.provenance.get("key", "unknown") for role, each in parents.items()}
    key = recipe.key(data.fingerprint, keys)
    folder = folder or runs / recipe.name
    if not _holds(folder, key):
        with alone_in(folder, "training"):
            if not _holds(folder, key):
                _claim(folder, recipe, key)
                task = make_objective(recipe, data, parents)
                task.prepare(runs, PrintedReport())
                lineage = {role: w.card.model_dump(mode="json") for role, w in parents.items()}
                _run(recipe, task, folder, key, lineage)
                return folder
    say(f"{folder} holds this run already")
    return folder


def _finished(folder: Path, trust: Iterable[str]) -> World:
    """Open a parent; TrainingError when its training has not ended."""
    world = World.load(folder, "cpu", trust)
    if (unfinished := how_far(folder, world.card)) is not None:
        raise TrainingError(
            f"{str(folder)!r} is to be stood on and is unfinished: {unfinished}; train it to the "
            "end first, by the command that began it"
        )
    return world


def make_objective(recipe: Recipe, data: Source, parents: Mapping[str, World]) -> Objective:
    """Build the world that a recipe describes, on its parents, and its task."""
    encoder = parents["tokenizer"].encoder if "tokenizer" in parents else None
    if "teacher" in parents:
        # Encoders are trained on one view at a time, predictors on frames of all of them.
        parents["teacher"].encoder.views = data.views if recipe.task == "predictor" else 1
    made_on = parents["teacher"] if recipe.taught == "encoder" else None
    drawn_to = parents["teacher"] if recipe.taught == "alignment" else None
    card = make_card(recipe, data, parents.get("tokenizer"), made_on)
    torch.manual_seed(seed_of("weights", recipe.seed))
    world = World.build(card, None if made_on is None else made_on.encoder)
    if encoder is not None:
        # What a stage adds, such as a critic, has no weights yet; everything else has.
        world.encoder.load_state_dict(encoder.state_dict(), strict=not recipe.decoder)
    world = world.to(best_device())
    if recipe.alignment is not None:
        teacher = None if drawn_to is None else drawn_to.encoder.to(best_device())
        aligned = (
            AlignedPredictorObjective if recipe.task == "predictor" else AlignedEncoderObjective
        )
        return aligned(recipe, data, world, recipe.alignment, teacher)
    kinds = {
        "encoder": EncoderObjective,
        "decoder": DecoderObjective,
        "predictor": PredictorObjective,
    }
    return kinds[recipe.task](recipe, data, world)


def cost_of(recipe: Recipe, trust: Iterable[str] = ()) -> Iterator[str]:
    """Say what training a recipe and its parents would cost; a few steps of each are timed."""
    trust = {*trust, *code_in(recipe.model_dump())}
    for parent in recipe.parents.values():
        if isinstance(parent, Recipe):
            yield from cost_of(parent, trust)
    try:
        data = make_source(recipe.data)
        data.draw("train", 1, 1, recipe.seed)  # there may be none to draw from: a person plays once
    except AvenirError as error:
        yield f"{recipe.name}: no estimate without data ({error})"
        return
    task = _untrained(recipe, data, trust)
    if not task.learns:
        yield f"{recipe.name}: nothing to train, its latents' statistics are taken"
        return
    encoder, num_frames = task.world.encoder, task.num_frames
    t, h, w = encoder.compression.latent_shape(num_frames, *data.size)
    windows = data.draw("train", num_frames, recipe.train.batch_size, recipe.seed)
    yield (
        f"{recipe.name}: windows of {num_frames} frames {data.size[0]}×{data.size[1]} are latents "
        f"{t} {encoder.channels} {h} {w} (t c h w); "
        f"{estimate(recipe, task, data.read(windows).to(best_device()))}"
    )


def _untrained(recipe: Recipe, data: Source, trust: Iterable[str]) -> Objective:
    """Make a recipe's task on parents that need not be trained: their weights cost the same."""
    parents = {
        role: _untrained(each, make_source(each.data), trust).world
        if isinstance(each, Recipe)
        else World.load(each, "cpu", trust)
        for role, each in recipe.parents.items()
    }
    return make_objective(recipe, data, parents)


def _run(
    recipe: Recipe, task: Objective, folder: Path, key: str, lineage: dict[str, dict[str, Any]]
) -> None:
    steps, device = recipe.train.steps if task.learns else 0, best_device()
    step = TrainingStep(recipe, task)
    first = _resumed(recipe.name, folder, steps, key, task, step)
    feed = batches(
        task.source,
        num_frames=task.num_frames,
        batch_size=recipe.train.batch_size,
        seed=recipe.seed,
        first_step=first,
        last_step=steps,
    )
    log, sample_steps = Log(folder, recipe.name, first, steps), _sample_steps(recipe)
    started = saved = time.monotonic()
    computing = time.process_time()
    waited, cost = 0.0, None
    with log.bar(), stopping() as stop:
        for number in range(first, steps):
            asked = time.monotonic()
            batch = next(feed).to(device)
            waited += time.monotonic() - asked
            if number == first:
                cost = estimate(recipe, task, batch)
                say(f"{recipe.name}: {cost}")
                started, computing = time.monotonic(), time.process_time()
            rng = generator("noise", recipe.seed, number, 0, device=device)
            losses = step.run(batch, Progress(number, steps, rng))
            done = number + 1
            if done % 10 == 0 or done == steps:
                log.advance(done, losses, waited / max(1e-9, time.monotonic() - started))
            if done in sample_steps and task.world.encoder.can_decode:
                step.ema.swap(task.trained)
                write_samples(task, folder / "samples", done, recipe.seed, log)
                step.ema.swap(task.trained)
            if done in recipe.train.snapshots:
                _save_average(folder / "snapshots" / f"{done:06d}", done, key, task, step)
            late = time.monotonic() - saved > recipe.train.save_seconds
            if done < steps and (stop or late):
                log.flush()
                save_state(folder, done, key, task.trained, step.optimisers, step.ema)
                _save_average(folder, done, key, task, step)
                saved = time.monotonic()
                if stop:
                    raise Interrupted(
                        f"{recipe.name} after {done} of {steps} steps", folder, stop[0]
                    )
    step.ema.swap(task.trained)
    task.world.eval()  # what follows training sees the world as those see it who load it
    task.finish(recipe.seed)
    provenance = {
        "key": key,
        "data": task.data.fingerprint,
        **trained_on(task.data),
        "parents": lineage,
        "seed": recipe.seed,
        "steps": steps,
        "steps_here": steps - first,
        "seconds_here": round(time.monotonic() - started, 3),
        "processor_seconds_here": round(time.process_time() - computing, 3),
        "seconds_estimated": None if cost is None else round(cost.seconds, 1),
        "memory_gib": round(peak_bytes() / 2**30, 2),
        "memory_gib_estimated": None if cost is None else round(cost.memory_bytes / 2**30, 2),
        "parameters": sum(p.numel() for p in task.world.parameters()),
        "torch": torch.__version__,
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "finished": True,
    }
    log.flush()
    _save_world(folder, task.world, provenance)
    remove(folder / STATE)
    if stop:  # asked at the last step: nothing is left to do here, but others may be waiting
        raise Interrupted(f"{recipe.name} after its {steps} steps", folder, stop[0])


class Interrupted(TrainingError):
    """What trains was asked to stop; everything is saved."""

    def __init__(self, what: str, folder: Path, number: int) -> None:
        super().__init__(
            f"stopped {what}; all is saved in {folder}: run the same command again to go on"
        )
        self.exit_code, self.reason = 128 + number, (what, folder, number)

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[str, Path, int]]:
        return Interrupted, self.reason  # as it goes from a process to another


def _resumed(
    name: str, folder: Path, steps: int, key: str, task: Objective, step: TrainingStep
) -> int:
    """Go on from the state that a run left, and return how many steps it has done."""
    if not (folder / STATE).exists():
        return 0
    try:
        done = load_state(folder, steps, key, task.trained, step.optimisers, step.ema)
    except DamagedError as error:
        say(f"{name}: beginning anew, for {error}")
        return 0
    say(f"{name}: going on after step {done}")
    return done


def _save_average(folder: Path, done: int, key: str, task: Objective, step: TrainingStep) -> None:
    step.ema.swap(task.trained)
    _save_world(folder, task.world, {"key": key, "steps": done, "finished": False})
    step.ema.swap(task.trained)


def _save_world(folder: Path, world: World, provenance: dict[str, object]) -> None:
    world.card = world.card.model_copy(update={"provenance": provenance})
    world.save(folder)


def is_finished(folder: Path) -> bool:
    """Say whether a folder holds a run whose training has ended."""
    card = _card_in(folder)
    finished = card is not None and card.provenance.get("finished") is True
    return finished and (folder / WEIGHTS).exists()


def _card_in(folder: Path) -> Card | None:
    """Read a card that may not be there, or be damaged, running nothing that it names."""
    try:
        return parse_card(json.loads((folder / "card.json").read_text()))
    except (OSError, ValueError, AvenirError):
        return None


def _holds(folder: Path, key: str) -> bool:
    """Say whether a folder holds this run, finished; one of another run is refused."""
    if _key_of(folder) not in ("", key):
        card = _card_in(folder)
        if card is not None and card.format < FORMAT:
            raise TrainingError(
                f"{folder} holds a run of an earlier version of avenir (format {card.format}, "
                f"today {FORMAT}); it can be used, but its training cannot go on: settings and "
                "weights have other names now. Finish it with that version, name another folder "
                "with --out, or remove it"
            )
        raise TrainingError(
            f"{folder} holds a run of another recipe, or of other data or parents (compare its "
            "recipe.toml): name another folder with --out, or remove it; an encoder trained "
            "for a predictor needs another name, tokenizer.name=NAME"
        )
    if not (_key_of(folder) and is_finished(folder)):
        return False
    remove(folder / STATE)  # of a run that was cut just then
    return True


def _claim(folder: Path, recipe: Recipe, key: str) -> None:
    """Make the folder this run's own, without what one that was killed left unfinished."""
    sweep(folder)
    if not _key_of(folder):
        write_whole(folder / "recipe.toml", recipe.toml())
        write_whole(folder / "key", key)


def _key_of(folder: Path) -> str:
    """Return the key of the run that a folder is of; of none, it is empty."""
    marker = folder / "key"
    return marker.read_text(errors="replace") if marker.is_file() else ""


def _sample_steps(recipe: Recipe) -> set[int]:
    count, steps = recipe.train.num_samples, recipe.train.steps
    return {round(steps * (i + 1) / count) for i in range(count)}


@contextmanager
def stopping() -> Iterator[list[int]]:
    """Collect Ctrl-C, SIGTERM and SIGHUP in a list, to be looked at between steps.

    A second Ctrl-C ends at once: what was saved before is whole.
    """
    asked: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in asked:
            raise KeyboardInterrupt
        asked.append(number)
        if number == signal.SIGHUP:
            hush()
        say("stopping after this step …")

    taken = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as `nohup` has it
        taken.append(signal.SIGHUP)
    try:
        old = {number: signal.signal(number, remember) for number in taken}
    except ValueError:  # signals can only be caught in the main thread
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
