"""What is told of a frame means the same in any company, and reaches a world whoever tells it."""

import numpy as np
import pytest
import torch

from avenir.assembly import make_conditioner
from avenir.card import Card
from avenir.clip import Clip
from avenir.conditioners import ConditionSpec
from avenir.conditioners.metadata import MetadataConditioner, MetadataConfig
from avenir.control_script import signals_of
from avenir.controls import Controls, build_signals, build_step_signals
from avenir.data.synthetic import WEATHER
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.signals import Signal
from avenir.world import World

ACTIONS, SPEED = Signal(role="action", size=2), Signal(role="metadata", size=1)
TAKEN = {"actions": ACTIONS, "weather": WEATHER, "speed.own": SPEED}
SIZES = {name: signal.size for name, signal in TAKEN.items()}
NAMES = ["weather", "speed.own"]
NIGHT, FOG = WEATHER.parse_row("night"), WEATHER.parse_row("fog")


def made(**settings) -> MetadataConditioner:
    torch.manual_seed(0)
    config = MetadataConfig.parse({"signals": NAMES, **settings})
    return MetadataConditioner(config, ConditionSpec(SIZES, 2, 32, 4)).eval()


def rows(*each: torch.Tensor) -> torch.Tensor:
    return torch.stack(each)[None]


def told(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers)[None, :, None]


def test_what_is_told_of_one_signal_adds_the_same_whatever_is_told_of_others():
    metadata = made()
    weather, nothing = {"weather": rows(NIGHT, NIGHT)}, {}
    for others in (nothing, {"speed.own": told(3.0, 3.0)}, {"speed.own": told(-1.0, 0.0)}):
        added = metadata(weather | others, 1, 1).per_frame - metadata(others, 1, 1).per_frame
        alone = metadata(weather, 1, 1).per_frame - metadata(nothing, 1, 1).per_frame
        torch.testing.assert_close(added, alone)


def test_the_last_frame_of_a_latent_frame_speaks_for_it():
    metadata = made()
    one = metadata({"weather": rows(NIGHT, FOG, NIGHT, NIGHT)}, 2, 1).per_frame
    other = metadata({"weather": rows(FOG, FOG, FOG, NIGHT)}, 2, 1).per_frame
    assert torch.equal(one, other)
    assert not torch.allclose(one[:, 0], one[:, 1])


def test_what_is_missing_or_nan_is_nothing_and_zero_is_not():
    metadata = made()
    silent = metadata({}, 2, 3)
    torch.testing.assert_close(silent.per_frame, silent.null.expand(3, 2, -1))
    unknown = metadata({"speed.own": told(torch.nan, torch.nan)}, 1, 1)
    torch.testing.assert_close(unknown.per_frame, unknown.null)
    half = metadata({"weather": rows(NIGHT, torch.tensor([torch.nan, 1, 0, 0]))}, 1, 1)
    torch.testing.assert_close(half.per_frame, half.null)
    assert not torch.allclose(metadata({"speed.own": told(0.0, 0.0)}, 1, 1).per_frame, half.null)


def test_statistics_are_of_what_is_known_and_what_never_changes_stays_as_it_is():
    metadata = made()
    speed = torch.tensor([2.0, torch.nan, 4.0, 6.0])[:, None]
    metadata.fit([{"weather": NIGHT.expand(4, -1), "speed.own": speed}])
    weather, own = metadata._by_name.values()
    assert own.mean.tolist() == [4] and own.std.tolist() == [2]
    assert weather.mean.tolist() == [0, 1, 0, 0] and weather.std.tolist() == [1] * 4
    metadata.fit([{"weather": NIGHT.expand(4, -1), "speed.own": torch.full((4, 1), torch.nan)}])
    assert own.mean.tolist() == [4] and own.std.tolist() == [2]


@pytest.mark.parametrize(("signal_dropout", "dropout"), [(0.8, 0.0), (0.0, 0.3), (0.5, 0.3)])
def test_each_signal_is_dropped_by_itself_and_all_of_them_together(signal_dropout, dropout):
    metadata = made(signal_dropout=signal_dropout, dropout=dropout, part_dropout=0.0)
    kept = metadata._kept(4000, 3, generator("drop")).float()
    assert torch.equal(kept[:, :1].expand_as(kept), kept)
    both = (1 - dropout) * (1 - signal_dropout) ** 2
    assert kept.mean((0, 1)).tolist() == pytest.approx(
        [(1 - dropout) * (1 - signal_dropout)] * 2, abs=0.03
    )
    assert float(kept.prod(-1).mean()) == pytest.approx(both, abs=0.03)


