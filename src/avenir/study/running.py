"""From cells to rows: what a cell stands on is trained once, in parallel one-thread processes.

Runs are named by what they are made of: nothing is trained twice, and a study that was killed goes
on where it was. Knows nothing of verdicts.
"""

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch

from avenir import console
from avenir.card import seconds_per_step
from avenir.clip import Clip
from avenir.console import say
from avenir.device import best_device, generator
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.independence import check_judge
from avenir.evaluation.probing.passport import measure_passports
from avenir.evaluation.probing.passport_results import Passport, PassportConfig
from avenir.evaluation.questions.generation import SetScorer
from avenir.evaluation.readers.readout import readout_of
from avenir.evaluation.report.side_by_side import Column
from avenir.files import alone_in, make_folder, write_whole
from avenir.signals import observed
from avenir.splits import Split
from avenir.study import Cell, Study, run_folder
from avenir.study.comparison import ArmRun
from avenir.training.loop import Interrupted, is_finished, stopping, train
from avenir.training.recipe import Recipe
from avenir.world import World

_PASSPORT_CLIPS = 128
"""Most clips of a passport: it is ranked, not published."""


class Job(NamedTuple):
    """One thing to do in a process of its own, once what it needs is done."""

    what: str
    kind: str
    """Jobs of one kind take about as long."""
    needs: frozenset[Path]
    call: Callable[..., None]
    arguments: tuple[Any, ...]


def run(study: Study, seeds: Sequence[int], workers: int) -> None:
    """Train and measure every cell of some seeds that has no row yet, choosing settings first.

    What no choice changes of the seeds, their encoders, is trained by workers that have to wait.
    """
    protocol = study.protocol
    choices = range(len(protocol.grid))
    tried = [Cell(a, protocol.development_seed, c) for a in protocol.arms for c in choices]
    if any(study.row(cell) is None for cell in tried):
        coming = [
            [study.recipe(Cell(arm, seed, choice)).parents["tokenizer"] for choice in choices]
            for seed in seeds
            for arm in protocol.arms
        ]
        ahead = [first for first, *others in coming if all(each == first for each in others)]
        execute(study, tried, workers, ahead)
    cells = [Cell(arm, seed, study.chosen(arm)) for seed in seeds for arm in protocol.arms]
    execute(study, cells, workers)


