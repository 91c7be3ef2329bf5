"""Which frame of a video belongs to which row of a table, and when each row was recorded.

A data set means row k of an episode to be the frame nearest to `from_timestamp + timestamp[k]`.
Rates and starts in files are often a little off, and the frame beside the right one is not noticed:
a join is kept only where it can be no other. Knows numbers only, no files.
"""

from collections.abc import Sequence

import numpy as np

MAX_DROPPED = 10
"""A recorder that lost more rows than this for each that it kept recorded nothing."""


def recorded(timestamps: np.ndarray | None, frames: np.ndarray, fps: float) -> np.ndarray | None:
    """Return the seconds of every row: the timestamps, or those of `frames` at `fps` without any.

    None where timestamps cannot be those of the rows: they stand still, run backwards, are in
    another unit than seconds, or say that `MAX_DROPPED` times as many rows were dropped as there
    are.
    """
    if timestamps is None:
        return frames / fps
    num_rows = len(frames)
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.diff(timestamps) * fps
    if not np.isfinite(timestamps).all() or not (steps > 0).all():
        return None
    usable = num_rows == 1 or (
        0.5 < np.median(steps) < 2 and steps.sum() < (1 + MAX_DROPPED) * num_rows
    )
    return timestamps if usable else None


def timeline(seconds: np.ndarray, fps: float) -> np.ndarray:
    """Return when each row is, from the first: the grid of `fps` where all are near to it.

    Near is within half a frame. Where a recorder dropped rows, or ran at another rate than the
    data set says, the rows are when they were recorded.
    """
    grid, seconds = np.arange(len(seconds)) / fps, seconds - seconds[0]
    return grid if (abs(seconds - grid) <= 0.5 / fps).all() else seconds


def by_number(
    stamps: np.ndarray, starts: Sequence[float], lengths: Sequence[int]
) -> list[np.ndarray] | None:
    """Return the frames of every episode of a video that has one frame for every row.

    Row k is then frame k, whatever rate the file was given: 29.97 or 25 frames per second for rows
    of 30. Episodes come in order of their starts. None where there are more or fewer frames, or
    two episodes start together.
    """
    if sum(lengths) != len(stamps) or len(set(starts)) < len(starts):
        return None
    return np.split(np.arange(len(stamps)), np.cumsum(lengths)[:-1])


def by_time(
    stamps: np.ndarray, wanted: Sequence[np.ndarray], fps: float
) -> list[np.ndarray | None]:
    """Return the frames nearest to the wanted seconds of each episode of a video, in order of time.

    Fewer where the video ends early, or the next episode begins. None where they do not fit: a row
    has no frame within half a frame (of 1 / `fps` seconds), or the error jumps by so much from a
    row to the next. There a file of another rate has drifted away: what follows is off by a frame.
    """
    half, last, drifted, before = 0.5 / fps, np.zeros(0), False, -np.inf
    middles = (stamps[1:] + stamps[:-1]) / 2
    found: list[np.ndarray | None] = []
    for own, following in zip(wanted, [*wanted[1:], np.full(1, np.inf)], strict=True):
        until = following[0]
        nearest = np.searchsorted(middles, own)
        errors = stamps[nearest] - own
        begins_alone = own[0] >= before + half  # of two that begin together neither is known
        before = own[0]
        if not begins_alone:
            found.append(nearest[:0])
            continue
        fits = (abs(errors) <= half) & (own < until - half)
        count = len(fits) if fits.all() else int(fits.argmin())
        jumps = abs(np.diff(np.append(last, errors[:count]))) >= half
        drifted = drifted or bool(jumps.any())
        whole = count == len(own) or (
            own[count] > min(stamps[-1] + half, until - half)
            and not fits[count:].any()
            and bool((np.diff(nearest[:count]) == 1).all())
        )
        found.append(nearest[:count] if whole and not drifted else None)
        last = errors[max(0, count - 1) : count] if count else last
    return found
