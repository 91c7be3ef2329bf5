"""A recipe says what to train, on what, and for how long. One recipe makes one run.

Its `encoder` is a table of settings when the encoder is what is trained; otherwise it names a run
folder or another recipe, the parent, which is trained first and appears here in full.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

import avenir
from avenir.config import Config, merged, parse_overrides, read_toml, to_toml
from avenir.errors import AvenirError
from avenir.registry import find, parse
from avenir.training.optim import OptimConfig

FORMAT = 1
"""Version of run folders; part of every run's key."""

Task = Literal["encoder", "decoder", "predictor"]


class TrainConfig(Config):
    """For how long, and how."""

    steps: int = Field(1000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Windows per step."""
    num_groups: int = Field(1, ge=1)
    """Latent frames per window when training an encoder or a decoder."""
    colour_jitter: float = Field(0.0, ge=0)
    """How far colours are mixed at random when an encoder or a decoder trains."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged weights; short runs lower it to 1 - 10/steps by themselves."""
    num_samples: int = Field(5, ge=0)
    """How often during the run validation samples are written as video."""
    save_seconds: float = Field(60, gt=0)
    """Most time that a kill can cost."""
    cache_recordings: int | None = Field(None, ge=0)
    """Recordings whose latents are encoded once before a predictor trains; none: all, 0: encode
    anew at every step."""
    cache_phases: int = Field(1, ge=1)
    """Temporal phases at which they are encoded."""
    optim: OptimConfig = OptimConfig.model_validate({})
    """How weights descend."""


class Recipe(Config):
    """What to train, on what, and for how long."""

    name: str
    """Names the run folder; the recipe file's name unless said otherwise."""
    task: Task
    """What is trained."""
    seed: int = 0
    """Everything random derives from it."""
    data: dict[str, Any]
    """Where video comes from: a kind of source and its settings."""
    encoder: dict[str, Any]
    """The encoder's settings; or, for the other tasks, its recipe or `run`, the folder it is in."""
    decoder: dict[str, Any] = {}
    """Settings of the encoder that change for the stage that trains its decoder."""
    conditioner: dict[str, Any] | None = None
    """What steers the predictor: a kind of conditioner and its settings."""
    predictor: dict[str, Any] | None = None
    """What predicts: a kind of predictor and its settings."""
    train: TrainConfig = TrainConfig.model_validate({})
    """For how long, and how."""

    @property
    def parent(self) -> "Recipe | Path | None":
        """The run this one stands on: a recipe to train first, or a folder."""
        if self.task == "encoder":
            return None
        if "run" in self.encoder:
            return Path(self.encoder["run"])
        return Recipe.parse(self.encoder)

    def toml(self) -> str:
        """Write the recipe with every setting that is in force."""
        return to_toml(self.model_dump(mode="json"))

    def key(self, fingerprint: str, parent_key: str | None) -> str:
        """Hash everything that the result depends on: recipe, data, format, parents."""
        table = self.model_dump(mode="json", exclude={"name"})
        if self.task != "encoder":
            table["encoder"] = parent_key
        table["data"] = fingerprint
        for quiet in ("num_samples", "save_seconds"):
            table["train"].pop(quiet)
        text = json.dumps([FORMAT, table], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_recipe(path: Path) -> Path:
    """Return a recipe's file: as given, or by its name among those that avenir brings."""
    package = Path(avenir.__file__).parent
    brought = [package / "recipes" / path.name, package.parents[1] / "recipes" / path.name]
    return next((each for each in [path, *brought] if each.exists()), path)


def data_of(run: Path, overrides: Iterable[str]) -> dict[str, Any]:
    """Return the data table that a run was trained on, with overrides of `data` only."""
    given = _said(overrides)
    if set(given) - {"data"}:
        raise AvenirError(f"{sorted(set(given) - {'data'})} cannot change after training; data can")
    return _data(read_toml(run / "recipe.toml")["data"], given.get("data", {}))


def _data(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge tables of data; another kind keeps size and rate only, the rest was the old kind's."""
    if "kind" in above and above["kind"] != below.get("kind", above["kind"]):
        fields = find("data", above["kind"]).Config.model_fields
        below = {key: below[key] for key in ("size", "fps") if key in below and key in fields}
    return merged(below, above)


def _said(overrides: Iterable[str]) -> dict[str, Any]:
    """Parse overrides; `data=somewhere` is short for `data.path=somewhere`."""
    short = "data="
    words = [
        f"data.path={json.dumps(w.removeprefix(short))}" if w.startswith(short) else w
        for w in overrides
    ]
    return parse_overrides(words)


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe file with `key=value` overrides and everything resolved."""
    return Recipe.parse(resolve(Path(path), _said(overrides)))


def resolve(path: Path, overrides: dict[str, Any], child_data: dict[str, Any] | None = None) -> Any:
    """Read a recipe's table, its parent's inside it, every kind's own settings filled in.

    A parent takes from its child what its own file does not say of the data; overrides of `data`
    and of `encoder.…` reach it.
    """
    table = {"name": path.stem, **read_toml(path)}
    data = overrides.get("data", {})
    table["data"] = _data(_data(child_data or {}, table.get("data", {})), data)
    parent = overrides.get("encoder", table.get("encoder"))
    own = {k: v for k, v in overrides.items() if k not in ("data", "encoder")}
    table = merged(table, own)
    if isinstance(table.get("encoder"), str) or isinstance(parent, str):
        reference = parent if isinstance(parent, str) else table["encoder"]
        inherited = parent if isinstance(parent, dict) else {}
        table["encoder"] = _parent(path, reference, inherited, data, table["data"])
    else:
        table["encoder"] = merged(table.get("encoder", {}), overrides.get("encoder", {}))
    return _filled(table)


def _parent(
    path: Path, reference: str, overrides: dict[str, Any], data: dict[str, Any], child_data: Any
) -> dict[str, Any]:
    if (Path(reference) / "card.json").exists():
        if overrides:
            raise AvenirError(
                f"encoder {reference!r} is a finished run; its settings {sorted(overrides)} cannot "
                "be changed: name a recipe instead"
            )
        return {"run": reference}
    overrides = merged({"data": data}, overrides) if data else overrides
    return resolve(path.parent / reference, overrides, child_data)


def _filled(table: dict[str, Any]) -> dict[str, Any]:
    roles = {"data": "data", "conditioner": "conditioners", "predictor": "predictors"}
    if table.get("task") == "encoder":
        roles["encoder"] = "encoders"
    for field, role in roles.items():
        if table.get(field) is not None:
            table[field] = parse(role, table[field], field).model_dump(
                mode="json", exclude_none=True
            )
    return table
