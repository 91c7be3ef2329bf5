"""Signals: numbers recorded beside the frames, and what each of them is to a world.

A signal is known by its *role*: an action leads to the next frame, a caption and metadata describe
a frame and may be given for the future, a camera says from where it is seen, and boxes and states
say what is in it, which is what a world is to predict. Knows no model and no data set.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BeforeValidator
from torch import Tensor

from avenir.config import Config
from avenir.errors import AvenirError

Role = Literal["action", "caption", "camera", "box", "state", "metadata"]
"""What a signal is to a world."""

PREDICTED: frozenset[Role] = frozenset({"box", "state"})
"""Roles of signals that describe what is to be predicted: their future is hidden from a world."""

_ROLES_BY_NAME: dict[str, Role] = {
    "actions": "action",
    "caption": "caption",
    "cameras": "camera",
    "boxes": "box",
    "state": "state",
}
"""Roles of signals that were written down without one; those of other names are metadata."""

CHOICE = "choice {}"
"""How the numbers of a signal are named of which one is 1: data sets keep names."""

BYTE = "byte {}"
"""Likewise those of a signal that is text in UTF-8, with zeros behind it."""


class Signal(Config):
    """What is known of a signal recorded beside the frames; it travels with the world."""

    role: Role
    """What it is to a world."""
    size: int
    """Numbers per frame."""
    names: tuple[str, ...] = ()
    """One name per number, when the data set has them."""
    change: Literal["absolute", "delta"] = "absolute"
    """How it resamples to another rate: absolute values keep the last, deltas add up."""
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    """Bounds of the training split."""
    keys: dict[str, tuple[float, ...]] = {}
    """Keyboard keys and the action each one stands for."""

    @classmethod
    def choice(cls, count: int) -> "Signal":
        """Describe an action that is one of `count`, the first nine on the keys 1 to 9."""
        rows = [tuple(float(i == number) for i in range(count)) for number in range(count)]
        return cls(
            role="action",
            size=count,
            names=tuple(map(CHOICE.format, range(count))),
            low=(0.0,) * count,
            high=(1.0,) * count,
            keys={str(number + 1): row for number, row in enumerate(rows[:9])},
        )

    @classmethod
    def text(cls, size: int) -> "Signal":
        """Describe a caption of every frame, of at most `size` bytes."""
        return cls(role="caption", size=size, names=tuple(map(BYTE.format, range(size))))

    @property
    def is_choice(self) -> bool:
        """Whether it is one of several actions: one number is 1, the others 0."""
        return self.names[:1] == (CHOICE.format(0),)

    @property
    def is_one_hot(self) -> bool:
        """Whether its names are those of which one is so, as of the weather: it looks like it.

        Data sets do not say of which signals one number is 1 and all others 0.
        """
        least, most = (0.0,) * self.size, (1.0,) * self.size
        distinct = self.size > 1 and len(set(self.names)) == self.size
        return distinct and (self.low, self.high) == (least, most)

    def of_keys(self, held: Sequence[str]) -> tuple[float, ...]:
        """Add up what held keys stand for, within the bounds, as `size` numbers.

        Of choices the key that went down last is taken. Empty where there are no keys, or no choice
        is made.
        """
        chosen = [self.keys[key] for key in held if key in self.keys]
        if not self.keys or (self.is_choice and not chosen):
            return ()
        if self.is_choice:
            return chosen[-1]
        total = np.array([[0.0] * self.size, *chosen]).sum(0)
        if self.low:
            total = total.clip(self.low, self.high)
        return tuple(total.tolist())

    def encode_text(self, text: str) -> Float[Tensor, " s"]:
        """Write text as the numbers of one frame, `s`; AvenirError when it is too long."""
        encoded = list(text.encode())
        if len(encoded) > self.size:
            raise AvenirError(
                f"{text!r} is {len(encoded)} bytes long; at most {self.size} are read: shorten it"
            )
        return torch.tensor(encoded + [0] * (self.size - len(encoded)), dtype=torch.float32)

    def parse_row(self, value: str) -> Float[Tensor, " s"]:
        """Read one of its names, of which the number is 1 and all others 0, or its numbers.

        Raises AvenirError for what is neither such a name nor as many numbers with commas.
        """
        if self.is_one_hot and value in self.names:
            return torch.tensor([float(name == value) for name in self.names])
        try:
            numbers = [float(number) for number in value.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != self.size:
            names = f"one of {', '.join(self.names)}, or " if self.is_one_hot else ""
            word = "number" if self.size == 1 else "numbers with commas between them"
            raise AvenirError(f"{value!r} was given; say {names}{self.size} {word}")
        return torch.tensor(numbers)


def role_of(name: str) -> Role:
    """Return the role of a signal that is known by its name alone."""
    return _ROLES_BY_NAME.get(name, "metadata")


def _with_roles(table: Any) -> Any:
    """Give a role to descriptions that were written before there were any."""
    if not isinstance(table, dict):
        return table
    return {
        name: {"role": role_of(name), **each} if isinstance(each, dict) else each
        for name, each in table.items()
    }


Signals = Annotated[dict[str, Signal], BeforeValidator(_with_roles)]
"""Descriptions by name, as cards and caches hold them."""


def with_role(signals: Mapping[str, Signal], role: Role) -> dict[str, Signal]:
    """Return those of a role, in order."""
    return {name: signal for name, signal in signals.items() if signal.role == role}


def name_of(signals: Mapping[str, Signal], role: Role) -> str | None:
    """Return the name of the first signal of a role; none where there is none."""
    return next(iter(with_role(signals, role)), None)


def observed(
    signals: Mapping[str, Tensor], past: int, described: Mapping[str, Signal]
) -> dict[str, Tensor]:
    """Return what a world may know of signals `b T s`, of which `past` frames are observed.

    Actions, captions, cameras and metadata steer: they stay. Of boxes and states, which say what is
    to be predicted, the frames after the past are NaN. Signals that are not `described`, as labels,
    are left out. Nothing that is given is changed.
    """
    known = {}
    for name in signals.keys() & described.keys():
        known[name] = signals[name]
        if described[name].role in PREDICTED:
            known[name] = signals[name].clone()
            known[name][:, past:] = torch.nan
    return known
