"""Columns of clips beside the truth, playing in step, with what is known of each column below it.

Knows clips and words, not what made them: an encoder and back, or a world's future.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from avenir.clip import Clip
from avenir.evaluation.report.html import player
from avenir.evaluation.report.pictures import embedded
from avenir.shapes import Frames

GAIN = 4
"""How many times a difference is magnified."""

_LEAST_PIXELS, _MOST_PIXELS = 192, 384
"""Heights of a panel: small frames are enlarged by a whole factor, very large ones shrink."""

_PICTURES_PERCENT = 88
"""Share of the page's width that is pictures; the rest names the rows."""

_QUALITY = 14
"""Of the film, as x264 counts it: what its own compression changes is not to be seen."""

_PIECE_FRAMES = 16
"""Frames of the film that are in memory together."""


class Column(NamedTuple):
    """One model: the clips as it sees them, what it makes of them frame by frame, and facts."""

    name: str
    seen: list[Clip]
    made: list[Clip]
    facts: Mapping[str, str]
    """HTML by the name of the fact; the first column's names are the rows of the table."""


class _Grid(NamedTuple):
    """Rows of clips at one rate, to be shown at one height; short rows are filled with black."""

    rows: list[list[Clip]]
    height: int

    @property
    def widths(self) -> list[int]:
        """Width of each column's panels: proportions kept, even, as video needs it."""
        sizes = [clip.size for clip in self.rows[0]]
        return [2 * round(self.height * width / height / 2) for height, width in sizes]

    @property
    def num_frames(self) -> int:
        return min(clip.num_frames for row in self.rows for clip in row)

    def pieces(self) -> Iterator[Frames]:
        """Yield the film a few frames at a time."""
        for start in range(0, self.num_frames, _PIECE_FRAMES):
            stretch = slice(start, min(start + _PIECE_FRAMES, self.num_frames))
            yield torch.cat([self._row(row, stretch) for row in self.rows], dim=-2)

    def _row(self, row: list[Clip], stretch: slice) -> Frames:
        widths, cell = self.widths, max(self.widths)
        panels = [
            pad(self._panel(clip[stretch], width), (0, cell - width))
            for clip, width in zip(row, widths, strict=False)
        ]
        return pad(torch.cat(panels, dim=-1), (0, cell * (len(widths) - len(row))))

    def _panel(self, clip: Clip, width: int) -> Frames:
        """Enlarge pixel by pixel, so that each stays a square, and bring to the size of a panel."""
        times = math.ceil(self.height / clip.size[0])
        frames = clip.frames.repeat_interleave(times, -1).repeat_interleave(times, -2)
        return Clip(frames, clip.fps).resized(self.height, width).frames


def side_by_side(
    columns: Sequence[Column], truth: Mapping[str, str], differences: bool = True
) -> str:
    """Return the player: a row of pictures per clip, columns beside the truth, facts below.

    All clips of one number show the same; `truth` holds the facts of the truth, which is shown as
    the model with the largest pictures sees it. `differences` from it have rows of their own.
    """
    grid = _grid(columns, differences)
    layout = {
        "fps": grid.rows[0][0].fps,
        "past": grid.num_frames,
        "frames": grid.num_frames,
        "height": grid.height,
        "width": max(grid.widths),
    }
    return player(
        embedded(grid.pieces(), layout["fps"], _QUALITY),
        layout,
        _table(columns, truth, grid, differences),
    )


def _grid(columns: Sequence[Column], differences: bool) -> _Grid:
    fps = max(column.seen[0].fps for column in columns)
    finest = max(columns, key=lambda column: math.prod(column.seen[0].size))
    rows = []
    for number, truth in enumerate(finest.seen):
        rows.append([*(column.made[number] for column in columns), truth])
        if differences:
            rows.append([_difference(c.made[number], c.seen[number]) for c in columns])
    tallest = max(column.seen[0].size[0] for column in columns)
    height = min(_MOST_PIXELS, tallest * max(1, _LEAST_PIXELS // tallest))
    return _Grid([[clip.resampled(fps) for clip in row] for row in rows], height + height % 2)


def _difference(made: Clip, seen: Clip) -> Clip:
    """Magnify the distance of every colour; black is equal."""
    gap = (made.frames.int() - seen.frames.int()).abs() * GAIN
    return replace(made, frames=gap.clamp(max=255).to(torch.uint8))


def _table(
    columns: Sequence[Column], truth: Mapping[str, str], grid: _Grid, differences: bool
) -> str:
    names = [
        f"<small>Model {number}</small>{escape(column.name)}"
        for number, column in enumerate(columns, start=1)
    ]
    share = _PICTURES_PERCENT / sum(grid.widths)
    head = "".join(
        f'<th scope="col" style="width:{share * width:.2f}%">{name}</th>'
        for name, width in zip([*names, "<small>&nbsp;</small>Truth"], grid.widths, strict=True)
    )
    clips = [_clip(columns, number, grid, differences) for number in range(len(columns[0].seen))]
    facts = dict.fromkeys(name for column in columns for name in column.facts)
    facts = "".join(
        _line(name, [*(column.facts.get(name, "–") for column in columns), truth.get(name, "")])
        for name in facts
    )
    return (
        f'<div class="scroll"><table class="compared" style="--columns:{len(grid.widths)}">'
        f"<thead><tr><td></td>{head}</tr></thead>{clips[0]}"
        f'<tbody class="facts">{facts}</tbody>{"".join(clips[1:])}</table></div>'
    )


def _clip(columns: Sequence[Column], number: int, grid: _Grid, differences: bool) -> str:
    """Lay out one clip: a row of pictures, and perhaps a row of differences below it."""
    name, row = columns[0].seen[number].name, number * (2 if differences else 1)
    models = [column.name for column in columns]
    pictures = [
        _canvas(grid, row, place, f"{model}: {name}")
        for place, model in enumerate([*models, "Truth"])
    ]
    lines = _line(name, pictures)
    if differences:
        below = [
            _canvas(grid, row + 1, place, f"{model}, difference from the truth: {name}")
            for place, model in enumerate(models)
        ]
        lines += _line(f"Difference ×{GAIN}", [*below, "Black is equal."])
    return f"<tbody>{lines}</tbody>"


def _canvas(grid: _Grid, row: int, column: int, words: str) -> str:
    return (
        f'<canvas width="{grid.widths[column]}" height="{grid.height}" data-row="{row}" '
        f'data-column="{column}" role="img" aria-label="{escape(words)}"></canvas>'
    )


def _line(name: str, cells: Sequence[str]) -> str:
    line = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{line}</tr>'
