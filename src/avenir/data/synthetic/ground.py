"""The ground: textured land, pavement, road, kerbs and marks, painted once per episode.

It is a whole loop of road, one row per pixel; a frame is a stretch of it. Knows no other thing.
"""

import numpy as np
from numpy.typing import NDArray

from avenir.data.synthetic.colours import PALETTES, TEXTURES
from avenir.data.synthetic.layout import Layout
from avenir.data.synthetic.things import LOOP, WIDTH, Class

Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]

ALL_PALETTES = (*PALETTES["train"], *PALETTES["test"])
ALL_TEXTURES = (*TEXTURES["train"], *TEXTURES["test"])
PHASE_STEPS = 1 << 16
WAVE = np.sin(np.arange(1024) * (2 * np.pi / 1024)).astype(np.float32)
VERGE = 4.5
"""Width of the pavement in units."""
DASH = 16.0
"""Units from one dash of a lane mark to the next."""


def palettes_of(layout: Layout) -> Floats:
    """Return the palette of every episode, `b colours 3`."""
    return np.array([ALL_PALETTES[index] for index in layout.palette], np.float32)


def paint_ground(layout: Layout, width: int) -> Bytes:
    """Paint the loop of every episode, `b rows columns 4`: red, green, blue, class."""
    colours = palettes_of(layout)
    scale = width / WIDTH
    y = (np.arange(round(LOOP * scale), dtype=np.float64) + 0.5) / scale
    x = (np.arange(width, dtype=np.float32) + 0.5) / scale
    middle = layout.centre(np.broadcast_to(y, (len(colours), len(y)))).astype(np.float32)
    aside = x - middle[..., None]
    away, half = np.abs(aside), layout.half_road.astype(np.float32)[:, None, None]
    road = cover(half - away, scale)
    marks = _marks(layout, away, half, y, scale)
    shade = _texture(layout, len(y), width)

    picture = np.empty((*aside.shape, 4), np.uint8)
    picture[..., 3] = np.where(marks > 0.5, Class.MARKS, np.where(road > 0.5, Class.ROAD, 0))
    verge, kerb = cover(half + VERGE - away, scale), cover(0.6 - np.abs(away - half), scale)
    for channel in range(3):
        ground, light, tar, white, pavement = colours[:, :5, channel, None, None].swapaxes(0, 1)
        value = ground + (light - ground) * shade
        value += (pavement - value) * verge
        value += (tar * (1.06 - 0.12 * away / half) - value) * road
        value += (0.55 * tar + 0.45 * pavement - value) * kerb
        value += (white - value) * marks
        picture[..., channel] = value + 0.5
    return picture


def cover(depth: Floats, scale: float) -> Floats:
    """Return how much of a pixel lies inside, given how deep inside its middle is, in units."""
    return np.clip(depth * np.float32(scale) + np.float32(0.5), 0, 1)


def _marks(
    layout: Layout, away: Floats, half: Floats, y: NDArray[np.float64], scale: float
) -> Floats:
    """Return the cover of edge lines and of dashes between lanes."""
    lane = layout.lane_width.astype(np.float32)[:, None, None]
    between = np.abs(away - lane / 2)
    dash = np.abs((y / DASH) % 1 - 0.5).astype(np.float32)[:, None]
    dashes = cover(0.5 - between, scale) * cover((0.25 - dash) * DASH, scale)
    return np.maximum(cover(0.45 - np.abs(away - half + 1.5), scale), dashes)


def _texture(layout: Layout, rows: int, width: int) -> Floats:
    """Return the ground texture, 0 … 1, `b rows columns`."""
    shade = np.zeros((len(layout.texture), rows, width), np.float32)
    for row, (index, phases) in enumerate(zip(layout.texture, layout.texture_phase, strict=True)):
        texture = ALL_TEXTURES[index]
        for (along, across), phase in zip(texture.waves, phases, strict=False):
            down = (np.arange(rows) * (along / rows) + phase) * PHASE_STEPS
            right = np.arange(width) * (across / width) * PHASE_STEPS
            turns = down.astype(np.int64)[:, None] + right.astype(np.int64)
            shade[row] += WAVE[(turns % PHASE_STEPS) >> 6]
        shade[row] *= texture.contrast / len(texture.waves)
    return np.clip(shade + np.float32(0.5), 0, 1)