def test_a_dropped_signal_is_absent():
    metadata = made(signal_dropout=1.0)
    said = metadata({"weather": rows(NIGHT, NIGHT), "speed.own": told(1, 1)}, 1, 1, generator("d"))
    torch.testing.assert_close(said.per_frame, said.null)


def test_some_windows_know_it_up_to_a_frame_or_from_one_on():
    kept = made(signal_dropout=0.0, dropout=0.0, part_dropout=1.0)._kept(400, 6, generator("drop"))
    assert (kept.int().diff(dim=1).abs().sum(1) <= 1).all()
    assert kept[:, 0].any() and kept[:, -1].any() and not kept[:, 0].all()
    assert torch.equal(kept[..., 0], kept[..., 1])


def test_with_others_it_says_the_sum():
    parts = {"parts": {"actions": {}, "metadata": {"signals": NAMES}}}
    joint = make_conditioner({"kind": "joint", **parts}, ConditionSpec(SIZES, 2, 32, 4)).eval()
    assert set(joint.needs(joint.config)) == set(TAKEN)
    signals = {"actions": torch.randn(1, 4, 2), "weather": NIGHT.expand(1, 4, -1)}
    each = [part(signals, 2, 1) for part in joint.parts.values()]
    both = joint(signals, 2, 1)
    torch.testing.assert_close(both.per_frame, each[0].per_frame + each[1].per_frame)
    torch.testing.assert_close(both.null, each[0].null + each[1].null)


@pytest.mark.parametrize(
    ("name", "kind"), [("actions", "actions"), ("caption", "text"), ("cameras", "cameras")]
)
def test_signals_that_another_kind_reads_are_left_to_it(name, kind):
    with pytest.raises(AvenirError, match=f"kind '{kind}'"):
        MetadataConfig.parse({"signals": ["weather", name]})
    with pytest.raises(AvenirError, match="signals"):
        MetadataConfig.parse({"signals": []})


def clip(num_frames: int, **signals: torch.Tensor) -> Clip:
    frames = torch.full((num_frames, 3, 16, 16), 90, dtype=torch.uint8)
    return Clip(frames, 10.0, signals)


def test_telling_lays_what_a_clip_would_have_held():
    past, future = NIGHT.expand(3, -1), torch.stack([NIGHT, FOG, FOG])
    whole = build_signals(TAKEN, clip(6, weather=torch.cat([past, future])), 0)
    apart = build_signals(TAKEN, clip(3, weather=past), 3, Controls(signals={"weather": future}))
    for name in TAKEN:
        torch.testing.assert_close(apart[name], whole[name], equal_nan=True)
    one_row = build_signals(TAKEN, clip(3, weather=past), 3, Controls(signals={"weather": FOG}))[
        "weather"
    ]
    assert torch.equal(one_row[0, 3:], FOG.expand(3, -1))
    # Of what nobody tells, nothing is known; neither of frames after the last row.
    assert build_signals(TAKEN, clip(3, weather=past), 3)["weather"][0, 3:].isnan().all()
    short = build_signals(TAKEN, clip(3), 3, Controls(signals={"weather": future[:1]}))["weather"][
        0
    ]
    assert torch.equal(short[3], NIGHT) and short[4:].isnan().all() and short[:3].isnan().all()


def test_cameras_stay_unless_they_are_given():
    taken = {"cameras": Signal(role="camera", size=16)}
    past = clip(2, cameras=torch.ones(2, 16))
    assert (build_signals(taken, past, 2)["cameras"] == 1).all()
    moved = build_signals(taken, past, 2, Controls(signals={"cameras": torch.zeros(16)}))[
        "cameras"
    ][0]
    assert moved[:, 0].tolist() == [1, 1, 0, 0]


