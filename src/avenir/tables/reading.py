"""A csv file becomes a table of numbers, or a sentence that says where it is none."""

import csv
import math
import re
import stat
from array import array
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from avenir.errors import AvenirError

MAX_BYTES = 2**27
"""A csv above this size is refused: it holds a million rows of ten numbers."""
MAX_COLUMNS = 10**4
"""Nothing has more signals than this."""
MAX_WORDS = 10**6
"""Words beyond these are not kept."""
NOTHING = ("", "nan", "none", "null", "na", "n/a")
"""How it is written that there is no number."""

_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")
"""A time of the day, or since the start: hours, which may lack, minutes and seconds."""
_TIMECODE = re.compile(r":\d\d:\d\d:")


@dataclass(frozen=True)
class Table:
    """What a csv holds, as numbers."""

    path: Path
    names: tuple[str, ...]
    """The header; empty where the first line holds numbers already."""
    rows: np.ndarray
    """`N c`, float64; NaN where there is no number."""
    lines: np.ndarray
    """Line of the file that each row stands in, counted from 1."""
    words: dict[int, dict[int, str]]
    """What is no number, by column and row."""
    notes: tuple[str, ...] = ()
    """What was not read, and why."""

    def wrong(self, what: str) -> AvenirError:
        """Make the error that says what is wrong with it."""
        return AvenirError(f"{printable(self.path.name)}: {what}")


def printable(name: str) -> str:
    """Write the bytes of a file name that are not UTF-8 as escapes, `caf\\xe9`."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def seconds_of(word: str) -> float:
    """Read a time such as 12:00:01.5, 01:30.25 or 2024-03-01 12:00:01.5; NaN for what is none.

    A date without a time zone is in UTC. 12:00:01:05, whose last number counts frames, is none.
    """
    clock = _CLOCK.fullmatch(word)
    if clock:
        hours, minutes, seconds = clock[1] or 0, clock[2], clock[3].replace(",", ".")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    if not _TIMECODE.search(word):  # which Python takes for fractions of a second
        with suppress(ValueError):
            moment = datetime.fromisoformat(word)
            return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    return math.nan


def read(path: Path) -> Table:
    """Read a csv: UTF-8 or UTF-16; commas, semicolons or tabs; decimal commas beside the last two.

    Raises AvenirError for what is no such table, with the line where it ends.
    """
    name = printable(path.name)
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise AvenirError(f"{name}: it is a folder, a device or a pipe; give a csv file")
        if about.st_size > MAX_BYTES:
            raise AvenirError(
                f"{name}: it holds {about.st_size / 1e6:.0f} MB, and a csv of up to "
                f"{MAX_BYTES / 1e6:.0f} MB is read; leave out what is not needed"
            )
        with path.open("rb") as file:
            return _parsed(path, file)
    except OSError as error:
        raise AvenirError(f"{name}: it cannot be read ({error.strerror}); check it") from None
    except UnicodeError:
        raise AvenirError(f"{name}: it is neither UTF-8 nor UTF-16; save it as UTF-8") from None
    except csv.Error as error:
        raise AvenirError(f"{name}: it is no csv ({error}); write it anew") from None


def _parsed(path: Path, file: BinaryIO) -> Table:
    head = file.read(2**16)
    encoding = _encoding(head)
    delimiter = _delimiter(head.decode(encoding, errors="replace"))
    file.seek(0)
    with TextIOWrapper(file, encoding, newline="") as text:
        return _of_lines(path, csv.reader(text, delimiter=delimiter), delimiter != ",")


def _of_lines(path: Path, reader: Any, has_decimal_commas: bool) -> Table:
    filled = ((reader.line_num, cells) for cells in reader if any(map(str.strip, cells)))
    first = next(filled, (0, []))
    header = [word.strip().lstrip("#% ") for word in first[1]]
    named = any(word and math.isnan(_number(word)) for word in header)
    if len(header) > MAX_COLUMNS:
        raise AvenirError(
            f"{printable(path.name)}: its first line has {len(header)} values, and at most "
            f"{MAX_COLUMNS} are read; write one line for each row"
        )
    cells, notes = _Cells(len(header), has_decimal_commas), ()
    for line, row in chain([] if named or not header else [first], filled):
        if cells.torn:
            raise AvenirError(
                f"{printable(path.name)}: line {cells.torn} does not have {len(header)} values, as "
                "the first line has; mend it"
            )
        cells.add(line, row)
    if cells.torn:  # the last line, of a logger that was stopped
        notes = (f"line {cells.torn}, the last one, is not whole and is not used",)
    names = tuple(header) if named else ()
    table = Table(path, names, cells.rows, np.array(cells.lines, int), cells.words, notes)
    if not cells.lines:
        raise table.wrong("it has no rows; give it a header and one row of numbers per frame")
    name, count = Counter(name for name in names if name).most_common(1)[0] if named else ("", 1)
    if count > 1:
        raise table.wrong(f"{count} columns are named {name!r}; give each a name of its own")
    return table


class _Cells:
    """The values of a table, gathered line by line."""

    def __init__(self, count: int, has_decimal_commas: bool) -> None:
        self.count, self.has_decimal_commas = count, has_decimal_commas
        self.numbers, self.lines = array("d"), array("q")
        self.words: dict[int, dict[int, str]] = {}
        self.num_words = 0
        self.torn = 0
        """A line of another number of values."""

    @property
    def rows(self) -> np.ndarray:
        """`N c`, float64."""
        return np.array(self.numbers, np.float64).reshape(len(self.lines), max(1, self.count))

    def add(self, line: int, row: list[str]) -> None:
        """Read the values of a line; empty ones behind the last column are none."""
        while len(row) > self.count and not row[-1].strip():
            row.pop()
        if len(row) != self.count:
            self.torn = line
            return
        for column, word in enumerate(map(str.strip, row)):
            number = _number(word.replace(",", ".") if self.has_decimal_commas else word)
            self.numbers.append(number)
            if math.isnan(number) and word.lower() not in NOTHING and self.num_words < MAX_WORDS:
                self.words.setdefault(column, {})[len(self.lines)] = word
                self.num_words += 1
        self.lines.append(line)


def _encoding(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    head = content[:200]
    if b"\0" in head:
        return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    return "utf-8-sig"


def _delimiter(text: str) -> str:
    """Find what parts the values: what parts the first lines evenly, or the header most often."""
    lines = [line for line in text[: 2**16].splitlines() if line.strip()][:20]

    def fit(delimiter: str) -> tuple[bool, int]:
        widths = [len(cells) for cells in csv.reader(lines, delimiter=delimiter) if cells]
        return (len(set(widths)) == 1 and widths[0] > 1, widths[0]) if widths else (False, 0)

    return max(",;\t", key=fit)


def _number(word: str) -> float:
    try:
        return np.nan if "_" in word else float(word)  # in Python 20240301_120000 is a number
    except ValueError:
        return {"true": 1.0, "false": 0.0}.get(word.lower(), np.nan)
