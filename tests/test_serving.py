"""Playing: stages that step together, words, rewinding, branches, playthroughs that open again."""

import json
from pathlib import Path

import pytest
import torch

from avenir.clip import to_frames
from avenir.controls import Controls
from avenir.data.synthetic import ACTIONS, CAPTION, WEATHER, Synthetic, SyntheticConfig
from avenir.errors import AvenirError
from avenir.serving import player as player_module
from avenir.serving.backends import Direction, SimulatorBackend, backends_of, initial_states_of
from avenir.serving.player import Player, Timeline
from avenir.serving.playthrough import read_playthrough
from avenir.signals import Signal
from avenir.world import World, load

from .conftest import save_tiny_world

LEFT, RIGHT, ON = (-1.0, 0.0), (1.0, 0.0), (0.0, 1.0)


@pytest.fixture(scope="module")
def world(tiny_run) -> World:
    return load(tiny_run)


@pytest.fixture(scope="module")
def source() -> Synthetic:
    return Synthetic(SyntheticConfig(episode_frames=30))


@pytest.fixture
def player(world, source) -> Player:
    initial_states = initial_states_of(source, world, 3, 6)
    return Player(backends_of(world, initial_states, True), initial_states, source.signals)


def save_joint_world(folder: Path, name: str, signals: dict, **parts: dict) -> World:
    """Write a tiny world of random weights that takes keys and other signals."""
    save_tiny_world(folder, (64, 64))
    card = World.load(folder, "cpu").card
    signals = {"actions": ACTIONS, **signals}
    conditioner = {"kind": "joint", "parts": {"actions": {}, **parts}}
    torch.manual_seed(0)
    world = World.build(
        card.model_copy(update={"signals": signals, "conditioner": conditioner, "name": name})
    )
    with torch.no_grad():
        for parameter in world.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    world.save(folder)
    return world.eval()


@pytest.fixture(scope="session")
def hearing_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "hearing"
    save_joint_world(folder, "hearing", {"caption": CAPTION}, text={})
    return folder


@pytest.fixture(scope="session")
def weather_run(tmp_path_factory) -> Path:
    """A world that is told the weather, which is a choice, and the speed, a number."""
    folder = tmp_path_factory.mktemp("runs") / "weather"
    speed = Signal(role="metadata", size=1, names=("speed",), low=(0.0,), high=(30.0,))
    signals = {"weather": WEATHER, "speed": speed}
    save_joint_world(folder, "weather", signals, metadata={"signals": ["weather", "speed"]})
    return folder


@pytest.fixture
def hearing(hearing_run) -> Player:
    """A player of a world that is told captions, on data that has them."""
    world = load(hearing_run)
    initial_states = initial_states_of(
        Synthetic(SyntheticConfig(episode_frames=30, captions="some")), world, 2, 6
    )
    return Player(backends_of(world, initial_states, True), initial_states, world.takes)


@pytest.fixture
def outside(weather_run) -> Player:
    """A player of a world that is told the weather, on data that has it."""
    world = load(weather_run)
    initial_states = initial_states_of(
        Synthetic(SyntheticConfig(episode_frames=30, weather=True)), world, 2, 6
    )
    return Player(backends_of(world, initial_states, True), initial_states, world.takes)


def somewhere(player: Player) -> Direction:
    chance = torch.Generator().manual_seed(1)
    return Direction("anything", torch.randn(player.latents.shape, generator=chance))


def signals_of(player: Player) -> dict[str, list[float]]:
    return {name: row.tolist() for name, row in player.controls.signals.items()}


def texts_of(player: Player) -> list[str | None]:
    return [step.controls.text for step in player.timeline.steps]


def actions_of(timeline: Timeline) -> list[tuple[float, ...]]:
    return [tuple(step.controls.actions.tolist()) for step in timeline.steps]


def shown(player: Player, stage: str = "world") -> torch.Tensor:
    return player.frames(stage).clone()


def test_all_stages_begin_where_the_past_ends_and_only_two_can_be_steered(player):
    assert list(player.backends) == ["world", "simulator", "recording"]
    last = player.initial_states[0].past.frames[-2:]
    assert all(torch.equal(shown(player, name), last) for name in player.backends)
    player.step(LEFT)
    left = {name: shown(player, name) for name in player.backends}
    player.rewind(0)
    player.step(RIGHT)
    moved = {name: not torch.equal(shown(player, name), left[name]) for name in player.backends}
    assert moved == {"world": True, "simulator": True, "recording": False}


