"""Weather and light over the finished picture, and when they change: what GAIA-2 calls metadata.

Every recording begins in one weather and changes to others at its own times. A weather maps each
channel of a colour linearly, in whole numbers, and changes no place of anything: labels stay true.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avenir.data.synthetic.ground import Bytes
from avenir.data.synthetic.layout import Array


class Weather(IntEnum):
    """What can be over a picture."""

    DAY = 0
    NIGHT = 1
    FOG = 2
    DUSK = 3


FADE = 0.5
"""Seconds that a change takes."""

Look = NDArray[np.uint16]
"""`2 3`: what is kept of red, green and blue, in 256ths, and what is added, in 256ths."""

LOOKS: Look = np.array(
    [
        [(256, 256, 256), (0, 0, 0)],
        [(72, 86, 128), (256 * 4, 256 * 6, 256 * 20)],
        [(92, 92, 92), (164 * 206, 164 * 210, 164 * 214)],
        [(244, 178, 146), (12 * 240, 12 * 120, 12 * 120)],
    ],
    np.uint16,
)
"""How each weather looks: kept and added together never pass white."""


class Change(NamedTuple):
    """From some second on, a weather."""

    weather: Weather
    begins: float


def draw_changes(seed: int, seconds: float) -> tuple[Change, ...]:
    """Draw the weathers of an episode, the first one without a beginning."""
    rng = np.random.default_rng((seed, 7))
    changes = [Change(Weather(int(rng.integers(len(Weather)))), -np.inf)]
    begins = rng.uniform(0.5, 4.0)
    while begins < seconds:
        others = [weather for weather in Weather if weather != changes[-1].weather]
        changes.append(Change(others[rng.integers(len(others))], begins))
        begins += rng.uniform(1.5, 4.0)
    return tuple(changes)


def weather_at(changes: Sequence[Change], seconds: float) -> Weather:
    """Say which weather it is, or which it is becoming."""
    return [change.weather for change in changes if change.begins <= seconds][-1]


def weather_signal_at(changes: Sequence[Change], seconds: float) -> Array:
    """Say the same as one number per kind."""
    return np.eye(len(Weather))[weather_at(changes, seconds)]


def look_at(changes: Sequence[Change], seconds: float) -> Look:
    """Return how it looks, changes fading in one after the other."""
    look = LOOKS[changes[0].weather].astype(np.uint32)
    for change in changes[1:]:
        part = int(256 * min(max((seconds - change.begins) / FADE, 0.0), 1.0))
        look = (look * (256 - part) + LOOKS[change.weather].astype(np.uint32) * part) >> 8
    return look.astype(np.uint16)


def lay_over(frames: Bytes, changes: Sequence[Sequence[Change]], seconds: Array) -> None:
    """Lay the weather over frames `b T C H W` of times `b T`, in place."""
    for pictures, theirs, times in zip(frames, changes, seconds, strict=True):
        for picture, time in zip(pictures, times, strict=True):
            keep, add = look_at(theirs, time)[..., None, None]
            picture[:] = (picture * keep + add) >> 8
