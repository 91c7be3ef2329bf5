"""Captions steer their own frames only, and several conditioners say the sum of what each says."""

import numpy as np
import pytest
import torch

from avenir.assembly import make_conditioner
from avenir.card import Card
from avenir.clip import Clip
from avenir.conditioners import ConditionSpec
from avenir.conditioners.joint import JointConditioner, JointConfig
from avenir.conditioners.text import TextConditioner, TextConditionerConfig
from avenir.control_script import captions_of
from avenir.controls import Controls, build_signals, build_signals_around, build_step_signals
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.signals import Signal
from avenir.world import World

CAPTION, ACTIONS = Signal.text(24), Signal(role="action", size=2)
SIZES = {"caption": 24, "actions": 2}


def told(*captions: str | None) -> torch.Tensor:
    """Write one caption for each frame, `1 T s`."""
    nothing = torch.full((24,), torch.nan)
    return torch.stack([nothing if c is None else CAPTION.encode_text(c) for c in captions])[None]


@pytest.fixture
def text() -> TextConditioner:
    torch.manual_seed(0)
    return TextConditioner(TextConditionerConfig.parse({}), ConditionSpec(SIZES, 2, 32, 4)).eval()


@pytest.fixture
def joint() -> JointConditioner:
    torch.manual_seed(0)
    parts = {"parts": {"actions": {"dropout": 0.2}, "text": {}}}
    return make_conditioner({"kind": "joint", **parts}, ConditionSpec(SIZES, 2, 32, 4)).eval()


def test_a_caption_speaks_of_its_own_latent_frame_and_of_no_other(text):
    before = text({"caption": told("a", "a", "b", "b", "c", "c")}, 3, 1).per_frame
    after = text({"caption": told("a", "a", "b", "d", "c", "c")}, 3, 1).per_frame
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_of_several_captions_in_one_latent_frame_the_last_counts(text):
    one = text({"caption": told("a", "b")}, 1, 1).per_frame
    other = text({"caption": told(None, "b")}, 1, 1).per_frame
    assert torch.equal(one, other)


def test_frames_that_fill_no_group_keep_their_caption(text):
    whole = text({"caption": told("a", "a", "b", "b")}, 2, 1).per_frame
    assert torch.equal(text({"caption": told("a", "a", "b")}, 2, 1).per_frame, whole)


def test_captions_are_dropped_up_to_some_frame_or_from_it_on():
    config = TextConditionerConfig.parse({"dropout": 0.0, "part_dropout": 1.0})
    part = TextConditioner(config, ConditionSpec(SIZES, 1, 32, 4))
    said = part({"caption": told(*"aaaa").expand(200, -1, -1)}, 4, 200, generator("drop"))
    known = (said.per_frame != said.null).any(-1).int()
    assert (known.diff(dim=1).abs().sum(1) <= 1).all()
    assert known[:, 0].any() and known[:, -1].any() and 0.3 < known.float().mean() < 0.7


def test_a_caption_means_the_same_in_any_company(text):
    alone = text({"caption": told("red", "red")}, 1, 1).per_frame
    among = text({"caption": told("red", "red", "a long one", "b", "b", "b")}, 3, 1).per_frame
    torch.testing.assert_close(alone[:, 0], among[:, 0])


def test_the_order_of_letters_and_of_words_counts_and_what_is_behind_them_does_not(text):
    for one, other in (("ab", "ba"), ("cats chase dogs", "dogs chase cats"), ("a b", "ab")):
        first, second = (text({"caption": told(w, w)}, 1, 1).per_frame for w in (one, other))
        assert not torch.allclose(first, second), (one, other)
    longer = TextConditioner(
        TextConditionerConfig.parse({}), ConditionSpec({"caption": 48}, 2, 32, 4)
    )
    longer.places[:24] = text.places
    longer.null.data = text.null.data
    said = Signal.text(48).encode_text("cats chase").expand(1, 2, -1)
    short = text({"caption": told("cats chase", "cats chase")}, 1, 1)
    torch.testing.assert_close(longer({"caption": said}, 1, 1).per_frame, short.per_frame)


def test_spaces_part_words_however_many_there_are(text):
    one, other = (text({"caption": told(w, w)}, 1, 1).per_frame for w in ("a cat", " a  cat "))
    torch.testing.assert_close(one, other)


