"""What one episode fixes before anything moves: road, scenery, traffic, the driver's temper.

All of it is drawn from one seed per episode, so an episode is the same alone or in any batch.
Knows nothing of pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avenir.data.synthetic.colours import PAINTS, PALETTES, TEXTURES
from avenir.data.synthetic.things import (
    LOOP,
    NUM_LANES,
    NUM_PEDESTRIANS,
    NUM_SLOTS,
    NUM_TREE_SHAPES,
    NUM_VEHICLES,
    WIDTH,
)

Array = NDArray[np.float64]
Index = NDArray[np.int64]

NUM_TREES = 40
NUM_BRIDGES = 2
NUM_BENDS = 4
SINE_STEPS = 4096
SINE = np.sin(np.arange(SINE_STEPS) * (2 * np.pi / SINE_STEPS))


def sine(turns: Array) -> Array:
    """Return sin(2π·turns) from a table, so that no vector unit rounds it differently."""
    return SINE[(turns * SINE_STEPS).astype(np.int64) & (SINE_STEPS - 1)]


class Dice:
    """Uniform numbers of every episode side by side, each row from its own seed."""

    def __init__(self, seeds: Sequence[int] | Sequence[tuple[int, ...]], count: int) -> None:
        self.rows = np.stack([np.random.default_rng(seed).random(count) for seed in seeds])
        self.used = 0

    def uniform(self, low: float, high: float, *shape: int) -> Array:
        """Return `b *shape` numbers between `low` and `high`."""
        count = int(np.prod(shape))
        taken = self.rows[:, self.used : self.used + count]
        assert taken.shape[1] == count, "Dice were made with too few numbers"
        self.used += count
        return low + (high - low) * taken.reshape(-1, *shape)

    def choice(self, count: int, *shape: int) -> Index:
        """Return `b *shape` whole numbers below `count`."""
        return self.uniform(0.0, float(count), *shape).astype(np.int64)


@dataclass(frozen=True)
class Layout:
    """The fixed part of `b` episodes; lengths in units, speeds in units per second."""

    palette: Index
    """`b`: which landscape, counted over the palettes of both splits, training first."""
    texture: Index
    """`b`: which ground texture, counted likewise."""
    texture_phase: Array
    """`b 3`, in turns."""
    bend_width: Array
    """`b NUM_BENDS`: how far each sine of the road reaches sideways."""
    bend_phase: Array
    lane_width: Array
    """`b`"""
    oncoming: NDArray[np.bool_]
    """`b lanes`: whether the lane drives towards the viewer."""
    lane_speed: Array
    """`b lanes`; one speed per lane, so that none drives into the one ahead."""
    lane: Index
    """`b vehicles`"""
    start: Array
    """`b slots`: where along the road each moving thing is at time 0."""
    rhythm: Array
    """`b slots 2`: frequency in Hz and phase in turns of its unsteadiness, or of its walk."""
    crossing: NDArray[np.bool_]
    """`b pedestrians`: whether it crosses the road instead of walking beside it."""
    side: Array
    """`b pedestrians`: -1 left, 1 right."""
    present: NDArray[np.bool_]
    """`b slots`"""
    paint: NDArray[np.uint8]
    """`b slots 3`"""
    trees: Array
    """`b NUM_TREES 2`: x and y."""
    tree_shape: Index
    bridges: Array
    """`b NUM_BRIDGES 3`: y, width along the road, tilt. A width of 0 is no bridge."""
    ego_start: Array
    """`b 2`: lane offset of the ego as a fraction of the lane width, and speed."""

    def centre(self, y: Array) -> Array:
        """Return x of the middle of the road at `y` (`b …`)."""
        width, turns = self._bends(y)
        return WIDTH / 2 + (width * sine(turns)).sum(-1)

    def slope(self, y: Array) -> Array:
        """Return dx/dy of the middle of the road at `y` (`b …`)."""
        width, turns = self._bends(y)
        cycles = np.arange(1, NUM_BENDS + 1) * (2 * np.pi / LOOP)
        return (width * cycles * sine(turns + 0.25)).sum(-1)

    def _bends(self, y: Array) -> tuple[Array, Array]:
        shape = (len(y), *[1] * (y.ndim - 1), NUM_BENDS)
        turns = y[..., None] / LOOP * np.arange(1, NUM_BENDS + 1) + self.bend_phase.reshape(shape)
        return self.bend_width.reshape(shape), turns

    @property
    def half_road(self) -> Array:
        """Half the width of the road, `b`."""
        return self.lane_width * NUM_LANES / 2


def draw_layout(seeds: Sequence[int], splits: Sequence[str]) -> Layout:
    """Draw the episodes of `seeds`, the scenery of each from its split."""
    dice = Dice(seeds, 512)
    bends = dice.uniform(-1.0, 1.0, NUM_BENDS) * np.array([4.0, 5.0, 4.0, 2.0])
    bends *= dice.uniform(8.0, 13.0, 1) / np.abs(bends).sum(-1, keepdims=True)
    bend_phase = dice.uniform(0.0, 1.0, NUM_BENDS)
    oncoming = np.zeros((len(seeds), NUM_LANES), bool)
    oncoming[:, 0] = dice.uniform(0.0, 1.0) < 0.6
    fast = dice.uniform(17.0, 29.0, NUM_LANES)
    lane, start = _draw_traffic(dice)
    road = Layout(
        palette=_of_split(dice, splits, {name: len(p) for name, p in PALETTES.items()}),
        texture=_of_split(dice, splits, {name: len(t) for name, t in TEXTURES.items()}),
        texture_phase=dice.uniform(0.0, 1.0, 3),
        bend_width=bends,
        bend_phase=bend_phase,
        lane_width=dice.uniform(9.0, 10.4),
        oncoming=oncoming,
        lane_speed=np.where(oncoming, -0.6 * fast, fast),
        lane=lane,
        start=start,
        rhythm=np.stack(
            [dice.uniform(0.12, 0.3, NUM_SLOTS), dice.uniform(0.0, 1.0, NUM_SLOTS)], axis=-1
        ),
        crossing=dice.uniform(0.0, 1.0, NUM_PEDESTRIANS) < 0.5,
        side=np.where(dice.uniform(0.0, 1.0, NUM_PEDESTRIANS) < 0.5, -1.0, 1.0),
        present=dice.uniform(0.0, 1.0, NUM_SLOTS) < 0.85,
        paint=PAINTS[dice.choice(len(PAINTS), NUM_SLOTS)],
        trees=np.zeros((len(seeds), NUM_TREES, 2)),
        tree_shape=dice.choice(NUM_TREE_SHAPES, NUM_TREES),
        bridges=_draw_bridges(dice),
        ego_start=np.stack([dice.uniform(-1.0, 1.0), dice.uniform(18.0, 34.0)], axis=-1),
    )
    road.trees[:] = _draw_trees(dice, road)
    return road


def _of_split(dice: Dice, splits: Sequence[str], counts: dict[str, int]) -> Index:
    """Choose among the things of each split, numbered through train and then test.

    What is chosen on validation is to be shown nothing that only the test has.
    """
    tested = np.array([split == "test" for split in splits])
    first = np.where(tested, counts["train"], 0)
    count = np.where(tested, counts["test"], counts["train"])
    return first + (dice.uniform(0.0, 1.0) * count).astype(np.int64)


def _draw_traffic(dice: Dice) -> tuple[Index, Array]:
    """Return the lane of every vehicle and where every slot starts along the road."""
    per_lane = NUM_VEHICLES // NUM_LANES
    lane = np.tile(np.arange(NUM_VEHICLES) % NUM_LANES, (len(dice.rows), 1))
    places = np.argsort(dice.uniform(0.0, 1.0, NUM_LANES, per_lane), axis=-1)
    place = places.transpose(0, 2, 1).reshape(-1, NUM_VEHICLES) + lane / NUM_LANES
    vehicles = (place + dice.uniform(-0.15, 0.15, NUM_VEHICLES)) * (LOOP / per_lane)
    return lane, np.concatenate([dice.uniform(0.0, LOOP, NUM_PEDESTRIANS), vehicles], axis=1)


def _draw_bridges(dice: Dice) -> Array:
    """Return one or two bridges, far apart."""
    first = dice.uniform(0.0, LOOP)
    second = first + LOOP * dice.uniform(0.4, 0.6)
    width = dice.uniform(13.0, 18.0, NUM_BRIDGES)
    width[:, 1] *= dice.uniform(0.0, 1.0) < 0.6
    tilt = dice.uniform(-0.2, 0.2, NUM_BRIDGES)
    return np.stack([np.stack([first, second], axis=-1), width, tilt], axis=-1)


def _draw_trees(dice: Dice, road: Layout) -> Array:
    """Return trees beside the pavement, evenly along the road and now on its left, now right."""
    y = (np.arange(NUM_TREES) + dice.uniform(0.0, 0.9, NUM_TREES)) * (LOOP / NUM_TREES)
    side = np.where(dice.uniform(0.0, 1.0, NUM_TREES) < 0.5, -1.0, 1.0)
    away = road.half_road[:, None] + dice.uniform(5.5, 18.0, NUM_TREES)
    # In the picture at least by half, whatever the road does.
    return np.stack([np.clip(road.centre(y) + side * away, 0, WIDTH), y], axis=-1)
