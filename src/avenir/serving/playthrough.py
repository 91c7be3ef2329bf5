"""A playthrough as a file: what was observed, the seed, and what every step was given.

What is played is a function of these, so they and a checksum of every frame are all that is kept.
Reading any file ends in a playthrough, or in an error that says what is wrong with it.
"""

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from avenir.clip import Clip
from avenir.config import Config
from avenir.controls import Controls
from avenir.errors import AvenirError
from avenir.serving.backends import Direction, LatentEdit
from avenir.signals import Signal, name_of

MOST_STEPS = 10_000
"""Of one playthrough: seven minutes at 24 a second."""
MOST_EDIT = 3.0
"""Standard deviations: farther off no latent has been seen."""
_MOST_BYTES = 2**23
"""No playthrough begins with more."""
_MOST_DIRECTIONS = _MOST_SIGNALS = 64

Row = tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
Amount = Annotated[float, Field(ge=-MOST_EDIT, le=MOST_EDIT, allow_inf_nan=False)]

T = TypeVar("T")


class Step(NamedTuple):
    """What one step of a player is given: controls, of which an action is one row, and an edit."""

    controls: Controls = Controls()
    edit: LatentEdit | None = None


class PackedDirection(Config):
    """A direction that latents were moved in: with it a file needs no probe to be opened."""

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
    """What else of them the world takes, such as captions: packed as directions are."""
    seed: int
    """Seed of what the world imagines."""
    actions: list[list[float]] = Field(max_length=MOST_STEPS)
    """One per step."""
    words: list[tuple[NonNegativeInt, str | None]] = Field([], max_length=MOST_STEPS)
    """Captions, by the step from which on each holds, counted from 0."""
    others: dict[str, list[tuple[NonNegativeInt, Row | None]]] = Field({}, max_length=_MOST_SIGNALS)
    """Other signals by name: rows, by the step from which on each holds."""
    directions: list[PackedDirection] = Field([], max_length=_MOST_DIRECTIONS)
    """Those that latents were moved in."""
    pushes: list[tuple[NonNegativeInt, tuple[NonNegativeInt, Amount] | None]] = Field(
        [], max_length=MOST_STEPS
    )
    """Edits: number of a direction and how far, by the step from which on it holds."""
    frames: list[str]
    """First half of a checksum of the imagined frames after every step."""

    @classmethod
    def of(
        cls,
        world: str,
        past: Clip,
        taken: Mapping[str, Signal],
        seed: int,
        steps: Sequence[Step],
        checksums: list[str],
    ) -> "Playthrough":
        """Write what was played; `taken` is what a world takes of the observed clip."""
        count, channels, height, width = past.frames.shape
        action = name_of(taken, "action") or "actions"
        known = past.signals.get(action)
        edits = [step.edit for step in steps]
        directions = list(dict.fromkeys(edit.direction for edit in edits if edit))
        numbered = [edit and (directions.index(edit.direction), edit.amount) for edit in edits]
        rows = [{n: _row(row) for n, row in step.controls.signals.items()} for step in steps]
        return cls(
            world=world,
            fps=past.fps,
            shape=(count, channels, height, width),
            past=_packed(past.frames.numpy()),
            past_actions=[] if known is None else _or_nothing(known),
            past_signals={
                name: _packed(past.signals[name].float().numpy())
                for name in sorted(taken.keys() & past.signals.keys() - {action})
            },
            seed=seed,
            actions=[list(_row(step.controls.actions)) for step in steps],
            words=_changes([_caption(step.controls) for step in steps]),
            others={
                name: _changes([each.get(name) for each in rows])
                for name in sorted({name for each in rows for name in each})
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
        signals = {name_of(taken, "action") or "actions": torch.tensor(rows)}
    for name in playthrough.past_signals.keys() & taken.keys():
        packed, size = playthrough.past_signals[name], taken[name].size
        signals[name] = _numbers(packed, (shape[0], size), f"its first {name!r}")
    return Clip(frames, playthrough.fps, signals, "shared")


def steps_of(playthrough: Playthrough, latent: Sequence[int]) -> list[Step]:
    """Return what every step was given, for a world whose latents are of shape `c h w`."""
    count = len(playthrough.actions)
    directions = [
        Direction(each.factor, _numbers(each.change, latent, f"the direction of {each.factor!r}"))
        for each in playthrough.directions
    ]
    if any(edit and edit[0] >= len(directions) for _, edit in playthrough.pushes):
        raise AvenirError("the playthrough is damaged: latents are moved in no known direction")
    edits = _each_step(playthrough.pushes, count)
    captions = _each_step(playthrough.words, count)
    rows = {name: _each_step(each, count) for name, each in sorted(playthrough.others.items())}
    steps = []
    for number, action in enumerate(playthrough.actions):
        known = {name: row for name, each in rows.items() if (row := each[number]) is not None}
        controls = Controls(
            _tensor(action) if action else None,
            captions[number],
            {name: _tensor(row) for name, row in known.items()},
        )
        edit = edits[number]
        steps.append(Step(controls, edit and LatentEdit(directions[edit[0]], edit[1])))
    return steps


def _tensor(numbers: Sequence[float]) -> Tensor:
    """Keep numbers of a file as they are written."""
    return torch.tensor(numbers, dtype=torch.float64)


def _row(numbers: Tensor | None) -> Row:
    return () if numbers is None else tuple(numbers.tolist())


def _caption(controls: Controls) -> str | None:
    assert controls.text is None or isinstance(controls.text, str)  # one for all of a step
    return controls.text


def _changes(values: Sequence[T | None]) -> list[tuple[int, T | None]]:
    """Say from where on which value holds; before the first there is none."""
    before = [None, *values]
    return [(n, v) for n, v in enumerate(values) if v != before[n]]


def _each_step(changes: Sequence[tuple[int, T | None]], count: int) -> list[T | None]:
    """Take back what `_changes` did."""
    firsts = [first for first, _ in changes]
    if firsts != sorted(set(firsts)) or (firsts and firsts[-1] >= count):
        raise AvenirError(
            f"the playthrough is damaged: what its {count} steps are given begins out of order"
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
