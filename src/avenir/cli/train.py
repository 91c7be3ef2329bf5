"""`avenir train`: a recipe in, a run folder out."""

from pathlib import Path
from typing import Annotated

import typer

from avenir.cli.arguments import Overrides, Runs, Trust


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe file: recipes/robot.toml")],
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Another folder for this run.")] = None,
    trust: Trust = None,
) -> None:
    """Train a recipe, and first the recipe of its encoder if that has not been trained yet.

    Ctrl-C saves; the same command goes on. A finished run is not trained again.
    """
    from avenir.console import say
    from avenir.training.loop import train as run
    from avenir.training.recipe import find_recipe, load_recipe

    wanted = load_recipe(find_recipe(recipe), overrides or [], trust or ())
    folder = run(wanted, runs, out, trust or ())
    say(f"done: {folder}")