def test_steps_lay_it_on_the_frames_that_are_imagined():
    one = build_step_signals(TAKEN, 3, 2, 1, Controls(signals={"weather": FOG}))["weather"]
    assert one.shape == (3, 4, 4)
    assert one[:, :2].isnan().all() and torch.equal(one[:, 2:], FOG.expand(3, 2, -1))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"whether": NIGHT}, "that takes speed.own, weather"),
        ({"actions": torch.zeros(2)}, "by itself, as 'actions'"),
        ({"caption": torch.zeros(2)}, "by itself, as 'text'"),
        ({"weather": torch.zeros(2, 3)}, r"weather of shape \(2, 3\).*`F 4`"),
        ({"speed.own": torch.tensor(1.0)}, "one row `s` for all"),
    ],
)
def test_what_cannot_be_told_is_refused(given, match):
    with pytest.raises(AvenirError, match=match):
        build_signals(TAKEN, clip(3), 2, Controls(signals=given))
    with pytest.raises(AvenirError, match=match):
        build_step_signals(TAKEN, 1, 2, 1, Controls(signals=given))


@pytest.fixture(scope="module")
def world() -> World:
    encoder = {"kind": "kl", "compression": [2, 8, 8], "channels": 4, "width": 16}
    flow = {"kind": "flow", "width": 32, "depth": 1, "heads": 2, "past": 2, "chunk": 1}
    parts = {"actions": {}, "metadata": {"signals": NAMES}}
    card = Card(
        fps=10.0,
        size=(16, 16),
        signals=TAKEN,
        encoder=encoder,
        conditioner={"kind": "joint", "parts": parts},
        predictor=flow,
    )
    torch.manual_seed(0)
    world = World.build(card).eval()
    with torch.no_grad():
        for weight in world.parameters():
            # Modulation is nought at first, and then nothing would steer.
            weight.add_(0.1 * torch.randn_like(weight))
    return world


def test_a_world_takes_what_its_metadata_reads(world):
    assert set(world.takes) == set(TAKEN)


def test_weather_changes_what_comes_from_where_it_is_given(world):
    past, night = clip(4), NIGHT.expand(8, -1)
    whole = world.predict(past, 0.8, controls=Controls(signals={"weather": night})).frames
    changed = torch.cat([night[:4], FOG.expand(4, -1)])
    other = world.predict(past, 0.8, controls=Controls(signals={"weather": changed})).frames
    assert torch.equal(whole[:4], other[:4]) and not torch.equal(whole[4:], other[4:])
    assert torch.equal(
        world.predict(past, 0.8, controls=Controls(signals={"weather": NIGHT})).frames, whole
    )
    assert not torch.equal(world.predict(past, 0.8).frames, whole)


def test_steps_are_told_and_nothing_told_is_as_before(world):
    state = world.start(torch.zeros(1, 4, 3, 16, 16), {})
    silent, night, fog = (
        world.imagine_step(state, Controls(signals=t), 0).video
        for t in ({}, {"weather": NIGHT}, {"weather": FOG})
    )
    assert not torch.equal(night, fog) and not torch.equal(night, silent)
    unknown = {"weather": torch.full((4,), torch.nan)}
    assert torch.equal(world.imagine_step(state, Controls(signals=unknown), 0).video, silent)
    with pytest.raises(AvenirError, match="rain"):
        world.imagine_step(state, Controls(signals={"rain": NIGHT}), 0)


def test_an_environment_is_given_signals(world):
    pytest.importorskip("gymnasium")
    from avenir.environment import WorldEnv

    env, seen = WorldEnv(world, [clip(4)]), []
    for weather in (NIGHT, FOG):
        env.reset(seed=0)
        env.controls = Controls(signals={"weather": weather})
        seen.append(env.step(np.zeros(2, np.float32))[0])
    assert env.controls.signals and (seen[0] != seen[1]).any()


def test_the_command_line_tells_signals_from_their_second_on():
    given = signals_of(["2:weather=fog", "weather = night", "1:speed.own=3"], TAKEN, 4, 1.0)
    assert torch.equal(given["weather"], torch.stack([NIGHT, NIGHT, FOG, FOG]))
    assert given["speed.own"][:, 0].tolist()[1:] == [3, 3, 3]
    assert given["speed.own"][0].isnan().all()
    ended = signals_of(["weather=fog", "3:weather="], TAKEN, 4, 1.0)["weather"]
    assert torch.equal(ended[:3], FOG.expand(3, -1)) and ended[3].isnan().all()
    assert signals_of([], TAKEN, 4, 1.0) == {}
    for wrong, match in (
        ("weather", "SIGNAL=VALUE"),
        ("weather=rain", "one of day, night"),
        ("rain=1", "that takes"),
        ("actions=0,1", "by itself"),
        ("9:weather=fog", "--tell .*an earlier second"),
    ):
        with pytest.raises(AvenirError, match=match):
            signals_of([wrong], TAKEN, 4, 1.0)
