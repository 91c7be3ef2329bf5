"""What can be stepped into from one initial state: the world, the simulator, or what was recorded.

A backend is given controls and, at times, an edit of latents. Its states are values: keeping one is
enough to go back to it. Knows nothing of players, keys or networks.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avenir.clip import Clip, to_frames
from avenir.console import silent
from avenir.controls import Controls
from avenir.data import Source
from avenir.data.synthetic import Synthetic
from avenir.data.synthetic.simulator import Simulator
from avenir.rollout import RolloutState
from avenir.shapes import Latents, Video
from avenir.signals import Signal
from avenir.video import read
from avenir.world import World

_MOST_FUTURE_SECONDS = 60.0
"""Of a recording, however long it is, so much is kept to be shown."""


@dataclass(frozen=True, eq=False)
class Direction:
    """Where in latents a factor grows by one standard deviation, as a probe reads it."""

    factor: str
    change: Float[Tensor, "c h w"]


class LatentEdit(NamedTuple):
    """A change of the latest latent before each step: an intervention, which no data shows."""

    direction: Direction
    amount: float
    """In standard deviations."""


class InitialState(NamedTuple):
    """Where a playthrough starts: what was observed, and what truly followed if that is known."""

    past: Clip
    future: Clip | None = None
    simulator: Simulator | None = None
    """Standing at the last frame of the past."""


class Backend(Protocol):
    """One thing that can be stepped into."""

    def start(self, initial: InitialState, seed: int) -> Any:
        """Return the state at the end of what was observed; randomness follows from the seed."""
        ...

    def step(self, state: Any, controls: Controls, edit: LatentEdit | None) -> Any:
        """Return the state `f_t` frames on; an action is one row, held for all of them."""
        ...

    def frames(self, state: Any) -> UInt8[Tensor, "f_t C H W"]:
        """Return the `f_t` frames that led to it, uint8 `f_t C H W`."""
        ...


class _Imagined(NamedTuple):
    rollout: RolloutState
    seed: int


class Imagining(Protocol):
    """What imagines step by step: a `World`, or one that was exported."""

    @property
    def takes(self) -> dict[str, Signal]:
        """What steers it."""
        ...

    def start(self, past: Video, signals: dict[str, Tensor]) -> Any:
        """Stand at the end of a past."""
        ...

    def imagine_step(self, state: Any, controls: Controls | None, seed: int) -> Any:
        """Step on."""
        ...


class WorldBackend:
    """What a world imagines. The same initial state, seed and steps give the same frames."""

    def __init__(self, world: Imagining) -> None:
        self.world = world

    def start(self, initial: InitialState, seed: int) -> _Imagined:
        """Observe."""
        past = initial.past
        known = {name: s[None] for name, s in past.signals.items() if name in self.world.takes}
        return _Imagined(self.world.start(past.video, known), seed)

    def step(self, state: _Imagined, controls: Controls, edit: LatentEdit | None) -> _Imagined:
        """Imagine; AvenirError, as of `finite`, where nothing comes that could be shown."""
        rollout = edited(state.rollout, edit)
        return _Imagined(self.world.imagine_step(rollout, controls, state.seed), state.seed)

    def frames(self, state: _Imagined) -> UInt8[Tensor, "f_t C H W"]:
        """Show what was imagined last."""
        return to_frames(state.rollout.video[0])

    def latents(self, state: _Imagined) -> Float[Tensor, "c h w"]:
        """Return the latent of these frames."""
        return state.rollout.memory.latents[0, -1].float().cpu()


def edited(state: RolloutState, edit: LatentEdit | None) -> RolloutState:
    """Change the latest latent, as it is remembered and as decoding the next looks back to it."""
    if edit is None:
        return state
    change = edit.amount * edit.direction.change

    def changed(latents: Latents) -> Latents:
        return torch.cat([latents[:, :-1], latents[:, -1:] + change.to(latents)], dim=1)

    memory = replace(state.memory, latents=changed(state.memory.latents))
    return replace(state, memory=memory, seen=changed(state.seen))


class _Simulated(NamedTuple):
    simulator: Simulator
    frames: Tensor


class SimulatorBackend:
    """The synthetic world itself."""

    def __init__(self, f_t: int) -> None:
        self.f_t = f_t

    def start(self, initial: InitialState, seed: int) -> _Simulated:
        """Stand where the past ended."""
        assert initial.simulator is not None
        return _Simulated(initial.simulator, initial.past.frames[-self.f_t :])

    def step(self, state: _Simulated, controls: Controls, edit: LatentEdit | None) -> _Simulated:
        """Simulate; of controls it takes the action alone."""
        assert controls.actions is not None  # of keys, which worlds with a simulator have
        action = controls.actions.double().numpy()[None]
        simulator = copy.copy(state.simulator)
        seen = [simulator.step(action)[0][0] for _ in range(self.f_t)]
        return _Simulated(simulator, torch.from_numpy(np.stack(seen)))

    def frames(self, state: _Simulated) -> UInt8[Tensor, "f_t C H W"]:
        """Show what was simulated last."""
        return state.frames


class _Played(NamedTuple):
    clip: Clip
    frame: int


class RecordingBackend:
    """What was recorded, under any controls; it stands still where the recording ends."""

    def __init__(self, f_t: int) -> None:
        self.f_t = f_t

    def start(self, initial: InitialState, seed: int) -> _Played:
        """Stand at the end of the past."""
        past = initial.past[initial.past.num_frames - self.f_t :]
        assert initial.future is not None
        frames = torch.cat([past.frames, initial.future.frames])
        return _Played(Clip(frames, past.fps), self.f_t)

    def step(self, state: _Played, controls: Controls, edit: LatentEdit | None) -> _Played:
        """Go on."""
        return state._replace(frame=min(state.frame + self.f_t, state.clip.num_frames))

    def frames(self, state: _Played) -> UInt8[Tensor, "f_t C H W"]:
        """Show what was recorded there."""
        return state.clip.frames[state.frame - self.f_t : state.frame]


def backends_of(
    world: World,
    initial_states: Sequence[InitialState],
    steers: bool,
    exported: Imagining | None = None,
) -> dict[str, Backend]:
    """Name the backends that all of some initial states allow; a simulator is for what `steers`.

    What was `exported` of a world imagines in its place.
    """
    f_t = world.f_t
    backends: dict[str, Backend] = {"world": WorldBackend(exported or world)}
    if steers and all(initial.simulator is not None for initial in initial_states):
        backends["simulator"] = SimulatorBackend(f_t)
    if all(initial.future is not None for initial in initial_states):
        backends["recording"] = RecordingBackend(f_t)
    return backends


def initial_state_of(world: World, video: Path, seconds: float) -> InitialState:
    """Observe the first seconds of a video."""
    return InitialState(world.fitted(read(video, seconds=seconds, fps=world.card.fps)))


def initial_states_of(
    source: Source,
    world: World,
    num_clips: int,
    past: int,
    report: Callable[[str, int, int], None] = silent,
) -> list[InitialState]:
    """Take pasts of held-out recordings, with all that is known to follow."""
    f_t, initial_states = world.f_t, []
    most = round(_MOST_FUTURE_SECONDS * source.fps)
    windows = source.spread("test", past + f_t, num_clips)
    for done, window in enumerate(windows):
        report("clips to start from", done, len(windows))
        start = replace(window, num_frames=past)
        length = int(window.recording.seconds * source.fps + 1e-6)
        rest = min(most, length - round(window.start_seconds * source.fps) - past)
        whole = source.clip(replace(window, num_frames=past + rest // f_t * f_t))
        simulator = None
        # It shows one view, by day.
        if isinstance(source, Synthetic) and source.views == 1 and not source.config.weather:
            simulator = source.simulator_at(start)
        initial_states.append(InitialState(world.fitted(whole[:past]), whole[past:], simulator))
    report("clips to start from", len(windows), len(windows))
    return initial_states