def test_the_recording_goes_on_where_the_past_ends_and_the_simulator_under_its_actions(player):
    opening = player.initial_states[0]
    frames = torch.cat([opening.past.frames, opening.future.frames])
    actions = torch.cat([opening.past.signals["actions"], opening.future.signals["actions"]])
    simulated = player.backends["simulator"].start(opening, 0)
    for step in range(1, 4):
        player.step(LEFT)
        last = 6 + 2 * step
        assert torch.equal(shown(player, "recording"), frames[last - 2 : last])
        # A step holds one action for both of its frames: steps of one frame can follow the record.
        for frame in (last - 2, last - 1):
            stage = SimulatorBackend(1)
            controls = Controls(actions[frame - 1])
            simulated = stage.step(simulated, controls, None)
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
    assert len(player.timeline.states) < 9
    for step in (3, 11, 1, 12, 7):
        player.rewind(step)
        assert torch.equal(shown(player), seen[step - 1])
    assert len(player.timeline.states) < 9


def test_what_is_left_behind_is_a_branch_to_go_back_to(player):
    for action in (ON, LEFT, LEFT):
        player.step(action)
    left = shown(player)
    player.rewind(1)
    player.step(RIGHT)
    right = shown(player)
    assert [actions_of(branch) for branch in player.branches] == [[ON, LEFT, LEFT]]
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
    player.action_signal = Signal(
        role="action", size=2, names=named, low=(0, 0), high=(1, 1), keys=keys
    )
    assert player.action(["1", "2"]) == (0.0, 1.0)
    assert player.action(["2", "1"]) == (1.0, 0.0)
    assert player.action([]) == ()
    player.action_signal = Signal(role="action", size=2, low=(0.2, 0.1), high=(1, 1))
    assert player.action(["1"]) == ()
    player.action_signal = None
    assert player.action([]) == ()


def test_a_world_without_keys_is_played_without_the_simulator(world, source):
    initial_states = initial_states_of(source, world, 1, 6)
    player = Player(backends_of(world, initial_states, steers=False), initial_states, {})
    assert list(player.backends) == ["world", "recording"]
    player.step(player.action([]))
    assert player.frames("world").shape == (2, 3, 64, 64)


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
    initial_states = initial_states_of(source, world, 1, 4)
    other = Player(backends_of(world, initial_states, True), initial_states, source.signals)
    list(other.open(read_playthrough(text), "a key"))
    assert other.now == 4 and torch.equal(shown(other), there)
    with pytest.raises(AvenirError, match="'simulator' was asked for"):
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
    with pytest.raises(AvenirError, match="from step 2 on: .* or by an earlier version"):
        opened(actions=[good["actions"][0], [0.5, 0.5]])
    with pytest.raises(AvenirError, match="takes `F 2`"):
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
    assert player.now == 2 and len(player.initial_states) == 4
    with pytest.raises(AvenirError, match="clip 99"):
        player.start(99)


# Words --------------------------------------------------------------------------------------------


def test_a_world_is_told_what_is_said_from_then_on_and_until_something_else_is(hearing):
    conditioner, told = hearing.backends["world"].world.conditioner, []

    def note(_, given) -> None:
        told.append(given[0].get("caption"))

    conditioner.register_forward_pre_hook(note)
    hearing.step(ON)
    hearing.set_text("a red plane")
    hearing.step(ON)
    hearing.step(LEFT)
    hearing.set_text("  ")
    hearing.step(LEFT)
    assert told[0] is None and told[3] is None
    for caption in told[1:3]:
        assert torch.equal(caption[0, -1], CAPTION.encode_text("a red plane"))
    assert [step.controls.text for step in hearing.timeline.steps] == [
        None,
        "a red plane",
        "a red plane",
        None,
    ]


def test_captions_of_what_was_observed_are_told_as_well(hearing, monkeypatch):
    told = []
    world = hearing.backends["world"].world
    monkeypatch.setattr(world, "start", lambda past, signals: told.append(signals))
    hearing.start(0)
    past = hearing.initial_states[0].past
    assert set(told[0]) == {"actions", "caption"}
    assert torch.equal(told[0]["caption"][0], past.signals["caption"])


