"""The driving world as a Gymnasium environment: the true simulator that play and plans meet.

The only file of this package that needs gymnasium; nothing else here imports it.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from avenir.data.synthetic.ground import Bytes
from avenir.data.synthetic.motion import TOP_SPEED
from avenir.data.synthetic.simulator import Labels, Simulator
from avenir.data.synthetic.things import WIDTH
from avenir.splits import Split


class DrivingEnv(gymnasium.Env[Bytes, NDArray[np.float32]]):
    """One driving world. Observation: uint8 `H W C`; action: (steer, accelerate) in [-1, 1].

    The reward is the speed as a share of the top speed, and nothing beside the road. `info` holds
    the labels of `simulator.py`. The same seed is the same world, whatever is done in it.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        size: tuple[int, int] = (64, 64),
        fps: float = 10.0,
        episode_frames: int = 64,
        split: Split = "test",
        render_mode: str | None = "rgb_array",
    ) -> None:
        self.simulator = Simulator(size, fps)
        self.episode_frames, self.split, self.render_mode = episode_frames, split, render_mode
        self.metadata = {**self.metadata, "render_fps": fps}
        self.observation_space = Box(0, 255, (*size, 3), np.uint8)
        self.action_space = Box(-1, 1, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Bytes, dict[str, Any]]:
        """Begin the episode of this seed; without one, the next of the running generator."""
        super().reset(seed=seed)
        self.frame = 0
        world = int(self.np_random.integers(1 << 62))
        return self._seen(*self.simulator.reset([world], self.split))

    def step(self, action: NDArray[np.float32]) -> tuple[Bytes, float, bool, bool, dict[str, Any]]:
        """Steer and accelerate for one frame."""
        frame, info = self._seen(*self.simulator.step(np.asarray(action)[None]))
        share = info["speed"][0] / (TOP_SPEED * self.simulator.size[1] / WIDTH)
        reward = 0.0 if self.simulator.off_road[0] else float(share)
        self.frame += 1
        truncated = self.frame + 1 >= self.episode_frames
        return frame, reward, False, truncated, info

    def render(self) -> Bytes | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the frame last seen, `H W C`."""
        return self.seen if self.render_mode == "rgb_array" else None

    def _seen(self, frames: Bytes, labels: Labels) -> tuple[Bytes, Labels]:
        self.seen = np.ascontiguousarray(frames[0].transpose(1, 2, 0))
        return self.seen, {name: label[0] for name, label in labels.items()}
