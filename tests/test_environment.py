"""A world as an environment: stepping is imagining, a state is a value, Gymnasium is content."""

import numpy as np
import pytest
import torch

from avenir.clip import Clip
from avenir.controls import Controls
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.world import World, load

from .conftest import save_tiny_world

gymnasium = pytest.importorskip("gymnasium")
from gymnasium.utils.env_checker import check_env  # noqa: E402

from avenir.environment import WorldEnv, WorldVectorEnv  # noqa: E402


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    """A world that imagines a latent frame per call, as in play."""
    folder = tmp_path_factory.mktemp("worlds") / "steps"
    return load(save_tiny_world(folder, (64, 64), chunk=1))


def clip(num_frames: int = 6) -> Clip:
    frames = torch.randint(0, 255, (num_frames, 3, 64, 64), dtype=torch.uint8)
    return Clip(frames, 10.0, {"actions": torch.randn(num_frames, 2)})


def test_stepping_is_imagining(world):
    given = clip()
    actions = torch.randn(1, 8, 2)
    laid = torch.cat([given.signals["actions"][None, :-1], actions, torch.zeros(1, 1, 2)], dim=1)
    pieces = list(world.imagine(given.video, {"actions": laid}, 8, 1, generator("a")))
    chance = generator("a")
    state = world.start(given.video, {"actions": given.signals["actions"][None]})
    stepped = []
    for first in range(0, 8, 2):
        state = world.step(state, Controls(actions[:, first : first + 2]), chance)
        stepped.append(state.video)
    assert state.num_imagined == 4
    torch.testing.assert_close(torch.cat(stepped, 1), torch.cat(pieces, 1), atol=1e-5, rtol=1e-5)


def test_a_moment_is_a_value_so_keeping_it_is_rewinding_and_branching(world):
    start = world.start(clip().video, {})
    left, right = torch.full((1, 2, 2), -2.0), torch.full((1, 2, 2), 2.0)
    first = world.step(start, Controls(left), generator("b")).video
    other = world.step(start, Controls(right), generator("b")).video
    again = world.step(start, Controls(left), generator("b")).video
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, world.step(start, None, generator("b")).video)


def test_it_passes_gymnasiums_own_checks(world):
    check_env(WorldEnv(world, [clip(), clip()], episode_steps=3), skip_render_check=True)


def test_a_seed_and_actions_are_an_episode_and_an_episode_ends(world):
    env = WorldEnv(world, [clip(), clip(9)], episode_steps=3)

    def play(seed: int, pull: float) -> list[np.ndarray]:
        frames = [env.reset(seed=seed, options={"clip": 1})[0]]
        for number in range(3):
            picture, reward, done, over, info = env.step(np.full(2, pull, np.float32))
            assert (reward, done, over) == (0.0, False, number == 2)
            assert info["frames"].shape == (2, 64, 64, 3)
            assert np.array_equal(info["frames"][-1], picture)
            frames.append(picture)
        return frames

    same, other, steered = play(1, 0.5), play(2, 0.5), play(1, -2.0)
    assert all(np.array_equal(a, b) for a, b in zip(same, play(1, 0.5), strict=True))
    assert np.array_equal(same[0], other[0])
    assert not np.array_equal(same[-1], other[-1])
    assert not np.array_equal(same[-1], steered[-1])
    play(1, -2.0)
    assert np.array_equal(env.render(), steered[-1])


def test_many_futures_step_together_and_begin_anew(world):
    clips = [clip(), clip()]
    env = WorldVectorEnv(world, clips, num_envs=3, episode_steps=2)
    assert env.action_space.shape == (3, 2)
    pictures, _ = env.reset(seed=0, options={"clips": [0, 1, 0]})
    for row, number in enumerate((0, 1, 0)):
        last = clips[number].frames[-1].permute(1, 2, 0).numpy()
        assert np.array_equal(pictures[row], last)
    steps = [env.step(np.zeros((3, 2), np.float32)) for _ in range(3)]
    assert [bool(step[3].all()) for step in steps] == [False, True, False]
    assert any(np.array_equal(steps[2][0][0], c.frames[-1].permute(1, 2, 0)) for c in clips)


def test_mistakes_are_explained(world, tmp_path):
    with pytest.raises(AvenirError, match="at least 2"):
        WorldEnv(world, [clip(1)])
    with pytest.raises(AvenirError, match="no clip"):
        WorldEnv(world, [])
    with pytest.raises(AvenirError, match="call reset first"):
        WorldEnv(world, [clip()]).step(np.zeros(2, np.float32))
    with pytest.raises(AvenirError, match="render was called before any"):
        WorldEnv(world, [clip()]).render()
    for shape in ((1, 2), (3, 2), (2,)):
        env = WorldVectorEnv(world, [clip()], num_envs=2)
        env.reset()
        with pytest.raises(AvenirError, match=r"to 2 futures; give one of \(2,\) for each"):
            env.step(np.zeros(shape, np.float32))
    with pytest.raises(AvenirError, match="numbers from 0 to 0"):
        WorldEnv(world, [clip()]).reset(options={"clip": -1})
    encoder = load(save_tiny_world(tmp_path / "encoder", (64, 64), predicts=False))
    with pytest.raises(AvenirError, match="takes no actions"):
        WorldEnv(encoder, [clip()])
    with pytest.raises(AvenirError, match="no predictor"):
        encoder.start(clip().video, {})
