"""How things move: the ego step by step under its actions, everything else by the clock alone.

Traffic is a closed function of time. It never sees the ego, so two futures of one seed differ in
what the ego does and in nothing else. Knows nothing of pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avenir.data.synthetic.layout import Array, Index, Layout, sine
from avenir.data.synthetic.things import NUM_LANES, NUM_PEDESTRIANS, WIDTH

TOP_SPEED = 42.0
"""Units per second."""
FORESHORTENING = 0.4
"""Length in the picture of one unit along the road: seen at a slant, what drives ahead passes more
slowly than what drives across. Drawings are upright: only motion is shortened."""
LARGEST_HEADING = 0.85
"""Radians to either side of straight up, under full steering."""
HEADING_STEP = math.radians(6)
NUM_HEADINGS = 17
"""Headings a vehicle is drawn in, -48° … 48°; as many again for those that come towards us."""
MARGIN = 6.0
"""The ego's middle stays this far from the sides of the picture."""


@dataclass(frozen=True)
class Ego:
    """The driven car, every field `b`: x to the right, y down the picture, heading from up."""

    x: Array
    y: Array
    heading: Array
    """Radians, positive to the right."""
    speed: Array
    """Units per second."""

    @property
    def pose(self) -> Index:
        """Which drawing shows this heading."""
        return heading_pose(self.heading)


@dataclass(frozen=True)
class Traffic:
    """Everything else that moves, every field `… slots`."""

    x: Array
    y: Array
    pose: Index


def heading_pose(heading: Array) -> Index:
    """Round a heading to the nearest drawing."""
    step = np.floor(heading / HEADING_STEP + 0.5).astype(np.int64)
    return np.clip(step + NUM_HEADINGS // 2, 0, NUM_HEADINGS - 1)


def ego_at_start(layout: Layout) -> Ego:
    """Place the ego on the road at the beginning of the loop."""
    y = np.zeros(len(layout.palette))
    x = layout.centre(y) + layout.ego_start[:, 0] * layout.lane_width
    return Ego(x, y, -layout.slope(y), layout.ego_start[:, 1])


def off_road(layout: Layout, ego: Ego) -> NDArray[np.bool_]:
    """Return whether the ego's middle has left the road."""
    return np.abs(ego.x - layout.centre(ego.y)) > layout.half_road


def drive(layout: Layout, ego: Ego, actions: Array, dt: float) -> Ego:
    """Advance by `dt` seconds under `actions` (`b 2`: steer, accelerate, in [-1, 1])."""
    steer, accelerate = np.clip(actions, -1, 1).T
    turn = 1 - math.exp(-dt / 0.18)
    heading = ego.heading + turn * (LARGEST_HEADING * steer - ego.heading)
    drag = 0.15 + 1.2 * off_road(layout, ego)
    speed = np.clip(ego.speed + dt * (30 * accelerate - drag * ego.speed), 0, TOP_SPEED)
    turns = heading / (2 * np.pi)
    x = np.clip(ego.x + dt * speed * sine(turns), MARGIN, WIDTH - MARGIN)
    ahead = FORESHORTENING * speed * sine(turns + 0.25)
    return Ego(x, ego.y - dt * ahead, heading, speed)


def traffic_at(layout: Layout, seconds: Array) -> Traffic:
    """Return everything else that moves at `seconds` (`b T`), fields `b T slots`."""
    walk, ride = _pedestrians(layout, seconds), _vehicles(layout, seconds)
    return Traffic(
        np.concatenate([walk.x, ride.x], axis=-1),
        np.concatenate([walk.y, ride.y], axis=-1),
        np.concatenate([walk.pose, ride.pose], axis=-1),
    )


def _vehicles(layout: Layout, seconds: Array) -> Traffic:
    """Keep to the lanes, a little unsteadily."""
    vehicles = slice(NUM_PEDESTRIANS, None)
    frequency, phase = np.moveaxis(layout.rhythm[:, None, vehicles], -1, 0)
    turns = seconds[..., None] * frequency + phase
    speed = FORESHORTENING * np.take_along_axis(layout.lane_speed, layout.lane, axis=1)[:, None]
    y = layout.start[:, None, vehicles] - speed * seconds[..., None] + 4 * sine(turns)
    lane = layout.lane - (NUM_LANES - 1) / 2
    x = layout.centre(y) + (lane * layout.lane_width[:, None])[:, None]
    slope = layout.slope(y)
    # The first terms of the arc tangent: exact enough for roads, the same on every machine.
    pose = heading_pose(slope * slope * slope / 3 - slope)
    oncoming = np.take_along_axis(layout.oncoming, layout.lane, axis=1)[:, None]
    return Traffic(x, y, pose + NUM_HEADINGS * oncoming)


def _pedestrians(layout: Layout, seconds: Array) -> Traffic:
    """Walk along the pavement, or to and fro across the road, eight units per second."""
    pedestrians = slice(None, NUM_PEDESTRIANS)
    start, side = layout.start[:, None, pedestrians], layout.side[:, None]
    phase = layout.rhythm[:, None, pedestrians, 1]
    walked = 8 * seconds[..., None]
    reach = (layout.half_road + 2.2)[:, None, None]
    across = (walked / (4 * reach) + phase) % 1
    crossing = np.broadcast_to(layout.crossing[:, None], across.shape)
    y = np.where(crossing, start, start - FORESHORTENING * side * walked)
    away = np.where(crossing, np.abs(across * 4 - 2) - 1, side)
    quarter = np.where(crossing, np.where(across < 0.5, 3, 1), np.where(side > 0, 0, 2))
    stride = (walked / 6 + phase) % 1 < 0.5
    return Traffic(layout.centre(y) + away * reach, y, 2 * quarter + stride)
