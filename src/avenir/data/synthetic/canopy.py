"""The canopy: trees, bridges and the shadows they throw, above everything that moves.

Like the ground it is a whole loop of road, laid once per episode; it hides what passes beneath.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avenir.data.synthetic.colours import Palette
from avenir.data.synthetic.ground import Floats, cover, palettes_of
from avenir.data.synthetic.layout import NUM_BRIDGES, NUM_TREES, Layout
from avenir.data.synthetic.sprites import PHASES, SHADOW, SHADOW_COLOUR, Words, sheet_of
from avenir.data.synthetic.things import LOOP, WIDTH, Class


@dataclass(frozen=True)
class Canopy:
    """`b rows columns 4` each: `seen = (under * keep + add) / 256`, as for a drawing."""

    keep: Words
    add: Words


def paint_canopy(layout: Layout, width: int) -> Canopy:
    """Plant the trees and span the bridges of every episode, `width` pixels wide."""
    scale, colours = width / WIDTH, palettes_of(layout)
    margin = sheet_of(Class.TREE, scale).reach
    shape = len(colours), round(LOOP * scale), width + 2 * margin, 4
    canopy = Canopy(np.full(shape, 256, np.uint16), np.zeros(shape, np.uint16))
    _plant(canopy, layout, colours[:, Palette._fields.index("tree")], scale, margin)
    _span(canopy, layout, colours[:, Palette._fields.index("bridge")], scale, margin)
    inside = slice(margin, margin + width)
    return Canopy(
        np.ascontiguousarray(canopy.keep[:, :, inside]),
        np.ascontiguousarray(canopy.add[:, :, inside]),
    )


def _plant(canopy: Canopy, layout: Layout, leaves: Floats, scale: float, margin: int) -> None:
    sheet, count = sheet_of(Class.TREE, scale), len(leaves)
    inside = np.arange(2 * sheet.reach) - sheet.reach
    code = np.full((count, 1), Class.TREE)
    paint = np.concatenate([leaves, code], axis=-1).astype(np.uint16)[:, None, None]
    shape = count, 2 * sheet.reach, 2 * sheet.reach, 4
    for index in range(NUM_TREES):
        half = np.floor(layout.trees[:, index] * (PHASES * scale) + 0.5).astype(np.int64)
        (column, row), (right, down) = (half // PHASES).T, (half % PHASES).T
        drawing = layout.tree_shape[:, index], down * PHASES + right
        keep = sheet.keep[drawing].reshape(shape)
        add = paint * sheet.gain[drawing].reshape(shape) + sheet.fixed[drawing].reshape(shape)
        _lay(canopy, row[:, None] + inside, column[:, None] + inside + margin, keep, add)


def _span(canopy: Canopy, layout: Layout, stone: Floats, scale: float, margin: int) -> None:
    count, _, columns, _ = canopy.keep.shape
    x = (np.arange(columns, dtype=np.float32) - margin + 0.5) / scale - WIDTH / 2
    inside = np.arange(round(48 * scale)) - round(21 * scale)
    column = np.broadcast_to(np.arange(columns), (count, columns))
    for index in range(NUM_BRIDGES):
        y, width, tilt = layout.bridges[:, index].T[..., None]
        row = np.floor(y * scale).astype(np.int64) + inside
        depth = ((row + 0.5) / scale - y)[..., None] - (tilt * x)[:, None]
        keep, add = _deck(depth.astype(np.float32), width[..., None] / 2, stone, scale)
        _lay(canopy, row, column, keep, add)


def _deck(
    depth: Floats, half: NDArray[np.float64], stone: Floats, scale: float
) -> tuple[Words, Words]:
    """Draw a deck between two parapets and its shadow on the road, given the depth into it."""

    def band(half_width: NDArray[np.float64], middle: float = 0.0) -> Floats:
        inside = half_width - np.abs(depth - np.float32(middle))
        return cover(inside.astype(np.float32), scale) * (half > 0)

    deck, inner, line = band(half), band(half - 2.2), band(np.full_like(half, 0.5))
    shadow = band(half, middle=4.0) * (1 - deck) * np.float32(SHADOW)
    keep = np.empty((*depth.shape, 4), np.uint16)
    add = np.empty_like(keep)
    keep[..., :3] = np.floor(256 * (1 - deck - shadow))[..., None]
    keep[..., 3] = np.where(deck > 0.5, 0, 256)
    add[..., 3] = np.where(deck > 0.5, 256 * Class.BRIDGE, 0)
    for channel in range(3):
        parapet = stone[:, channel, None, None]
        value = parapet * (1 - 0.26 * inner)
        value += (0.5 * parapet + 120 - value) * line
        add[..., channel] = np.floor(256 * (value * deck + SHADOW_COLOUR[channel] * shadow))
    return keep, add


def _lay(
    canopy: Canopy, row: NDArray[np.int64], column: NDArray[np.int64], keep: Words, add: Words
) -> None:
    """Lay patches `b rows columns 4` over what is there; the loop closes."""
    count, rows, columns, _ = canopy.keep.shape
    top = (np.arange(count)[:, None] * rows + row % rows) * columns
    where = top[:, :, None] + column[:, None]
    # Four channels of two bytes move as one number of eight.
    keeps, adds = (
        whole.reshape(-1, 4).view(np.uint64)[:, 0] for whole in (canopy.keep, canopy.add)
    )
    old_keep, old_add = (
        whole[where].view(np.uint16).reshape(keep.shape) for whole in (keeps, adds)
    )
    new_keep = np.multiply(old_keep, keep, dtype=np.uint32) >> 8
    new_add = (np.multiply(old_add, keep, dtype=np.uint32) >> 8) + add
    keeps[where] = new_keep.astype(np.uint16).view(np.uint64)[..., 0]
    adds[where] = new_add.astype(np.uint16).view(np.uint64)[..., 0]
