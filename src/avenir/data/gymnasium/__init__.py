"""Any Gymnasium environment as a source: episodes played from their seeds by a policy.

A recording is one episode; what it shows is a function of the settings and of its name, unless a
person plays. Playing is slow: `avenir import ENVIRONMENT --to FOLDER` plays every episode once and
writes it down.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from pydantic import Field

from avenir.clip import Clip, cover
from avenir.config import Config
from avenir.data import MOST_FRAMES, Rate, Recording, Side, Skipped, Source, Window
from avenir.data.gymnasium.human import Human
from avenir.data.gymnasium.pictures import as_picture, drawn
from avenir.data.gymnasium.policies import Policy, policy_named
from avenir.device import seed_of
from avenir.errors import AvenirError
from avenir.registry import working_directory_last
from avenir.signals import Signal
from avenir.splits import Split

_TRIES = 20
"""Seeds tried for an episode that lasts long enough."""

Environment = gymnasium.Env[Any, Any]


class GymnasiumConfig(Config):
    """Episodes of an environment."""

    kind: Literal["gymnasium"] = "gymnasium"
    environment: str
    """Its id, as `gymnasium.make` takes it: CarRacing-v3, or my_module:MyEnv-v0."""
    options: Mapping[str, bool | int | float | str] = {}
    """Arguments of `gymnasium.make` beside the id."""
    policy: str = "random"
    """Who acts: random, scripted (where we know how), human (in a window, for `avenir import`
    alone), or somebody's own: my_module:my_policy."""
    size: tuple[Side, Side] = (64, 64)
    """`(H, W)` that every frame is resized to cover."""
    fps: Rate = 10.0
    """Frames per second; the environment's own rate is a multiple of it, each action is held."""
    episode_frames: int = Field(200, ge=2, le=MOST_FRAMES)
    """Frames of a recording; an episode that ends sooner is played again from another seed."""
    skip_frames: int = Field(0, ge=0, le=MOST_FRAMES)
    """Frames at the beginning of every episode that are left out."""
    train_recordings: int = Field(50, ge=1, le=10**6)
    """How many training recordings there are."""
    test_recordings: int = Field(5, ge=1, le=10**6)
    """How many test recordings there are, and as many to validate on."""
    seed: int = 0
    """Another seed is other episodes."""