def test_captions_with_a_word_in_its_place_in_common_are_alike_and_others_are_not():
    """Vectors of words are drawn apart: what n of them say together, m shared, points m/n alike."""
    text = TextConditioner(
        TextConditionerConfig.parse({}), ConditionSpec({"caption": 24}, 1, 4096, 4)
    )
    captions = ("red car turns", "red car stops", "two dogs run")
    one, two, none = text({"caption": told(*captions)}, 3, 1).per_frame[0].detach()
    assert float(one.square().mean()) == pytest.approx(1, abs=0.2)
    cosine = torch.nn.functional.cosine_similarity
    assert float(cosine(one, two, dim=0)) == pytest.approx(2 / 3, abs=0.1)
    assert float(cosine(one, none, dim=0)) == pytest.approx(0, abs=0.1)


def test_every_word_has_rows_of_its_own(text):
    """Of 300 words no two say the same, though there are but 1,024 rows."""
    words = [f"w{number}" for number in range(300)]
    said = text({"caption": told(*words, *words[-1:])[:, :300].repeat_interleave(2, 1)}, 300, 1)
    assert torch.cdist(said.per_frame[0], said.per_frame[0]).fill_diagonal_(9).min() > 1


def test_what_is_not_said_is_nothing(text):
    silent = text({}, 2, 3)
    assert torch.equal(silent.per_frame, silent.null.expand(3, 2, -1))
    half = text({"caption": told("a", "a", None, None)}, 2, 1)
    assert torch.equal(half.per_frame[:, 1], half.null[:, 0])
    assert not torch.allclose(half.per_frame[:, 0], half.null[:, 0])
    short = text({"caption": told("a", "a")}, 2, 1)
    assert torch.equal(short.per_frame, half.per_frame)


def test_dropped_captions_are_absent():
    every = TextConditioner(
        TextConditionerConfig.parse({"dropout": 1.0}), ConditionSpec(SIZES, 2, 32, 4)
    )
    said = every({"caption": told("a", "a")}, 1, 1, generator("drop"))
    assert torch.equal(said.per_frame, said.null)


def test_together_they_say_the_sum(joint):
    signals = {"caption": told(*"aabb"), "actions": torch.randn(1, 4, 2)}
    both = joint(signals, 2, 1)
    parts = [part(signals, 2, 1) for part in joint.parts.values()]
    torch.testing.assert_close(both.per_frame, parts[0].per_frame + parts[1].per_frame)
    torch.testing.assert_close(both.null, parts[0].null + parts[1].null)


def test_of_a_window_all_is_dropped_at_once():
    parts = {
        "actions": {"dropout": 0.0, "future_dropout": 0.0},
        "text": {"dropout": 0.0, "part_dropout": 0.0},
    }
    joint = make_conditioner(
        {"kind": "joint", "parts": parts, "dropout": 0.5}, ConditionSpec(SIZES, 2, 32, 4)
    )
    signals = {"caption": told("a", "a").expand(64, -1, -1), "actions": torch.randn(64, 2, 2)}
    said = joint(signals, 1, 64, generator("drop"))
    whole = joint(signals, 1, 64)
    gone = (said.per_frame == said.null).all(-1)[:, 0]
    assert 16 < int(gone.sum()) < 48
    torch.testing.assert_close(said.per_frame[~gone], whole.per_frame[~gone])


def test_joint_needs_what_its_parts_need_and_checks_their_settings():
    config = JointConfig.parse({"parts": {"actions": {}, "text": {}}})
    assert set(JointConditioner.needs(config)) == {"actions", "caption"}
    assert config.parts["text"]["rows"] == 1024
    with pytest.raises(AvenirError, match="dropuot"):
        JointConfig.parse({"parts": {"actions": {"dropuot": 1}, "text": {}}})
    with pytest.raises(AvenirError, match="stand alone"):
        parts = {"parts": {"latent_actions": {}, "text": {}}}
        make_conditioner({"kind": "joint", **parts}, ConditionSpec(SIZES, 2, 32, 4))


def clip(num_frames: int, **signals: torch.Tensor) -> Clip:
    return Clip(torch.zeros(num_frames, 3, 8, 8, dtype=torch.uint8), 10.0, signals)


