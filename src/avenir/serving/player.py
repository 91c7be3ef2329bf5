"""One playthrough: stages stepped together, paused, rewound, branched, kept and opened again.

Knows keys, actions, words and other signals; knows nothing of networks or pages.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avenir.errors import AvenirError
from avenir.serving.playthrough import MOST_STEPS, Playthrough, past_of, steering_of
from avenir.serving.stages import Action, Direction, Dream, Opening, Others, Push, Stage, Steering
from avenir.signals import Signal
from avenir.steering import check_taken

MOST_KEPT = 600
"""States kept for rewinding at once; older ones are found again by playing on from the nearest."""

_EVERY = 100
"""Of the older ones, one in so many is kept."""

_MOST_BRANCHES = 16
"""The oldest are forgotten."""


@dataclass
class Line:
    """One line of play: what every step since the opening was told, and the states it led to."""

    told: list[Steering]
    states: dict[int, dict[str, Any]]
    """By step and stage; not all are kept."""
    checksums: list[str] = field(default_factory=list)
    """Of the dream's frames after every step so far."""

    def thinned(self) -> "Line":
        """Keep its end, and enough states to find the others again."""
        last = max(self.states)
        states = {n: state for n, state in self.states.items() if n == last or not n % _EVERY}
        return Line(self.told, states, self.checksums)

    def until(self, step: int) -> "Line":
        """Return a line that has its first steps in common with this one."""
        states = {number: state for number, state in self.states.items() if number <= step}
        return Line(self.told[:step], states, self.checksums[:step])


