"""What can be stepped into from the same moment: the dream, the simulator, or what was recorded.

A stage is told an action, words, other signals and a push. Its states are values: who keeps one can
go back to it. Knows nothing of players, keys or networks.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avenir.clip import Clip, to_frames
from avenir.data import Source
from avenir.data.synthetic import Synthetic
from avenir.data.synthetic.simulator import Simulator
from avenir.rollout import RolloutState
from avenir.shapes import Latents, Video
from avenir.signals import Signal
from avenir.steering import Told
from avenir.world import World

Action = tuple[float, ...]
"""One number for each of the world's; none: the world acts on its own."""

Others = tuple[tuple[str, tuple[float, ...]], ...]
"""Other signals by name, in the order of their names: a row of numbers of each that is told."""

_MOST_FUTURE_SECONDS = 60.0
"""Of a recording, however long it is, so much is kept to be shown."""


@dataclass(frozen=True, eq=False)
class Direction:
    """Where in latents a factor grows by one standard deviation, as a probe reads it."""

    factor: str
    change: Float[Tensor, "c h w"]


class Push(NamedTuple):
    """A change of the latest latent before each step: an intervention, which no data shows."""

    direction: Direction
    amount: float
    """In standard deviations."""


class Steering(NamedTuple):
    """What one step is told."""

    action: Action = ()
    text: str | None = None
    """What comes, in words; none: nothing is said of it."""
    push: Push | None = None
    others: Others = ()
    """What else is told of what comes, as the weather."""


class Opening(NamedTuple):
    """Where a playthrough begins: what was observed, and what truly followed if that is known."""

    past: Clip
    future: Clip | None = None
    simulator: Simulator | None = None
    """Standing at the last frame of the past."""


class Stage(Protocol):
    """One thing that can be stepped into."""

    def begin(self, opening: Opening, seed: int) -> Any:
        """Return the state at the end of what was observed; chance follows from the seed."""
        ...

    def step(self, state: Any, told: Steering) -> Any:
        """Return the state `f_t` frames on, the action held for all of them."""
        ...

    def frames(self, state: Any) -> UInt8[Tensor, "f_t C H W"]:
        """Return the `f_t` frames that led to it, uint8 `f_t C H W`."""
        ...


class _Dreamt(NamedTuple):
    rollout: RolloutState
    seed: int


class Dreams(Protocol):
    """What can be dreamt in: a `World`, or one that was exported."""

    @property
    def takes(self) -> dict[str, Signal]:
        """What steers it."""
        ...

    def start(self, past: Video, signals: dict[str, Tensor]) -> Any:
        """Stand at the end of a past."""
        ...

    def imagine_step(
        self,
        state: Any,
        action: Tensor | None,
        seed: int,
        text: str | None = None,
        told: Told | None = None,
    ) -> Any:
        """Step on."""
        ...


class Dream:
    """What a world imagines. The same opening, seed and steering give the same frames."""

    def __init__(self, world: Dreams) -> None:
        self.world = world

    def begin(self, opening: Opening, seed: int) -> _Dreamt:
        """Observe."""
        past = opening.past
        known = {name: s[None] for name, s in past.signals.items() if name in self.world.takes}
        return _Dreamt(self.world.start(past.video, known), seed)

    def step(self, state: _Dreamt, told: Steering) -> _Dreamt:
        """Imagine; AvenirError, as of `finite`, where nothing comes that could be shown."""
        chosen = torch.tensor([told.action]) if told.action else None
        rollout = pushed(state.rollout, told.push)
        others = {name: torch.tensor(row) for name, row in told.others}
        rollout = self.world.imagine_step(rollout, chosen, state.seed, told.text, others)
        return _Dreamt(rollout, state.seed)

    def frames(self, state: _Dreamt) -> UInt8[Tensor, "f_t C H W"]:
        """Show what was imagined last."""
        return to_frames(state.rollout.video[0])

    def latents(self, state: _Dreamt) -> Float[Tensor, "c h w"]:
        """Return the latent of these frames."""
        return state.rollout.memory.latents[0, -1].float().cpu()


