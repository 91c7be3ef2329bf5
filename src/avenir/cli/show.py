"""`avenir show`: what a recipe or a run is, in full."""

from pathlib import Path
from typing import Annotated

import typer

from avenir.cli.arguments import Overrides


def show(
    what: Annotated[Path, typer.Argument(help="A recipe file or a run folder.")],
    overrides: Overrides = None,
) -> None:
    """Print the resolved recipe, and what training it would cost; or the card of a run."""
    if (what / "card.json").exists():
        print((what / "recipe.toml").read_text())
        print((what / "card.json").read_text())
        return
    from avenir.training.recipe import find_recipe, load_recipe

    recipe = load_recipe(find_recipe(what), overrides or [])
    print(recipe.toml())
    from avenir.training.loop import cost_of

    for line in cost_of(recipe):
        print(line)
