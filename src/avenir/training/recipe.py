"""A recipe says what to train, on what, and for how long. One recipe makes one run.

A recipe that trains an encoder has a table `encoder` of its settings. Any other names its parent,
a `tokenizer`: a run folder, or another recipe, which is trained first and appears here in full. So
does a teacher, of an encoder that is made on one or of `alignment`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

import avenir
from avenir import renamed
from avenir.card import Card
from avenir.config import Config, merged, parse_overrides, read_layers, read_toml, stacked, to_toml
from avenir.errors import AvenirError
from avenir.files import is_there
from avenir.losses.alignment import AlignmentConfig
from avenir.registry import check_trusted, code_in, find, parse
from avenir.training.optim import OptimConfig

Task = Literal["encoder", "decoder", "predictor"]

_MOST_STAGES = 10
"""Recipes that one stands on, each on the next."""


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
    snapshots: tuple[int, ...] = ()
    """Steps after which the averaged weights are kept, each as a world in `snapshots`."""
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
    """Names the run folder; the name of the recipe file unless given."""
    task: Task
    """What is trained."""
    seed: int = 0
    """Everything random derives from it."""
    data: dict[str, Any]
    """Where video comes from: a kind of source and its settings."""
    encoder: dict[str, Any] | None = None
    """The encoder's settings, where the encoder is what is trained."""
    tokenizer: dict[str, Any] | None = None
    """For the other tasks, the encoder that they stand on: its recipe, or `run`, the folder it is
    in."""
    decoder: dict[str, Any] = {}
    """Settings of the encoder that change for the stage that trains its decoder."""
    alignment: AlignmentConfig | None = None
    """What else is asked of a tokenizer's latents, or of a predictor's tokens, while it trains."""
    conditioner: dict[str, Any] | None = None
    """What steers the predictor: a kind of conditioner and its settings."""
    predictor: dict[str, Any] | None = None
    """What predicts: a kind of predictor and its settings."""
    train: TrainConfig = TrainConfig.model_validate({})
    """For how long, and how."""

    @model_validator(mode="before")
    @classmethod
    def _on_one(cls, table: dict[str, Any]) -> dict[str, Any]:
        """Check that there is either an encoder to train or a tokenizer to stand on."""
        task = table.get("task", "encoder")
        needed, other = ("encoder", "tokenizer")[:: 1 if task == "encoder" else -1]
        if table.get(other) is not None:
            raise AvenirError(
                f"{other!r} was given and the recipe's task is {task!r}: what it stands on is "
                'called `tokenizer`, in the recipe tokenizer = "FILE.toml", in what is changed '
                "of it tokenizer.train.steps=…; `encoder` has the settings of one that is trained"
            )
        if table.get(needed) is None:
            raise AvenirError(f"setting {needed!r} is missing: give {needed}=… on the command line")
        return table

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        """Take names of folders, and no paths that lead elsewhere."""
        is_plain = name.isprintable() and not set(name) & {"/", "\\"}
        if not is_plain or not 0 < len(name.encode()) < 200 or name.startswith("."):
            raise ValueError("it names a folder in `runs`: no path, and no dot in front")
        return name

    @property
    def parents(self) -> "dict[str, Recipe | Path]":
        """Return the runs this one stands on, `tokenizer` and `teacher`: recipes, or folders."""
        tables: dict[str, dict[str, Any]] = {}
        if self.tokenizer is not None:
            tables["tokenizer"] = self.tokenizer
        if self.taught is not None:
            tables["teacher"] = self.model_dump()[self.taught]["teacher"]
        return {
            role: Path(table["run"]) if "run" in table else Recipe.parse(table)
            for role, table in tables.items()
        }

    @property
    def taught(self) -> Literal["encoder", "alignment"] | None:
        """Say what has a teacher: the encoder, made on its features, or `alignment`."""
        made_on_one = self.encoder is not None and "teacher" in self.encoder
        drawn_to_one = self.alignment is not None and self.alignment.teacher is not None
        if made_on_one and drawn_to_one:
            raise AvenirError(
                "encoder.teacher and alignment.teacher were given; latents that are made of a "
                "teacher's features are not drawn to one as well: leave alignment.teacher out"
            )
        return "encoder" if made_on_one else "alignment" if drawn_to_one else None

    def on(self, parents: Mapping[str, Path]) -> "Recipe":
        """Return the same recipe on finished runs instead of recipes to train first."""
        changes: dict[str, Any] = {}
        if "tokenizer" in parents:
            changes["tokenizer"] = {"run": str(parents["tokenizer"])}
        if "teacher" in parents:
            teacher = {"teacher": {"run": str(parents["teacher"])}}
            if self.alignment is not None and self.taught == "alignment":
                changes["alignment"] = self.alignment.model_copy(update=teacher)
            else:
                changes["encoder"] = (self.encoder or {}) | teacher
        return self.model_copy(update=changes)

    def toml(self) -> str:
        """Write the recipe with every setting that is in force."""
        return to_toml(self.model_dump(mode="json"))

    def key(self, fingerprint: str, parent_keys: dict[str, str]) -> str:
        """Hash everything that the result depends on: recipe, data, format, parents."""
        table = self.model_dump(mode="json", exclude={"name"})
        table = {name: value for name, value in table.items() if value is not None}
        if "tokenizer" in parent_keys:
            table["tokenizer"] = parent_keys["tokenizer"]
        if self.taught is not None:
            table[self.taught]["teacher"] = parent_keys["teacher"]
        table["data"] = fingerprint
        for quiet in ("num_samples", "snapshots", "save_seconds"):
            table["train"].pop(quiet)
        text = json.dumps([renamed.FORMAT, table], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_recipe(path: Path) -> Path:
    """Return a recipe's file: as given, or by its name among those that avenir brings.

    One in a folder of theirs is named with it: `predictors/flow.toml`.
    """
    package = Path(avenir.__file__).parent
    names = (Path(path.parent.name) / path.name, path.name)
    folders = (package / "recipes", package.parents[1] / "recipes")
    brought = [folder / name for name in names for folder in folders]
    return next((each for each in [path, *brought] if each.exists()), path)


def data_of(run: Path, overrides: Iterable[str], trust: Iterable[str] = ()) -> dict[str, Any]:
    """Return the data table that a run was trained on, with overrides of `data` only.

    Raises AvenirError when it names code that is not ours and neither `trust` nor an override does.
    """
    given = _parsed(overrides)
    if set(given) - {"data"}:
        raise AvenirError(f"{sorted(set(given) - {'data'})} cannot change after training; data can")
    path, above = run / "recipe.toml", given.get("data", {})
    below = renamed.settings(read_toml(path)).get("data")
    if not isinstance(below, dict):
        raise AvenirError(f"{str(path)!r} says of no data what a run was trained on: give data=…")
    table = _data(below, above)
    check_trusted(table, {*trust, *code_in(above)}, path)
    return table


def how_far(run: Path, card: Card) -> str | None:
    """Say how many of its steps a run has done, or nothing of one whose training has ended."""
    done, path = card.provenance.get("steps"), run / "recipe.toml"
    if card.provenance.get("finished") is not False:
        return None
    train = read_toml(path).get("train") if path.is_file() else None
    steps = train.get("steps") if isinstance(train, dict) else None
    return f"{done} steps" if steps is None else f"{done} of {steps} steps"


def _data(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge tables of data; another kind keeps size and rate only, the rest was the old kind's."""
    if not isinstance(above, Mapping):
        raise AvenirError(f"[data] was given {above!r}; it is a table with a kind")
    if "kind" in above and above["kind"] != below.get("kind", above["kind"]):
        fields = find("data", above["kind"]).Config.model_fields
        below = {key: below[key] for key in ("size", "fps") if key in below and key in fields}
    return merged(below, above)


def _parsed(overrides: Iterable[str]) -> dict[str, Any]:
    """Parse overrides; `data=somewhere` is short for `data.path=somewhere`."""
    short = "data="
    words = [
        f"data.path={json.dumps(w.removeprefix(short))}" if w.startswith(short) else w
        for w in overrides
    ]
    return parse_overrides(words)


def load_recipe(
    path: str | Path, overrides: Iterable[str] = (), trust: Iterable[str] = ()
) -> Recipe:
    """Read a recipe file with `key=value` overrides and everything resolved.

    A recipe names what code it likes; one that lies in a run's folder, only what `trust` names.
    """
    return Recipe.parse(resolve(Path(path), _parsed(overrides), None, frozenset(trust)))


def resolve(
    path: Path,
    overrides: dict[str, Any],
    child_data: dict[str, Any] | None = None,
    trust: frozenset[str] = frozenset(),
    children: tuple[Path, ...] = (),
) -> Any:
    """Read a recipe's table, its parent's inside it, every kind's own settings filled in.

    A parent takes from its child what its own file does not say of the data; overrides of `data`,
    of `tokenizer.…`, and of a teacher, `encoder.teacher.…` or `alignment.teacher.…`, reach it.
    """
    if len(children) > _MOST_STAGES:
        raise AvenirError(
            f"{str(children[0])!r} stands on {str(path)!r} after {len(children)} others: a recipe "
            "cannot stand on itself"
        )
    table = {"name": path.stem, **_read(path, trust)}
    data = overrides.get("data", {})
    table["data"] = _data(_data(child_data or {}, table.get("data", {})), data)
    stands = ("encoder", "tokenizer", "alignment")
    own = {k: v for k, v in overrides.items() if k not in ("data", *stands)}
    table = merged(table, own)

    def standing_on(below: Any, above: Any) -> Any:
        if isinstance(below, str) or isinstance(above, str):
            reference = above if isinstance(above, str) else below
            inherited = above if isinstance(above, dict) else {}
            if is_there(Path(reference) / "card.json"):
                return _run(reference, inherited)
            inherited = merged({"data": data}, inherited) if data else inherited
            parent, above = path.parent / reference, (*children, path)
            return resolve(parent, inherited, table["data"], trust, above)
        if below is None and above is None:
            return None
        for given in (below, above):
            if not isinstance(given, dict | None):
                raise AvenirError(
                    f"{given!r} was given for an encoder, a tokenizer or a teacher; it is a table "
                    "of settings, or names a recipe or a run folder"
                )
        below, above = below or {}, dict(above or {})
        if "teacher" in below or "teacher" in above:
            above["teacher"] = standing_on(below.get("teacher"), above.pop("teacher", None))
        return merged(below, above)

    for name in ("encoder", "tokenizer"):
        if (found := standing_on(table.get(name), overrides.get(name))) is not None:
            table[name] = found
    if table.get("alignment") or overrides.get("alignment"):
        aligned = standing_on(table.get("alignment"), overrides.get("alignment"))
        table["alignment"] = {**aligned, "teacher": aligned.get("teacher")}
    return _filled(table)


def _read(path: Path, trust: Iterable[str]) -> dict[str, Any]:
    """Read a recipe and what it extends; of those that lie in a run, code is not run unasked.

    A run may be of an earlier format: settings that have other names since are given these.
    """
    layers = read_layers(path)
    for file, table in layers.items():
        if any((file.parent / mark).exists() for mark in ("card.json", "key")):
            check_trusted(table, trust, file)
            layers[file] = renamed.settings(table)
    return stacked(layers)  # what was checked, not what lies there now


def _run(reference: str, overrides: dict[str, Any]) -> dict[str, Any]:
    if overrides:
        raise AvenirError(
            f"{reference!r} is a finished run; its settings {sorted(overrides)} cannot "
            "be changed: name a recipe instead"
        )
    return {"run": reference}


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
