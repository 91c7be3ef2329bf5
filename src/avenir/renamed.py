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
    "weights": {"foretold": "prediction"},
    "parents": {"encoder": "tokenizer"},
    "alignment": {"within": "reduction", "let_go": "decay_fraction", "keep": "final_share"},
}
"""By the table that they are in, of a recipe or a card."""

_STAGES = ("encoder", "tokenizer")
"""What a recipe has one of: an encoder to train, or the recipe of one that it stands on."""

_ABSENT = {
    "predictor": {"unconditional_probability", "inpainting", "self_forcing"},
    "data": {"held_action_fraction"},
}
"""Settings that format 1 did not write where they were off, as they are at 0."""

_PROJECTIONS = {"enter": "proj_in", "leave": "proj_out"}

_WEIGHTS: dict[str, dict[str, str]] = {
    "encoder": {**_PROJECTIONS, "foretell": "predictor", "tally": "code_usage"},
    "predictor": {**_PROJECTIONS, "enter_condition": "proj_condition", "where": "pos_embed"},
    "conditioner": {
        **_PROJECTIONS,
        "nothing": "null",
        "all_told": "complete",
        "see": "backbone",
        "where": "attend",
        "say": "project",
        "foretell": "predict",
    },
}
"""By the role that they are in: parts of dotted names."""


def settings(table: Any) -> Any:
    """Return a card or a recipe, with all that lies in it, under today's names.

    Kinds with a dotted name are not avenir's: their settings stay as they are.
    """
    if not isinstance(table, Mapping):
        return table
    inner = {key: _renamed(key, settings(value)) for key, value in table.items()}
    if inner.get("task") in ("decoder", "predictor"):  # the recipe that they stand on
        return {"tokenizer" if key == "encoder" else key: value for key, value in inner.items()}
    return inner


def _renamed(name: str, table: Any) -> Any:
    names = _SETTINGS.get(name, {})
    if not isinstance(table, Mapping) or "." in str(table.get("kind")):
        return table
    return {names.get(key, key): value for key, value in table.items()}


def originals(table: Any, name: str = "") -> Any:
    """Return a recipe, found under `name`, as format 1 wrote it: published hashes are of that."""
    if not isinstance(table, Mapping):
        return table
    inner = {key: originals(value, key) for key, value in table.items()}
    if "task" in inner:  # of a recipe, the parent
        inner = {key: inner[key] for key in inner if inner[key] is not None or key not in _STAGES}
        return {"encoder" if key == "tokenizer" else key: value for key, value in inner.items()}
    if "." in str(inner.get("kind")):
        return inner
    absent, names = _ABSENT.get(name, set()), _original_names(name)
    shown = {key: value for key, value in inner.items() if value or key not in absent}
    return {names.get(key, key): value for key, value in shown.items()}


def original_word(override: str) -> str:
    """Return a `key=value` of the command line as format 1 had it."""
    key, equals, value = override.partition("=")
    parts = key.split(".")
    tables = ["", *parts[:-1]]
    old = [
        _original_names(table).get(part, part) for table, part in zip(tables, parts, strict=True)
    ]
    return ".".join("encoder" if part == "tokenizer" else part for part in old) + equals + value


def _original_names(table: str) -> dict[str, str]:
    return {new: old for old, new in _SETTINGS.get(table, {}).items()}


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