def test_words_change_what_comes_and_silence_does_not(hearing):
    def after(words: str | None) -> torch.Tensor:
        hearing.rewind(0)
        hearing.set_text("")
        if words is not None:
            hearing.set_text(words)
        hearing.step(ON)
        return shown(hearing)

    silent = after(None)
    assert torch.equal(after(""), silent)
    red, blue = after("a red plane"), after("a blue plane")
    assert not torch.equal(red, silent) and not torch.equal(red, blue)
    assert torch.equal(after("a red plane"), red)


def test_going_back_brings_back_what_was_said_then(hearing):
    hearing.step(ON)
    hearing.set_text("a red plane")
    hearing.set_edit(somewhere(hearing), 1.0)
    hearing.step(ON)
    hearing.step(ON)
    planned = shown(hearing)
    hearing.rewind(1)
    assert hearing.controls.text == "a red plane" and hearing.edit is not None  # as from then on
    hearing.rewind(0)
    assert hearing.controls.text is None and hearing.edit is None
    hearing.step(ON)
    hearing.set_text("nothing flies")
    hearing.step(ON)
    hearing.branch(0)
    assert hearing.controls.text == "a red plane" and torch.equal(shown(hearing), planned)
    hearing.branch(0)
    assert hearing.controls.text == "nothing flies"
    hearing.start(1)
    assert hearing.controls.text == "nothing flies"  # as a key that is held


def test_words_a_world_cannot_be_told_are_refused(hearing, player):
    hearing.set_text("x" * 48)
    with pytest.raises(AvenirError, match="49 bytes long; at most 48"):
        hearing.set_text("x" * 49)
    with pytest.raises(AvenirError, match="50 bytes long"):
        hearing.set_text("é" * 25)  # letters are not bytes
    assert hearing.controls.text == "x" * 48
    with pytest.raises(AvenirError, match="trained without any"):
        player.set_text("a red plane")
    player.set_text(" ")  # nobody minds silence


def test_a_playthrough_with_words_and_pushes_opens_again_to_the_same_frames(hearing):
    seen, direction = [], somewhere(hearing)
    for number, action in enumerate((ON, LEFT, RIGHT, ON, LEFT, ON)):
        if number == 1:
            hearing.set_text("a red plane flies in, ünd möre")
        if number in (2, 4):
            hearing.set_edit(direction, number - 3.5)
        if number == 3:
            hearing.set_edit(direction, 0)
        if number == 5:
            hearing.set_text("")
        hearing.step(action)
        seen.append(shown(hearing))
    text = hearing.kept("a key").model_dump_json()
    table = json.loads(text)
    assert table["words"] == [[1, "a red plane flies in, ünd möre"], [5, None]]
    assert table["pushes"] == [[2, [0, -1.5]], [3, None], [4, [0, 0.5]]]
    dream = hearing.backends["world"]
    other = Player({"world": dream}, hearing.initial_states[1:], hearing.takes)
    list(other.open(read_playthrough(text), "a key"))
    assert [step.controls.text for step in other.timeline.steps] == [
        step.controls.text for step in hearing.timeline.steps
    ]
    assert torch.equal(other.timeline.steps[-1].edit.direction.change, direction.change)
    for step in range(6, 0, -1):
        other.rewind(step)
        assert torch.equal(shown(other), seen[step - 1])
    assert other.kept("a key").words == [] and len(other.kept("a key").actions) == 1
    # What is told goes on: the next step of both is the same.
    other.rewind(6)
    other.step(ON)
    hearing.step(ON)
    assert torch.equal(shown(other), shown(hearing))


def test_a_playthrough_from_before_there_were_words_opens(player):
    for action in (ON, LEFT):
        player.step(action)
    new = json.loads(player.kept("a key").model_dump_json())
    later = {"words", "others", "pushes", "directions", "past_signals"}
    assert all(not new[name] for name in later)
    old = {name: value for name, value in new.items() if name not in later}
    list(player.open(read_playthrough(json.dumps(old)), "a key"))
    assert player.now == 2 and player.controls.text is None


