"""`avenir evaluate`: how good a run is on video it was not trained on, and a page to see it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from avenir.cli.arguments import (
    Clips,
    Evaluator,
    Overrides,
    Run,
    Seed,
    Trust,
    opened,
    whole_numbers,
)


def evaluate(
    run: Run,
    overrides: Overrides = None,
    clips: Clips = 64,
    observe: Annotated[
        float | None,
        typer.Option(min=0.01, help="Seconds that are observed; 1, of text what is remembered."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.01, help="Seconds to imagine; 2, of text what is written at once."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Futures whose mean is judged too.")] = 8,
    steps: Annotated[
        str, typer.Option(help="Also draw sets of clips in so many steps: 1,2,4,8")
    ] = "",
    evaluator: Evaluator = None,
    question: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE", help="A question of yours, my_lab.my_question; repeatable."),
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; `evaluation` in the run unless said.")
    ] = None,
    trust: Trust = None,
) -> None:
    """Measure reconstruction and continuation beside their baselines, and write the report.

    Of a world of text, where a byte is a second: what held-out bytes cost, and what another such
    world, the evaluator, makes of what it writes in 1, 2, 4, … steps.
    """
    from avenir.console import PrintedReport, say
    from avenir.evaluation import EvaluationConfig
    from avenir.evaluation import evaluate as judge
    from avenir.files import read_text
    from avenir.training.objectives import make_source
    from avenir.training.recipe import data_of

    world = opened(run, trust)
    source = make_source(data_of(run, overrides or [], trust or ()))
    is_text = world.modality == "text"
    settings = EvaluationConfig.parse(
        {
            "num_clips": clips,
            "past_seconds": observe or (None if is_text else 1.0),
            "horizon_seconds": seconds or (None if is_text else 2.0),
            "num_samples": samples,
            "questions": question or (),
            "steps": whole_numbers(steps, "--steps"),
            "seed": seed,
        }
    )
    folder = out or run / "evaluation"
    recipe = read_text(run / "recipe.toml")
    command = " ".join(["avenir", *sys.argv[1:]])
    other = None if evaluator is None else opened(evaluator, trust)
    if is_text:
        from avenir.evaluation.questions.text import evaluate_text
        from avenir.evaluation.text_page import write_text_report

        found = evaluate_text(world, source, settings, command, other, PrintedReport())
        write_text_report(folder, found, recipe, world.card.provenance)
    else:
        judge(world, source, settings, folder, recipe, command, other, PrintedReport())
    say(f"report: {folder / 'report.html'}")
