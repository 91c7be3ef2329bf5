"""Drawings of the things, seen from above, smooth-edged and ready to be laid over a picture.

A drawing is three images that turn what is under it into what is seen, in whole numbers:

    seen = (under * keep + paint * gain + fixed) / 256

for red, green, blue and, as a fourth channel, the code of the thing, whose edge stays hard.
One drawing serves every paint and every code. Knows no world and no motion.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avenir.data.synthetic.motion import HEADING_STEP, NUM_HEADINGS
from avenir.data.synthetic.things import NUM_TREE_SHAPES, Class

SAMPLES = 4
"""Samples per pixel along each axis."""
PHASES = 2
"""Positions within a pixel along each axis that have a drawing of their own."""
SHADOW = 0.36
SHADOW_COLOUR = (16, 20, 40)
LIGHT = (0.9, 1.4)
"""Where shadows fall, in units: the sun stands at the upper left."""
LIFT = {Class.TREE: 1.6, Class.PEDESTRIAN: 0.7}
"""How high a thing stands, in cars: its shadow falls that much further."""

Words = NDArray[np.uint16]


class Part(NamedTuple):
    """A box with round corners in the thing's own axes, in units."""

    across: float
    along: float
    width: float
    length: float
    corner: float
    gain: float
    """How much of the paint it takes on."""
    fixed: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Sheet:
    """All drawings of one class, `poses phases`, each `s·s` pixels of four channels."""

    keep: Words
    gain: Words
    fixed: Words
    area: NDArray[np.int64]
    """Pixels of the thing alone, `poses phases`."""
    reach: int
    """Half the side of a drawing: `s = 2 * reach`."""


GLASS = (30, 42, 62)
DARK = (30, 30, 38)

CAR = (
    Part(0, 0, 7.6, 12.6, 2.6, 0.45),
    Part(0, 0, 6.4, 11.4, 2.2, 0.95),
    Part(0, 3.9, 4.2, 3.0, 1.2, 0.84, (40, 40, 40)),
    Part(0, 1.5, 5.4, 2.6, 0.9, 0, GLASS),
    Part(0, -3.8, 5.0, 1.7, 0.7, 0, GLASS),
    Part(0, -1.3, 4.6, 3.4, 0.9, 0.84, (40, 40, 40)),
    Part(-2.2, 5.5, 1.5, 1.0, 0.4, 0, (255, 246, 200)),
    Part(2.2, 5.5, 1.5, 1.0, 0.4, 0, (255, 246, 200)),
)
EGO = (
    Part(0, 0, 8.6, 13.6, 2.8, 0.3),
    Part(0, 0, 7.4, 12.4, 2.4, 1),
    Part(0, 0, 2.4, 12.4, 0.2, 0, (250, 248, 244)),
    Part(0, 1.7, 6.2, 2.8, 0.9, 0, (24, 30, 52)),
    Part(0, -4.2, 5.8, 1.8, 0.7, 0, (24, 30, 52)),
    Part(-2.7, 6.0, 1.8, 1.2, 0.4, 0, (255, 250, 210)),
    Part(2.7, 6.0, 1.8, 1.2, 0.4, 0, (255, 250, 210)),
    Part(0, -6.2, 7.6, 1.1, 0.3, 0.35),
)
TRUCK = (
    Part(0, -2.2, 8.8, 14.6, 0.8, 0, (124, 124, 128)),
    Part(0, -2.2, 7.6, 13.4, 0.5, 0, (222, 220, 212)),
    Part(0, 0.6, 7.6, 0.9, 0.1, 0, (180, 180, 178)),
    Part(0, -5.2, 7.6, 0.9, 0.1, 0, (180, 180, 178)),
    Part(0, 7.2, 8.2, 5.0, 1.6, 0.5),
    Part(0, 7.2, 7.2, 4.2, 1.3, 0.92),
    Part(0, 7.8, 6.4, 1.6, 0.5, 0, GLASS),
)
MOTORBIKE = (
    Part(0, 3.6, 1.7, 3.6, 0.8, 0, DARK),
    Part(0, -3.6, 2.0, 3.6, 0.9, 0, DARK),
    Part(0, 0.2, 2.8, 6.6, 1.3, 0.95),
    Part(0, 2.2, 5.0, 1.2, 0.5, 0, DARK),
    Part(0, -0.8, 4.6, 2.8, 1.3, 0, (58, 56, 70)),
    Part(0, -0.3, 2.6, 2.6, 1.3, 0.7, (76, 76, 76)),
)


