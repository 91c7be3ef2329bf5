"""Is it any good? One file per question, and one page that answers them together.

`evaluate` measures what applies to a world: what its encoder keeps, how its continuation ages
beside what needs no world, whether its actions matter, and, where there is a key to the truth,
where things really are. It trains nothing and prints nothing.
"""

import time
from pathlib import Path

import numpy as np

from avenir.console import Report, silent
from avenir.data import Source
from avenir.device import seed_of
from avenir.errors import AvenirError
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.nearest_decoder import groups_in, with_nearest_decoder
from avenir.evaluation.page import evaluation_page
from avenir.evaluation.question import Measured, Question, QuestionInputs, find_questions
from avenir.evaluation.readers.readout import Readout
from avenir.evaluation.results import Evaluation
from avenir.evaluation.settings import EvaluationConfig
from avenir.files import write_whole
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
    report: Report = silent,
) -> Evaluation:
    """Measure what applies to a world on held-out recordings and write it into `folder`.

    Writes `results.json`, `report.html` and, for a world that predicts, `contact_sheet.png`.
    `recipe` and `command` are quoted on the page; `report` is called with progress. Sets of clips
    are compared in the features of `evaluator`, or of the one that ships for the data; one that was
    given and may not judge is an error.
    """
    started = time.monotonic()
    held_out = _held_out(world, source, settings)
    if settings.steps and (world.predictor is None or world.predictor.num_steps is None):
        raise AvenirError(
            f"{world.card.name!r} was to draw in {settings.steps} steps, and it has no predictor "
            "that draws in steps, such as kinds 'flow' and 'masked': leave the steps out"
        )
    every = find_questions(settings.questions)
    if world.predictor is not None:
        world = with_nearest_decoder(world, source, report)
    # The reader says how it does on real frames before it judges any other.
    readout = Readout.of(held_out.source, world.encoder.latent_mean.device)
    reading = None if readout is None else readout.held_out(held_out.source)
    asked = QuestionInputs(world, held_out, settings, report, readout, evaluator)
    answered: list[tuple[Question, Measured]] = []
    for question in every:
        measured = question.measure(asked) if question.applies(asked) else None
        if measured is not None:
            answered.append((question, measured))
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
        nearest_decoder=groups_in(world),
        results={question.name: measured.answer for question, measured in answered},
    )
    write_whole(folder / "results.json", evaluation.model_dump_json(indent=2) + "\n")
    for _, measured in answered:
        for name, content in measured.files.items():
            write_whole(folder / name, content)
    provenance = world.card.provenance
    html = evaluation_page(evaluation, answered, held_out, recipe, provenance)
    write_whole(folder / "report.html", html)
    return evaluation


def _held_out(world: World, source: Source, settings: EvaluationConfig) -> HeldOut:
    """Choose windows, in an order that puts different recordings next to each other."""
    if source.fps != world.card.fps or source.size != world.card.size:
        raise AvenirError(
            f"the data gives frames of {source.size} at {source.fps:g} fps; "
            f"{world.card.name!r} lives at {world.card.size} and {world.card.fps:g} fps: "
            "give the data at the world's size and rate"
        )
    source = source.labelled()
    past = _num_past(world, settings)
    horizon = max(1, round((settings.horizon_seconds or _HORIZON_SECONDS) * source.fps))
    windows = source.spread("test", past + horizon, settings.num_clips)
    order = np.random.default_rng(seed_of("order", settings.seed)).permutation(len(windows))
    numbers = (past + horizon) * 3 * source.size[0] * source.size[1]
    return HeldOut(
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
