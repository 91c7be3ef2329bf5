"""Which frame of a video belongs to which row of a table, and when each row was recorded.

A data set means row k of an episode to be the frame nearest to `from_timestamp + timestamp[k]`.
Rates and starts in files are often a little off, and the frame beside the right one is noticed by
nobody: a join is kept only where it can be no other. Knows numbers only, no files.
"""

from collections.abc import Sequence

import numpy as np


def recorded(timestamps: np.ndarray | None, num_rows: int, fps: float) -> np.ndarray | None:
    """Return the seconds of every row: the timestamps, or the grid of `fps` without any.

    None where timestamps cannot be those of the rows: they stand still, run backwards, or are in
    another unit than seconds.
    """
    if timestamps is None:
        return np.arange(num_rows) / fps
    steps = np.diff(timestamps)
    usable = bool(np.isfinite(timestamps).all() and (steps > 0).all())
    return timestamps if usable and (num_rows == 1 or 0.5 < np.median(steps) * fps < 2) else None


def timeline(seconds: np.ndarray, fps: float) -> np.ndarray:
    """Return when each row is, from the first: the grid of `fps` where all are near to it.

    Near is within half a frame. Where a recorder dropped rows, or ran at another rate than the
    data set says, the rows are when they were recorded.
    """
    grid, seconds = np.arange(len(seconds)) / fps, seconds - seconds[0]
    return grid if (abs(seconds - grid) <= 0.5 / fps).all() else seconds


def by_number(
    stamps: np.ndarray, starts: Sequence[float], num_rows: Sequence[int]
) -> list[int] | None:
    """Return the first frame of every episode of a video that has one frame for every row.

    Row k is then frame k, whatever rate the file was given: 29.97 or 25 frames per second for rows
    of 30. None where there are more or fewer frames, or the episodes have no order.
    """
    if sum(num_rows) != len(stamps) or len(set(starts)) < len(starts):
        return None
    order = np.argsort(starts)
    firsts = np.zeros(len(order), int)
    firsts[order[1:]] = np.cumsum(np.array(num_rows)[order])[:-1]
    return firsts.tolist()


def by_time(stamps: np.ndarray, wanted: np.ndarray, until: float, fps: float) -> np.ndarray | None:
    """Return the frame nearest to each of the wanted seconds, fewer where the video ends early.

    None where they do not fit: a row has no frame within half a frame (of 1 / `fps` seconds), or
    frames do not follow one another as rows do, as when a file of another rate drifts away. A frame
    at or after `until` belongs to the next episode.
    """
    half = 0.5 / fps
    nearest = np.searchsorted((stamps[1:] + stamps[:-1]) / 2, wanted)
    fits = (abs(stamps[nearest] - wanted) <= half) & (wanted < until - half)
    count = len(fits) if fits.all() else int(fits.argmin())
    shown = nearest[:count]
    strays = abs(np.diff(stamps[shown]) - np.diff(wanted[:count])) >= half
    if strays.any():
        return None
    if count < len(wanted):
        past_the_end = wanted[count] > min(float(stamps[-1]), until - 2 * half) + half
        if not past_the_end or fits[count:].any() or (np.diff(shown) != 1).any():
            return None
    return shown
