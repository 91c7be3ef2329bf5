"""A disk that looks on at every operation of `avenir.files`, or is full from one of them on."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avenir import files

Tree = dict[str, bytes | None]
"""What lies under a folder: files by their names, and folders, which are none."""

CHANGING = ("open", "write", "fsync", "replace", "unlink", "mkdir", "link")
"""Calls that `avenir.files` makes to change what is on the disk."""


class Disk:
    """Stands in for the module `os`: says what is about to be changed under a folder."""

    def __init__(self, root: Path, change: Callable[..., Any]) -> None:
        self.root, self.change = root, change

    def __getattr__(self, name: str) -> Any:
        call = getattr(os, name)
        if name not in CHANGING:
            return call
        return lambda *given: (
            self.change(name, call, *given) if self.has(given[0]) else call(*given)
        )

    def has(self, given: Path | int) -> bool:
        """Tell whether a path, or the file that is open under a number, is in the folder."""
        path = Path(f"/proc/self/fd/{given}").readlink() if isinstance(given, int) else given
        return path.is_relative_to(self.root)


def tree(root: Path) -> Tree:
    """Read all that lies under a folder."""
    paths = sorted(root.rglob("*"))
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in paths
    }


def restore(root: Path, left: Tree) -> None:
    """Make a folder hold what one has held."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, content in left.items():
        if content is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content)


CLOCKS = re.compile(
    rb'"\w*(seconds|steps_here|gib|steps_per_second|waiting)\w*": [^,}\s]*,?\s*|"notes": \[[^]]*\]'
)
"""What two runs of one command say differently: how long it took, and how it went."""


class Trees(dict[str, Tree]):
    """Different trees; of those that differ only in clocks or in how much of a part there is, one.

    It is the last.
    """

    def add(self, left: Tree) -> bool:
        """Keep a tree; say whether it is new."""
        known = {n: None if is_part(n) else without_clocks(n, c) for n, c in left.items()}
        digest = hashlib.sha256()
        for name, content in known.items():
            size = None if content is None else len(content)
            digest.update(repr((name, size)).encode() + (content or b""))
        key = digest.hexdigest()
        new = key not in self
        self[key] = left
        return new


def without_clocks(name: str, content: bytes | None) -> bytes | None:
    """Leave out of a file what two runs of one command say differently."""
    told = content is not None and name.endswith((".json", ".jsonl"))
    return CLOCKS.sub(b"", content or b"") if told else content


def is_part(name: str) -> bool:
    """Tell whether a file is one that is not whole yet."""
    return Path(name).match(".*.part")


def half(content: bytes | None) -> bytes | None:
    """Cut a file in two."""
    return None if content is None else content[: len(content) // 2]


def cuts(root: Path, command: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Trees:
    """Run a command and return what a power cut before each of its operations would leave.

    What is being written is torn: rows end after half of their letters, and of a part half is
    there.
    """
    left = Trees()

    def change(name: str, call: Callable[..., Any], *given: Any) -> Any:
        now = tree(root)
        torn = {name: half(content) for name, content in now.items() if is_part(name)}
        left.add(now | torn)
        if name == "write" and len(given[1]) > 1:
            done = call(given[0], given[1][: len(given[1]) // 2])
            left.add(tree(root))
            return done
        return call(*given)

    def clear(folder: Path) -> None:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
            left.add(tree(root))
        folder.rmdir()

    with monkeypatch.context() as patched:
        patched.setattr(files, "os", Disk(root, change))
        patched.setattr(files, "shutil", SimpleNamespace(rmtree=clear, copyfile=shutil.copyfile))
        command()
    return left


@contextmanager
def full_from(number: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the disk be full from an operation on: it only takes what takes no room.

    A part that this operation makes is there and takes nothing, whichever library writes into it.
    """
    done = -1

    def change(name: str, call: Callable[..., Any], *given: Any) -> Any:
        nonlocal done
        if name == "open" and given[1] & os.O_WRONLY and Path(given[0]).is_symlink():
            return os.open(given[0], os.O_WRONLY)
        if name == "unlink" or (name == "open" and not given[1] & os.O_CREAT):
            return call(*given)
        done += 1
        if done < number:
            return call(*given)
        if name == "open" and given[1] & os.O_EXCL:
            Path(given[0]).symlink_to("/dev/full")
            return os.memfd_create("taken")  # which nobody else holds
        named = given[0] if isinstance(given[0], Path) else None
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), named)

    with monkeypatch.context() as patched:
        patched.setattr(files, "os", Disk(root, change))
        yield
        if done < number:
            raise Enough


class Enough(Exception):
    """A command has fewer operations than were asked to fail."""