def pedestrian(stride: float) -> tuple[Part, ...]:
    """Describe a walker with the left or the right foot ahead."""
    return (
        Part(-1.9, 1.7 * stride, 2.0, 3.2, 0.9, 0, DARK),
        Part(1.9, -1.7 * stride, 2.0, 3.2, 0.9, 0, DARK),
        Part(0, 0, 8.4, 4.0, 1.9, 0.5),
        Part(0, 0, 7.4, 3.2, 1.5, 0.9, (20, 20, 20)),
        Part(0, 0.2, 3.4, 3.4, 1.7, 0, (96, 62, 44)),
        Part(0, 0.9, 2.2, 1.6, 0.8, 0, (232, 184, 148)),
    )


def tree(shape: int) -> tuple[Part, ...]:
    """Describe a crown of five lobes, lit from the upper left."""
    size = 2.9 + 0.32 * (shape % 4)
    lobes = [(0.0, 0.0, size * 1.15)]
    for lobe in range(5):
        angle = (lobe + 0.37 * shape) * 2 * math.pi / 5
        far = size * (0.72 + 0.1 * math.sin(5.0 * lobe + 3.0 * shape))
        lobes.append((far * math.sin(angle), far * math.cos(angle), size * 0.78))
    layers = ((0.0, 1.0, 0.62, 0), (0.4, 0.78, 0.86, 8), (0.9, 0.46, 0.88, 30))
    return tuple(
        Part(x * scale - shift, y * scale + 1.2 * shift, 2 * r, 2 * r, r, gain, (glow, glow, glow))
        for shift, scale, gain, glow in layers
        for x, y, r in ((x, y, r * scale) for x, y, r in lobes)
    )