class Gymnasium(Source):
    """Episodes of one environment; a frame is its picture and the action taken at it."""

    Config = GymnasiumConfig

    def __init__(self, config: GymnasiumConfig) -> None:
        self.config, self.size, self.fps = config, config.size, config.fps
        self.skipped: list[Skipped] = []
        environment = self._made()
        self._repeats = _repeats(environment, config)
        self.signals: dict[str, Signal] = {"actions": signal_of(environment)}
        environment.close()
        num_frames = config.skip_frames + config.episode_frames
        self._policy: Policy = (
            Human(self.signals["actions"], config.fps, num_frames)
            if config.policy == "human"
            else policy_named(config.policy, config.environment)
        )
        self._played: tuple[str, Clip] | None = None

    def recordings(self, split: Split) -> list[Recording]:
        """List the recordings of a split without playing any."""
        config = self.config
        count = config.train_recordings if split == "train" else config.test_recordings
        seconds = config.episode_frames / config.fps
        # Another setting is another recording: an import that goes on must not take one for other.
        content = config.model_dump_json(exclude={"train_recordings", "test_recordings"})
        settings = hashlib.sha256(content.encode()).hexdigest()[:8]
        name = f"{config.environment} {config.policy} {settings} {split}"
        return [Recording(f"{name} {number:05d}", seconds) for number in range(count)]

    @property
    def fingerprint(self) -> str:
        """Return a hash of the settings and of who simulates; AvenirError where a person plays."""
        self._check_repeatable()
        settings = json.dumps([self.config.model_dump(mode="json"), gymnasium.__version__])
        return hashlib.sha256(f"gymnasium {settings}".encode()).hexdigest()

    def draw(self, split: Split, num_frames: int, count: int, seed: int) -> list[Window]:
        """Draw windows as any source does; AvenirError where a person plays."""
        self._check_repeatable()
        return super().draw(split, num_frames, count, seed)

    def spread(self, split: Split, num_frames: int, count: int) -> list[Window]:
        """Spread windows as any source does; AvenirError where a person plays."""
        self._check_repeatable()
        return super().spread(split, num_frames, count)

    def _check_repeatable(self) -> None:
        """Refuse what is another episode every time it is asked for."""
        if self.config.policy == "human":
            raise AvenirError(
                "policy 'human' was given for data to draw from; what a person plays is played "
                f"once: record it with `avenir import {self.config.environment} --policy human "
                "--to FOLDER`, and give that folder as data of kind 'lerobot'"
            )

    def clip(self, window: Window) -> Clip:
        """Cut a window from its episode, which is played when it is not the last one played."""
        name = window.recording.name
        if self._played is None or self._played[0] != name:
            self._played = name, self._play(name)
        first = round(window.start_seconds * self.fps)
        return self._played[1][first : first + window.num_frames]

    def _play(self, name: str) -> Clip:
        environment = self._made()
        try:
            for attempt in range(_TRIES):
                seed = seed_of("gymnasium", self.config.seed, name, attempt)
                played = self._episode(environment, seed)
                if played is not None:
                    frames, actions = played
                    return Clip(frames, self.fps, {"actions": actions}, name)
        finally:
            environment.close()
        raise AvenirError(
            f"{self.config.environment!r} ended before frame "
            f"{self.config.skip_frames + self.config.episode_frames} in each of {_TRIES} episodes: "
            "ask for shorter ones, or for another policy"
        )

    def _episode(
        self, environment: Environment, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Play one episode; none when it ends too soon."""
        observation, _ = environment.reset(seed=seed % 2**31)
        act = self._policy(environment, np.random.default_rng(seed))
        skip, frames, actions = self.config.skip_frames, [], []
        last = skip + self.config.episode_frames - 1
        for frame in range(last + 1):
            action = act(observation)
            if frame >= skip:
                frames.append(self._picture(environment, observation))
                actions.append(as_numbers(environment, action))
            for _ in range(self._repeats if frame < last else 0):
                observation, _, ended, truncated, _ = environment.step(action)
                if ended or truncated:
                    return None
        return torch.stack(frames), torch.from_numpy(np.stack(actions))

    def _picture(self, environment: Environment, observation: Any) -> torch.Tensor:
        """Return what is seen, resized: the observation if it is a picture, or else a drawing."""
        seen = _is_picture(environment)
        picture = as_picture(environment, observation) if seen else drawn(environment)
        return cover(torch.tensor(picture).permute(2, 0, 1), *self.size)

    def _made(self) -> Environment:
        """Make the environment, without a limit on the length of its episodes."""
        config = self.config
        options: dict[str, Any] = {"max_episode_steps": -1, "render_mode": "rgb_array"}
        options |= config.options
        try:
            with working_directory_last() if ":" in config.environment else nullcontext():
                return gymnasium.make(config.environment, **options)
        except (gymnasium.error.Error, ImportError, TypeError) as error:
            raise AvenirError(
                f"{config.environment!r} cannot be made: {error}; there is no such folder either"
            ) from None


def signal_of(environment: Environment) -> Signal:
    """Say what actions are: the numbers of a box, or one number per choice, of which one is 1."""
    space = environment.action_space
    if isinstance(space, Discrete):
        return Signal.choice(int(space.n))
    if isinstance(space, Box) and len(space.shape) == 1:
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            return Signal(role="action", size=len(space.low))
        low, high = (tuple(map(float, bound)) for bound in (space.low, space.high))
        return Signal(role="action", size=len(low), low=low, high=high, keys=_keys(low, high))
    raise AvenirError(
        f"its actions are {space}; a world takes a row of numbers (Box) or a choice (Discrete): "
        "wrap the environment so that it does"
    )


def as_numbers(environment: Environment, action: Any) -> NDArray[np.float32]:
    """Write an action as a world takes it."""
    space = environment.action_space
    if isinstance(space, Discrete):
        return np.eye(int(space.n), dtype=np.float32)[int(action) - int(space.start)]
    return np.asarray(action, np.float32)


def _keys(low: tuple[float, ...], high: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    """Lay axes on arrow keys: to both sides across, then up and down, each as far as it goes."""
    free = [("ArrowLeft", "ArrowRight"), ("ArrowDown", "ArrowUp")]
    keys: dict[str, tuple[float, ...]] = {}
    rest = []
    for axis, (least, most) in enumerate(zip(low, high, strict=True)):
        if least < 0 < most and free:
            for key, value in zip(free.pop(0), (least, most), strict=True):
                keys[key] = tuple(value if i == axis else 0.0 for i in range(len(low)))
        else:
            rest.append((axis, most))
    names = [key for pair in free for key in reversed(pair)] + ["z", "x", "c", "v"]
    for name, (axis, most) in zip(names, rest, strict=False):
        keys[name] = tuple(most if i == axis else 0.0 for i in range(len(low)))
    return keys


def _is_picture(environment: Environment) -> bool:
    space = environment.observation_space
    if not isinstance(space, Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) == 3 and space.shape[2] == 3


def _repeats(environment: Environment, config: GymnasiumConfig) -> int:
    """Return how many of the environment's steps a frame takes."""
    own = environment.metadata.get("render_fps")
    if own is None:
        return 1
    repeats = round(own / config.fps)
    if repeats < 1 or abs(repeats * config.fps - own) > 1e-3 * own:
        raise AvenirError(
            f"{config.environment!r} runs at {own:g} frames per second and was asked for "
            f"{config.fps:g}; an action is held for whole steps: ask for {own:g} divided by a "
            "whole number"
        )
    return repeats
