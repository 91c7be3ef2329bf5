"""A kind is a file: `find("encoders", "kl")` is the class in encoders/kl.py.

Nothing is imported before it is asked for, so a missing extra breaks only its own kind.
A dotted path (`my_lab.my_encoder`) finds somebody else's. Importing a module runs it, so what a
folder says of itself is held against what its reader trusts before anything is looked up.
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
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
    is_ours = "." not in kind
    if is_ours and kind not in kinds(role):
        raise AvenirError(f"unknown {role} kind {kind!r}{suggestion(kind, kinds(role))}")
    with needing(f"kind {kind!r}"):
        module = importlib.import_module(f"avenir.{role}.{kind}") if is_ours else imported(kind)
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
    if not isinstance(table["kind"], str):
        raise AvenirError(f"[{where or role}] has the kind {table['kind']!r}; a kind is a name")
    return find(role, table["kind"]).Config.parse(table, where)


def imported(module: str) -> Any:
    """Import a module by a name that the user gave or trusts."""
    if not _is_module(module):
        raise AvenirError(f"{module!r} is no name of a module: write it as my_lab.my_encoder")
    with working_directory_last():
        return importlib.import_module(module)


@contextmanager
def working_directory_last() -> Iterator[None]:
    """Look for modules where the command is run as well, within, and after everywhere else.

    At any other time a file that lies there, `pandas.py` say, is no module.
    """
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:  # what was imported may have changed the path itself
        if here in sys.path:
            del sys.path[-1 - sys.path[::-1].index(here)]


def code_in(table: Any) -> list[str]:
    """Name whatever a table of settings, and all below it, would have imported that is not ours.

    These are dotted kinds, also as names of `parts`, and the `module:name` of an environment or a
    policy. Nothing is imported to find them.
    """
    named: dict[str, None] = {}
    todo: list[Any] = [table]
    while todo:
        each = todo.pop()
        if isinstance(each, Mapping):
            parts = each.get("parts")
            kinds = [each.get("kind"), *(parts if isinstance(parts, Mapping) else ())]
            played = [each.get("environment"), each.get("policy")]
            named |= dict.fromkeys(n for n in kinds if isinstance(n, str) and "." in n)
            named |= dict.fromkeys(n for n in played if isinstance(n, str) and ":" in n)
            todo += each.values()
        elif isinstance(each, list | tuple):
            todo += each
    return list(named)


def check_trusted(table: Any, trust: Iterable[str], where: str | Path) -> None:
    """Refuse, by AvenirError, what would import anything that is not trusted by its name."""
    known = set(trust)
    strange = [name for name in code_in(table) if name not in known]
    if not strange:
        return
    files = (f"{name!r} ({_file_of(name)})" for name in strange)
    raise AvenirError(
        f"{str(where)!r} names code that is not part of avenir and would be run: "
        f"{', '.join(files)}; if you know whose it is, trust it by name: "
        f"{' '.join(f'--trust {name}' for name in strange)}, in Python trust={strange}"
    )


def _file_of(name: str) -> str:
    """Say where a module would come from, importing none of what it lies in."""
    module = name.partition(":")[0]
    below = Path(*module.split("."))
    for folder in (*sys.path, Path.cwd()) if _is_module(module) else ():
        for file in (below.with_suffix(".py"), below / "__init__.py"):
            if (folder / file).is_file():
                return str(folder / file)
    return "no such file is found here"


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


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _is_kind(value: type) -> bool:
    config = vars(value).get("Config")
    return isinstance(config, type) and issubclass(config, Config)
