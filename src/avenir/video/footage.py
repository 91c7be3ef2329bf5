"""One recording by time: its frames, kept in memory or decoded per window, and its signals.

Everything is found by timestamps in seconds from the recording's start, so the rate asked for
need not be the recorded one. Knows nothing of splits, data sets or models.
"""

import hashlib
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from avenir.errors import VideoError, VideoWarning
from avenir.shapes import Frames
from avenir.video.reading import decode
from avenir.video.timing import SLACK_SECONDS

PICTURE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")


class Footage:
    """The frames of a video file, or of a stretch of one, at one size.

    With `in_memory` the first window decodes everything once and keeps uint8 frames at the
    recorded rate; without, every window is decoded with random access. Both give the same frames.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        *,
        in_memory: bool,
        start_seconds: float = 0.0,
        seconds: float | None = None,
    ) -> None:
        self.path = path
        self.size = size
        self.in_memory = in_memory
        self.start_seconds = start_seconds
        self.seconds = seconds
        self._lock = threading.Lock()
        self._kept: tuple[Frames, np.ndarray] | None = None

    def window(self, start_seconds: float, num_frames: int, fps: float) -> Frames:
        """Return `T C H W`: frame k is the one shown at `start_seconds + k / fps`."""
        times = start_seconds + np.arange(num_frames) / fps
        if not self.in_memory:
            frames = self._decoded(times, fps)
            if frames is not None:
                return frames
        with self._lock:
            self._kept = self._kept or self._everything()
        frames, timestamps = self._kept
        return frames[torch.from_numpy(shown(timestamps, times))]

    def _everything(self) -> tuple[Frames, np.ndarray]:
        frames, times = decode(self.path, self.size, self.start_seconds, self.seconds)
        return frames, times - self.start_seconds

    def _decoded(self, times: np.ndarray, fps: float) -> Frames | None:
        start = self.start_seconds + float(times[0])
        try:
            frames, _ = decode(self.path, self.size, start, len(times) / fps, fps)
        except VideoError:
            return None  # damaged around here: the frames before still have something to show
        if len(frames) < len(times):
            frames = torch.cat([frames, frames[-1:].expand(len(times) - len(frames), -1, -1, -1)])
        return frames


class Pictures(Footage):
    """Image files in order as the frames of one recording, at a steady rate or at `timestamps`."""

    def __init__(
        self,
        paths: Sequence[Path],
        fps: float,
        size: tuple[int, int],
        *,
        in_memory: bool,
        timestamps: np.ndarray | None = None,
    ) -> None:
        super().__init__(paths[0], size, in_memory=in_memory)
        self.paths = paths
        self.timestamps = np.arange(len(paths)) / fps if timestamps is None else timestamps

    def _everything(self) -> tuple[Frames, np.ndarray]:
        return self._read(range(len(self.paths))), self.timestamps

    def _decoded(self, times: np.ndarray, fps: float) -> Frames | None:
        wanted, where = np.unique(shown(self.timestamps, times), return_inverse=True)
        return self._read(wanted)[torch.from_numpy(where)]

    def _read(self, indices: Sequence[int] | np.ndarray) -> Frames:
        pictures: list[Frames] = []
        for index in indices:
            try:
                pictures.append(decode(self.paths[index], self.size)[0][:1])
            except VideoError as error:
                warnings.warn(f"{error}; its neighbour is shown", VideoWarning, stacklevel=4)
                pictures.append(pictures[-1] if pictures else decode(self.path, self.size)[0][:1])
        return torch.cat(pictures)


def shown(timestamps: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Index of the last timestamp that is not later than each time; 0 before the first."""
    return np.maximum(np.searchsorted(timestamps, times + SLACK_SECONDS, side="right") - 1, 0)


def resample(
    values: np.ndarray,
    timestamps: np.ndarray,
    end_seconds: float,
    start_seconds: float,
    num_frames: int,
    fps: float,
    how: Literal["absolute", "delta", "observed"],
) -> np.ndarray:
    """Resample rows `N a` recorded at `timestamps` to `num_frames` rows from `start_seconds`.

    A target frame stands for the recorded ones from the frame it shows up to the frame the next
    target shows. Of those, `absolute` actions keep the last row, `delta` actions are summed (so
    nothing of the motion is lost, whatever the rates), and `observed` values, such as a robot's
    state, keep the first, which belongs to the frame itself.
    """
    edges = start_seconds + np.arange(num_frames + 1) / fps
    bounds = shown(np.append(timestamps, end_seconds), edges)
    first, past = bounds[:-1], bounds[1:]
    last_row = len(values) - 1
    if how == "delta":
        # A row that is unknown makes those it is added to unknown, and none after them.
        known = np.isfinite(values)
        totals = (np.cumsum(each, 0, float) for each in (np.where(known, values, 0), ~known))
        sums, unknown = (np.concatenate([np.zeros_like(each[:1]), each]) for each in totals)
        added = (sums[past] - sums[first]).astype(values.dtype)
        return np.where(unknown[past] > unknown[first], np.nan, added).astype(values.dtype)
    rows = first if how == "observed" else np.maximum(past - 1, first)
    return values[np.minimum(rows, last_row)]


def is_picture(path: Path) -> bool:
    """Tell a still image from anything else by its first bytes."""
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith(PICTURE_STARTS) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def fingerprint(path: Path) -> str:
    """Hash a file by its length and both its ends, which a changed video does not share."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(2**16)
        file.seek(max(0, size - 2**16))
        return hashlib.sha256(str(size).encode() + head + file.read()).hexdigest()