class Player:
    """Tells every stage the same, along one line; what was left is in `branches`.

    `takes` is what the world takes. Words, other signals and pushes hold from the next step on,
    until there are others; going back brings back those of then. Raises AvenirError when there is
    nothing to open.
    """

    def __init__(
        self, stages: dict[str, Stage], openings: Sequence[Opening], takes: Mapping[str, Signal]
    ) -> None:
        if not openings:
            raise AvenirError("no clip was given to begin from; give one or more")
        self.stages, self.openings, self.takes = stages, list(openings), takes
        self.signal = takes.get("actions")
        self.num_own = len(openings)
        self.text: str | None = None
        self.push: Push | None = None
        self.others: Others = ()
        self.begin(0)

    # Playing ----------------------------------------------------------------------------------

    def begin(self, number: int, seed: int = 0) -> None:
        """Stand at the end of an opening, with nothing done yet; what is said stays said."""
        if not 0 <= number < len(self.openings):
            raise AvenirError(
                f"clip {number} was asked for; there are {len(self.openings)}, counted from 0"
            )
        self.number, self.seed, self.now = number, seed, 0
        opening = self.openings[number]
        begun = {name: stage.begin(opening, seed) for name, stage in self._possible(opening)}
        self.line, self.branches = Line([], {0: begun}), list[Line]()

    def step(self, action: Action) -> None:
        """Go one step on; what came later, before rewinding, becomes a branch.

        Raises AvenirError when a playthrough is as long as one may be, or nothing can be imagined;
        then all is as it was.
        """
        if self.now == MOST_STEPS:
            raise AvenirError(
                f"a playthrough has at most {MOST_STEPS:,} steps: save it, and begin again"
            )
        told = Steering(action, self.text, self.push, self.others)
        there = self._led(told)
        if self.now < len(self.line.told):
            self.branches = [*self.branches, self.line.thinned()][-_MOST_BRANCHES:]
            self.line = self.line.until(self.now)
        self.line.told.append(told)
        self.line.states[self.now + 1] = there
        self._advance()

    def say(self, words: str) -> None:
        """Say what comes; nothing, when there are no words.

        Raises AvenirError when the world takes no words, or not as many.
        """
        text = words.strip() or None
        self._check(text)
        self.text = text

    @property
    def tellable(self) -> dict[str, Signal]:
        """Signals that are told by name; cameras stay where they are, boxes are too many."""
        apart = {"actions", "caption", "cameras", "boxes"}
        return {name: signal for name, signal in self.takes.items() if name not in apart}

    def tell(self, name: str, value: str | Sequence[float] | None) -> None:
        """Say how another signal is, by one of its names or in its numbers; none: nothing is said.

        Raises AvenirError when the world is not told it, or not so.
        """
        check_taken(self.tellable, None, None, [name])
        row = self.tellable[name].parse_row(value).tolist() if isinstance(value, str) else value
        self._check_row(name, row)
        others = {other: told for other, told in self.others if other != name}
        if row is not None:
            others[name] = tuple(map(float, row))
        self.others = tuple(sorted(others.items()))

    def move(self, direction: Direction | None, amount: float) -> None:
        """Push latents in a direction, by so many standard deviations; by 0: leave them alone."""
        self.push = Push(direction, amount) if direction and amount else None

    def rewind(self, step: int) -> None:
        """Stand after step `step` of what was done, with what was said and pushed then."""
        for _ in self.rewinding(step):
            pass

    def rewinding(self, step: int) -> Generator[None, None, None]:
        """Rewind, and stop after each step that is not kept and has to be played again.

        Whoever asks for it goes on to its end before anything else is done.
        """
        told = self.line.told
        step = min(max(0, step), len(told))
        self.now = max(kept for kept in self.line.states if kept <= step)
        while self.now < step:
            self._advance()
            yield
        far = [kept for kept in self.line.states if abs(kept - step) > MOST_KEPT and kept % _EVERY]
        for kept in far:
            del self.line.states[kept]
        if told:
            _, self.text, self.push, self.others = told[min(step, len(told) - 1)]

    def branch(self, number: int) -> None:
        """Go back to a branch, as far as it had come; the present line becomes one in its place."""
        for _ in self.branching(number):
            pass

    def branching(self, number: int) -> Generator[None, None, None]:
        """Go back to a branch as `rewinding` does."""
        if not 0 <= number < len(self.branches):
            raise AvenirError(
                f"branch {number} was asked for; there are {len(self.branches)}, counted from 0"
            )
        self.line, self.branches[number] = self.branches[number], self.line.thinned()
        yield from self.rewinding(len(self.line.told))

    def frames(self, stage: str) -> UInt8[Tensor, "f_t C H W"]:
        """Return the frames that a stage shows now."""
        if stage not in self._here:
            raise AvenirError(f"stage {stage!r} was asked for; there is {', '.join(self._here)}")
        return self.stages[stage].frames(self._here[stage])

    @property
    def latents(self) -> Float[Tensor, "c h w"]:
        """The latent of the frames that the dream shows now."""
        dream = self.stages["dream"]
        assert isinstance(dream, Dream)
        return dream.latents(self._here["dream"])

    def action(self, held: Sequence[str]) -> Action:
        """Return what held keys stand for; where that is nothing, none, for the world to say."""
        return () if self.signal is None else self.signal.of_keys(held)

    # Keeping ----------------------------------------------------------------------------------

    def kept(self, world: str) -> Playthrough:
        """Return what was played up to now."""
        past, told = self.openings[self.number].past, self.line.told[: self.now]
        checksums = self.line.checksums[: self.now]
        return Playthrough.of(world, past, self.takes, self.seed, told, checksums)

    def open(self, playthrough: Playthrough, world: str) -> Generator[None, None, None]:
        """Play it again from its own opening, a step at a time, and stand at its end.

        Raises AvenirError for one of another world, for one that is damaged, and for one whose
        frames come out otherwise; then all is as it was.
        """
        if playthrough.world != world:
            raise AvenirError(
                f"it was played in world {playthrough.world!r}, and this is {world!r}: open it "
                "with that one"
            )
        past = past_of(playthrough, self.takes)
        if past.frames.shape[1:] != self.openings[0].past.frames.shape[1:]:
            raise AvenirError(
                f"the playthrough is damaged: its frames are {tuple(past.frames.shape[1:])}, this "
                f"world's {tuple(self.openings[0].past.frames.shape[1:])}"
            )
        told = steering_of(playthrough, self.latents.shape)
        for text in {steering.text for steering in told}:
            self._check(text)
        check_taken(self.tellable, None, None, playthrough.others)
        for name, rows in playthrough.others.items():
            for _, row in rows:
                self._check_row(name, row)
        before = vars(self).copy()
        self.openings = [*self.openings[: self.num_own], Opening(past)]
        try:
            self.begin(self.num_own, playthrough.seed)
            known = zip(told, playthrough.frames, strict=True)
            for number, (steering, checksum) in enumerate(known, start=1):
                action, self.text, self.push, self.others = steering
                self.step(action)
                if self.line.checksums[-1] != checksum:
                    raise AvenirError(
                        f"it comes out otherwise from step {number} on: it was played on another "
                        "kind of machine or by an earlier version, or changed since"
                    )
                yield
        except BaseException:
            vars(self).update(before)
            raise

    # Within -----------------------------------------------------------------------------------

    @property
    def _here(self) -> dict[str, Any]:
        return self.line.states[self.now]

    def _check(self, text: str | None) -> None:
        """Refuse words that the world cannot be told."""
        check_taken(self.takes, None, text)
        try:
            if text is not None:
                self.takes["caption"].encode_text(text)
        except UnicodeEncodeError:  # JSON can name halves of letters
            raise AvenirError("words were given that hold half a letter: write them anew") from None

    def _check_row(self, name: str, row: Sequence[float] | None) -> None:
        """Refuse what the world cannot be told of a signal, by a page or by a file."""
        size = self.tellable[name].size
        # The largest numbers are infinite in 32 bits, in which worlds compute.
        if row is not None and not (len(row) == size and torch.tensor(row).isfinite().all()):
            raise AvenirError(
                f"{name!r} was told in {len(row)} numbers; this world takes {size}, all finite: "
                "give as many"
            )

    def _possible(self, opening: Opening) -> list[tuple[str, Stage]]:
        """List the stages that an opening allows: one that was shared has no simulator."""
        known = {"simulator": opening.simulator, "recording": opening.future}
        return [(n, s) for n, s in self.stages.items() if known.get(n, opening) is not None]

    def _led(self, told: Steering) -> dict[str, Any]:
        """Return what a step leads to in every stage; nothing is kept."""
        return {name: self.stages[name].step(s, told) for name, s in self._here.items()}

    def _advance(self) -> None:
        if self.now + 1 not in self.line.states:
            self.line.states[self.now + 1] = self._led(self.line.told[self.now])
        self.now += 1
        if len(self.line.checksums) < self.now:
            frames = self.frames("dream").numpy()
            self.line.checksums.append(hashlib.sha256(frames.tobytes()).hexdigest()[:16])
        old = self.now - MOST_KEPT
        if old % _EVERY:
            self.line.states.pop(old, None)
