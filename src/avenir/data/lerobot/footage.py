"""The frames of one episode by row: from a stretch of a video file, or from pictures in a table.

Knows nothing of rows' numbers; which frame belongs to a row is found in `joining`.
"""

import io
import struct
import threading
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from avenir import video
from avenir.clip import cover
from avenir.data.lerobot.tables import opened
from avenir.errors import VideoError
from avenir.shapes import Frames

MAX_PIXELS = 2**26
"""Pictures above 8192 x 8192 are refused before they are decoded."""
PICTURES_AT_ONCE = 32
"""Pictures read from a table at a time, whatever the size of its row groups."""
FORMATS = ("PNG", "JPEG", "WEBP")
"""Formats of pictures that data sets are written in."""
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises for a damaged picture, or one that is too large to be one."""


class EpisodeFootage(ABC):
    """The frames of an episode, one per row, at one size.

    With `in_memory` the first window decodes everything once and keeps it; without, every window
    is decoded with random access. Both give the same frames.
    """

    def __init__(self, path: Path, size: tuple[int, int], num_rows: int, in_memory: bool) -> None:
        self.path = path
        """The file that the frames are in."""
        self.size = size
        self.num_rows = num_rows
        self.in_memory = in_memory
        self._lock = threading.Lock()
        self._kept: Frames | None = None

    def take(self, rows: np.ndarray) -> Frames:
        """Return the frames `T C H W` of rows, which may repeat."""
        if not self.in_memory:
            wanted, where = np.unique(rows, return_inverse=True)
            try:
                return self.decode(wanted)[torch.from_numpy(where)]
            except VideoError:
                pass  # damaged around here: the frames before still have something to show
        with self._lock:
            kept = self.decode(np.arange(self.num_rows)) if self._kept is None else self._kept
            self._kept = kept
        return kept[torch.from_numpy(rows)]

    @abstractmethod
    def decode(self, rows: np.ndarray) -> Frames:
        """Decode the frames of rows that ascend; VideoError when there are none."""


class Film(EpisodeFootage):
    """A stretch of a video file; `seconds` is when in the file the frame of each row is shown."""

    def __init__(
        self, path: Path, size: tuple[int, int], seconds: np.ndarray, *, in_memory: bool
    ) -> None:
        super().__init__(path, size, len(seconds), in_memory)
        self.seconds = seconds

    def decode(self, rows: np.ndarray) -> Frames:
        """Decode from the first to the last of them; what is damaged shows the frame before."""
        wanted = self.seconds[rows]
        start, end = float(wanted[0]), float(wanted[-1])
        frames, times = video.decode(self.path, self.size, start, end - start + 2e-3)
        return frames[torch.from_numpy(video.shown(times, wanted))]


class Album(EpisodeFootage):
    """Pictures inside a table, `numbers` being the rows of the table that they are in."""

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        column: str,
        numbers: np.ndarray,
        *,
        in_memory: bool,
    ) -> None:
        super().__init__(path, size, len(numbers), in_memory)
        self.column = column
        self.numbers = numbers

    def decode(self, rows: np.ndarray) -> Frames:
        """Decode the pictures of rows; what is damaged shows its neighbour, with a warning."""
        numbers = self.numbers[rows]
        found: dict[int, Tensor] = {}
        damaged: dict[int, VideoError] = {}
        for number, stored in self._stored(numbers):
            try:
                found[number] = picture(stored, self.size)
            except VideoError as error:
                damaged[number] = error
        for number, error in list(damaged.items())[:1]:
            message = f"{len(damaged)} of the pictures in {self.column!r} of {str(self.path)!r} "
            message += f"cannot be read, the first in row {number} ({error})"
            if not found:
                raise VideoError(message)
            warnings.warn(f"{message}; neighbours are shown", video.VideoWarning, stacklevel=4)
        there = np.array(sorted(found))
        shown = there[np.maximum(np.searchsorted(there, numbers, side="right") - 1, 0)]
        return torch.stack([found[number] for number in shown.tolist()])

    def probe(self) -> None:
        """Decode the first picture, or all where it is damaged; VideoError when there is none."""
        try:
            self.decode(np.arange(1))
        except VideoError:
            self.decode(np.arange(self.num_rows))

    def _stored(self, numbers: np.ndarray) -> Iterator[tuple[int, object]]:
        """Yield (row, its picture as stored); only row groups that hold some are read."""
        with opened(self.path) as file:
            if self.column not in file.schema_arrow.names:
                raise VideoError(f"{str(self.path)!r} has no column {self.column!r} of pictures")
            past = 0
            for group in range(file.num_row_groups):
                first, past = past, past + file.metadata.row_group(group).num_rows
                wanted = set(numbers[(numbers >= first) & (numbers < past)].tolist())
                if not wanted:
                    continue
                for batch in file.iter_batches(
                    PICTURES_AT_ONCE, [group], [self.column], use_threads=False
                ):
                    for number in wanted.intersection(range(first, first + batch.num_rows)):
                        yield number, batch.column(0)[number - first].as_py()
                    first += batch.num_rows
                    if first > max(wanted):
                        break


def picture(stored: object, size: tuple[int, int]) -> Tensor:
    """Decode a picture as the format stores it, a table with its `bytes`, to `C H W` of one size.

    Raises VideoError for what is no picture of 8 bits, or too large.
    """
    data = stored.get("bytes") if isinstance(stored, dict) else stored
    if not isinstance(data, bytes):
        raise VideoError("it lies in another file or nowhere; only those in tables are read")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise VideoError(f"{image.width}x{image.height} pixels are too many")
            if image.mode.startswith(("I", "F")):
                raise VideoError(f"mode {image.mode!r} has more than 8 bits of colour")
            pixels = np.array(image.convert("RGB"))
    except BROKEN as error:
        raise VideoError(f"damaged: {str(error)[:100]}") from None
    return cover(torch.from_numpy(pixels).permute(2, 0, 1), *size)
