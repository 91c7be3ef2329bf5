"""Rows of a table are joined to the frames of a recording.

By name (a column of frame numbers, or of picture files), by unit and span (a column of times), or
by order where there is a row for every frame. What does not fit is refused in a sentence; what is
not used is said in `notes`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath

import numpy as np

from avenir.errors import AvenirError
from avenir.tables.reading import Table, seconds_of

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0}
"""Seconds of each unit that times are written in."""
_GUESSED = {unit: scale for unit, scale in UNITS.items() if unit != "min"}
"""Those that are tried where no name says one."""
SLACK = 0.05
"""Share of a recording by which numbers and times that count from its start may go on past it."""
MOST = 1e30
"""Numbers above this are damaged: what is computed of them is not finite."""

_UNIT = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "μs", "usec", "usecs", "micros", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nsec", "nsecs", "nanos", "nanosecond", "nanoseconds"), "ns"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "min"),
}
_LONG_UNITS = _UNIT.keys() - {"s", "min"}
"""Units that name a column of times by themselves."""
_TIME = re.compile(
    r"(?:(?:unix|epoch|system|elapsed|relative)[ _]?)?"
    r"(?:time[ _]?stamps?|date[ _]?time|time|stamp|epoch|elapsed|ts|t)"
    rf"[ _.]?[\[(]?({'|'.join(_UNIT)}|utc)?[\])]?"
)
_OF_SOMETHING = re.compile(r".+[._]stamp|.*time[ _]?stamps?")
"""Times by the name of what wrote them: `header.stamp`, `rosbagTimestamp`."""
_FRAME = re.compile(r"frames?[ _]?(?:index|idx|id|no|nr|num|number)?")
_ROW = re.compile(r"|unnamed: ?\d+|index|idx|row|(?:row|line)[ _]?(?:index|idx|id|no|nr|number)")
_ABOUT = re.compile(r"episode|(?:episode|task|chunk|file)[ _]?(?:index|idx|id|no|nr|number)")
"""Columns that say what a row is part of; such numbers are no signals."""


@dataclass(frozen=True)
class Joined:
    """Rows of signals, and when each begins."""

    names: tuple[str, ...]
    rows: np.ndarray
    """`N a`, float32, finite."""
    seconds: np.ndarray
    """When each row begins, in the recording's time; ascending, and on a frame where it is near."""
    notes: tuple[str, ...]
    """What was assumed, and what was not used."""


def signal_columns(table: Table, keep: Sequence[str] = ()) -> tuple[list[int], list[str]]:
    """Return the columns that hold signals, and notes on what else there is.

    Times and numbers of frames, rows or episodes are none, but those named in `keep` are; neither
    are columns of text, or empty ones. Raises AvenirError for a column that is partly numbers.
    """
    columns, notes = [], []
    for column, name in enumerate(table.names):
        role = None if name in keep else _role(name)
        texts, numbers = table.words.get(column, {}), table.rows[:, column]
        lacking = np.flatnonzero(~(abs(numbers) < MOST))
        counts = not len(lacking) and _whole(numbers) and bool((np.diff(numbers) > 0).all())
        shown = f"column {name!r}" if name else f"column {column + 1}, which has no name,"
        if role in ("time", "frame"):
            continue
        if len(lacking) == len(numbers):
            held = f"text, such as {next(iter(texts.values()))[:40]!r}," if texts else "nothing"
            notes.append(f"{shown} holds {held} and is not used")
        elif role == "about" or (role == "row" and counts):
            notes.append(f"{shown} numbers rows and is not used")
        elif not name:
            raise table.wrong(f"{shown} does not number rows; name it, or take it out")
        elif len(lacking):
            line, word = table.lines[lacking[0]], texts.get(int(lacking[0]))
            found = "no finite number" if word is None else repr(word[:40])
            raise table.wrong(
                f"line {line}, column {name!r} holds {found}; write a number, or take the row or "
                "the column out"
            )
        else:
            columns.append(column)
    return columns, notes


def _whole(numbers: np.ndarray) -> bool:
    return bool((abs(numbers) < MOST).all() and (numbers == np.floor(numbers)).all())


def _role(name: str) -> str | None:
    """Say what a column is by its name; None: a signal."""
    roles = {"frame": _FRAME, "time": _TIME, "row": _ROW, "about": _ABOUT}
    folded = name.casefold()
    found = (role for role, pattern in roles.items() if pattern.fullmatch(folded))
    is_time = folded in _LONG_UNITS or _OF_SOMETHING.fullmatch(folded)
    return next(found, "time" if is_time else None)


