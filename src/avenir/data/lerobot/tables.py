"""The tables of a LeRobot data set: rows of numbers, by episode.

Knows parquet and what can be wrong with it; knows nothing of videos or of where files lie.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avenir.data.lerobot.joining import MAX_DROPPED
from avenir.errors import VideoError

MAX_ROWS = 2**23
"""Rows of one table: three days at 30 a second, tens of times what LeRobot writes."""
MAX_NUMBERS = 2**26
"""Numbers of one table, in the columns that are read: twice a million rows of a humanoid."""
MAX_BYTES = 2**29
"""Bytes of them in memory, which words and odd types fill faster than numbers."""
BATCH_ROWS = 2**10
"""Rows that are read at a time, between which their bytes are counted."""
ORDER = ("episode_index", "frame_index", "timestamp")
"""Columns that say which row is which."""


@dataclass(frozen=True)
class Rows:
    """The rows of one episode, in order."""

    table: Path
    numbers: np.ndarray
    """Which rows of the table they are."""
    timestamps: np.ndarray | None
    """Seconds float64 as recorded; None where the table has none."""
    frames: np.ndarray
    """Number of each, from 0: as the table says where it leaves some out, else in order."""
    num_repeated: int
    """Rows whose number another one has too."""
    values: dict[str, np.ndarray]
    """`N a` float32 by column; what is not known is NaN."""
    unusable: dict[str, str]
    """Columns that hold no numbers, and why."""

    def __len__(self) -> int:
        return len(self.numbers)


def is_regular(path: Path) -> bool:
    """Tell a file from a pipe, a device, a folder or nothing, before it is opened."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a table; VideoError for what is none, or turns out damaged while it is read."""
    if not is_regular(path):
        raise VideoError(f"there is no table {str(path)!r}, or it is no regular file")
    with _sound(path), pq.ParquetFile(path) as file:
        yield file


def read_table(path: Path, columns: Sequence[str], max_rows: int = MAX_ROWS) -> pa.Table:
    """Read those of the columns that there are, however a table claims to be made.

    Raises VideoError when it is damaged, or would fill the memory.
    """
    with opened(path) as file:
        if file.metadata.num_rows > max_rows:
            raise VideoError(
                f"{str(path)!r} claims to hold {file.metadata.num_rows:,} rows; at most "
                f"{max_rows:,} are read from one table: split it"
            )
        if _num_values(file, columns) > MAX_NUMBERS:
            raise VideoError(
                f"{str(path)!r} holds more than {MAX_NUMBERS:,} numbers in the columns that are "
                "read; split it"
            )
        batches, num_bytes = [], 0
        for batch in file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False):
            num_bytes += batch.nbytes
            if num_bytes > MAX_BYTES:
                raise VideoError(
                    f"{str(path)!r} holds more than {MAX_BYTES / 1e6:.0f} MB in the columns that "
                    "are read; split it"
                )
            batches.append(batch)
        table = pa.Table.from_batches(batches) if batches else file.schema_arrow.empty_table()
        return table.select([name for name in dict.fromkeys(columns) if name in table.column_names])


def read_rows(path: Path, columns: Sequence[str], episodes: Iterable[int]) -> dict[int, Rows]:
    """Read the rows of those of the episodes that lie in a table; VideoError if it is damaged."""
    table = read_table(path, [*columns, *ORDER])
    with _sound(path):
        of_row = _column(table, "episode_index")
        if of_row is None:
            raise VideoError(f"{str(path)!r} does not say in 'episode_index' whose rows it holds")
        frames = _column(table, "frame_index")
        order = np.lexsort((of_row,) if frames is None else (frames, of_row))
        if (np.diff(order) < 0).any():
            table = table.take(pa.array(order))
        present, firsts = np.unique(of_row[order], return_index=True)
        pasts = dict(zip(present.tolist(), [*firsts.tolist()[1:], len(order)], strict=True))
        first = dict(zip(present.tolist(), firsts.tolist(), strict=True))
        found: dict[int, Rows] = {}
        for episode in first.keys() & set(episodes):
            own = table.slice(first[episode], pasts[episode] - first[episode])
            numbers = order[first[episode] : pasts[episode]]
            found[episode] = _rows(path, own, columns, numbers)
        return found


