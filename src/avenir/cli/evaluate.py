"""`avenir evaluate`: how good a run is on video it was not trained on, and a page to see it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from avenir.cli.arguments import Clips, Evaluator, Observe, Overrides, Run, Seconds, Seed


def evaluate(
    run: Run,
    overrides: Overrides = None,
    clips: Clips = 64,
    observe: Observe = 1.0,
    seconds: Seconds = 2.0,
    samples: Annotated[int, typer.Option(min=1, help="Futures whose mean is judged too.")] = 8,
    evaluator: Evaluator = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; `evaluation` in the run unless said.")
    ] = None,
) -> None:
    """Measure reconstruction and continuation beside their baselines, and write the report."""
    from avenir.evaluation import EvaluationConfig
    from avenir.evaluation import evaluate as judge
    from avenir.training.log import Preparation, say
    from avenir.training.recipe import data_of
    from avenir.training.tasks import make_source
    from avenir.world import load

    world = load(run)
    source = make_source(data_of(run, overrides or []))
    settings = EvaluationConfig.parse(
        {
            "num_clips": clips,
            "past_seconds": observe,
            "horizon_seconds": seconds,
            "num_samples": samples,
            "seed": seed,
        }
    )
    folder = out or run / "evaluation"
    recipe = (run / "recipe.toml").read_text()
    command = " ".join(["avenir", *sys.argv[1:]])
    other = None if evaluator is None else load(evaluator)
    judge(world, source, settings, folder, recipe, command, other, Preparation())
    say(f"report: {folder / 'report.html'}")
