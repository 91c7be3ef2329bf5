"""From recipe.toml and `key=value` to typed, frozen configs, and back.

Knows TOML, overrides and error messages; knows no kind of model and no data set.
"""

import difflib
import json
import reprlib
import tomllib
from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from avenir.errors import AvenirError
from avenir.files import is_there, read_text
from avenir.renamed import today

_MOST_FILES = 20
"""Of recipes that extend each other; more are a circle."""

_MOST_DEEP = 60
"""Of tables in each other: far more than any recipe or card has."""

_shown = reprlib.Repr()
"""How a value that is wrong is shown: one that is very long, or deep, in part."""
_shown.maxlevel, _shown.maxstring, _shown.maxother, _shown.maxlong = 4, 200, 200, 60
_shown.maxdict = _shown.maxlist = _shown.maxtuple = 12


class Config(BaseModel):
    """A frozen table of settings: unknown keys are errors, field docstrings are the help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    @classmethod
    def parse(cls, table: Mapping[str, Any], where: str = "") -> Self:
        """Validate a plain table; a wrong or unknown key is an AvenirError that names it."""
        if not isinstance(table, Mapping):
            raise AvenirError(f"{where or cls.__name__} was given {_shown.repr(table)}, no table")
        try:
            return cls.model_validate(dict(table))
        except ValidationError as error:
            raise AvenirError("\n".join(cls._explain(error, where))) from None

    @classmethod
    def _explain(cls, error: ValidationError, where: str) -> Iterable[str]:
        for problem in error.errors():
            path = [where, *(str(part) for part in problem["loc"])]
            key = ".".join(part for part in path if part)
            if problem["type"] == "extra_forbidden":
                known = cls._table_at(problem["loc"][:-1]).model_fields
                given = str(problem["loc"][-1])
                new = today(given)
                hint = f": it is called {new!r} now" if new in known else suggestion(given, known)
                yield f"unknown setting {key!r}{hint}"
            elif problem["type"] == "missing":
                word = "data=FOLDER" if key == "data.path" else f"{key}=…"
                yield f"setting {key!r} is missing: give {word} on the command line"
            else:
                given = _shown.repr(problem["input"])
                yield f"setting {key!r} was given {given}: {problem['msg'].lower()}"

    @classmethod
    def _table_at(cls, path: Iterable[int | str]) -> "type[Config]":
        """Return the config that holds the setting at the end of a path."""
        table: type[Config] = cls
        for part in path:
            inner = table.model_fields[str(part)].annotation
            if not (isinstance(inner, type) and issubclass(inner, Config)):
                break
            table = inner
        return table


def suggestion(given: str, known: Iterable[str]) -> str:
    """Return ': did you mean …?' for a close match, otherwise what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(given, known, n=1)
    return f": did you mean {close[0]!r}?" if close else f"; there is {', '.join(known)}"


def read_toml(path: Path) -> dict[str, Any]:
    """Read one TOML file and what it `extends`, the extending file winning key by key."""
    return stacked(read_layers(path))


def stacked(layers: Mapping[Path, Mapping[str, Any]]) -> dict[str, Any]:
    """Lay the tables of `read_layers` over each other, the first on top."""
    return reduce(lambda above, below: merged(below, above), layers.values(), {})


def read_layers(path: Path) -> dict[Path, dict[str, Any]]:
    """Read one TOML file, and the one that it `extends`, and so on: each file's own table."""
    layers: dict[Path, dict[str, Any]] = {}
    while True:
        layers[path] = table = _read_one(path)
        parent = table.pop("extends", None)
        if parent is None:
            return layers
        if not isinstance(parent, str):
            raise AvenirError(f"{str(path)!r} extends {_shown.repr(parent)}; name one file")
        path = path.parent / parent
        if len(layers) == _MOST_FILES or any(_is_same(path, each) for each in layers):
            raise AvenirError(
                f"{str(next(iter(layers)))!r} extends {str(path)!r} more than once, or too many "
                "files one after another: a recipe cannot stand on itself"
            )


def _read_one(path: Path) -> dict[str, Any]:
    try:
        return _plain(tomllib.loads(read_text(path)))
    except OSError as error:
        raise AvenirError(
            f"there is no recipe at {str(path)!r} ({error.strerror}); `recipes/` holds some"
        ) from None
    except (ValueError, RecursionError) as error:
        raise AvenirError(f"{str(path)!r} is not TOML: {error}") from None


def _is_same(path: Path, other: Path) -> bool:
    return is_there(path) and path.samefile(other)


def read_json(path: Path) -> Any:
    """Read one JSON file; OSError where there is none, AvenirError for what is none."""
    try:
        return _plain(json.loads(read_text(path)))
    except (ValueError, RecursionError) as error:
        raise AvenirError(f"{str(path)!r} is not JSON: {error}") from None


def _plain(table: Any) -> Any:
    """Return what was read; ValueError for what could not be written again."""
    depth, level = 0, [table]
    while level:
        depth += 1
        if depth > _MOST_DEEP:
            raise ValueError(f"more than {_MOST_DEEP} tables lie in each other")
        for each in level:
            if isinstance(each, str):
                each.encode()  # half of a character is none
        tables = [[*each, *each.values()] for each in level if isinstance(each, dict)]
        lists = [each for each in level if isinstance(each, list)]
        level = [value for values in (*tables, *lists) for value in values]
    return table


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table over another, sub-table by sub-table."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            value = merged(old, value)
        result[key] = value
    return result


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """Turn `train.steps=200 data=videos` into nested tables; values are TOML, or plain text."""
    table: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise AvenirError(f"override {word!r} was given; write it key=value: train.steps=200")
        nested: Any = _value(text)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        table = merged(table, nested)
    return table


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def to_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Write a table of scalars, lists and sub-tables as TOML; None is left out."""
    scalars = {k: v for k, v in table.items() if not isinstance(v, Mapping) and v is not None}
    lines = [f"{key} = {json.dumps(value)}" for key, value in scalars.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            name = f"{prefix}{key}"
            lines += ["", f"[{name}]", to_toml(value, f"{name}.").rstrip("\n")]
    return "\n".join(lines) + "\n"
