"""A World as a Gymnasium environment: reset from a clip, step(action) -> frame, alone or many.

Agents and recorders that know Gymnasium step in a world as in a real environment. The only file
here that needs gymnasium, which the extra `envs` brings. Rewards are 0: a world imagines what
comes, and `gymnasium.Wrapper` adds whether it is wanted.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from avenir.clip import Clip, to_frames
from avenir.controls import Controls
from avenir.errors import AvenirError
from avenir.world import World

Pictures = NDArray[np.uint8]
Floats = NDArray[np.float32]


class WorldVectorEnv(VectorEnv[Pictures, Floats, NDArray[Any]]):
    """`num_envs` futures that are imagined together, each begun from one of `clips`.

    Observations: uint8 `b H W C`, the last of the `f_t` frames that a step imagines; `info` holds
    them all as `frames`, `b f_t H W C`. The action is the same for all of them. An episode is
    truncated after `episode_steps`; the step after that begins the next. The same seed and actions
    give the same frames.

    Raises AvenirError for a world that cannot be steered, and for clips that are too short.
    """

    def __init__(
        self, world: World, clips: Sequence[Clip], num_envs: int = 1, episode_steps: int = 64
    ) -> None:
        if world.action_signal is None:
            raise AvenirError(
                f"{world.card.name!r} takes no actions, so no agent can act in it: train it with "
                "conditioner.kind='actions' on data that has them"
            )
        self.world, self.num_envs, self.episode_steps = world, num_envs, episode_steps
        self.f_t = world.encoder.compression.t
        self.controls = Controls()
        """What steers beside the actions from the next step on: text, other signals."""
        self.clips = _of_one_length([world.fitted(clip) for clip in clips], self.f_t)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": world.card.fps / self.f_t,
            "autoreset_mode": AutoresetMode.NEXT_STEP,
        }
        self.render_mode = "rgb_array"
        height, width = world.card.size
        self.single_observation_space = Box(0, 255, (height, width, 3), np.uint8)
        self.single_action_space = _actions_of(world)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Pictures, dict[str, Any]]:
        """Begin all episodes; `options={"clips": [3, 0]}` says from which clips, by number."""
        super().reset(seed=seed if seed is None or isinstance(seed, int) else seed[0])
        chosen = (options or {}).get("clips")
        if chosen is None:
            chosen = self.np_random.integers(len(self.clips), size=self.num_envs)
        if len(chosen) != self.num_envs or not all(0 <= n < len(self.clips) for n in chosen):
            raise AvenirError(
                f"clips {list(chosen)} were asked for; say {self.num_envs} numbers from 0 to "
                f"{len(self.clips) - 1}"
            )
        begun = [self.clips[int(number)] for number in chosen]
        past = torch.cat([clip.video for clip in begun])
        known = set(self.world.takes).intersection(*(clip.signals for clip in begun))
        signals = {name: torch.stack([clip.signals[name] for clip in begun]) for name in known}
        self.state = self.world.start(past, signals)
        self.rollout_seed = int(self.np_random.integers(1 << 62))
        return self._last_frames()

    def step(
        self, actions: Floats
    ) -> tuple[Pictures, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Imagine `f_t` frames under one action `b a`; after a truncated episode, begin anew."""
        self._check_begun("step")
        rewards = np.zeros(self.num_envs)
        never = np.zeros(self.num_envs, bool)
        if self.state.num_imagined >= self.episode_steps:
            pictures, info = self.reset()
            return pictures, rewards, never, never, info
        chosen = torch.as_tensor(np.asarray(actions, np.float32))
        if chosen.shape != self.action_space.shape:
            raise AvenirError(
                f"actions of shape {tuple(chosen.shape)} were given to {self.num_envs} futures; "
                f"give one of {self.single_action_space.shape} for each"
            )
        controls = replace(self.controls, actions=chosen[:, None])
        self.state = self.world.imagine_step(self.state, controls, self.rollout_seed)
        over = np.full(self.num_envs, self.state.num_imagined >= self.episode_steps)
        pictures, info = self._last_frames()
        return pictures, rewards, never, over, info

    def render(self) -> tuple[Pictures, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the frames last seen, `H W C` each."""
        self._check_begun("render")
        return tuple(self._last_frames()[0])

    def _check_begun(self, what: str) -> None:
        if not hasattr(self, "state"):
            raise AvenirError(f"{what} was called before any episode began: call reset first")

    def _last_frames(self) -> tuple[Pictures, dict[str, Any]]:
        frames = to_frames(self.state.video).permute(0, 1, 3, 4, 2).contiguous().numpy()
        return frames[:, -1], {"frames": frames}


class WorldEnv(gymnasium.Env[Pictures, Floats]):
    """One future at a time; everything else as in `WorldVectorEnv`.

    `reset(options={"clip": 3})` begins from clip 3.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}

    def __init__(
        self,
        world: World,
        clips: Sequence[Clip],
        episode_steps: int = 64,
        render_mode: str | None = "rgb_array",
    ) -> None:
        self.inner = WorldVectorEnv(world, clips, 1, episode_steps)
        self.metadata = {**self.metadata, "render_fps": self.inner.metadata["render_fps"]}
        self.render_mode = render_mode
        self.observation_space = self.inner.single_observation_space
        self.action_space = self.inner.single_action_space

    @property
    def controls(self) -> Controls:
        """What steers beside the actions from the next step on: text, other signals."""
        return self.inner.controls

    @controls.setter
    def controls(self, controls: Controls) -> None:
        self.inner.controls = controls

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Pictures, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        clip = (options or {}).get("clip")
        pictures, info = self.inner.reset(
            seed=seed, options=None if clip is None else {"clips": [clip]}
        )
        return pictures[0], {name: value[0] for name, value in info.items()}

    def step(self, action: Floats) -> tuple[Pictures, float, bool, bool, dict[str, Any]]:
        """Imagine `f_t` frames under an action."""
        pictures, _, _, over, info = self.inner.step(np.asarray(action)[None])
        info = {name: value[0] for name, value in info.items()}
        return pictures[0], 0.0, False, bool(over[0]), info

    def render(self) -> Pictures | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the frame last seen, `H W C`."""
        return self.inner.render()[0] if self.render_mode == "rgb_array" else None


def _actions_of(world: World) -> Box:
    """Return the actions a world takes, within the bounds of its training data if it has any."""
    signal = world.action_signal
    assert signal is not None  # checked when the environment was made
    if not signal.low:
        return Box(-np.inf, np.inf, (signal.size,), np.float32)
    return Box(np.array(signal.low, np.float32), np.array(signal.high, np.float32))


def _of_one_length(clips: Sequence[Clip], f_t: int) -> list[Clip]:
    """Keep the end of every clip, whole groups of frames and as many of all."""
    if not clips:
        raise AvenirError("no clip was given to begin from; give one or more")
    length = min(clip.num_frames for clip in clips) // f_t * f_t
    if not length:
        shortest = min(clips, key=lambda clip: clip.num_frames)
        raise AvenirError(
            f"{shortest.name!r} has {shortest.num_frames} frames at the world's rate; it needs at "
            f"least {f_t}: give longer clips"
        )
    return [clip[clip.num_frames - length :] for clip in clips]
