"""A playthrough as a file: what was observed, the seed, and what every step was told.

What is played is a function of these, so they and a checksum of every frame are all that is kept.
Whoever wrote a file, reading it ends in a playthrough or in words that say what is wrong with it.
"""

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from avenir.clip import Clip
from avenir.config import Config
from avenir.errors import AvenirError
from avenir.serving.stages import Action, Direction, Push, Steering
from avenir.signals import Signal

MOST_STEPS = 10_000
"""Of one playthrough: seven minutes at 24 a second."""
MOST_PUSH = 3.0
"""Standard deviations: farther off no latent has been seen."""
_MOST_BYTES = 2**23
"""No playthrough begins with more."""
_MOST_DIRECTIONS = _MOST_SIGNALS = 64

Row = tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
Amount = Annotated[float, Field(ge=-MOST_PUSH, le=MOST_PUSH, allow_inf_nan=False)]

T = TypeVar("T")


class PackedDirection(Config):
    """A direction that latents were pushed in: with it a file needs no probe to be opened."""

    factor: str
    """What grows in it."""
    change: str
    """One standard deviation of it, `c h w` numbers of 32 bits, compressed, in base64."""


class Playthrough(Config):
    """What can be kept, shared, and opened again to the same frames."""

    format: Literal["avenir playthrough 1"] = "avenir playthrough 1"
    """Version of the file."""
    world: str
    """Key of the world it was played in."""
    fps: float = Field(gt=0)
    """Frames per second."""
    shape: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    """Of the observed frames: `T C H W`."""
    past: str
    """The observed frames, compressed, in base64."""
    past_actions: list[list[float | None]]
    """What was done at them, nothing where that is not known; empty when it never is."""
    past_signals: dict[str, str] = {}
    """What else of them the world was told, such as captions: packed as directions are."""
    seed: int
    """Seed of the chance in the dream."""
    actions: list[list[float]] = Field(max_length=MOST_STEPS)
    """One per step."""
    words: list[tuple[NonNegativeInt, str | None]] = Field([], max_length=MOST_STEPS)
    """What was said, by the step from which on it was, counted from 0."""
    others: dict[str, list[tuple[NonNegativeInt, Row | None]]] = Field({}, max_length=_MOST_SIGNALS)
    """What was told of other signals, by name: rows, by the step from which on each was."""
    directions: list[PackedDirection] = Field([], max_length=_MOST_DIRECTIONS)
    """Those that latents were pushed in."""
    pushes: list[tuple[NonNegativeInt, tuple[NonNegativeInt, Amount] | None]] = Field(
        [], max_length=MOST_STEPS
    )
    """Number of a direction and how far, by the step from which on it was."""
    frames: list[str]
    """First half of a checksum of the frames of the dream after every step."""

    @classmethod
    def of(
        cls,
        world: str,
        past: Clip,
        taken: Mapping[str, Signal],
        seed: int,
        told: Sequence[Steering],
        checksums: list[str],
    ) -> "Playthrough":
        """Write what was played; `taken` is what a world takes of the observed clip."""
        count, channels, height, width = past.frames.shape
        known = past.signals.get("actions")
        pushes = [each.push for each in told]
        directions = list(dict.fromkeys(push.direction for push in pushes if push))
        numbered = [p and (directions.index(p.direction), p.amount) for p in pushes]
        others = [dict(each.others) for each in told]
        return cls(
            world=world,
            fps=past.fps,
            shape=(count, channels, height, width),
            past=_packed(past.frames.numpy()),
            past_actions=[] if known is None else _or_nothing(known),
            past_signals={
                name: _packed(past.signals[name].float().numpy())
                for name in sorted(taken.keys() & past.signals.keys() - {"actions"})
            },
            seed=seed,
            actions=[list(each.action) for each in told],
            words=_changes([each.text for each in told]),
            others={
                name: _changes([each.get(name) for each in others])
                for name in sorted({name for each in others for name in each})
            },
            directions=[
                PackedDirection(factor=d.factor, change=_packed(d.change.numpy()))
                for d in directions
            ],
            pushes=_changes(numbered),
            frames=checksums,
        )


