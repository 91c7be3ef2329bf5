"""What is recorded beside the frames of the synthetic world."""

from collections.abc import Sequence

from avenir.data.synthetic.weather import Weather
from avenir.signals import Role, Signal

ACTIONS = Signal(
    role="action",
    size=2,
    names=("steer", "accelerate"),
    low=(-1, -1),
    high=(1, 1),
    keys={
        "ArrowLeft": (-1, 0),
        "ArrowRight": (1, 0),
        "ArrowUp": (0, 1),
        "ArrowDown": (0, -1),
    },
)

CAPTION = Signal.text(48)

WEATHER = Signal(
    role="metadata",
    size=len(Weather),
    names=tuple(weather.name.lower() for weather in Weather),
    low=(0,) * len(Weather),
    high=(1,) * len(Weather),
)


def listed(what: Role, count: int, numbers: Sequence[str]) -> Signal:
    """Describe several of a kind, all numbers of the first before those of the next."""
    names = [f"{what} {each} {name}" for each in range(count) for name in numbers]
    return Signal(role=what, size=len(names), names=tuple(names))
