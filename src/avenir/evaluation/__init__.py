"""Is it any good? One file per question, and one page that answers them together.

`evaluate` measures what applies to a world: what its encoder keeps, how its continuation ages
beside what needs no world, whether its actions matter, and, where there is a key to the truth,
where things really are. It trains nothing and prints nothing.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avenir.data import Source
from avenir.device import seed_of
from avenir.errors import AvenirError
from avenir.evaluation.held_out import Task
from avenir.evaluation.nearest_decoder import groups_in, with_album
from avenir.evaluation.questions.action_control import measure_control, measure_counterfactuals
from avenir.evaluation.questions.box_control import measure_box_control
from avenir.evaluation.questions.generation import Generation, measure_generation
from avenir.evaluation.questions.latent_actions import measure_agreement
from avenir.evaluation.questions.likelihood import measure_likelihood
from avenir.evaluation.questions.novel_views import ImaginedViews, Looks, measure_imagined_views
from avenir.evaluation.questions.prediction import Example, measure_continuation
from avenir.evaluation.questions.reconstruction import measure_reconstruction
from avenir.evaluation.questions.text_control import Reader, measure_obedience
from avenir.evaluation.readers.readout import Readout, evaluator_for, labelled
from avenir.evaluation.report.page import write_report
from avenir.evaluation.results import Evaluation
from avenir.evaluation.settings import EvaluationConfig, Report
from avenir.world import World

__all__ = ["Evaluation", "EvaluationConfig", "evaluate"]


_HORIZON_SECONDS = 4.0
_BATCH_NUMBERS, _BATCH_CLIPS = 2**24, 16
"""Most numbers (64 MiB), and most clips, that are in work together."""


def evaluate(
    world: World,
    source: Source,
    settings: EvaluationConfig,
    folder: Path,
    recipe: str = "",
    command: str = "",
    evaluator: World | None = None,
    report: Report = lambda what, done, total: None,
) -> Evaluation:
    """Measure what applies to a world on held-out recordings and write it into `folder`.

    Writes `results.json`, `report.html` and, for a world that predicts, `contact_sheet.png`.
    `recipe` and `command` are quoted on the page; `report` is told of progress. Sets of clips are
    compared in the features of `evaluator`, or of the one that ships for the data; one that was
    given and may not judge is an error.
    """
    started = time.monotonic()
    task = _task(world, source, settings)
    if settings.steps and (world.predictor is None or world.predictor.num_steps is None):
        raise AvenirError(
            f"{world.card.name!r} was to draw in {settings.steps} steps, and it has no predictor "
            "that draws in steps, such as kinds 'flow' and 'masked': leave the steps out"
        )
    if world.predictor is not None:
        world = with_album(world, source, report)
    # The reader says how it does on real frames before it judges any other.
    readout = Readout.of(task.source, world.encoder.latent_mean.device)
    reading = readout.held_out(task.source) if readout else None
    reconstruction = measure_reconstruction(
        world.encoder, task.source, task.windows, task.batch_size, task.seed, report
    )
    continuation = control = counterfactuals = agreement = generation = likelihood = None
    left_out, obedience, boxes = None, None, None
    views: tuple[ImaginedViews, Looks] | None = None
    examples: list[Example] = []
    if world.predictor is not None:
        continuation, examples = measure_continuation(
            world, task, settings.num_train_windows, settings.num_examples, readout, report
        )
        generation, left_out = _generation(world, task, evaluator, readout, report, settings.steps)
        likelihood = measure_likelihood(world, task, report)
        if "actions" in world.takes:
            control = measure_control(world, task, readout, report)
            counterfactuals = measure_counterfactuals(world, task, readout, report)
        if "caption" in world.takes:
            reader = Reader.shipped(world.encoder.latent_mean.device)
            obedience = measure_obedience(world, task, reader, report)
        if "boxes" in world.takes:
            boxes = measure_box_control(world, task, readout, report)
        views = measure_imagined_views(world, task, report)
        if task.discover is not None:
            agreement = measure_agreement(task.discover, task, world.encoder.compression.t, report)
    evaluation = Evaluation(
        world=world.card.name,
        key=world.card.provenance.get("key"),
        source=type(source).__name__.lower(),
        fingerprint=source.fingerprint,
        fps=source.fps,
        size=source.size,
        settings=settings,
        command=command,
        seconds=round(time.monotonic() - started, 1),
        readout=reading,
        album=groups_in(world),
        reconstruction=reconstruction,
        continuation=continuation,
        generation=generation,
        left_out=left_out,
        likelihood=likelihood,
        control=control,
        counterfactuals=counterfactuals,
        agreement=agreement,
        obedience=obedience,
        boxes=boxes,
        imagined_views=None if views is None else views[0],
    )
    looks = None if views is None else views[1]
    write_report(folder, evaluation, examples, recipe, world.card.provenance, looks)
    return evaluation


def _generation(
    world: World,
    task: Task,
    given: World | None,
    readout: Readout | None,
    report: Report,
    steps: Sequence[int],
) -> tuple[Generation | None, str | None]:
    """Compare sets of clips, or say why not; an evaluator that was asked for must do."""
    device = world.encoder.latent_mean.device
    evaluator = given or evaluator_for(task.source, device)
    if evaluator is None:
        return None, "no evaluator ships for this data: name a run of your own with --evaluator"
    try:
        return measure_generation(world, task, evaluator, readout, report, steps), None
    except AvenirError as error:
        if given is not None:
            raise
        return None, str(error)


def _task(world: World, source: Source, settings: EvaluationConfig) -> Task:
    """Choose windows, in an order that puts different recordings next to each other."""
    if source.fps != world.card.fps or source.size != world.card.size:
        raise AvenirError(
            f"the data gives frames of {source.size} at {source.fps:g} fps; "
            f"{world.card.name!r} lives at {world.card.size} and {world.card.fps:g} fps: "
            "give the data at the world's size and rate"
        )
    source = labelled(source)
    past = _num_past(world, settings)
    horizon = max(1, round((settings.horizon_seconds or _HORIZON_SECONDS) * source.fps))
    windows = source.spread("test", past + horizon, settings.num_clips)
    order = np.random.default_rng(seed_of("order", settings.seed)).permutation(len(windows))
    numbers = (past + horizon) * 3 * source.size[0] * source.size[1]
    return Task(
        source,
        [windows[int(i)] for i in order],
        past,
        horizon,
        settings.num_samples,
        batch_size=max(2, min(_BATCH_CLIPS, _BATCH_NUMBERS // numbers)),
        seed=settings.seed,
        discover=world.discovered if world.discovers else None,
    )


def _num_past(world: World, settings: EvaluationConfig) -> int:
    """Return how many frames are observed, whole groups of them."""
    if world.predictor is None:
        return 0
    f_t = world.encoder.compression.t
    if settings.past_seconds is None:
        return f_t * max(1, world.predictor.num_train_frames // 3)
    return f_t * max(1, round(settings.past_seconds * world.card.fps / f_t))