def test_damaged_words_and_pushes_are_refused_in_words(hearing, player):
    hearing.set_text("a red plane")
    hearing.set_edit(somewhere(hearing), 1.0)
    hearing.step(ON)
    hearing.step(ON)
    good = json.loads(hearing.kept("a key").model_dump_json())
    before = (hearing.timeline, hearing.controls.text, hearing.edit)

    def opened(by: Player = hearing, **changed) -> None:
        list(by.open(read_playthrough(json.dumps(good | changed)), "a key"))

    direction = good["directions"][0]
    for damage in (
        {"words": [[2, "a red plane"]]},
        {"words": [[1, "a red plane"], [0, None]]},
        {"words": [[0, "a red plane"], [0, None]]},
        {"pushes": [[0, [1, 1.0]]]},
        {"pushes": [[5, None]]},
        {"directions": [direction | {"change": direction["change"][:-8]}]},
        {"directions": [direction | {"change": good["past"]}]},
        {"past_signals": {"caption": "?"}},
    ):
        with pytest.raises(AvenirError, match="damaged"):
            opened(**damage)
    for damage in (
        {"words": [[-1, "a red plane"]]},
        {"words": [[0, 5]]},
        {"words": "a red plane"},
        {"pushes": [[0, [0, 1e3]]]},
        {"pushes": [[0, [0, float("nan")]]]},
        {"directions": [{"factor": "anything"}]},
    ):
        with pytest.raises(AvenirError, match="playthrough"):
            opened(**damage)
    with pytest.raises(AvenirError, match="half a letter"):
        opened(words=[[0, "\ud800"]])
    with pytest.raises(AvenirError, match="at most 48"):
        opened(words=[[0, "x" * 49]])
    with pytest.raises(AvenirError, match="from step 1 on"):
        opened(words=[[0, "a blue plane"]])
    with pytest.raises(AvenirError, match="from step 2 on"):
        opened(pushes=[[0, [0, 1.0]], [1, None]])
    assert (hearing.timeline, hearing.controls.text, hearing.edit) == before
    with pytest.raises(AvenirError, match="trained without any"):
        opened(player)


# Other signals ------------------------------------------------------------------------------------


def test_telling_a_signal_is_telling_the_world(outside):
    world, start = outside.backends["world"].world, outside.timeline.states[0]["world"].rollout

    def after(**values: str | list[float] | None) -> torch.Tensor:
        outside.rewind(0)
        for name in ("weather", "speed"):
            outside.set_signal(name, values.get(name))
        outside.step(ON)
        return shown(outside)

    def imagined(**signals: torch.Tensor) -> torch.Tensor:
        return to_frames(
            world.imagine_step(start, Controls(torch.tensor(ON), None, signals), 0).video[0]
        )

    fog, speed = torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([12.5])
    told = after(weather="fog")
    assert torch.equal(told, imagined(weather=fog)) and torch.equal(
        told, after(weather=[0, 0, 1, 0])
    )
    assert torch.equal(after(weather="fog", speed="12.5"), imagined(weather=fog, speed=speed))
    assert torch.equal(after(), imagined())
    frames = [told, after(), after(weather="night"), after(speed=[12.5])]
    assert len({each.numpy().tobytes() for each in frames}) == 4


def test_going_back_brings_back_what_was_told_then(outside):
    outside.step(ON)
    outside.set_signal("weather", "fog")
    outside.set_signal("speed", [3])
    outside.step(ON)
    outside.set_signal("weather", None)
    outside.step(ON)
    left = shown(outside)
    fog = {"weather": [0.0, 0.0, 1.0, 0.0]}
    assert signals_of(outside) == {"speed": [3.0]}
    outside.rewind(1)
    assert signals_of(outside) == {"speed": [3.0]} | fog  # as from then on
    outside.rewind(0)
    assert signals_of(outside) == {}
    outside.set_signal("weather", "fog")
    outside.step(ON)
    outside.branch(0)
    assert signals_of(outside) == {"speed": [3.0]} and torch.equal(shown(outside), left)
    outside.branch(0)
    outside.start(1)
    assert signals_of(outside) == fog  # as a key that is held


def test_signals_that_cannot_be_told_are_refused(outside, player):
    outside.set_signal("weather", "dusk")
    before = signals_of(outside)
    for name, value, answer in (
        ("weather", "hail", "day, night, fog, dusk, or 4 numbers"),
        ("weather", [1.0, 0.0], "2 numbers; this world takes 4"),
        ("speed", "nan", "all finite"),
        ("speed", [1e300], "all finite"),
        ("speed", [], "0 numbers; this world takes 1"),
        ("mood", "good", "that takes speed, weather"),
        ("actions", [1.0, 0.0], "given by itself"),
        ("caption", None, "given by itself"),
        ("cameras", [1.0], "that takes speed, weather"),
    ):
        with pytest.raises(AvenirError, match=answer):
            outside.set_signal(name, value)
        assert signals_of(outside) == before
    with pytest.raises(AvenirError, match="that takes nothing"):
        player.set_signal("weather", "fog")


