"""One playthrough: backends stepped together, paused, rewound, branched, kept and opened again.

Knows keys and controls; knows nothing of networks or pages.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avenir.controls import Controls, check_name, given_by_name
from avenir.errors import AvenirError
from avenir.serving.backends import Backend, Direction, InitialState, LatentEdit, WorldBackend
from avenir.serving.playthrough import MOST_STEPS, Playthrough, Step, past_of, steps_of
from avenir.signals import Signal, with_role

MOST_KEPT = 600
"""States kept for rewinding at once; older ones are found again by playing on from the nearest."""

_EVERY = 100
"""Of the older ones, one in so many is kept."""

_MOST_BRANCHES = 16
"""The oldest are dropped."""


@dataclass
class Timeline:
    """One line of play: every step since the initial state, and the states that they led to."""

    steps: list[Step]
    states: dict[int, dict[str, Any]]
    """By step and backend; not all are kept."""
    checksums: list[str] = field(default_factory=list)
    """Of the imagined frames after every step so far."""

    def thinned(self) -> "Timeline":
        """Keep its end, and enough states to find the others again."""
        last = max(self.states)
        states = {n: state for n, state in self.states.items() if n == last or not n % _EVERY}
        return Timeline(self.steps, states, self.checksums)

    def until(self, step: int) -> "Timeline":
        """Return a timeline that has its first steps in common with this one."""
        states = {number: state for number, state in self.states.items() if number <= step}
        return Timeline(self.steps[:step], states, self.checksums[:step])


class Player:
    """Gives every backend the same, along one timeline; what was left is in `branches`.

    `takes` is what the world takes. Text, other signals and edits hold from the next step on, until
    there are others; going back brings back those of then. Raises AvenirError when there is nothing
    to start from.
    """

    def __init__(
        self,
        backends: dict[str, Backend],
        initial_states: Sequence[InitialState],
        takes: Mapping[str, Signal],
    ) -> None:
        if not initial_states:
            raise AvenirError("no clip was given to start from; give one or more")
        self.backends, self.takes = backends, takes
        self.initial_states = list(initial_states)
        self.num_own = len(initial_states)
        self.action_signal = next(iter(with_role(takes, "action").values()), None)
        self.controls = Controls()
        """What steers from the next step on, beside the action of that step."""
        self.edit: LatentEdit | None = None
        self.start(0)

    # Playing ----------------------------------------------------------------------------------

    def start(self, number: int, seed: int = 0) -> None:
        """Stand at an initial state, with no step taken yet; controls and edits stay."""
        if not 0 <= number < len(self.initial_states):
            raise AvenirError(
                f"clip {number} was asked for; there are {len(self.initial_states)}, counted from 0"
            )
        self.number, self.seed, self.now = number, seed, 0
        initial = self.initial_states[number]
        states = {name: each.start(initial, seed) for name, each in self._possible(initial)}
        self.timeline = Timeline([], {0: states})
        self.branches: list[Timeline] = []

    def step(self, action: tuple[float, ...] = ()) -> None:
        """Go one step on; what came later, before rewinding, becomes a branch.

        Raises AvenirError when a playthrough is as long as one may be, or nothing can be imagined;
        then all is as it was.
        """
        if self.now == MOST_STEPS:
            raise AvenirError(
                f"a playthrough has at most {MOST_STEPS:,} steps: save it, and begin again"
            )
        actions = torch.tensor(action, dtype=torch.float64) if action else None
        step = Step(replace(self.controls, actions=actions), self.edit)
        states = self._after(step)
        if self.now < len(self.timeline.steps):
            self.branches = [*self.branches, self.timeline.thinned()][-_MOST_BRANCHES:]
            self.timeline = self.timeline.until(self.now)
        self.timeline.steps.append(step)
        self.timeline.states[self.now + 1] = states
        self._advance()

    def set_text(self, text: str) -> None:
        """Caption what comes; no caption, when it is empty.

        Raises AvenirError when the world takes no captions, or none as long.
        """
        caption = text.strip() or None
        self._check_text(caption)
        self.controls = replace(self.controls, text=caption)

    @property
    def settable(self) -> dict[str, Signal]:
        """Signals that are set by name; cameras stay where they are, boxes are too many."""
        named = given_by_name(self.takes).items()
        return {name: each for name, each in named if each.role not in ("camera", "box")}

    def set_signal(self, name: str, value: str | Sequence[float] | None) -> None:
        """Set another signal, to one of its names or to numbers; none: it is unknown.

        Raises AvenirError when the world takes no such signal, or no such value.
        """
        check_name(self.settable, name)
        row = self.settable[name].parse_row(value).tolist() if isinstance(value, str) else value
        self._check_row(name, row)
        signals = {other: rows for other, rows in self.controls.signals.items() if other != name}
        if row is not None:
            signals[name] = torch.tensor(row, dtype=torch.float64)
        self.controls = replace(self.controls, signals=dict(sorted(signals.items())))

    def set_edit(self, direction: Direction | None, amount: float) -> None:
        """Move latents in a direction, by so many standard deviations; by 0: leave them alone."""
        self.edit = LatentEdit(direction, amount) if direction and amount else None

    def rewind(self, step: int) -> None:
        """Stand after step `step`, with the controls and the edit of then."""
        for _ in self.rewinding(step):
            pass

    def rewinding(self, step: int) -> Generator[None, None, None]:
        """Rewind, and stop after each step that is not kept and has to be played again.

        The caller goes on to its end before anything else is done.
        """
        steps = self.timeline.steps
        step = min(max(0, step), len(steps))
        self.now = max(kept for kept in self.timeline.states if kept <= step)
        while self.now < step:
            self._advance()
            yield
        states = self.timeline.states
        for kept in [n for n in states if abs(n - step) > MOST_KEPT and n % _EVERY]:
            del states[kept]
        if steps:
            self._hold(steps[min(step, len(steps) - 1)])

    def branch(self, number: int) -> None:
        """Go back to a branch, as far as it had come; the timeline left becomes one instead."""
        for _ in self.branching(number):
            pass

    def branching(self, number: int) -> Generator[None, None, None]:
        """Go back to a branch as `rewinding` does."""
        if not 0 <= number < len(self.branches):
            raise AvenirError(
                f"branch {number} was asked for; there are {len(self.branches)}, counted from 0"
            )
        left = self.timeline.thinned()
        self.timeline = self.branches[number]
        self.branches[number] = left
        yield from self.rewinding(len(self.timeline.steps))

    def frames(self, backend: str) -> UInt8[Tensor, "f_t C H W"]:
        """Return the frames that a backend shows now."""
        if backend not in self._here:
            raise AvenirError(f"{backend!r} was asked for; there is {', '.join(self._here)}")
        return self.backends[backend].frames(self._here[backend])

    @property
    def latents(self) -> Float[Tensor, "c h w"]:
        """The latent of the frames that the world shows now."""
        world = self.backends["world"]
        assert isinstance(world, WorldBackend)
        return world.latents(self._here["world"])

    def action(self, held: Sequence[str]) -> tuple[float, ...]:
        """Return what held keys stand for; empty: no action, so that the world acts on its own."""
        return () if self.action_signal is None else self.action_signal.of_keys(held)

    # Keeping ----------------------------------------------------------------------------------

    def kept(self, world: str) -> Playthrough:
        """Return what was played up to now."""
        past = self.initial_states[self.number].past
        steps = self.timeline.steps[: self.now]
        checksums = self.timeline.checksums[: self.now]
        return Playthrough.of(world, past, self.takes, self.seed, steps, checksums)

    def open(self, playthrough: Playthrough, world: str) -> Generator[None, None, None]:
        """Play it again from its own initial state, a step at a time, and stand at its end.

        Raises AvenirError for one of another world, for one that is damaged, and for one whose
        frames come out otherwise; then all is as it was.
        """
        if playthrough.world != world:
            raise AvenirError(
                f"it was played in world {playthrough.world!r}, and this is {world!r}: open it "
                "with that one"
            )
        past = past_of(playthrough, self.takes)
        expected = self.initial_states[0].past.frames.shape[1:]
        if past.frames.shape[1:] != expected:
            raise AvenirError(
                f"the playthrough is damaged: its frames are {tuple(past.frames.shape[1:])}, this "
                f"world's {tuple(expected)}"
            )
        steps = steps_of(playthrough, self.latents.shape)
        for name in playthrough.others:
            check_name(self.settable, name)
        self._check_steps(steps)
        before = vars(self).copy()
        self.initial_states = [*self.initial_states[: self.num_own], InitialState(past)]
        try:
            self.start(self.num_own, playthrough.seed)
            known = zip(steps, playthrough.frames, strict=True)
            for number, (step, checksum) in enumerate(known, start=1):
                self._hold(step)
                actions = step.controls.actions
                self.step(() if actions is None else tuple(actions.tolist()))
                if self.timeline.checksums[-1] != checksum:
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
        return self.timeline.states[self.now]

    def _hold(self, step: Step) -> None:
        """Let what steered a step beside its action, and its edit, hold from the next one on."""
        self.controls = replace(step.controls, actions=None)
        self.edit = step.edit

    def _check_steps(self, steps: Sequence[Step]) -> None:
        """Refuse steps of a file that this world cannot take."""
        for text in {step.controls.text for step in steps}:
            assert text is None or isinstance(text, str)
            self._check_text(text)
        rows = {(n, tuple(r.tolist())) for step in steps for n, r in step.controls.signals.items()}
        for name, row in sorted(rows):
            self._check_row(name, row)

    def _check_text(self, text: str | None) -> None:
        """Refuse a caption that the world cannot take."""
        controls = Controls(text=text)
        controls.check(self.takes)
        try:
            for signal in with_role(self.takes, "caption").values() if text else ():
                signal.encode_text(text or "")
        except UnicodeEncodeError:  # JSON can name halves of letters
            raise AvenirError("words were given that hold half a letter: write them anew") from None

    def _check_row(self, name: str, row: Sequence[float] | None) -> None:
        """Refuse what the world cannot take of a signal, from a page or from a file."""
        size = self.settable[name].size
        # The largest numbers are infinite in 32 bits, in which worlds compute.
        if row is not None and not (len(row) == size and torch.tensor(row).isfinite().all()):
            raise AvenirError(
                f"{name!r} was given in {len(row)} numbers; this world takes {size}, all finite: "
                "give as many"
            )

    def _possible(self, initial: InitialState) -> list[tuple[str, Backend]]:
        """List the backends that a state allows: one that was shared has no simulator."""
        known = {"simulator": initial.simulator, "recording": initial.future}
        return [(n, b) for n, b in self.backends.items() if known.get(n, initial) is not None]

    def _after(self, step: Step) -> dict[str, Any]:
        """Return what a step leads to in every backend; nothing is kept."""
        return {name: self.backends[name].step(s, *step) for name, s in self._here.items()}

    def _advance(self) -> None:
        timeline = self.timeline
        if self.now + 1 not in timeline.states:
            timeline.states[self.now + 1] = self._after(timeline.steps[self.now])
        self.now += 1
        if len(timeline.checksums) < self.now:
            frames = self.frames("world").numpy()
            timeline.checksums.append(hashlib.sha256(frames.tobytes()).hexdigest()[:16])
        old = self.now - MOST_KEPT
        if old % _EVERY:
            timeline.states.pop(old, None)
