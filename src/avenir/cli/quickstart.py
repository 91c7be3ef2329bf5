"""`avenir quickstart`: a small world end to end, offline, on a laptop's CPU."""

from pathlib import Path
from typing import Annotated

import typer

from avenir.cli.arguments import Clips, Overrides, Runs


def quickstart(
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    clips: Clips = 64,
    seconds: Annotated[float, typer.Option(help="Seconds to imagine.")] = 1.0,
) -> None:
    """Train a small driving world in minutes, continue clips it never saw, and write a report."""
    from avenir.cli.evaluate import evaluate
    from avenir.console import say
    from avenir.registry import code_in
    from avenir.training.loop import train
    from avenir.training.recipe import find_recipe, load_recipe

    recipe = load_recipe(find_recipe(Path("quickstart.toml")), overrides or [])
    folder = train(recipe, runs)
    trust = code_in(recipe.model_dump())
    evaluate(
        folder, [], trust=trust, clips=clips, observe=0.8, seconds=seconds, samples=4, out=None
    )
    say(f"next: avenir predict {folder} your.mp4, or your own video: recipes/robot.toml")
