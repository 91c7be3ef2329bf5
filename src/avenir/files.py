"""Files appear whole or not at all, and are there when the power comes back.

What is written lies beside its place, as `.NAME.part`, until it is whole and flushed to the disk;
then it is renamed and its folder flushed. A cut at any moment leaves the old file or the new one.
Who writes holds the part: a second writer is refused, and what a killed one left is replaced by the
next. Knows nothing of what files hold.
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from avenir.errors import AvenirError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What file systems say that know no locks: there none is kept out."""

MOST_BYTES = 2**26
"""Of a text that is read at once: far more than any that is written here."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield the name of an empty file; what the block writes there becomes `path` when it ends.

    When it ends with an error nothing has changed. Folders that are missing are made. Raises
    AvenirError when `path` is there and no regular file, or while another process writes it;
    OSError names `path`.
    """
    with _together([path]) as (part,):
        yield part


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file whole."""
    write_together({path: data})


def write_together(files: Mapping[Path, str | bytes]) -> None:
    """Write files that are right only together, so that a cut leaves no mixture of old and new.

    The last one says that they are there: it goes before the others change and comes after them.
    """
    with _together(list(files)) as parts:
        for part, data in zip(parts, files.values(), strict=True):
            with _opened(part, os.O_WRONLY) as file:
                _write(file, data)


def move_together(places: Mapping[Path, Path]) -> None:
    """Move files of one disk to their places; they are treated as `write_together` treats its."""
    for made in places:
        _flush(made)
    *others, last = places.values()
    if others:
        remove(last)
    for made, path in places.items():
        os.replace(made, path)
        _flush(path.parent)


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, `.NAME.part`, to make files in for another; it goes with the block.

    Raises AvenirError while another process has one.
    """
    made = folder.with_name(f".{folder.name}.part")
    _check_unheld(made, folder)
    _clear(made)
    make_folder(folder.parent)
    os.mkdir(made)
    with _held(made, os.O_RDONLY):
        try:
            yield made
        finally:
            _clear(made)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)
        _flush(path.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)
        _flush(folder.parent)


def link(path: Path, to: Path) -> None:
    """Put a file in a second place without writing it again, or a copy where that cannot be."""
    make_folder(to.parent)
    remove(to)
    try:
        os.link(path, to)
        _flush(to.parent)
    except OSError:  # some file systems have no second names
        with whole(to) as part:
            shutil.copyfile(path, part)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, if they are not there."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):  # another process was faster
        os.mkdir(folder)
    _flush(folder.parent)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row of JSON; it is on the disk once `flush` was called."""
    check_regular(path)
    with _opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
        _write(file, json.dumps(row) + "\n")


def flush(path: Path) -> None:
    """Bring what was written to a file, or to the list of a folder, to the disk."""
    if path.exists():
        _flush(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a file, if it is there, without those that a cut left unfinished."""
    check_regular(path)
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def check_regular(path: Path) -> None:
    """Refuse, by AvenirError, to write over a device, a pipe or a folder, or to read one."""
    if path.exists() and not path.is_file():
        raise AvenirError(f"{str(path)!r} is no regular file: take it away, or give another name")


def is_there(path: Path) -> bool:
    """Say whether a path leads to something; one that is too long for a name does not."""
    return os.path.exists(path)


def read_text(path: Path) -> str:
    """Read a text of one of our own folders; OSError where there is none.

    Raises AvenirError for what is no regular file, such as a pipe that never ends, too large for
    anything that is read at once, or no text.
    """
    check_regular(path)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise AvenirError(
            f"{str(path)!r} holds {size:,} bytes, and at most {MOST_BYTES:,} are read: it is not "
            "what its name says"
        )
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise AvenirError(f"{str(path)!r} is no text: {error}") from None


@contextmanager
def alone_in(folder: Path, work: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder: two at work in it would write the same files.

    While another process holds it, wait for its end, or raise AvenirError.
    """
    make_folder(folder)
    with _opened(folder / "lock", os.O_RDWR | os.O_CREAT) as file:
        if not _hold(file, wait=wait):
            raise AvenirError(
                f"another {work} is at work in {str(folder)!r}: wait for it, or give another folder"
            )
        yield


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder and in those below it."""
    for part in sorted(folder.rglob(".*.part")):
        if not _is_held(part):
            _clear(part)


@contextmanager
def _together(paths: Sequence[Path]) -> Iterator[list[Path]]:
    parts = [path.with_name(f".{path.name}.part") for path in paths]
    try:
        with ExitStack() as held:
            for path, part in zip(paths, parts, strict=True):
                check_regular(path)
                make_folder(path.parent)
                held.enter_context(_begun(part, path))
            yield parts
            move_together(dict(zip(parts, paths, strict=True)))
    except OSError as error:
        named = dict(zip(map(str, parts), paths, strict=True))
        path = paths[0] if error.filename is None else named.get(str(error.filename))
        if path is None:  # of another file, which was read meanwhile
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def _begun(part: Path, path: Path) -> Iterator[None]:
    """Make the part of a path, empty, and hold it within; with an error it goes."""
    _check_unheld(part, path)
    remove(part)
    with _held(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
        try:
            yield
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise


def _check_unheld(part: Path, path: Path) -> None:
    """Refuse to write what another process is writing."""
    if _is_held(part):
        raise AvenirError(
            f"another process is writing {str(path)!r}: wait for it, or give another name"
        )


def _is_held(part: Path) -> bool:
    """Say whether the process that made a part is alive."""
    if not os.path.lexists(part):
        return False
    try:
        with _opened(part, os.O_RDONLY | os.O_NONBLOCK) as file:
            return not _hold(file)
    except OSError:  # a link, or what could not be written
        return False


@contextmanager
def _held(part: Path, flags: int) -> Iterator[None]:
    """Hold a part within; errors of the block are its own."""
    file = _open(part, flags)
    try:
        _hold(file)
        yield
    finally:
        os.close(file)


def _hold(file: int, *, wait: bool = False) -> bool:
    """Lock an open file until it is closed, and say so; False when another has, if not to wait."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _clear(part: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it."""
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part)
    else:
        remove(part)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file; errors name it."""
    file = _open(path, flags)
    try:
        yield file
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(file)


def _open(path: Path, flags: int) -> int:
    """Open a file; a link in the place of what is written is not followed."""
    unfollowed = os.O_NOFOLLOW if flags != os.O_RDONLY else 0
    return os.open(path, flags | unfollowed | os.O_CLOEXEC, 0o666)


def _write(file: int, data: str | bytes) -> None:
    rest = memoryview(data.encode() if isinstance(data, str) else data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _flush(path: Path) -> None:
    with _opened(path, os.O_RDONLY) as file:
        try:
            os.fsync(file)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some file systems cannot flush folders
                raise
