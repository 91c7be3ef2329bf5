"""Playing: stages that step together, rewinding, branches, and playthroughs that open again."""

import json

import pytest
import torch

from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.errors import AvenirError
from avenir.serving.player import MOST_KEPT, Player, read_playthrough
from avenir.serving.stages import openings_of, stages_of
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
    return Player(stages_of(world, openings), openings, source.signals["actions"])


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


def test_the_simulator_under_recorded_actions_shows_the_recording(player):
    opening = player.openings[0]
    known = torch.cat([opening.past.signals["actions"], opening.future.signals["actions"]])
    # An action is held for both frames of a step: only steps whose two actions agree can be told.
    clip = torch.cat([opening.past.frames, opening.future.frames])
    simulator = opening.simulator
    import copy

    branch = copy.copy(simulator)
    for frame in range(6, 10):
        seen, _ = branch.step(known[frame - 1 : frame].double().numpy())
        assert torch.equal(torch.from_numpy(seen[0]), clip[frame])


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
    assert MOST_KEPT > 100


def test_what_is_left_behind_is_a_branch_to_go_back_to(player):
    for action in (ON, LEFT, LEFT):
        player.step(action)
    left = shown(player)
    player.rewind(1)
    player.step(RIGHT)
    right = shown(player)
    assert player.branches == [[ON, LEFT, LEFT]]
    player.branch(0)
    assert player.now == 3 and torch.equal(shown(player), left)
    player.branch(0)
    assert player.now == 2 and torch.equal(shown(player), right)
    with pytest.raises(AvenirError, match="branch 1"):
        player.branch(1)


def test_keys_add_up_within_bounds(player):
    assert player.action({"ArrowLeft", "ArrowUp"}) == (-1.0, 1.0)
    assert player.action({"ArrowLeft", "ArrowRight"}) == (0.0, 0.0)
    assert player.action({"F13"}) == (0.0, 0.0)


def test_a_playthrough_opens_again_to_the_same_frames(player, world, source):
    for action in (ON, LEFT, RIGHT, ON):
        player.step(action)
    there = shown(player)
    text = player.kept("a key").model_dump_json()
    openings = openings_of(source, world, 1, 4)
    other = Player(stages_of(world, openings), openings, source.signals["actions"])
    other.open(read_playthrough(text), "a key")
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
        player.open(read_playthrough(json.dumps(good | changed)), "a key")

    opened()
    for damage in (
        {"past": good["past"][:-8]},
        {"past": "%" + good["past"][1:]},
        {"shape": [6, 3, 64, 65]},
        {"shape": [2**20, 3, 2**10, 2**10]},
        {"frames": good["frames"][:1]},
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
    assert player.now == 0 and player.number == 0
    with pytest.raises(AvenirError, match="clip 99"):
        player.begin(99)