def execute(
    study: Study, cells: Sequence[Cell], workers: int, ahead: Sequence[Recipe | Path] = ()
) -> None:
    """Do what cells need, in parallel processes of one thread each; and what later ones will."""
    version = commit()
    jobs: dict[Path, Job] = {}
    for cell in cells:
        if study.row(cell) is not None:
            continue
        runs = study.folder / "runs"
        folder = lay_out(study.recipe(cell), runs, jobs, study.trust)
        needs = {folder}
        if isinstance(study.judge, Recipe):
            needs.add(lay_out(study.judge, runs, jobs, study.trust))
        path = study.folder / "rows" / f"{cell.name}.json"
        opened = (study.path, study.overrides, study.folder, study.trust)
        arguments = (opened, cell, folder, path, version)
        jobs[path] = Job(f"measure {cell.name}", "measure", frozenset(needs), measure, arguments)
    for recipe in ahead:
        if isinstance(recipe, Recipe):
            lay_out(recipe, study.folder / "runs", jobs, study.trust)
    total, done, took = len(jobs), set[Path](), defaultdict[str, list[float]](list)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with (
        alone_in(study.folder, "study"),
        stopping() as asked,
        ProcessPoolExecutor(workers, context, _prepare, (os.getpid(), stop)) as pool,
        _telling(stop),
    ):
        # What is running, its kind and when it began; none when it is there from before.
        running: dict[Future[None], tuple[Path, str, float | None]] = {}
        while jobs or running:
            if asked:
                raise Interrupted(f"after {len(done)} of {total} runs", study.folder, asked[0])
            for path in [p for p, job in jobs.items() if job.needs <= done]:
                if len(running) < workers:
                    job = jobs.pop(path)
                    say(f"study: {job.what}")
                    found, began = is_finished(path), time.monotonic()
                    begun = pool.submit(_call, job, path)
                    running[begun] = path, job.kind, None if found else began
            finished, _ = wait(running, 0.5, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
                path, kind, began = running.pop(future)
                done.add(path)
                if began is not None:
                    took[kind].append(time.monotonic() - began)
                waiting = [job.kind for path, job in jobs.items() if not is_finished(path)]
                waiting += [kind for _, kind, began in running.values() if began is not None]
                left = seconds_left(waiting, took, workers)
                more = "" if left is None else f", about {left / 60:.0f} min left"
                say(f"study: {len(done)} of {total} runs done{more}")


def seconds_left(
    waiting: Sequence[str], took: Mapping[str, Sequence[float]], workers: int
) -> float | None:
    """Estimate how long jobs will take by those of their kind, or by all when it has none yet."""
    known = [seconds for kind in took.values() for seconds in kind]
    if not known:
        return None
    every = mean(known)
    return sum(mean(took[kind]) if took.get(kind) else every for kind in waiting) / workers


def lay_out(
    recipe: Recipe, runs: Path, jobs: dict[Path, Job], trust: frozenset[str] = frozenset()
) -> Path:
    """Add a recipe and all it stands on to the jobs, each in a folder named by its content."""
    parents = {
        role: lay_out(each, runs, jobs, trust) if isinstance(each, Recipe) else each
        for role, each in recipe.parents.items()
    }
    folder = run_folder(recipe, runs)
    needs = frozenset(path for path in parents.values() if path in jobs)
    arguments = (recipe.on(parents), runs, folder, trust)
    jobs[folder] = Job(f"train {folder.name}", recipe.name, needs, _train, arguments)
    return folder


def _train(recipe: Recipe, runs: Path, folder: Path, trust: frozenset[str]) -> None:
    train(recipe, runs, folder, trust)


Opened = tuple[Path, tuple[str, ...], Path, frozenset[str]]
"""What a study is opened by: its protocol, overrides, folder, and whose code it may run."""


def measure(
    opened: Opened,
    cell: Cell,
    run_folder: Path,
    row_path: Path,
    version: str,
) -> None:
    """Measure the snapshots of a cell's finished run and write its row."""
    study = _opened(*opened)
    world = World.load(run_folder, trust=study.trust)
    check_judge(study.evaluator.card, world.card)
    judge = _judge(study, study.split(cell))
    codec = judge.encoder(world.encoder)
    curves: dict[str, list[float]] = {}
    steps = study.snapshots(cell)
    for step in steps:
        snapshot = World.load(run_folder / "snapshots" / f"{step:06d}", trust=study.trust)
        for name, mark in judge.world(snapshot).items():
            curves.setdefault(name, []).append(mark)
    row = ArmRun(
        protocol=study.hash,
        arm=cell.arm,
        seed=cell.seed,
        choice=cell.choice,
        steps=steps,
        marks={name: tuple(values) for name, values in curves.items()},
        real=judge.real,
        codec=codec,
        held=judge.last_frame_held(),
        seconds=seconds_of(world),
        passport=_passport(study, world, cell.arm) if study.protocol.passport else None,
        commit=version,
        device=world.card.provenance.get("device", "unknown"),
    )
    write_whole(row_path, row.model_dump_json(indent=1))


def _passport(study: Study, world: World, name: str) -> Passport:
    num_frames = study.protocol.past + study.protocol.horizon
    num_clips = min(_PASSPORT_CLIPS, study.protocol.num_clips)
    settings = PassportConfig(num_clips=num_clips, num_frames=num_frames)
    found = measure_passports({name: world}, study.source, settings, study.evaluator)
    return found.passports[0]


@cache
def _opened(path: Path, overrides: tuple[str, ...], folder: Path, trust: frozenset[str]) -> Study:
    """Open a study once in a process."""
    return Study(path, overrides, folder, trust)


@cache
def _judge(study: Study, split: Split) -> SetScorer:
    """Make the judge of the cells of a split once in a process: its real clips are the same."""
    protocol = study.protocol
    source = study.source.labelled()
    windows = source.spread(split, protocol.past + protocol.horizon, protocol.num_clips)
    task = HeldOut(source, windows, protocol.past, protocol.horizon, 1, 16, 0)
    readout = readout_of(source, study.evaluator, best_device())
    return SetScorer(task, study.evaluator.encoder, readout)


def seconds_of(world: World) -> dict[str, float]:
    """Return what every run under a world took in all, and its own time per step."""
    provenance = world.card.provenance
    seconds = {"per_step": _per_step(provenance)}

    def add(parents: Mapping[str, Any]) -> None:
        for card in parents.values():
            below = card["provenance"]
            seconds[card["name"]] = _per_step(below) * below["steps"]
            add(below.get("parents", {}))

    add(provenance["parents"])
    return seconds


def _per_step(provenance: Mapping[str, Any]) -> float:
    seconds = seconds_per_step(provenance)
    assert seconds is not None
    return seconds


@torch.no_grad()
def films(study: Study, num_clips: int = 2) -> list[Column]:
    """Imagine the same held-out clips with every arm's world, early, half-way and at the end.

    With worlds of the first seed; nothing where they are not at hand.
    """
    protocol, source = study.protocol, study.source
    frames = protocol.past + protocol.horizon
    every = source.spread("test", frames, 64)
    # From the middle of as many parts: of different recordings, where they are long.
    chosen = {(2 * i + 1) * len(every) // (2 * num_clips) for i in range(num_clips)}
    batch = source.read([every[i] for i in sorted(chosen)])
    assert batch.video is not None
    past, true = batch.video.split((protocol.past, protocol.horizon), dim=1)
    steering = observed(batch.signals, protocol.past, source.signals)
    last = len(protocol.snapshots) - 1
    steps = [protocol.snapshots[index] for index in sorted({0, last // 2, last})]
    columns = []
    for arm in protocol.arms:
        cell = Cell(arm, protocol.seeds[0], study.chosen(arm))
        run = run_folder(study.recipe(cell), study.folder / "runs")
        snapshots = {step: run / "snapshots" / f"{step:06d}" for step in steps}
        if not all(path.exists() for path in snapshots.values()):
            return []
        column = Column(arm, [], [], {})
        for step, path in snapshots.items():
            world = World.load(path, trust=study.trust)
            rng = generator("film", device=world.encoder.latent_mean.device)
            pieces = world.imagine(past, steering, protocol.horizon, 1, rng)
            made = torch.cat([piece.cpu() for piece in pieces], dim=1)
            for name, seen, video in zip(batch.names, true, made, strict=True):
                title = f"{step:,} steps: {name}"
                column.seen.append(Clip.from_video(seen[None], source.fps, title))
                column.made.append(Clip.from_video(video[None], source.fps, title))
        columns.append(column)
    return columns


def commit() -> str:
    """Return the commit of the code, marked when files differ from it; `unknown` outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _call(job: Job, path: Path) -> None:
    """Run a job in its process, what it says going to a file beside what it makes."""
    make_folder(path.parent)
    with (path.parent / f"{path.name}.log").open("a") as file:
        console.console.file = file
        job.call(*job.arguments)


@contextmanager
def _telling(stop: Event) -> Iterator[None]:
    """Tell workers to save and stop when anything ends the study early."""
    try:
        yield
    except BaseException:
        stop.set()
        raise


def _prepare(parent: int, stop: Event) -> None:
    """Prepare a worker: one thread, stopped when told, and no life after its parent's.

    Ctrl-C reaches all processes of a terminal: what it means is for the parent to say.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent and not stop.wait(0.5):
            pass
        if not stop.is_set():
            os._exit(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
