"""One playthrough: stages stepped together, paused, rewound, branched, kept and opened again.

Knows keys and actions; knows nothing of networks or pages. What is played is a function of the
opening, the seed and the actions, so these and a checksum of every frame are all that is kept.
"""

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from avenir.clip import Clip
from avenir.config import Config
from avenir.data import Signal
from avenir.errors import AvenirError
from avenir.serving.stages import Action, Opening, Stage

MOST_KEPT = 600
"""States kept for rewinding at once; older ones are found again by playing on from the nearest."""

_EVERY = 100
"""Of the older ones, one in so many is kept."""

MOST_STEPS = 10_000
"""Of one playthrough: seven minutes at 24 a second."""
_MOST_BRANCHES = 16
"""The oldest are forgotten."""
_MOST_BYTES = 2**23
"""No playthrough begins with more."""


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
    seed: int
    """Seed of the chance in the dream."""
    actions: list[list[float]] = Field(max_length=MOST_STEPS)
    """One per step."""
    frames: list[str]
    """First half of a checksum of the frames of the dream after every step."""


@dataclass
class Line:
    """One line of play: what was done since the opening, and the states it led to."""

    actions: list[Action]
    states: dict[int, dict[str, Any]]
    """By step and stage; not all are kept."""
    checksums: list[str] = field(default_factory=list)
    """Of the dream's frames after every step so far."""

    def thinned(self) -> "Line":
        """Keep its end, and enough states to find the others again."""
        last = max(self.states)
        states = {n: state for n, state in self.states.items() if n == last or not n % _EVERY}
        return Line(self.actions, states, self.checksums)

    def until(self, step: int, actions: list[Action]) -> "Line":
        """Return a line that has its first steps in common with this one."""
        states = {number: state for number, state in self.states.items() if number <= step}
        return Line(actions, states, self.checksums[:step])


