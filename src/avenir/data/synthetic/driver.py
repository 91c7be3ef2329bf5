"""The random driver behind every recording: wanders over the road, mostly stays on it.

It sees the layout and the traffic, never the picture; its whims come from the episode's own seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avenir.data.synthetic.layout import Array, Dice, Layout, sine
from avenir.data.synthetic.motion import Ego, Traffic
from avenir.data.synthetic.things import LOOP

CRUISE = 32.0
"""Units per second it likes on average."""

_DETOUR_SECONDS = 0.8
"""How long an action is held on average."""


@dataclass(frozen=True)
class Whims:
    """What the driver wants at every frame of `b` episodes, fields `b T`."""

    offset: Array
    """Units to the right of the middle of the road."""
    speed: Array
    """Units per second."""
    steer: Array
    """Added to the steering, so that actions are not a function of the picture."""
    held: Array
    """`b T 2`: actions held for a while whatever is there, as by somebody at the keys; NaN where
    the driver drives."""


def draw_whims(
    seeds: Sequence[int], num_frames: int, dt: float, held_action_fraction: float = 0.0
) -> Whims:
    """Draw slow random wishes: a weave from side to side, and Ornstein-Uhlenbeck walks.

    For a share of the time, `held_action_fraction`, some action is held instead.
    """
    dice = Dice([(seed, 1) for seed in seeds], 3)
    reach, period, phase = dice.uniform(17.0, 21.0), dice.uniform(3.8, 5.8), dice.uniform(0.0, 1.0)
    noise = np.stack(
        [np.random.default_rng((seed, 2)).standard_normal((num_frames, 3)) for seed in seeds]
    )
    keep = np.array([math.exp(-dt / memory) for memory in (1.2, 1.5, 0.6)])
    walk = np.empty_like(noise)
    walk[:, 0] = noise[:, 0]
    for frame in range(1, num_frames):
        walk[:, frame] = keep * walk[:, frame - 1] + np.sqrt(1 - keep**2) * noise[:, frame]
    turns = np.arange(num_frames) * dt / period[:, None] + phase[:, None]
    offset = np.clip(reach[:, None] * sine(turns) + 3 * walk[..., 0], -19, 19)
    held = _held_actions(seeds, num_frames, dt, held_action_fraction)
    return Whims(offset, CRUISE + 7 * walk[..., 1], 0.2 * walk[..., 2], held)


def _held_actions(seeds: Sequence[int], num_frames: int, dt: float, share: float) -> Array:
    """Cut time into stretches of random length; in a share of them hold an action, `b T 2`.

    Half of those are what keys say: all of it, or nothing.
    """
    held = np.full((len(seeds), num_frames, 2), np.nan)
    if share:
        for row, seed in enumerate(seeds):
            rng = np.random.default_rng((seed, 3))
            begins = rng.random(num_frames) < 1 - math.exp(-dt / _DETOUR_SECONDS)
            begins[0] = True
            stretch = np.maximum.accumulate(np.where(begins, np.arange(num_frames), 0))
            keys = rng.integers(-1, 2, (num_frames, 2))
            actions = rng.uniform(-1, 1, (num_frames, 2))
            actions = np.where(rng.random((num_frames, 1)) < 0.5, keys, actions)
            actions[rng.random(num_frames) >= share] = np.nan
            held[row] = actions[stretch]
    return held


def choose(layout: Layout, ego: Ego, traffic: Traffic, whims: Whims, frame: int) -> Array:
    """Return the actions `b 2` of this frame; `traffic` is that of this frame, `b slots`."""
    push, brake = _give_way(layout, ego, traffic)
    wanted = layout.centre(ego.y - 8) + whims.offset[:, frame] + push
    steer = (wanted - ego.x) / 7 + whims.steer[:, frame]
    accelerate = (whims.speed[:, frame] - ego.speed) / 7 - brake
    own, held = np.clip(np.stack([steer, accelerate], axis=-1), -1, 1), whims.held[:, frame]
    return np.where(np.isnan(held), own, held)


def _give_way(layout: Layout, ego: Ego, traffic: Traffic) -> tuple[Array, Array]:
    """Return how far to swerve, in units, and how hard to brake for what is just ahead."""
    ahead = (ego.y[:, None] - traffic.y) % LOOP
    aside = ego.x[:, None] - traffic.x
    overlap = np.maximum(0, 9 - np.abs(aside)) * (ahead < 30) * layout.present
    push = np.where(aside < 0, -overlap, overlap).sum(-1)
    return push, (overlap * (ahead < 20)).max(-1) / 12
