"""Controls over a whole future: from a table of actions, and from words with the second they begin.

Knows tables, signals and a frame rate; no model and no command line.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avenir import tables
from avenir.controls import Controls, check_name, parse_row
from avenir.errors import AvenirError
from avenir.signals import Signal, with_role
from avenir.video import resample

_TIMED = re.compile(r"(?:(\d+(?:\.\d+)?):)?(.*)", re.DOTALL)


def captions_of(words: Sequence[str], num_frames: int, fps: float) -> list[str | None]:
    """Return the caption of every imagined frame: each of the `words` holds from its second on.

    `1.5:fog` begins at second 1.5. Raises AvenirError for one that begins after the last frame.
    """
    captions: list[str | None] = [None] * num_frames
    for first, caption in _timed("--text", words, num_frames, fps):
        captions[first:] = [caption or None] * (num_frames - first)
    return captions


def signals_of(
    words: Sequence[str], taken: Mapping[str, Signal], num_frames: int, fps: float
) -> dict[str, Tensor]:
    """Return rows `F s` of the signals that `words` name, each from its second on.

    `1.5:weather=fog` begins at second 1.5; without a value the signal is unknown from there on.
    Raises AvenirError for signals that are not `taken`, and for values that they do not have.
    """
    signals: dict[str, Tensor] = {}
    for first, setting in _timed("--tell", words, num_frames, fps):
        name, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise AvenirError(f"--tell {setting!r} was given; write SIGNAL=VALUE: weather=night")
        check_name(taken, name)
        unknown = torch.full((taken[name].size,), torch.nan)
        rows = signals.setdefault(name, unknown.repeat(num_frames, 1))
        rows[first:] = parse_row(taken[name], value) if value else unknown
    return signals


def read_actions(
    path: Path, taken: Mapping[str, Signal], num_frames: int, fps: float
) -> tuple[Tensor, list[str]]:
    """Read the action of every imagined frame, or of as many as there are, `F a`, and notes.

    Columns are found by name. Where one says when rows are, or of which imagined frame, they are
    resampled by it; otherwise each row is of one frame. Raises AvenirError for a table that does
    not fit the actions that are `taken`.
    """
    signal = next(iter(with_role(taken, "action").values()), None)
    if signal is None:
        raise AvenirError("actions were given to a world that was trained without any")
    frames = np.arange(num_frames)
    try:
        table = tables.read(path)
        columns, notes = tables.signals_by_name(table, signal.names, signal.size)
        rows = table.rows[:, columns]
        where = [f"line {line}" for line in table.lines]
        if tables.has_times(table, signal.names):
            end = num_frames / fps
            any_number = 2**31  # of a longer table the rest is not used
            used, seconds, more = tables.place(table, frames / fps, end, num_declared=any_number)
            rows = resample(rows[used], seconds, end, 0.0, num_frames, fps, signal.change)
            rows[frames / fps < seconds[0] - 0.5 / fps] = np.nan  # unknown before the first row
            until = float(seconds[-1]) + max(1 / fps, float(np.diff(seconds[-2:]).sum()))
            rows = rows[: max(1, round(until * fps))]
            where = [f"the row at {frame / fps:.2f} s" for frame in frames]
            notes += more
        _check_bounds(rows, signal, where)
    except AvenirError as error:
        raise AvenirError(f"{str(path)!r} does not hold actions of this world: {error}") from None
    return torch.from_numpy(rows).float(), [*table.notes, *notes]


def script(
    taken: Mapping[str, Signal],
    num_frames: int,
    fps: float,
    actions: Tensor | None,
    text: Sequence[str],
    tell: Sequence[str],
) -> Controls:
    """Put actions, timed captions and timed signals together."""
    captions = captions_of(text, num_frames, fps) if text else None
    return Controls(actions, captions, signals_of(tell, taken, num_frames, fps))


def _timed(
    option: str, words: Sequence[str], num_frames: int, fps: float
) -> Iterator[tuple[int, str]]:
    """Yield from which imagined frame on each of the words holds, the earliest first."""
    matches = [_TIMED.fullmatch(each) for each in words]
    parts = [(float(match[1] or 0), match[2].strip()) for match in matches if match is not None]
    for second, part in sorted(parts, key=lambda each: each[0]):
        first = round(second * fps)
        if first >= num_frames:
            raise AvenirError(
                f"{option} '{second:g}:{part}' was given; {num_frames / fps:g} s are imagined: "
                "name an earlier second, or ask for more --seconds"
            )
        yield first, part


def _check_bounds(rows: np.ndarray, signal: Signal, where: list[str]) -> None:
    """Refuse the first number that is further out of bounds than rounding takes it."""
    if not signal.low:
        return
    low, high = np.array(signal.low), np.array(signal.high)
    room = 0.01 * np.maximum(high - low, 1e-3 * np.maximum(abs(low), abs(high)))
    wrong = np.argwhere((rows < low - room) | (rows > high + room))
    if len(wrong):
        row, column = wrong[0]
        name = signal.names[column] if signal.names else str(column)
        raise AvenirError(
            f"{where[row]}, column {name!r} is {rows[row, column]:g}, and the world was trained on "
            f"{low[column]:g} to {high[column]:g}; stay within"
        )