def _designs(kind: Class) -> list[tuple[tuple[Part, ...], list[float]]]:
    """Return what a class is drawn from: parts, and the headings they are drawn in."""
    upward = (np.arange(NUM_HEADINGS) - NUM_HEADINGS // 2) * HEADING_STEP
    vehicles = {Class.CAR: CAR, Class.TRUCK: TRUCK, Class.MOTORBIKE: MOTORBIKE, Class.EGO: EGO}
    if kind in vehicles:
        return [(vehicles[kind], [*upward, *(upward + np.pi)])]
    if kind == Class.PEDESTRIAN:
        walkers = pedestrian(-1.0), pedestrian(1.0)
        return [(walker, [quarter * np.pi / 2]) for quarter in range(4) for walker in walkers]
    assert kind == Class.TREE, f"{kind!r} is not drawn as a sprite"
    return [(tree(shape), [0.0]) for shape in range(NUM_TREE_SHAPES)]


@cache
def sheet_of(kind: Class, scale: float) -> Sheet:
    """Return the drawings of a class at `scale` pixels per unit."""
    return draw_sheet(_designs(kind), scale, LIFT.get(kind, 1.0))


def draw_sheet(
    designs: Sequence[tuple[tuple[Part, ...], list[float]]], scale: float, lift: float
) -> Sheet:
    """Draw things made of parts in every heading, `lift` times as high above the road as a car."""
    corners = [
        math.hypot(abs(part.across) + part.width / 2, abs(part.along) + part.length / 2)
        for parts, _ in designs
        for part in parts
    ]
    reach = math.ceil(scale * (max(corners) + 1.5 * lift) + 0.5)
    sheets = [_draw(parts, headings, scale, lift, reach) for parts, headings in designs]
    return Sheet(
        np.concatenate([sheet.keep for sheet in sheets]),
        np.concatenate([sheet.gain for sheet in sheets]),
        np.concatenate([sheet.fixed for sheet in sheets]),
        np.concatenate([sheet.area for sheet in sheets]),
        reach,
    )


def _draw(
    parts: Sequence[Part], headings: Sequence[float], scale: float, lift: float, reach: int
) -> Sheet:
    """Sample the parts, later ones on top, and average the samples of every pixel."""
    seen = _sample(parts, headings, scale, reach, lift)
    shares = np.stack(
        [
            (seen == part)
            .reshape(len(headings) * PHASES**2, 2 * reach, SAMPLES, 2 * reach, SAMPLES)
            .mean((2, 4), dtype=np.float32)
            for part in range(len(parts) + 2)
        ],
        axis=-1,
    ).reshape(len(headings), PHASES**2, 4 * reach * reach, len(parts) + 2)
    bare, shadow, things = shares[..., 0], shares[..., 1], shares[..., 2:]
    colour = np.array([SHADOW_COLOUR], np.float32) * SHADOW * shadow[..., None]
    fixed = colour + things @ np.array([part.fixed for part in parts], np.float32)
    gain = things @ np.array([part.gain for part in parts], np.float32)
    solid = things.sum(-1) >= 0.5
    keep = np.floor(256 * (bare + (1 - SHADOW) * shadow))
    return Sheet(
        keep=_channels(keep, np.where(solid, 0, 256)),
        gain=_channels(np.floor(256 * gain), np.where(solid, 256, 0)),
        fixed=_channels(np.floor(256 * fixed), np.zeros(solid.shape)),
        area=solid.sum(-1),
        reach=reach,
    )


def _sample(
    parts: Sequence[Part], headings: Sequence[float], scale: float, reach: int, lift: float
) -> NDArray[np.uint8]:
    """Return which part every sample shows, `headings phases rows columns`: 0 none, 1 shadow."""
    places = (np.arange(2 * reach * SAMPLES) + 0.5) / SAMPLES - reach
    phase = np.arange(PHASES) / PHASES
    offset = ((places - phase[:, None]) / scale).astype(np.float32)
    down, right = offset[None, :, None, :, None], offset[None, None, :, None, :]
    angle = np.asarray(headings, np.float32)[:, None, None, None, None]
    sin, cos = np.sin(angle), np.cos(angle)
    across, along = right * cos + down * sin, right * sin - down * cos
    light_right, light_down = LIGHT[0] * lift, LIGHT[1] * lift
    shade_across = across - (light_right * cos + light_down * sin)
    shade_along = along - (light_right * sin - light_down * cos)
    seen = np.zeros(across.shape, np.uint8)
    for part in parts:
        seen[_inside(part, shade_across, shade_along)] = 1
    for number, part in enumerate(parts):
        seen[_inside(part, across, along)] = number + 2
    return seen


def _inside(
    part: Part, across: NDArray[np.floating], along: NDArray[np.floating]
) -> NDArray[np.bool_]:
    right = np.abs(across - part.across) - (part.width / 2 - part.corner)
    ahead = np.abs(along - part.along) - (part.length / 2 - part.corner)
    outside = np.maximum(right, 0) ** 2 + np.maximum(ahead, 0) ** 2
    return outside <= part.corner**2


def _channels(colour: NDArray[np.floating], code: NDArray[np.generic]) -> Words:
    """Join one or three colour channels and the code's channel."""
    if colour.ndim == code.ndim:
        colour = np.repeat(colour[..., None], 3, axis=-1)
    return np.concatenate([colour, code[..., None]], axis=-1).astype(np.uint16)
