"""What there is in the world: its classes, its moving bodies, and who is drawn over whom.

Knows no pixels and no motion. Lengths are in units: the picture is always 64 units wide.
"""

from enum import IntEnum

import numpy as np

WIDTH = 64.0
"""Width of the picture in units, whatever its size in pixels."""

LOOP = 320.0
"""Length of the road in units; its end meets its beginning, so one can drive on for ever."""

NUM_LANES = 3
NUM_TREE_SHAPES = 8


class Class(IntEnum):
    """What a pixel of the segmentation shows."""

    GROUND = 0
    ROAD = 1
    MARKS = 2
    TREE = 3
    BRIDGE = 4
    CAR = 5
    TRUCK = 6
    MOTORBIKE = 7
    PEDESTRIAN = 8
    EGO = 9


MOVING = (Class.CAR, Class.TRUCK, Class.MOTORBIKE, Class.PEDESTRIAN)
"""The classes of `counts`, in its order."""

SLOTS = (Class.PEDESTRIAN,) * 8 + (Class.MOTORBIKE,) * 6 + (Class.CAR,) * 9 + (Class.TRUCK,) * 3
"""The class of every slot of `objects`."""

BODIES = (*SLOTS, Class.EGO)
"""Everything that is drawn in motion: the slots and, last, the ego."""

NUM_SLOTS = len(SLOTS)
NUM_PEDESTRIANS = SLOTS.count(Class.PEDESTRIAN)
NUM_VEHICLES = NUM_SLOTS - NUM_PEDESTRIANS

FIRST_CODE = len(Class)
"""In the map of codes the scenery writes its class, body k writes this code plus k."""

CLASS_OF_CODE = np.array([*Class, *BODIES], np.uint8)

_FIRST_TRUCK = SLOTS.index(Class.TRUCK)
DRAW_ORDER = (*range(_FIRST_TRUCK), NUM_SLOTS, *range(_FIRST_TRUCK, NUM_SLOTS))
"""Bodies from the lowest to the highest: pedestrians, motorbikes, cars, the ego, trucks."""
