"""Environments that are recorded: what is seen, what was done, and that it can be done again."""

import json

import numpy as np
import pytest
import torch

from avenir.clip import cover
from avenir.data import Window
from avenir.errors import AvenirError
from avenir.registry import find

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("Box2D")


def source(environment: str = "CarRacing-v3", **table):
    kind = find("data", "gymnasium")
    table = {"episode_frames": 6, "size": (32, 32), "train_recordings": 2} | table
    return kind(kind.Config.parse({"environment": environment, **table}))


def whole(data, number: int = 0):
    recording = data.recordings("train")[number]
    return data.clip(Window(recording, 0.0, data.config.episode_frames))


def test_the_action_at_a_frame_leads_to_the_next(monkeypatch):
    data = source(policy="scripted", skip_frames=2)
    clip = whole(data)
    # Played again by hand: every recorded action is held until the next frame.
    from avenir.data.gymnasium.policies import racing
    from avenir.device import seed_of

    env = gymnasium.make("CarRacing-v3", render_mode="rgb_array", max_episode_steps=-1)
    seed = seed_of("gymnasium", 0, clip.name, 0)
    seen, _ = env.reset(seed=seed % 2**31)
    act = racing(env, np.random.default_rng(seed))
    for frame in range(8):
        action = act(seen)
        if frame >= 2:
            now = cover(torch.tensor(seen).permute(2, 0, 1), 32, 32)
            assert torch.equal(clip.frames[frame - 2], now)
            assert np.allclose(clip.signals["actions"][frame - 2], action)
        for _ in range(5):  # 50 of its steps a second, 10 frames
            seen, *_ = env.step(action)
    env.close()


def test_an_episode_is_a_function_of_its_name():
    first, again = whole(source()), whole(source())
    assert torch.equal(first.frames, again.frames)
    assert torch.equal(first.signals["actions"], again.signals["actions"])
    assert not torch.equal(first.frames, whole(source(), 1).frames)
    assert not torch.equal(first.frames, whole(source(seed=1)).frames)


def test_our_driver_keeps_to_the_road_and_gets_somewhere():
    from avenir.data.gymnasium.policies import racing

    env = gymnasium.make("CarRacing-v3", max_episode_steps=-1)
    seen, _ = env.reset(seed=3)
    act, away, places = racing(env, np.random.default_rng(0)), [], []
    track = np.array([(x, y) for _, _, x, y in env.unwrapped.track])
    for _ in range(60):
        action = act(seen)
        assert env.action_space.contains(action)
        for _ in range(5):
            seen, *_ = env.step(action)
        here = np.array(env.unwrapped.car.hull.position)
        distance = np.linalg.norm(track - here, axis=1)
        away.append(distance.min())
        places.append(int(distance.argmin()))
    env.close()
    half_road = 40 / 6
    assert np.mean(np.array(away) < half_road) > 0.8
    assert places[-1] - places[0] > 20  # of about 300 tiles, in six seconds


def test_keys_follow_from_what_actions_are():
    assert source().signals["actions"].keys == {
        "ArrowLeft": (-1.0, 0.0, 0.0),
        "ArrowRight": (1.0, 0.0, 0.0),
        "ArrowUp": (0.0, 1.0, 0.0),
        "ArrowDown": (0.0, 0.0, 1.0),
    }
    choices = source(options={"continuous": False}).signals["actions"]
    assert choices.size == 5
    assert choices.keys["2"] == (0.0, 1.0, 0.0, 0.0, 0.0)
    rows = whole(source(options={"continuous": False})).signals["actions"]
    assert torch.equal(rows.sum(1), torch.ones(6))


def test_mistakes_are_explained():
    with pytest.raises(AvenirError, match="runs at 50"):
        source(fps=12)
    with pytest.raises(AvenirError, match="cannot be made"):
        source("Nowhere-v0")
    with pytest.raises(AvenirError, match="we know how to act in CarRacing-v3"):
        source("LunarLander-v3", policy="scripted")
    with pytest.raises(AvenirError, match="module:function"):
        source(policy="nowhere:act")
    with pytest.raises(AvenirError, match="ended before frame 500"):
        whole(source("LunarLander-v3", episode_frames=500))


def test_a_game_is_imported_and_its_keys_travel(tmp_path):
    from typer.testing import CliRunner

    from avenir.cli import app
    from avenir.data.lerobot import LeRobot, LeRobotConfig

    to = tmp_path / "race"
    words = f"import CarRacing-v3 --to {to} --size 32x32 --episodes 3 --seconds 0.8 --skip 0.2"
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    assert "3 recordings, 24 frames imported; 0 skipped" in " ".join(result.output.split())
    data = LeRobot(LeRobotConfig(path=str(to), size=(32, 32)))
    assert len(data.recordings("test")) == 1
    assert data.signals["actions"].keys["ArrowLeft"] == (-1.0, 0.0, 0.0)
    report = json.loads((to / "import_report.json").read_text())
    assert report["imported"][0]["frames"] == 8 and report["notes"] == []
    clip = data.clip(data.spread("test", 8, 1)[0])
    assert clip.signals["actions"].shape == (8, 3)