def test_a_step_that_leads_to_nothing_is_refused_and_all_is_as_before(outside):
    for action in (ON, LEFT):
        outside.step(action)
    outside.rewind(1)
    line, seen = outside.timeline, shown(outside)
    outside.set_signal("speed", [3e38])
    for _ in range(2):
        with pytest.raises(AvenirError, match="so far from what the world was taught"):
            outside.step(ON)
        assert outside.now == 1 and torch.equal(shown(outside), seen)
        assert outside.timeline is line and len(line.steps) == 2 and not outside.branches
        assert sorted(line.states) == [0, 1, 2] and len(line.checksums) == 2
    outside.set_signal("speed", [3])
    outside.step(ON)
    assert outside.latents.isfinite().all() and len(outside.branches) == 1


def test_a_playthrough_that_leads_to_nothing_is_refused(outside):
    outside.set_signal("speed", [3])
    for action in (ON, LEFT):
        outside.step(action)
    good = json.loads(outside.kept("a key").model_dump_json())
    before = (outside.timeline, signals_of(outside), outside.now)
    hostile = good | {"others": {"speed": [[0, [3]], [1, [3e38]]]}}
    with pytest.raises(AvenirError, match="so far from what the world was taught"):
        list(outside.open(read_playthrough(json.dumps(hostile)), "a key"))
    assert (outside.timeline, signals_of(outside), outside.now) == before


def test_a_playthrough_with_other_signals_opens_again_to_the_same_frames(outside):
    seen = []
    for number, action in enumerate((ON, LEFT, RIGHT, ON, LEFT)):
        if number in (1, 3):
            outside.set_signal("weather", ("fog", None)[number // 3])
        if number == 2:
            outside.set_signal("speed", [0.1])  # no number of 32 bits
        outside.step(action)
        seen.append(shown(outside))
    text = outside.kept("a key").model_dump_json()
    table = json.loads(text)["others"]
    assert table == {"speed": [[2, [0.1]]], "weather": [[1, [0, 0, 1, 0]], [3, None]]}
    dream = outside.backends["world"]
    other = Player({"world": dream}, outside.initial_states[1:], outside.takes)
    list(other.open(read_playthrough(text), "a key"))
    assert other.kept("a key") == outside.kept("a key")
    for step in range(5, 0, -1):
        other.rewind(step)
        assert torch.equal(shown(other), seen[step - 1])
    other.rewind(5)
    other.step(ON)
    outside.step(ON)
    assert torch.equal(shown(other), shown(outside))  # what is told goes on


def test_damaged_signals_are_refused_in_words(outside, player):
    outside.set_signal("weather", "fog")
    outside.step(ON)
    outside.step(ON)
    good = json.loads(outside.kept("a key").model_dump_json())

    def opened(by: Player = outside, **others) -> None:
        list(by.open(read_playthrough(json.dumps(good | {"others": others})), "a key"))

    opened(weather=good["others"]["weather"])
    before = (outside.timeline, signals_of(outside))
    fog, night = [0, 0, 1, 0], [0, 1, 0, 0]
    for rows in ([[2, fog]], [[1, fog], [0, None]], [[0, fog], [0, night]]):
        with pytest.raises(AvenirError, match="damaged"):
            opened(weather=rows)
    for rows in ([[-1, fog]], [[0, "fog"]], [[0, [float("nan"), 0, 0, 0]]], "fog", [fog]):
        with pytest.raises(AvenirError, match="playthrough"):
            opened(weather=rows)
    with pytest.raises(AvenirError, match="playthrough"):
        opened(**{f"signal {number}": [] for number in range(65)})
    with pytest.raises(AvenirError, match="3 numbers; this world takes 4"):
        opened(weather=[[0, fog[1:]]])
    with pytest.raises(AvenirError, match="all finite"):
        opened(speed=[[0, [1e39]]])
    with pytest.raises(AvenirError, match="that takes speed, weather"):
        opened(mood=[[0, [1.0]]])
    with pytest.raises(AvenirError, match="given by itself"):
        opened(actions=[[0, [1.0, 0.0]]])
    with pytest.raises(AvenirError, match="from step 1 on"):
        opened(weather=[[0, night]])
    with pytest.raises(AvenirError, match="from step 2 on"):
        opened(weather=[[0, fog], [1, None]])
    assert (outside.timeline, signals_of(outside)) == before
    with pytest.raises(AvenirError, match="that takes nothing"):
        opened(player, weather=[[0, fog]])
