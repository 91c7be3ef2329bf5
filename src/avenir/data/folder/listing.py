"""Which recordings a folder holds: videos, and folders of pictures in order, each with its csv.

Only regular files are looked into; links to files are followed, links to folders are not. What is
left out is named, with the reason. Knows names and kinds of files, and nothing of what they show.
"""

import os
import re
import stat
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from os.path import commonprefix
from pathlib import Path

from avenir import video
from avenir.data import Skipped
from avenir.tables import printable

COMPANIONS = {
    ".csv",
    ".html",
    ".json",
    ".jsonl",
    ".md",
    ".parquet",
    ".srt",
    ".toml",
    ".txt",
    ".vtt",
}
"""Extensions of files that lie beside videos and are none."""
_HEX = re.compile(r"[0-9a-fA-F]+")
_SIGNED = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True)
class FoundRecording:
    """The files of one recording."""

    name: str
    paths: list[Path]
    """One video, or pictures in order."""
    table: Path | None = None
    is_named_so: bool = True
    """Whether the csv has the recording's name; if not, it may be of something else."""


@dataclass
class Listing:
    """What is in a folder, in order of the numbers in names."""

    found: list[FoundRecording] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    """What is worth saying, and of which files."""

    def note(self, note: str, name: str) -> None:
        """Say something of a file."""
        self.notes.setdefault(note, []).append(name)


def listed(root: Path) -> Listing:
    """List the recordings in a folder and in those below it."""
    listing = Listing()
    videos: dict[str, Path] = {}
    pictures: dict[str, list[Path]] = {}
    tables: list[Path] = []
    order: list[str] = []
    for path in sorted(_regular(root, listing), key=_by_number):
        if path.suffix.lower() in COMPANIONS:
            tables += [path] if path.suffix.lower() == ".csv" else []
            continue
        try:
            is_picture = video.is_picture(path)
        except OSError as error:
            listing.skipped.append(_unreadable(_name(path, root), error))
            continue
        if is_picture:
            here = path.parent == root
            folder = printable(root.resolve().name) if here else _name(path.parent, root)
            folder += "/" if folder in videos else ""
            order += [] if folder in pictures else [folder]
            pictures.setdefault(folder, []).append(path)
        else:
            name = _name(path.with_suffix(""), root)
            if name in videos or name in pictures:  # two that differ in their extension only
                name = _name(path, root)
            order.append(name)
            videos[name] = path
    beside = _Tables(tables)
    for name, path in videos.items():
        table = beside.take(path.parent, path.stem, path.name)
        listing.found.append(FoundRecording(name, [path], table))
    for name, paths in pictures.items():
        listing.found.append(_of_pictures(name, paths, root, beside, videos, listing))
    place = {name: number for number, name in enumerate(order)}
    listing.found = [found for found in listing.found if found.paths]
    listing.found.sort(key=lambda found: place[found.name])
    near = _Near([found.paths[0] for found in listing.found])
    for table in beside.left:
        if near.has(table):
            note = "it has no recording's name, so that it is not used; name it as its video"
            listing.note(note, _name(table, root))
    return listing


class _Tables:
    """The csv files that no recording has taken yet."""

    def __init__(self, paths: list[Path]) -> None:
        self.left = dict.fromkeys(paths)
        self.named = {path: path for path in paths}
        self.folded = {path.with_name(path.name.casefold()): path for path in reversed(paths)}

    def take(self, folder: Path, *stems: str) -> Path | None:
        """Find the csv of a name in a folder, in small or capital letters; several may share it."""
        places = [folder / f"{stem}.csv" for stem in stems]
        found = [self.named.get(place) for place in places]
        found += [self.folded.get(place.with_name(place.name.casefold())) for place in places]
        path = next((path for path in found if path is not None), None)
        if path is not None:
            self.left.pop(path, None)
        return path

    def take_only(self, folder: Path) -> Path | None:
        """Take the one csv that is left in a folder."""
        there = [path for path in self.left if path.parent == folder]
        return self.take(folder, there[0].stem) if len(there) == 1 else None


def _of_pictures(
    name: str,
    paths: list[Path],
    root: Path,
    beside: _Tables,
    videos: dict[str, Path],
    listing: Listing,
) -> FoundRecording:
    """Make a recording of a folder's pictures, without those that only show what a video is of."""
    folder = paths[0].parent
    covers = _covers(paths, [path for path in videos.values() if path.parent == folder])
    for path in (path for path in paths if path in covers):
        listing.note("a picture beside a video is no recording", _name(path, root))
    kept, note = _in_order([path for path in paths if path not in covers])
    if len(kept) == 1:
        reason = "it is a lone picture, which is no recording; give a video, or several in a folder"
        listing.skipped.append(Skipped(_name(kept[0], root), reason))
        kept = []
    together = _taken_together(kept)
    if together:
        reason = (
            f"{' and '.join(map(printable, together[:3]))} have the same number, as pictures of "
            "several cameras do; give each camera a folder of its own"
        )
        listing.skipped.append(Skipped(name, reason))
        kept = []
    if note and kept:
        listing.note(note, name)
    table = beside.take(folder.parent, folder.name) if folder != root else None
    table = table or beside.take(folder, folder.name)
    if table is not None or not kept:
        return FoundRecording(name, kept, table)
    return FoundRecording(name, kept, beside.take_only(folder), is_named_so=False)