class Player:
    """Steps every stage under the same actions, along one line; what was left is in `branches`.

    Raises AvenirError when there is nothing to open.
    """

    def __init__(
        self, stages: dict[str, Stage], openings: Sequence[Opening], signal: Signal | None
    ) -> None:
        if not openings:
            raise AvenirError("no clip was given to begin from; give one or more")
        self.stages, self.openings, self.signal = stages, list(openings), signal
        self.num_own = len(openings)
        self.begin(0)

    # Playing ----------------------------------------------------------------------------------

    def begin(self, number: int, seed: int = 0) -> None:
        """Stand at the end of an opening, with nothing done yet."""
        if not 0 <= number < len(self.openings):
            raise AvenirError(
                f"clip {number} was asked for; there are {len(self.openings)}, counted from 0"
            )
        self.number, self.seed, self.now = number, seed, 0
        opening = self.openings[number]
        begun = {name: stage.begin(opening, seed) for name, stage in self._possible(opening)}
        self.line, self.branches = Line([], {0: begun}), list[Line]()

    def step(self, action: Action) -> None:
        """Go one step on; what was done later, before rewinding, becomes a branch.

        Raises AvenirError when a playthrough is as long as one may be.
        """
        if self.now == MOST_STEPS:
            raise AvenirError(
                f"a playthrough has at most {MOST_STEPS:,} steps: save it, and begin again"
            )
        if self.now < len(self.line.actions):
            self.branches = [*self.branches, self.line.thinned()][-_MOST_BRANCHES:]
            self.line = self.line.until(self.now, self.line.actions[: self.now])
        self.line.actions.append(action)
        self._advance()

    def rewind(self, step: int) -> None:
        """Stand after step `step` of what was done."""
        step = min(max(0, step), len(self.line.actions))
        self.now = max(kept for kept in self.line.states if kept <= step)
        while self.now < step:
            self._advance()
        far = [kept for kept in self.line.states if abs(kept - step) > MOST_KEPT and kept % _EVERY]
        for kept in far:
            del self.line.states[kept]

    def branch(self, number: int) -> None:
        """Go back to a branch, as far as it had come; the present line becomes one in its place."""
        if not 0 <= number < len(self.branches):
            raise AvenirError(
                f"branch {number} was asked for; there are {len(self.branches)}, counted from 0"
            )
        self.line, self.branches[number] = self.branches[number], self.line.thinned()
        self.rewind(len(self.line.actions))

    def frames(self, stage: str) -> Tensor:
        """Return the frames that a stage shows now, uint8 `f_t C H W`."""
        if stage not in self._here:
            raise AvenirError(f"stage {stage!r} was asked for; there is {', '.join(self._here)}")
        return self.stages[stage].frames(self._here[stage])

    def action(self, held: Sequence[str]) -> Action:
        """Add up what the held keys stand for, within the bounds of what a world was taught.

        Of choices the key that went down last is taken. Empty, which is for the world to say, where
        there are no keys, or no choice is made.
        """
        signal = self.signal
        if signal is None or not signal.keys:
            return ()
        chosen = [signal.keys[key] for key in held if key in signal.keys]
        if signal.is_choice:
            return chosen[-1] if chosen else ()
        total = np.array([[0.0] * signal.size, *chosen]).sum(0)
        if signal.low:
            total = total.clip(signal.low, signal.high)
        return tuple(total.tolist())

    # Keeping ----------------------------------------------------------------------------------

    def kept(self, world: str) -> Playthrough:
        """Return what was played up to now."""
        past, step = self.openings[self.number].past, self.now
        known = past.signals.get("actions")
        count, channels, height, width = past.frames.shape
        return Playthrough(
            world=world,
            fps=past.fps,
            shape=(count, channels, height, width),
            past=base64.b64encode(zlib.compress(past.frames.numpy().tobytes())).decode(),
            past_actions=[] if known is None else _or_nothing(known),
            seed=self.seed,
            actions=[list(action) for action in self.line.actions[:step]],
            frames=self.line.checksums[:step],
        )

    def open(self, playthrough: Playthrough, world: str) -> Iterator[None]:
        """Play it again from its own opening, a step at a time, and stand at its end.

        Raises AvenirError for one of another world, for one that is damaged, and for one whose
        frames come out otherwise; then all is as it was.
        """
        if playthrough.world != world:
            raise AvenirError(
                f"it was played in world {playthrough.world!r}, and this is {world!r}: open it "
                "with that one"
            )
        past = past_of(playthrough)
        if past.frames.shape[1:] != self.openings[0].past.frames.shape[1:]:
            raise AvenirError(
                f"the playthrough is damaged: its frames are {tuple(past.frames.shape[1:])}, this "
                f"world's {tuple(self.openings[0].past.frames.shape[1:])}"
            )
        before = (self.number, self.seed, self.now, self.line, self.branches, self.openings)
        self.openings = [*self.openings[: self.num_own], Opening(past)]
        try:
            self.begin(self.num_own, playthrough.seed)
            known = zip(playthrough.actions, playthrough.frames, strict=True)
            for number, (action, checksum) in enumerate(known, start=1):
                self.step(tuple(action))
                if self.line.checksums[-1] != checksum:
                    raise AvenirError(
                        f"it comes out otherwise from step {number} on: it was played on another "
                        "kind of machine, or changed since"
                    )
                yield
        except BaseException:
            self.number, self.seed, self.now, self.line, self.branches, self.openings = before
            raise

    # Within -----------------------------------------------------------------------------------

    @property
    def _here(self) -> dict[str, Any]:
        return self.line.states[self.now]

    def _possible(self, opening: Opening) -> list[tuple[str, Stage]]:
        """List the stages that an opening allows: one that was shared has no simulator."""
        known = {"simulator": opening.simulator, "recording": opening.future}
        return [(n, s) for n, s in self.stages.items() if known.get(n, opening) is not None]

    def _advance(self) -> None:
        action, here = self.line.actions[self.now], self._here
        if self.now + 1 not in self.line.states:
            there = {name: self.stages[name].step(s, action) for name, s in here.items()}
            self.line.states[self.now + 1] = there
        self.now += 1
        if len(self.line.checksums) < self.now:
            frames = self.frames("dream").numpy()
            self.line.checksums.append(hashlib.sha256(frames.tobytes()).hexdigest()[:16])
        old = self.now - MOST_KEPT
        if old % _EVERY:
            self.line.states.pop(old, None)


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


def past_of(playthrough: Playthrough) -> Clip:
    """Unpack the frames that a playthrough begins with."""
    num_bytes, unpacking = math.prod(playthrough.shape), zlib.decompressobj()
    try:
        packed = base64.b64decode(playthrough.past, validate=True)
        raw = unpacking.decompress(packed, min(num_bytes, _MOST_BYTES) + 1)
    except (ValueError, zlib.error):
        raw = b""
    whole = unpacking.eof and len(raw) == num_bytes and num_bytes > 0
    if not whole:
        raise AvenirError(
            f"the playthrough is damaged: its first frames are not {playthrough.shape}"
        )
    frames = torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(playthrough.shape)
    signals, sizes = {}, {len(row) for row in playthrough.past_actions}
    if len(sizes) > 1:
        raise AvenirError(f"the playthrough is damaged: actions of {sorted(sizes)} numbers")
    if sizes:
        rows = [[math.nan if n is None else n for n in row] for row in playthrough.past_actions]
        signals = {"actions": torch.tensor(rows)}
    return Clip(frames, playthrough.fps, signals, "shared")


def _or_nothing(actions: Tensor) -> list[list[float | None]]:
    return [[None if math.isnan(n) else n for n in row] for row in actions.tolist()]