def read_playthrough(text: str) -> Playthrough:
    """Read a file that `Player.kept` wrote; its frames are unpacked when it is opened.

    Raises AvenirError for anything else.
    """
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        raise AvenirError("this is no playthrough, or it is damaged: it is no JSON") from None
    if not isinstance(table, dict):
        raise AvenirError("this is no playthrough: it is JSON, and no table")
    playthrough = Playthrough.parse(table, "playthrough")
    if len(playthrough.actions) != len(playthrough.frames):
        raise AvenirError(
            f"the playthrough is damaged: {len(playthrough.actions)} actions and "
            f"{len(playthrough.frames)} checksums"
        )
    return playthrough


def past_of(playthrough: Playthrough, taken: Mapping[str, Signal]) -> Clip:
    """Unpack the frames that a playthrough begins with, and what a world takes beside them."""
    shape, what = playthrough.shape, "its first frames"
    raw = _unpacked(playthrough.past, math.prod(shape), what)
    frames = torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(shape)
    signals, sizes = {}, {len(row) for row in playthrough.past_actions}
    if len(sizes) > 1:
        raise AvenirError(f"the playthrough is damaged: actions of {sorted(sizes)} numbers")
    if sizes:
        rows = [[math.nan if n is None else n for n in row] for row in playthrough.past_actions]
        signals = {"actions": torch.tensor(rows)}
    for name in playthrough.past_signals.keys() & taken.keys():
        packed, size = playthrough.past_signals[name], taken[name].size
        signals[name] = _numbers(packed, (shape[0], size), f"its first {name!r}")
    return Clip(frames, playthrough.fps, signals, "shared")


def steering_of(playthrough: Playthrough, latent: Sequence[int]) -> list[Steering]:
    """Lay out what every step was told, for a world whose latents are of shape `c h w`."""
    count = len(playthrough.actions)
    directions = [
        Direction(each.factor, _numbers(each.change, latent, f"the direction of {each.factor!r}"))
        for each in playthrough.directions
    ]
    if any(push and push[0] >= len(directions) for _, push in playthrough.pushes):
        raise AvenirError("the playthrough is damaged: latents are pushed in no known direction")
    pushes = [p and Push(directions[p[0]], p[1]) for p in _spread(playthrough.pushes, count)]
    words = _spread(playthrough.words, count)
    rows = {name: _spread(rows, count) for name, rows in sorted(playthrough.others.items())}
    others = [
        tuple((name, row) for name, values in rows.items() if (row := values[n]) is not None)
        for n in range(count)
    ]
    actions: list[Action] = [tuple(action) for action in playthrough.actions]
    return [Steering(*each) for each in zip(actions, words, pushes, others, strict=True)]


def _changes(values: Sequence[T | None]) -> list[tuple[int, T | None]]:
    """Say from where on which value holds; before the first there is none."""
    before = [None, *values]
    return [(n, v) for n, v in enumerate(values) if v != before[n]]


def _spread(changes: Sequence[tuple[int, T | None]], count: int) -> list[T | None]:
    """Take back what `_changes` did."""
    firsts = [first for first, _ in changes]
    if firsts != sorted(set(firsts)) or (firsts and firsts[-1] >= count):
        raise AvenirError(
            f"the playthrough is damaged: what its {count} steps are told begins out of order"
        )
    values: list[T | None] = []
    for (first, value), end in zip([(0, None), *changes], [*firsts, count], strict=True):
        values += [value] * (end - first)
    return values


def _packed(numbers: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(numbers).tobytes())).decode()


def _unpacked(packed: str, num_bytes: int, what: str) -> bytes:
    """Unpack so many bytes and never many more, whatever a file says."""
    unpacking = zlib.decompressobj()
    try:
        raw = unpacking.decompress(
            base64.b64decode(packed, validate=True), min(num_bytes, _MOST_BYTES) + 1
        )
    except (ValueError, zlib.error):
        raw = b""
    if not unpacking.eof or len(raw) != num_bytes or not num_bytes:
        raise AvenirError(f"the playthrough is damaged: {what} cannot be unpacked")
    return raw


def _numbers(packed: str, shape: Sequence[int], what: str) -> Tensor:
    """Unpack numbers of 32 bits, as they were: what is not known is NaN."""
    raw = _unpacked(packed, 4 * math.prod(shape), f"{what}, {tuple(shape)}")
    return torch.frombuffer(bytearray(raw), dtype=torch.float32).reshape(tuple(shape))


def _or_nothing(actions: Tensor) -> list[list[float | None]]:
    return [[None if math.isnan(n) else n for n in row] for row in actions.tolist()]