def _covers(pictures: list[Path], videos: list[Path]) -> set[Path]:
    """Find the thumbnails of videos: of a video's name, or the only picture that begins with it."""
    covers: set[Path] = set()
    names = {path.name for path in videos} | {path.stem for path in videos}
    alike: dict[str, list[Path]] = {}
    for path in pictures:
        if path.stem in names:
            covers.add(path)
        for gap in re.finditer(r"[-_. (]", path.stem):
            if path.stem[: gap.start()] in names:
                alike.setdefault(path.stem[: gap.start()], []).append(path)
    return covers.union(*(paths for paths in alike.values() if len(paths) == 1))


def _taken_together(paths: list[Path]) -> list[str]:
    """Name the first picture of each camera, where several took pictures of the same numbers."""
    numbers: dict[tuple[str, str], set[int]] = {}
    first: dict[tuple[str, str], str] = {}
    for path in paths:
        parts = re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", path.stem, re.DOTALL)
        if parts is None:
            return []
        camera = parts[1], parts[3]
        numbers.setdefault(camera, set()).add(int(parts[2]))
        first.setdefault(camera, path.name)
    before, after = ({words[place] for words in numbers} for place in (0, 1))
    named = before if len(before) > 1 else after
    if not all(re.search(r"[^\W\d_]{2}", word) for word in named):
        return []  # no words, as of cameras: `8a`, `8b` are in a row
    each = list(numbers.values())
    alike = len(each) > 1 and len(each[0]) > 1 and all(numbers == each[0] for numbers in each)
    return list(first.values()) if alike else []


def _in_order(paths: list[Path]) -> tuple[list[Path], str]:
    """Order pictures by the value of the numbers that end their names, and say if that is odd.

    They come in order of the decimal numbers in their paths, which have no sign or point there.
    """
    stems = [path.stem for path in paths]
    prefix = commonprefix(stems).rstrip("0123456789.")
    prefix = "" if prefix in ("-", "+") else prefix
    words = [stem[len(prefix) :] for stem in stems]
    if all(map(_SIGNED.fullmatch, words)):
        values: list[Decimal] = [Decimal(word) for word in words]
        kind, clear = "signed or decimal", True
    elif all(map(_HEX.fullmatch, words)) and re.search("[0-9]", "".join(words)):
        values, kind = [Decimal(int(word, 16)) for word in words], "hexadecimal"
        steps = {after - before for before, after in pairwise(sorted(values))}
        clear = len(set(map(len, words))) == 1 or len(steps) == 1
    else:
        return paths, ""
    order = sorted(range(len(paths)), key=values.__getitem__)
    ordered = [paths[number] for number in order]
    if ordered == paths:
        return paths, ""
    if not clear:
        return paths, f"the numbers in its names are unclear; {_shown(paths)}"
    return ordered, f"its pictures are in order of {kind} numbers; {_shown(ordered)}"


def _shown(paths: list[Path]) -> str:
    return f"{printable(paths[0].name)} is the first and {printable(paths[-1].name)} the last"


class _Near:
    """Tells whether a csv looks as if it were of a recording in its folder."""

    def __init__(self, paths: list[Path]) -> None:
        self.names = sorted(path.with_suffix("").as_posix().casefold() for path in paths)
        self.every = set(self.names)

    def has(self, table: Path) -> bool:
        """Tell whether one of the two names begins with the other."""
        name, least = table.with_suffix("").as_posix().casefold(), len(table.parent.as_posix()) + 2
        after = bisect_left(self.names, name)
        longer = after < len(self.names) and self.names[after].startswith(name)
        return longer or any(name[:end] in self.every for end in range(least, len(name)))


def _regular(root: Path, listing: Listing) -> Iterator[Path]:
    """Yield every regular file that is not hidden, and name everything else."""

    def unreadable(error: OSError) -> None:
        listing.skipped.append(_unreadable(_name(Path(error.filename), root), error))

    for above, folders, names in os.walk(root, onerror=unreadable):
        if Path(above) != root and Path(above, "meta", "info.json").is_file():
            reason = "it is a LeRobot data set; import it, or train on it, by itself"
            listing.skipped.append(Skipped(_name(Path(above), root), reason))
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *(name for name in names if not name.startswith("."))):
            path = Path(above, name)
            try:
                mode = path.stat().st_mode
            except OSError as error:  # a link to nowhere, or to itself
                listing.skipped.append(_unreadable(_name(path, root), error))
                continue
            if stat.S_ISDIR(mode):
                if path.is_symlink():
                    reason = "it is a link to a folder, which is not followed; copy it here"
                    listing.skipped.append(Skipped(_name(path, root), reason))
            elif stat.S_ISREG(mode):
                yield path
            else:
                reason = "it is a device or a pipe; give regular files"
                listing.skipped.append(Skipped(_name(path, root), reason))


def _unreadable(name: str, error: OSError) -> Skipped:
    return Skipped(name, f"it cannot be read ({error.strerror}); check its permissions")


def _name(path: Path, root: Path) -> str:
    return printable(path.relative_to(root).as_posix())


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    """Order frame 2 before frame 10."""
    parts = re.split(r"([0-9]+)", path.as_posix())
    return [
        (part[:1].isdecimal(), int(part) if part[:1].isdecimal() else 0, part) for part in parts
    ]
