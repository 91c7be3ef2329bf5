"""A kind is a file: `find("encoders", "kl")` is the class in encoders/kl.py.

Nothing is imported before it is asked for, so a missing extra breaks only its own kind.
A dotted path (`my_lab.my_encoder`) finds somebody else's.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from avenir.config import Config, suggestion
from avenir.errors import AvenirError

ROLES = ("data", "encoders", "conditioners", "predictors")
EXTRAS = {
    "gymnasium": "envs",
    "transformers": "hub",
    "huggingface_hub": "hub",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "starlette": "serve",
    "uvicorn": "serve",
    "websockets": "serve",
}
"""Which extra brings a third-party module that not everybody needs."""


def kinds(role: str) -> list[str]:
    """Name the kinds of a role: the files in its folder."""
    spec = importlib.util.find_spec(f"avenir.{role}")
    assert spec is not None and spec.submodule_search_locations is not None
    return sorted(m.name for m in pkgutil.iter_modules(list(spec.submodule_search_locations)))


def find(role: str, kind: str) -> Any:
    """Import the file of a kind and return its class, which carries its settings as `.Config`."""
    if "." not in kind and kind not in kinds(role):
        raise AvenirError(f"unknown {role} kind {kind!r}{suggestion(kind, kinds(role))}")
    with needing(f"kind {kind!r}"):
        module = importlib.import_module(kind if "." in kind else f"avenir.{role}.{kind}")
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module.__name__ and _is_kind(value):
            return value
    raise AvenirError(f"{module.__name__} has no class with a `Config`: it is no kind of {role}")


def parse(role: str, table: Mapping[str, Any], where: str = "") -> Config:
    """Validate a table that says its `kind` with that kind's own settings."""
    if not isinstance(table, Mapping):
        raise AvenirError(f"[{where or role}] was given {table!r}; it is a table with a kind")
    if "kind" not in table:
        raise AvenirError(f"[{where or role}] needs a kind: one of {', '.join(kinds(role))}")
    return find(role, table["kind"]).Config.parse(table, where)


@contextmanager
def needing(what: str) -> Iterator[None]:
    """Import, within, what something needs: of a module that is missing say what brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        cure = f"pip install 'avenir[{extra}]'" if extra else "check the name, or install it"
        raise AvenirError(
            f"{what} needs the module {error.name!r}, which is not installed: {cure}"
        ) from None


def _is_kind(value: type) -> bool:
    config = vars(value).get("Config")
    return isinstance(config, type) and issubclass(config, Config)
