"""Write docs/settings.md, the reference of every setting, from the settings themselves.

    python scripts/settings.py

Every setting's docstring is its line in the tables, so the page cannot differ from the code.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from avenir.config import Config
from avenir.losses.alignment import AlignmentConfig
from avenir.registry import ROLES, find, kinds
from avenir.training.recipe import Recipe, TrainConfig

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
ABOVE = """# Settings

Every setting of a recipe, its default and its meaning. `python scripts/settings.py` writes this
page from the code: change the docstring of a setting, not this page. How a recipe is written is in
[Recipes](recipes.md).

"""
TABLES = {"data": "data", "encoders": "encoder", "conditioners": "conditioner"}
TABLES |= {"predictors": "predictor"}


def tables() -> Iterator[str]:
    """Yield the lines of every table: the recipe, its training, then kind after kind."""
    yield from table("The recipe", Recipe, leave_out=("train",))
    yield from table("`[train]`", TrainConfig)
    yield from table("`[alignment]`", AlignmentConfig, leave_out=())
    for role in ROLES:
        for kind in kinds(role):
            yield from table(f'`[{TABLES[role]}]` kind = "{kind}"', find(role, kind).Config)


def table(
    title: str, config: type[Config], leave_out: tuple[str, ...] = ("kind",)
) -> Iterator[str]:
    """Yield one table under its title."""
    about = (config.__doc__ or "").strip().partition("\n")[0]
    yield from (f"## {title}", "", about, "", "| setting | default | meaning |", "|---|---|---|")
    yield from rows(config, "", leave_out)
    yield ""


def rows(config: type[Config], prefix: str, leave_out: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield a row for every setting; those of a table inside come under its name."""
    for name, field in config.model_fields.items():
        kind: Any = field.annotation
        if name in leave_out:
            continue
        if isinstance(kind, type) and issubclass(kind, Config):
            yield from rows(kind, f"{prefix}{name}.")
            continue
        default = "must be given" if field.is_required() else written(field.default)
        meaning = " ".join((field.description or "").split())
        if get_origin(kind) is Literal:
            meaning += f" One of {', '.join(f'`{choice}`' for choice in get_args(kind))}."
        yield f"| `{prefix}{name}` | {default} | {meaning.replace('|', chr(92) + '|')} |"


def written(value: Any) -> str:
    """Write a default as TOML would have it."""
    return "none" if value is None else f"`{json.dumps(value)}`"


def page() -> str:
    """Return the page as it should be."""
    return ABOVE + "\n".join(tables()).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