def pushed(state: RolloutState, push: Push | None) -> RolloutState:
    """Change the latest latent, as it is remembered and as decoding the next looks back to it."""
    if push is None:
        return state
    change = push.amount * push.direction.change

    def changed(latents: Latents) -> Latents:
        return torch.cat([latents[:, :-1], latents[:, -1:] + change.to(latents)], dim=1)

    memory = replace(state.memory, latents=changed(state.memory.latents))
    return replace(state, memory=memory, seen=changed(state.seen))


class _Simulated(NamedTuple):
    simulator: Simulator
    frames: Tensor


class Simulation:
    """The synthetic world itself."""

    def __init__(self, f_t: int) -> None:
        self.f_t = f_t

    def begin(self, opening: Opening, seed: int) -> _Simulated:
        """Stand where the past ended."""
        assert opening.simulator is not None
        return _Simulated(opening.simulator, opening.past.frames[-self.f_t :])

    def step(self, state: _Simulated, told: Steering) -> _Simulated:
        """Simulate; it hears the action alone."""
        simulator = copy.copy(state.simulator)
        seen = [simulator.step(np.array([told.action]))[0][0] for _ in range(self.f_t)]
        return _Simulated(simulator, torch.from_numpy(np.stack(seen)))

    def frames(self, state: _Simulated) -> UInt8[Tensor, "f_t C H W"]:
        """Show what was simulated last."""
        return state.frames


class _Played(NamedTuple):
    clip: Clip
    frame: int


class Recording:
    """What was recorded, whatever is told; it stands still where the recording ends."""

    def __init__(self, f_t: int) -> None:
        self.f_t = f_t

    def begin(self, opening: Opening, seed: int) -> _Played:
        """Stand at the end of the past."""
        past = opening.past[opening.past.num_frames - self.f_t :]
        assert opening.future is not None
        frames = torch.cat([past.frames, opening.future.frames])
        return _Played(Clip(frames, past.fps), self.f_t)

    def step(self, state: _Played, told: Steering) -> _Played:
        """Go on."""
        return state._replace(frame=min(state.frame + self.f_t, state.clip.num_frames))

    def frames(self, state: _Played) -> UInt8[Tensor, "f_t C H W"]:
        """Show what was recorded there."""
        return state.clip.frames[state.frame - self.f_t : state.frame]


def stages_of(
    world: World, openings: Sequence[Opening], steers: bool, dreams: Dreams | None = None
) -> dict[str, Stage]:
    """Name the stages that all of some openings allow; a simulator is for who `steers`.

    With `dreams` the world is dreamt in that.
    """
    f_t = world.encoder.compression.t
    stages: dict[str, Stage] = {"dream": Dream(dreams or world)}
    if steers and all(opening.simulator is not None for opening in openings):
        stages["simulator"] = Simulation(f_t)
    if all(opening.future is not None for opening in openings):
        stages["recording"] = Recording(f_t)
    return stages


def openings_of(
    source: Source,
    world: World,
    num_clips: int,
    past: int,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Opening]:
    """Take pasts of held-out recordings, with all that is known to follow."""
    f_t, openings = world.encoder.compression.t, []
    most = round(_MOST_FUTURE_SECONDS * source.fps)
    windows = source.spread("test", past + f_t, num_clips)
    for done, window in enumerate(windows):
        report("clips to begin from", done, len(windows))
        start = replace(window, num_frames=past)
        length = int(window.recording.seconds * source.fps + 1e-6)
        rest = min(most, length - round(window.start_seconds * source.fps) - past)
        whole = source.clip(replace(window, num_frames=past + rest // f_t * f_t))
        simulator = None
        # It shows one view, by day.
        if isinstance(source, Synthetic) and source.views == 1 and not source.config.weather:
            simulator = source.simulator_at(start)
        openings.append(Opening(world.fitted(whole[:past]), whole[past:], simulator))
    report("clips to begin from", len(windows), len(windows))
    return openings
