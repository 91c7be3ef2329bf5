"""Environments that are recorded: what is seen, what was done, and that it can be done again."""

import json
import sys

import numpy as np
import pytest
import torch

from avenir.clip import cover
from avenir.data import Window
from avenir.errors import AvenirError, Stopped
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


class Drawing(gymnasium.Env):
    """An environment that shows what it is asked to, and is nothing else."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, shown, render_mode=None) -> None:
        self.shown, self.render_mode = shown, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def render(self):
        if self.shown is NotImplemented:
            raise NotImplementedError
        return self.shown


@pytest.fixture
def drawing(monkeypatch):
    """Register an environment of that kind, and give its source."""

    def made(shown, **table):
        unchecked = {"order_enforce": False, "disable_env_checker": True}
        gymnasium.register("Drawing-v0", lambda **more: Drawing(shown, **more), **unchecked)
        return source("Drawing-v0", **table)

    yield made
    gymnasium.registry.pop("Drawing-v0", None)


GREY = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], axis=-1)
ALIKE = GREY[..., None].repeat(3, 2)


@pytest.mark.parametrize(
    ("shown", "seen"),
    [
        (COLOUR, COLOUR),
        (GREY, ALIKE),
        (GREY[..., None], ALIKE),
        (np.concatenate([COLOUR, GREY[..., None]], axis=-1), COLOUR),
        ([ALIKE, COLOUR], COLOUR),
        ((GREY,), ALIKE),
    ],
    ids=["colour", "grey", "one channel", "alpha", "list", "grey in a tuple"],
)
def test_pictures_of_every_kind_are_seen_in_colour(drawing, shown, seen):
    clip = whole(drawing(shown))
    assert torch.equal(clip.frames[0], torch.tensor(seen).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("shown", "given"),
    [
        (None, "gave nothing"),
        (NotImplemented, "gave nothing"),
        (COLOUR / np.float32(255), r"gave float32 of shape \(32, 32, 3\)"),
        (COLOUR.transpose(2, 0, 1), r"gave uint8 of shape \(3, 32, 32\)"),
        ([], "gave float64"),
        ("a house", "gave <U7"),
    ],
    ids=["none", "cannot", "floats", "channels first", "no frame", "words"],
)
def test_what_is_no_picture_is_said_once_with_the_environment(drawing, tmp_path, shown, given):
    from typer.testing import CliRunner

    from avenir.cli import app

    with pytest.raises(AvenirError, match=f"'Drawing-v0' was asked for a picture and {given}"):
        whole(drawing(shown))
    words = f"import Drawing-v0 --to {tmp_path / 'to'} --size 32x32 --episodes 9 --seconds 0.4"
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code != 0 and isinstance(result.exception, AvenirError | SystemExit)
    said = " ".join(result.output.split())
    assert said.count("was asked for a picture") == 1 and 'render_mode="rgb_array"' in said


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


def test_an_environment_may_be_recorded_in_a_folder_of_its_name(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from avenir.cli import app

    monkeypatch.chdir(tmp_path)
    words = "import CarRacing-v3 --to CarRacing-v3 --size 32x32 --episodes 3 --seconds 0.4"
    for _ in range(2):  # the second time there is nothing left to do
        result = CliRunner().invoke(app, words.split())
        assert result.exit_code == 0, result.output
        report = json.loads((tmp_path / "CarRacing-v3" / "import_report.json").read_text())
        assert [row["split"] for row in report["imported"]] == ["train", "validation", "test"]


# Played by a person -------------------------------------------------------------------------------

HILL, POLE = "MountainCarContinuous-v0", "CartPole-v1"
"""A car between hills, pushed by one number 30 times a second; a pole, pushed left or right."""


class Sitting:
    """Somebody at the keyboard, whose time goes by when they are waited for.

    `keys` has, for each frame that is waited for, keys that go down; in capitals: up.
    """

    def __init__(self, pygame, keys=()) -> None:
        self.pygame, self.keys = pygame, list(keys)
        self.now, self.lag = 0.0, 0.0
        self.slept: list[float] = []
        self.titles: list[str] = []
        self.greetings: list[str] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert self.pygame.display.get_surface() is not None
        self.slept.append(round(seconds, 6))
        self.titles.append(self.pygame.display.get_caption()[0])
        self.now += seconds + self.lag
        self.lag = 0.0
        for word in self.keys.pop(0).split() if self.keys else ():
            self.pygame.event.post(self.event(word))

    def wait(self, milliseconds: int):
        self.greetings.append(self.pygame.display.get_caption()[0])
        return self.event("space")

    def event(self, word: str):
        kind = self.pygame.KEYUP if word.isupper() else self.pygame.KEYDOWN
        if word == "close":
            return self.pygame.event.Event(self.pygame.QUIT)
        if word == "release1":
            kind, word = self.pygame.KEYUP, "1"
        return self.pygame.event.Event(kind, key=self.pygame.key.key_code(word.lower()))


@pytest.fixture
def sitting(monkeypatch):
    from avenir.data.gymnasium import human

    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    sitting = Sitting(pygame)
    monkeypatch.setattr(human, "time", sitting)
    monkeypatch.setattr(pygame.event, "wait", sitting.wait)
    pygame.display.quit()
    yield sitting
    pygame.display.quit()


def test_a_person_plays_in_real_time_and_held_keys_add_up(sitting):
    from avenir.device import seed_of

    sitting.keys = ["left", "LEFT d D", "", "a right", "A", "up"]
    data = source(HILL, policy="human", fps=10)
    clip = whole(data)
    pushes = [-1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    assert clip.signals["actions"][:, 0].tolist() == pushes
    assert sitting.slept == [0.1] * 6
    assert sitting.titles == ["1 s left"] * 6
    assert sitting.greetings == ["Press a key to begin, Escape to stop"]
    # The action at a frame leads to the next: played again by hand it is the same.
    env = gymnasium.make(HILL, render_mode="rgb_array")
    env.reset(seed=seed_of("gymnasium", 0, clip.name, 0) % 2**31)
    for frame, push in zip(clip.frames, pushes, strict=True):
        drawn = cover(torch.tensor(env.render()).permute(2, 0, 1), 32, 32)
        assert torch.equal(frame, drawn)
        for _ in range(3):
            env.step(np.array([push], np.float32))
    env.close()


def test_time_that_was_lost_is_not_made_up_for_and_the_title_counts_down(sitting):
    sitting.lag = 1.0  # something took long in the first frame
    whole(source(HILL, policy="human", fps=10, episode_frames=21, skip_frames=4))
    assert sitting.slept == [0.1, 0.0] + [0.1] * 23
    seconds = [int(title.removesuffix(" s left")) for title in sitting.titles]
    assert seconds == [3] * 5 + [2] * 10 + [1] * 10


def test_what_is_shown_is_what_the_environment_draws_enlarged(sitting, monkeypatch):
    from avenir.data.gymnasium import human

    monkeypatch.setattr(human, "_MOST_PIXELS", (900, 1900))
    env = gymnasium.make(HILL, render_mode="rgb_array")
    env.reset(seed=0)
    data = source(HILL, policy="human", fps=10)
    act = data._policy(env, np.random.default_rng(0))
    act(None)
    shown = sitting.pygame.surfarray.array3d(sitting.pygame.display.get_surface())
    drawn = env.render().swapaxes(0, 1)
    assert shown.shape == (1200, 800, 3)  # twice 600 x 400; three times would be too high
    assert np.array_equal(shown, drawn.repeat(2, 0).repeat(2, 1))
    env.close()


def test_of_choices_the_key_pressed_last_is_taken_and_none_is_the_first(sitting):
    sitting.keys = ["", "2", "1 9", "release1", "2 1", ""]
    clip = whole(source(POLE, policy="human", fps=50))
    chosen = clip.signals["actions"].argmax(1).tolist()
    assert chosen == [0, 1, 0, 1, 0, 0]
    assert torch.equal(clip.signals["actions"].sum(1), torch.ones(6))


def test_an_episode_that_ended_too_soon_is_played_again_and_its_title_says_so(sitting):
    data = source(POLE, policy="human", fps=50, episode_frames=18)

    def falling_first() -> None:  # from side to side the pole stands, pushed one way it falls
        if len(sitting.greetings) != 1:
            sitting.keys = ["1", "2"] * 9

    wait = sitting.wait
    sitting.pygame.event.wait = lambda most: (wait(most), falling_first())[0]
    whole(data)
    assert len(sitting.greetings) == 2
    assert sitting.greetings[1].startswith("It ended too soon and is played again.")
    whole(data, 1)
    assert sitting.greetings[2] == sitting.greetings[0]


def test_another_recording_is_no_second_try_of_one_that_failed(sitting):
    data = source(POLE, policy="human", fps=50, episode_frames=40)
    with pytest.raises(AvenirError, match="in each of 20 episodes"):
        whole(data)
    tries = len(sitting.greetings)
    with pytest.raises(AvenirError, match="in each of 20 episodes"):
        whole(data, 1)
    assert sitting.greetings[tries] == sitting.greetings[0]
    assert sitting.greetings[tries + 1] == sitting.greetings[1] != sitting.greetings[0]


def test_keys_from_before_begin_nothing_and_a_window_that_was_closed_stays_closed(sitting):
    data = source(HILL, policy="human", fps=10)
    pygame, waited = sitting.pygame, []

    def wait(most: int):
        assert 0 < most <= 200  # no longer is Ctrl-C kept waiting
        waited.append(pygame.event.poll())
        return waited[-1] if len(waited) < 3 else sitting.event("space")

    def before(*words: str) -> None:
        pygame.display.init()
        for word in words:
            pygame.event.post(sitting.event(word))

    before("left", "LEFT")
    pygame.event.wait = wait  # as the fixture does, and put back with it
    clip = whole(data)
    kinds = {event.type for event in waited}
    assert len(waited) == 3 and not kinds & {pygame.KEYDOWN, pygame.KEYUP}
    assert not clip.signals["actions"].any()
    waited.clear()
    before("left", "close")
    with pytest.raises(Stopped, match="the window was closed"):
        whole(data, 1)


def test_a_person_may_stop_and_go_on_another_day(sitting, tmp_path):
    from typer.testing import CliRunner

    from avenir.cli import app
    from avenir.data.lerobot import LeRobot, LeRobotConfig

    to = tmp_path / "hill"
    words = f"import {HILL} --to {to} --size 32x32 --episodes 3 --seconds 0.6 --policy human"
    for end in ("escape", "close"):
        sitting.keys = [*[""] * 8, end]
        result = CliRunner().invoke(app, words.split())
        assert result.exit_code == 0, result.output
        assert "the window was closed: import again" in " ".join(result.output.split())
        assert sitting.pygame.display.get_surface() is None
    report = json.loads((to / "import_report.json").read_text())
    assert [row["frames"] for row in report["imported"]] == [6, 6]  # one each time
    assert len(report["skipped"]) == 1
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0 and "3 recordings, 18 frames" in " ".join(result.output.split())
    data = LeRobot(LeRobotConfig(path=str(to), size=(32, 32)))
    assert len(data.recordings("test")) == 1
    assert data.signals["actions"].keys["ArrowLeft"] == (-1.0,)


def test_where_nobody_can_play_it_is_said_once_and_not_for_every_episode(
    sitting, tmp_path, monkeypatch
):
    from typer.testing import CliRunner

    from avenir.cli import app

    words = f"import {HILL} --to {tmp_path / 'hill'} --size 32x32 --seconds 0.6 --policy human"
    for cure in ("play where there is a screen", "pip install"):
        monkeypatch.setenv("SDL_VIDEODRIVER", "offscreen")
        result = CliRunner().invoke(app, words.split())
        assert result.exit_code != 0 and isinstance(result.exception, AvenirError | SystemExit)
        said = " ".join(result.output.split())
        assert said.count("skipped") == 2 and "1 skipped" in said and cure in said
        monkeypatch.setitem(sys.modules, "pygame", None)


def test_what_a_person_would_play_is_no_data_to_draw_from():
    data = source(HILL, policy="human", fps=10)
    for asked in (
        lambda: data.fingerprint,
        lambda: data.draw("train", 4, 1, seed=0),
        lambda: data.spread("test", 4, 1),
    ):
        with pytest.raises(AvenirError, match="--policy human --to FOLDER"):
            asked()
    assert len(data.recordings("train")) == 2  # an import lists them


def test_who_cannot_play_is_told_why(sitting, monkeypatch):
    from avenir.data.gymnasium.human import Human
    from avenir.signals import Signal

    pygame = sitting.pygame
    with pytest.raises(AvenirError, match="on no keys"):
        Human(Signal(role="action", size=1), 10.0, 6)
    monkeypatch.setenv("SDL_VIDEODRIVER", "offscreen")  # what is taken where there is no screen
    with pytest.raises(AvenirError, match="no window can be opened: there is no screen"):
        whole(source(HILL, policy="human", fps=10))
    pygame.display.quit()
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")

    def failing(size: object) -> None:
        raise pygame.error("no video device")

    with monkeypatch.context() as broken:
        broken.setattr(pygame.display, "set_mode", failing)
        with pytest.raises(AvenirError, match="no window can be opened: no video device"):
            whole(source(HILL, policy="human", fps=10))
    data = source(HILL, policy="human", fps=10)
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(AvenirError, match=r"pip install 'avenir\[envs\]'"):
        whole(data)