def test_actions_lead_to_the_next_frame_and_words_tell_of_their_own():
    taken = {"actions": ACTIONS, "caption": CAPTION}
    past = clip(3, actions=torch.ones(3, 2), caption=told("x", "x", "x")[0])
    signals = build_signals(taken, past, 2, Controls(torch.full((2, 2), 5.0), [None, "y"]))
    assert signals["actions"][0, :, 0].tolist()[:4] == [1, 1, 5, 5]
    assert signals["actions"][0, 4].isnan().all()
    assert signals["caption"][0, :3, 0].tolist() == [ord("x")] * 3
    assert signals["caption"][0, 3].isnan().all()
    assert torch.equal(signals["caption"][0, 4], CAPTION.encode_text("y"))
    around = build_signals_around(taken, past, past, 4)["caption"]
    assert around[0, 3:7].isnan().all() and torch.equal(around[0, 7:], past.signals["caption"])


@pytest.mark.parametrize("text", [None, "", []])
def test_who_says_no_words_says_nothing(text):
    taken = {"caption": CAPTION}
    assert build_signals(taken, clip(3), 2, Controls(text=text))["caption"].isnan().all()
    assert "caption" not in build_step_signals(taken, 1, 2, 1, Controls(text=text))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"text": "x"}, "text was given"),
        ({"actions": torch.zeros(2, 3)}, "shape"),
    ],
)
def test_what_a_world_does_not_take_is_refused(given, match):
    with pytest.raises(AvenirError, match=match):
        build_signals({"actions": ACTIONS}, clip(3), 2, Controls(**given))


def test_words_that_are_too_long_are_refused():
    with pytest.raises(AvenirError, match="30 bytes long; at most 24"):
        build_signals({"caption": CAPTION}, clip(3), 2, Controls(text="é" * 15))


@pytest.fixture(scope="module")
def world() -> World:
    encoder = {"kind": "kl", "compression": [2, 8, 8], "channels": 4, "width": 16}
    flow = {"kind": "flow", "width": 32, "depth": 1, "heads": 2, "past": 2, "chunk": 1}
    card = Card(
        fps=10.0,
        size=(16, 16),
        signals={"actions": ACTIONS, "caption": CAPTION},
        encoder=encoder,
        conditioner={"kind": "joint", "parts": {"actions": {}, "text": {}}},
        predictor=flow,
    )
    torch.manual_seed(0)
    world = World.build(card).eval()
    with torch.no_grad():
        for weight in world.parameters():
            # Modulation is nought at first, and then nothing would steer.
            weight.add_(0.1 * torch.randn_like(weight))
    return world


def test_words_change_what_comes_from_where_they_are_said(world):
    past = Clip(torch.full((4, 3, 16, 16), 90, dtype=torch.uint8), 10.0)
    silent = world.predict(past, 0.8, text=["a"] * 8).frames
    changed = world.predict(past, 0.8, text=["a"] * 4 + ["b"] * 4).frames
    assert torch.equal(silent[:4], changed[:4])
    assert not torch.equal(silent[4:], changed[4:])
    assert torch.equal(world.predict(past, 0.8, text="a").frames, silent)


def test_steps_are_told_words(world):
    state = world.start(torch.zeros(1, 4, 3, 16, 16), {})
    one, other, again = (
        world.imagine_step(state, Controls(text=w), 0).video for w in ("a", "b", "a")
    )
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_a_world_of_no_words_refuses_them(discovering):
    state = discovering.start(torch.zeros(1, 4, 3, *discovering.card.size), {})
    with pytest.raises(AvenirError, match="text was given"):
        discovering.imagine_step(state, Controls(text="a"), 0)


def test_an_environment_is_told_words(world):
    pytest.importorskip("gymnasium")
    from avenir.environment import WorldEnv

    past = Clip(torch.full((4, 3, 16, 16), 90, dtype=torch.uint8), 10.0)
    env, seen = WorldEnv(world, [past]), []
    for words in ("a", "b"):
        env.reset(seed=0)
        env.controls = Controls(text=words)
        seen.append(env.step(np.zeros(2, np.float32))[0])
    assert (seen[0] != seen[1]).any()


def test_the_command_line_says_words_from_their_second_on():
    assert captions_of(["2:b", "a"], 4, 1.0) == ["a", "a", "b", "b"]
    assert captions_of(["1:b", "3:"], 4, 1.0) == [None, "b", "b", None]
    with pytest.raises(AvenirError, match="an earlier second"):
        captions_of(["5:a"], 4, 1.0)