def join(
    table: Table,
    stamps: np.ndarray,
    end_seconds: float,
    *,
    num_declared: int = 0,
    files: Sequence[str] = (),
) -> Joined:
    """Say when each row of signals begins in a recording of frames at `stamps` seconds.

    The last frame ends at `end_seconds`; `num_declared` is how many the file should have had;
    `files` names the picture of each frame. Raises AvenirError for a table that does not fit.
    """
    if not table.names:
        raise table.wrong("its first line holds numbers; it needs a header that names them")
    columns, notes = signal_columns(table)
    if not columns:
        raise table.wrong(
            "it has no column of numbers beside times; give it one for each signal"
            + "".join(f" ({note})" for note in notes[:1])
        )
    names = tuple(table.names[column] for column in columns)
    used, seconds, found = place(table, stamps, end_seconds, num_declared=num_declared, files=files)
    rows = table.rows[used][:, columns].astype(np.float32)
    return Joined(names, rows, seconds, (*table.notes, *notes, *found))


def signals_by_name(table: Table, names: Sequence[str], size: int) -> tuple[list[int], list[str]]:
    """Find the column of each signal by its name, or by order where either has no names.

    Returns the columns in the order of `names`, and notes on what is not used. Raises AvenirError
    that names what the table has and what is wanted, unless it has each of them and no other.
    """
    columns, notes = list(range(table.rows.shape[1])), list[str]()
    if table.names:
        columns, notes = signal_columns(table, names)
    given = [table.names[column] for column in columns] if table.names and names else []
    fold = str if sorted(given) == sorted(names) else str.casefold
    column_of = {fold(name): column for name, column in zip(given, columns, strict=False)}
    if (given and sorted(column_of) != sorted(map(fold, names))) or len(columns) != size:
        has = ", ".join(given) or f"{len(columns)} columns"
        raise table.wrong(
            f"it has {has}; the world takes {', '.join(names) or f'{size} numbers'}: give each of "
            "these and no other, under its name"
        )
    lacking = ~(abs(table.rows[:, columns]) < MOST).all(1)
    if lacking.any():
        line = table.lines[lacking.argmax()]
        raise table.wrong(f"line {line} lacks a finite number; write one in each column")
    return [column_of[fold(name)] for name in names] if given else columns, notes


def recorded(table: Table, count: int) -> np.ndarray | None:
    """Return when `count` frames were recorded, in seconds from the first, by times of each row.

    None where the table does not have a row and a time for each, or where their unit is unclear.
    """
    for column, name in enumerate(table.names):
        if _role(name) != "time" or len(table.rows) != count or count < 2:
            continue
        values, unit = _times(table, column)
        counts_rows = unit is None and np.array_equal(values, np.arange(count))
        if counts_rows or not (abs(values) < MOST).all() or (np.diff(values) <= 0).any():
            continue
        for each, scale in _GUESSED.items() if unit is None else [(unit, UNITS[unit])]:
            # Of rates from 1/2 to 500 per second each is of one unit only.
            if unit is not None or 2e-3 <= np.median(np.diff(values)) * scale < 2:
                return (values - values[0]) * UNITS[each]
    return None


def has_times(table: Table, keep: Sequence[str] = ()) -> bool:
    """Tell whether a column says when rows are, or of which frame; those in `keep` do not."""
    return any(_role(name) in ("time", "frame") for name in table.names if name not in keep)


