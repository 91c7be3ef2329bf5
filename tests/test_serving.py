"""Playing: stages that step together, rewinding, branches, and playthroughs that open again."""

import json

import pytest
import torch

from avenir.data import Signal
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.errors import AvenirError
from avenir.serving import player as player_module
from avenir.serving.player import Player, read_playthrough
from avenir.serving.stages import Simulation, openings_of, stages_of
from avenir.world import World, load

LEFT, RIGHT, ON = (-1.0, 0.0), (1.0, 0.0), (0.0, 1.0)


@pytest.fixture(scope="module")
def world(tiny_run) -> World:
    return load(tiny_run)


@pytest.fixture(scope="module")
def source() -> Synthetic:
    return Synthetic(SyntheticConfig(episode_frames=30))


@pytest.fixture
def player(world, source) -> Player:
    openings = openings_of(source, world, 3, 6)
    return Player(stages_of(world, openings, True), openings, source.signals["actions"])


def shown(player: Player, stage: str = "dream") -> torch.Tensor:
    return player.frames(stage).clone()


def test_all_stages_begin_where_the_past_ends_and_only_two_can_be_steered(player):
    assert list(player.stages) == ["dream", "simulator", "recording"]
    last = player.openings[0].past.frames[-2:]
    assert all(torch.equal(shown(player, name), last) for name in player.stages)
    player.step(LEFT)
    left = {name: shown(player, name) for name in player.stages}
    player.rewind(0)
    player.step(RIGHT)
    moved = {name: not torch.equal(shown(player, name), left[name]) for name in player.stages}
    assert moved == {"dream": True, "simulator": True, "recording": False}


def test_the_recording_goes_on_where_the_past_ends_and_the_simulator_under_its_actions(player):
    opening = player.openings[0]
    frames = torch.cat([opening.past.frames, opening.future.frames])
    actions = torch.cat([opening.past.signals["actions"], opening.future.signals["actions"]])
    simulated = player.stages["simulator"].begin(opening, 0)
    for step in range(1, 4):
        player.step(LEFT)
        last = 6 + 2 * step
        assert torch.equal(shown(player, "recording"), frames[last - 2 : last])
        # A step holds one action for both of its frames: steps of one frame can follow the record.
        for frame in (last - 2, last - 1):
            stage = Simulation(1)
            simulated = stage.step(simulated, tuple(actions[frame - 1].tolist()))
            assert torch.equal(stage.frames(simulated)[0], frames[frame])
    for _ in range(20):
        player.step(LEFT)
    assert torch.equal(shown(player, "recording"), frames[-2:])  # it stands still at its end


def test_rewinding_is_exact_however_far(player, monkeypatch):
    monkeypatch.setattr("avenir.serving.player.MOST_KEPT", 4)
    monkeypatch.setattr("avenir.serving.player._EVERY", 5)
    seen = []
    for number in range(12):
        player.step((LEFT, RIGHT, ON)[number % 3])
        seen.append(shown(player))
    assert len(player.line.states) < 9
    for step in (3, 11, 1, 12, 7):
        player.rewind(step)
        assert torch.equal(shown(player), seen[step - 1])
    assert len(player.line.states) < 9


def test_what_is_left_behind_is_a_branch_to_go_back_to(player):
    for action in (ON, LEFT, LEFT):
        player.step(action)
    left = shown(player)
    player.rewind(1)
    player.step(RIGHT)
    right = shown(player)
    assert [branch.actions for branch in player.branches] == [[ON, LEFT, LEFT]]
    player.branch(0)
    assert player.now == 3 and torch.equal(shown(player), left)
    player.branch(0)
    assert player.now == 2 and torch.equal(shown(player), right)
    with pytest.raises(AvenirError, match="branch 1"):
        player.branch(1)


def test_keys_add_up_within_bounds(player):
    assert player.action(["ArrowLeft", "ArrowUp"]) == (-1.0, 1.0)
    assert player.action(["ArrowLeft", "ArrowRight"]) == (0.0, 0.0)
    assert player.action(["F13"]) == (0.0, 0.0)


