"""A data set that was imported becomes what its source is now.

What changed is written anew and everything else taken over, in the folder `.renewed` of the data
set; when that is whole it takes the place of the old one. A cut at any moment leaves the old data
set, or one that `settle` ends. Knows nothing of sources, or of what changed.
"""

from pathlib import Path

from avenir.data.lerobot.writing import LeRobotWriter
from avenir.files import move_together, remove, remove_folder, write_whole

RENEWED = ".renewed"
"""Where it is written until it is whole."""
_WHOLE = "whole"
"""The file in it that says so."""
_PARTS = ("data", "videos", "meta")
"""The folders of a data set; without the last it is none."""


def begin(old: LeRobotWriter) -> LeRobotWriter:
    """Begin to write a data set anew, or go on with that."""
    folder = old.root / RENEWED
    if not (folder / "meta" / "info.json").is_file():
        abandon(old.root)
    return LeRobotWriter(folder, old.fps, old.size, old.signals, old.camera)


def abandon(root: Path) -> None:
    """Remove what was renewed and is not whole; first that it is a data set."""
    remove(root / RENEWED / "meta" / "info.json")
    remove_folder(root / RENEWED)


def finish(root: Path) -> None:
    """Put what was renewed in the place of the data set."""
    write_whole(root / RENEWED / _WHOLE, "")
    settle(root)


def settle(root: Path) -> None:
    """End what `finish` began, if it was interrupted."""
    renewed = root / RENEWED
    if not (renewed / _WHOLE).is_file():
        return
    if (renewed / "meta").is_dir():
        remove_folder(root / "meta")
    for name in _PARTS:
        if (renewed / name).is_dir():
            remove_folder(root / name)
            move_together({renewed / name: root / name})
    remove(renewed / _WHOLE)
    remove_folder(renewed)