def place(
    table: Table,
    stamps: np.ndarray,
    end_seconds: float,
    *,
    num_declared: int = 0,
    files: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return which rows are of frames, when each of those begins, and notes; see `join`."""
    seconds, found = _when(table, _Frames(stamps, end_seconds, num_declared), files)
    used = np.flatnonzero(np.isfinite(seconds))
    if not len(used):
        raise table.wrong("none of its rows is of a frame of the recording; count from its start")
    if len(used) < len(seconds):
        found.append(f"{len(seconds) - len(used)} rows lie outside the recording and are not used")
    if len(used) > 2:
        steps = np.diff(seconds[used])
        since, widest = seconds[used][steps.argmax()], steps.max()
        if widest > max(1.0, 10 * np.median(steps)):
            until = since + widest
            found.append(f"no row is of {since:.2f} to {until:.2f} s; the one before is kept")
    return used, seconds[used], found


@dataclass(frozen=True)
class _Frames:
    """The frames that rows are joined to."""

    stamps: np.ndarray
    end: float
    num_declared: int

    @property
    def count(self) -> int:
        return len(self.stamps)

    @property
    def step(self) -> float:
        """Seconds from frame to frame."""
        steps = np.diff(self.stamps)
        return float(np.median(steps)) if len(steps) else self.end - float(self.stamps[0])


def _when(table: Table, frames: _Frames, files: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Try the columns that may say when a row is, and then their order; NaN: in no frame."""
    found: dict[str, list[int]] = {}
    for column, name in enumerate(table.names):
        found.setdefault(_role(name) or "signal", []).append(column)
    complaints: list[AvenirError] = []
    named = _by_file(table, files)
    if named is not None:
        return _of_frames(table, "file names", named, frames)
    for column in found.get("frame", []):
        try:
            return _of_frames(
                table, f"column {table.names[column]!r}", table.rows[:, column], frames
            )
        except AvenirError as error:
            complaints.append(error)
    for column in found.get("time", []):
        try:
            return _of_times(table, column, frames)
        except AvenirError as error:
            complaints.append(error)
    if complaints:
        raise complaints[0]
    if abs(len(table.rows) - frames.count) > 1 and len(table.rows) != frames.num_declared:
        for column in found.get("row", []):
            numbers = table.rows[:, column]
            counted = np.array_equal(numbers, np.arange(len(numbers)))  # as pandas counts any rows
            if _whole(numbers) and not counted:
                return _of_frames(table, "row numbers", numbers, frames)
        raise table.wrong(
            f"it has {len(table.rows)} rows for {frames.count} frames; give it one per frame, or a "
            "column 'timestamp' in seconds from the first frame, or a column 'frame' from 0"
        )
    return _shown_at(frames, np.arange(len(table.rows))), []


def _by_file(table: Table, files: Sequence[str]) -> np.ndarray | None:
    """Number the frame whose picture each row names, where a column does that."""
    numbers = {name: number for number, name in enumerate(files)}
    for words in table.words.values():
        named = [PureWindowsPath(word).name for word in words.values()]
        if len(named) == len(table.rows) and numbers.keys() >= set(named):
            return np.array([numbers[name] for name in named], float)
    return None


def _shown_at(frames: _Frames, numbers: np.ndarray) -> np.ndarray:
    """Say when frames of these numbers are shown; NaN for those that there are not."""
    there = (numbers >= 0) & (numbers < frames.count)
    index = np.where(there, numbers, 0).astype(int)
    return np.where(there, frames.stamps[index], np.nan)


def _of_frames(
    table: Table, which: str, numbers: np.ndarray, frames: _Frames
) -> tuple[np.ndarray, list[str]]:
    """Join by numbers of frames, counted from 0."""
    if not _whole(numbers):
        raise table.wrong(f"{which} do not number a frame in each row; count them from 0")
    if (np.diff(numbers) < 0).any():
        raise table.wrong(f"{which} run backwards; sort the rows by time")
    first, last = int(numbers[0]), int(numbers[-1])
    if first < 0 or last >= max(frames.num_declared, frames.count * (1 + SLACK) + 1):
        if (np.diff(numbers) == 1).all() and abs(len(numbers) - frames.count) <= 1:
            counted = _shown_at(frames, numbers - first)
            return counted, [f"{which} count from {first}, which is taken as the first frame"]
        raise table.wrong(
            f"{which} count from {first} to {last}, and there are {frames.count} frames; count "
            "them from 0"
        )
    if first == 1 and last == frames.count:
        return _shown_at(frames, numbers - 1), [f"{which} count from 1, the first frame"]
    return _shown_at(frames, numbers), []


def _of_times(table: Table, column: int, frames: _Frames) -> tuple[np.ndarray, list[str]]:
    """Join by times, to the nearest frame where one is within half a frame."""
    name = table.names[column]
    values, unit = _times(table, column)
    if not (abs(values) < MOST).all():
        row = int(np.flatnonzero(~(abs(values) < MOST))[0])
        word = table.words.get(column, {}).get(row)
        found = "no time" if word is None else f"{word[:40]!r}, which is read as no time"
        raise table.wrong(
            f"line {table.lines[row]}, column {name!r} holds {found}; write seconds in each row, "
            "or times such as 12:00:01.5 or 2024-03-01 12:00:01.5"
        )
    if (np.diff(values) < 0).any():
        line = table.lines[1:][np.diff(values) < 0][0]
        raise table.wrong(f"line {line}, column {name!r} runs backwards; sort the rows by time")
    if (
        unit is None
        and np.array_equal(values, np.arange(len(values)))
        and (abs(len(values) - frames.count) <= 1 < frames.count)
    ):
        return _shown_at(frames, values), [f"column {name!r} counts frames"]
    seconds, notes = _in_recording(table, name, values, unit, frames)
    _check_fine(table, name, seconds, frames)
    outside = (seconds < frames.stamps[0] - frames.step / 2) | (seconds >= frames.end)
    seconds = np.where(outside, np.nan, np.maximum(seconds, frames.stamps[0]))
    steps = np.diff(seconds[~outside])
    if len(steps) and np.median(steps) < 0.75 * frames.step:
        return seconds, notes  # several rows to a frame: they are of the one that is shown
    after = np.searchsorted(frames.stamps, seconds).clip(0, frames.count - 1)
    before = (after - 1).clip(0)
    nearer = seconds - frames.stamps[before] < frames.stamps[after] - seconds
    nearest = frames.stamps[np.where(nearer, before, after)]
    near = abs(nearest - seconds) <= frames.step / 2
    return np.where(near, nearest, seconds), notes


def _check_fine(table: Table, name: str, seconds: np.ndarray, frames: _Frames) -> None:
    """Refuse times too coarse to tell frames apart, or so fine that they are of another unit."""
    moments = np.unique(seconds)
    span, is_one_each = moments[-1] - moments[0], abs(len(seconds) - frames.count) <= 1
    is_coarse = 2 * len(moments) < len(seconds) and (
        len(moments) == 1 or np.median(np.diff(moments)) > 1.5 * frames.step
    )
    if is_coarse:
        raise table.wrong(
            f"column {name!r} holds {len(moments)} different times in {len(seconds)} rows, too few "
            "for the frames; write them to the millisecond, or take the column out"
        )
    if is_one_each and frames.count > 2 and span < (frames.stamps[-1] - frames.stamps[0]) / 4:
        raise table.wrong(
            f"column {name!r} puts the rows, one for each of {frames.count} frames, within "
            f"{span:.4g} of {frames.end:.4g} s; write seconds from its first frame"
        )


def _times(table: Table, column: int) -> tuple[np.ndarray, str | None]:
    """Return a column's times, and the unit that its name says."""
    name = table.names[column].casefold()
    match = _TIME.fullmatch(name)
    unit = _UNIT.get(match[1] or "" if match else name)
    words = table.words.get(column)
    if not words:
        return table.rows[:, column], unit
    values = table.rows[:, column].copy()
    for row, word in words.items():
        values[row] = seconds_of(word)
    return values, "s"


def _in_recording(
    table: Table, name: str, values: np.ndarray, unit: str | None, frames: _Frames
) -> tuple[np.ndarray, list[str]]:
    """Turn times of an unknown unit and origin into the recording's seconds, by their span."""
    length, slack = frames.end, max(2 * frames.step, SLACK * frames.end)
    units = _GUESSED if unit is None else {unit: UNITS[unit]}
    for each, scale in units.items():
        first, last, is_said = values[0] * scale, values[-1] * scale, each in ("s", unit)
        if not is_said and last - first < length / 2:
            continue  # what is a guess has to fit well
        if -frames.step / 2 <= first < length and last <= length + slack:
            return values * scale, [] if is_said else [f"column {name!r} is taken as {each}"]
    for each, scale in units.items():
        span = (values[-1] - values[0]) * scale
        row, short = span / max(1, len(values) - 1), frames.stamps[-1] - span
        if -2 * frames.step < short < max(2 * frames.step, min(1.5 * row, length / 2)):
            found = f"column {name!r} counts {each} from {values[0]:g}: its first row is taken as "
            return (values - values[0]) * scale, [found + "the first frame's"]
    seconds = values * UNITS[unit or "s"]
    most = 30 * length if unit is None else np.inf  # more than a log that began and ended elsewhere
    if seconds[0] < length and seconds[-1] >= 0 and max(-seconds[0], seconds[-1]) <= most:
        return seconds, []
    raise table.wrong(
        f"column {name!r} runs from {values[0]:.10g} to {values[-1]:.10g}, and the recording from "
        f"0 to {length:.4g} s; write seconds from its first frame"
    )
