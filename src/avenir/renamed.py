"""Names that settings and weights had in earlier formats, and what they are called today.

This table is the only place that knows old names. Cards and the recipes in run folders are brought
up to date while they are read; a recipe that a user gives has to use today's names.
"""

from collections.abc import Iterable, Mapping
from typing import Any

FORMAT = 2
"""Version of a world's folder. 1 had the names on the left below."""

_SETTINGS: dict[str, dict[str, str]] = {
    "data": {"detours": "held_action_fraction"},
    "predictor": {
        "full_past": "full_past_probability",
        "scratch": "unconditional_probability",
        "forcing": "diffusion_forcing_probability",
        "own_past": "self_forcing",
    },
    "alignment": {"within": "reduction", "let_go": "decay_fraction", "keep": "final_share"},
}
"""By the table that they are in, of a recipe or a card."""

_WEIGHTS: dict[str, dict[str, str]] = {
    "conditioner": {
        "nothing": "null",
        "all_told": "complete",
        "see": "backbone",
        "where": "attend",
        "say": "project",
        "foretell": "predict",
    }
}
"""By the role that they are in: parts of dotted names."""


def settings(table: Any) -> Any:
    """Return a card or a recipe, with all that lies in it, under today's names.

    Kinds with a dotted name are not avenir's: their settings stay as they are.
    """
    if not isinstance(table, Mapping):
        return table
    return {key: _renamed(key, settings(value)) for key, value in table.items()}


def _renamed(name: str, table: Any) -> Any:
    names = _SETTINGS.get(name, {})
    if not isinstance(table, Mapping) or "." in str(table.get("kind")):
        return table
    return {names.get(key, key): value for key, value in table.items()}


def weights(names: Iterable[str]) -> dict[str, str]:
    """Say what each weight of a world's folder is called today."""
    return {name: _weight(name) for name in names}


def _weight(name: str) -> str:
    role, *parts = name.split(".")
    names = _WEIGHTS.get(role, {})
    return ".".join([role, *(names.get(part, part) for part in parts)])


def today(setting: str) -> str | None:
    """Say what a setting with an old name is called; None where no name was changed."""
    every = {old: new for names in _SETTINGS.values() for old, new in names.items()}
    return every.get(setting)
