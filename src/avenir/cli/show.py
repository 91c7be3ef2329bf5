"""`avenir show`: what a recipe or a run is, in full."""

from pathlib import Path
from typing import Annotated

import typer

from avenir.cli.arguments import Overrides, Trust


def show(
    what: Annotated[Path, typer.Argument(help="A recipe file or a run folder.")],
    overrides: Overrides = None,
    trust: Trust = None,
) -> None:
    """Print the resolved recipe, and what training it would cost; or the card of a run."""
    from avenir.files import read_text

    if (what / "card.json").exists():
        for file in (what / "recipe.toml", what / "card.json"):
            if file.exists():
                print(read_text(file))
        return
    from avenir.training.recipe import find_recipe, load_recipe

    recipe = load_recipe(find_recipe(what), overrides or [], trust or ())
    print(recipe.toml())
    from avenir.training.loop import cost_of

    for line in cost_of(recipe, trust or ()):
        print(line)