def test_choices_are_made_one_at_a_time_and_without_keys_the_world_acts_on_its_own(player):
    keys = {"1": (1.0, 0.0), "2": (0.0, 1.0)}
    named = ("choice 0", "choice 1")
    player.signal = Signal(size=2, names=named, low=(0, 0), high=(1, 1), keys=keys)
    assert player.action(["1", "2"]) == (0.0, 1.0)
    assert player.action(["2", "1"]) == (1.0, 0.0)
    assert player.action([]) == ()
    player.signal = Signal(size=2, low=(0.2, 0.1), high=(1, 1))
    assert player.action(["1"]) == ()
    player.signal = None
    assert player.action([]) == ()


def test_a_world_without_keys_is_played_without_the_simulator(world, source):
    openings = openings_of(source, world, 1, 6)
    player = Player(stages_of(world, openings, steers=False), openings, None)
    assert list(player.stages) == ["dream", "recording"]
    player.step(player.action([]))
    assert player.frames("dream").shape == (2, 3, 64, 64)


def test_a_playthrough_has_an_end_and_few_branches(player, monkeypatch):
    monkeypatch.setattr(player_module, "MOST_STEPS", 20)
    for _ in range(20):
        player.step(ON)
    with pytest.raises(AvenirError, match="at most 20 steps"):
        player.step(ON)
    for number in range(20):
        player.rewind(1)
        player.step(LEFT if number % 2 else RIGHT)
    assert len(player.branches) == 16


def test_a_playthrough_opens_again_to_the_same_frames(player, world, source):
    for action in (ON, LEFT, RIGHT, ON):
        player.step(action)
    there = shown(player)
    text = player.kept("a key").model_dump_json()
    openings = openings_of(source, world, 1, 4)
    other = Player(stages_of(world, openings, True), openings, source.signals["actions"])
    list(other.open(read_playthrough(text), "a key"))
    assert other.now == 4 and torch.equal(shown(other), there)
    with pytest.raises(AvenirError, match="stage 'simulator'"):
        other.frames("simulator")  # nobody knows what world it was
    other.step(LEFT)
    player.step(LEFT)
    assert torch.equal(shown(other), shown(player))


def test_a_damaged_playthrough_is_refused_in_words(player, tmp_path):
    for action in (ON, LEFT):
        player.step(action)
    good = json.loads(player.kept("a key").model_dump_json())

    def opened(**changed) -> None:
        list(player.open(read_playthrough(json.dumps(good | changed)), "a key"))

    opened()
    for damage in (
        {"past": good["past"][:-8]},
        {"past": "%" + good["past"][1:]},
        {"shape": [6, 3, 64, 65]},
        {"shape": [2**20, 3, 2**10, 2**10]},
        {"frames": good["frames"][:1]},
        {"past_actions": [*good["past_actions"][:-1], [0.0]]},
    ):
        with pytest.raises(AvenirError, match="damaged"):
            opened(**damage)
    with pytest.raises(AvenirError, match="played in world"):
        opened(world="another")
    with pytest.raises(AvenirError, match="from step 2 on"):
        opened(actions=[good["actions"][0], [0.5, 0.5]])
    with pytest.raises(AvenirError, match="numbers per frame"):
        opened(actions=[[1.0], [1.0]])
    with pytest.raises(AvenirError, match="format"):
        opened(format="avenir playthrough 9")
    with pytest.raises(AvenirError, match="no JSON"):
        read_playthrough("{")
    for text in ("5", "null", "[1]"):
        with pytest.raises(AvenirError, match="no table"):
            read_playthrough(text)
    with pytest.raises(AvenirError, match="damaged"):
        opened(past="ü" + good["past"][1:])
    # Whatever was wrong with them, what was played before stands as it stood.
    assert player.now == 2 and len(player.openings) == 4
    with pytest.raises(AvenirError, match="clip 99"):
        player.begin(99)