def matrix(column: pa.ChunkedArray, dtype: type[np.floating] = np.float32) -> np.ndarray:
    """Numbers, or lists of equally many numbers, as `N a`; what is null is NaN.

    Raises VideoError for what is neither, or null in every row.
    """
    there = ~np.asarray(column.is_null())
    flat = column.combine_chunks().drop_null()
    if not there.any():
        raise VideoError("is null in every row")
    while isinstance(flat, pa.FixedSizeListArray | pa.ListArray | pa.LargeListArray):
        fixed = isinstance(flat, pa.FixedSizeListArray)
        if flat.null_count or (not fixed and len(flat.value_lengths().unique()) > 1):
            raise VideoError("has another number of values in some rows")
        flat = flat.flatten()
    kind = flat.type
    if pa.types.is_boolean(kind):
        flat = flat.cast(pa.uint8())
    elif not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise VideoError(f"holds {str(kind)[:40]}, no numbers")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which counts as unknown
        known = flat.to_numpy(zero_copy_only=False).astype(dtype)
    if not len(known) or len(known) % there.sum():
        raise VideoError("has another number of values in some rows")
    rows = np.full((len(there), len(known) // there.sum()), np.nan, dtype)
    rows[there] = known.reshape(there.sum(), -1)
    return rows


def _rows(path: Path, table: pa.Table, columns: Sequence[str], numbers: np.ndarray) -> Rows:
    values: dict[str, np.ndarray] = {}
    unusable: dict[str, str] = {}
    for name in columns:
        try:
            if name not in table.column_names:
                raise VideoError("is missing")
            values[name] = matrix(table[name])
        except VideoError as error:
            unusable[name] = f"column {name!r} of {str(path)!r} {error}"
    frames, num_repeated = _frames(table)
    stamps = _column(table, "timestamp")
    return Rows(path, numbers, stamps, frames, num_repeated, values, unusable)


def _frames(table: pa.Table) -> tuple[np.ndarray, int]:
    """Return the number of each row, and how many rows repeat one; in order where none are said.

    Numbers that would leave out `MAX_DROPPED` times as many rows as there are say nothing.
    """
    numbers, in_order = _column(table, "frame_index"), np.arange(len(table))
    if numbers is None or not np.isfinite(numbers).all() or (numbers == numbers[0]).all():
        return in_order, 0
    num_repeated = len(numbers) - len(np.unique(numbers))
    spanned = numbers[-1] - numbers[0] + 1
    skips = numbers[0] >= 0 and not num_repeated and len(numbers) < spanned
    skips = skips and spanned <= (1 + MAX_DROPPED) * len(numbers)
    return numbers if skips else in_order, num_repeated


def _num_values(file: pq.ParquetFile, columns: Sequence[str]) -> int:
    """Count the numbers in columns, of which a few kilobytes of parquet may hold billions."""
    within = tuple(f"{name}." for name in columns)
    leaves = [i for i, leaf in enumerate(file.schema) if f"{leaf.path}.".startswith(within)]
    if not leaves:
        return 0
    # Asked about the columns of a damaged file the library ends the process, unless it has read
    # them before: then it raises. This reads them without keeping anything.
    file.scan_contents(columns=list(columns))
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    return sum(group.column(leaf).num_values for group in groups for leaf in leaves)


def _column(table: pa.Table, name: str) -> np.ndarray | None:
    """Read one number a row; None where there is no such column, or none of numbers."""
    try:
        return matrix(table[name], np.float64)[:, 0] if name in table.column_names else None
    except VideoError:
        return None


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Turn what the parquet library raises on damage into one sentence."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise VideoError(
            f"{str(path)!r} is cut off or damaged, or no parquet ({reason}); copy it again"
        ) from None
