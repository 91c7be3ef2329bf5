"""Causal means causal, cached equals uncached, and actions arrive at the frames they lead to."""

import pytest
import torch

from avenir.clip import Condition
from avenir.conditioners import ConditionSpec
from avenir.conditioners.actions import ActionsConditioner, ActionsConfig
from avenir.degradation import hide_future, last_seen
from avenir.device import generator
from avenir.encoders.kl import KL, KLConfig
from avenir.errors import AvenirError
from avenir.nn.attention import Attention, grid_positions, rotate, rotation
from avenir.predictors import LatentShape
from avenir.predictors.flow import Flow, FlowConfig
from avenir.rollout import rollout

SHAPE = LatentShape(channels=3, h=4, w=6)


def lively(module):
    """Draw every weight anew: modules that start as the identity would pass any test."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2)
    return module.eval()


def flow(**settings):
    table = {"width": 24, "depth": 3, "heads": 2, "past": 2, "chunk": 3, **settings}
    return lively(Flow(FlowConfig.parse(table), SHAPE))


def condition(frames, width=24):
    return Condition(torch.randn(2, frames, width), torch.randn(1, 1, width))


@pytest.mark.parametrize("attention", ["full", "factorised"])
def test_cached_past_equals_uncached(attention):
    model, steer = flow(attention=attention), condition(5)
    x = torch.randn(2, 5, *SHAPE[:3])
    hidden = hide_future(torch.rand(2, 5), torch.full((2,), 2), torch.ones(2))
    mask = hidden.attention_mask
    seen = last_seen(x, hidden)
    whole = model(x, hidden.level, steer, seen, attention_mask=mask)
    cache = model.remember(x[:, :2], hidden.level[:, :2], steer[:2], seen)
    ahead = model(x[:, 2:], hidden.level[:, 2:], steer[2:], seen, cache=cache)
    torch.testing.assert_close(ahead, whole[:, 2:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["full", "factorised"])
def test_the_future_does_not_move_the_past(attention):
    model, steer = flow(attention=attention), condition(5)
    x = torch.randn(2, 5, *SHAPE[:3])
    hidden = hide_future(torch.rand(2, 5), torch.full((2,), 2), torch.ones(2))
    mask = hidden.attention_mask
    before = model(x, hidden.level, steer, last_seen(x, hidden), attention_mask=mask)
    x[:, 3] += 1
    after = model(x, hidden.level, steer, last_seen(x, hidden), attention_mask=mask)
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert (after[:, 2:] - before[:, 2:]).abs().amax((2, 3, 4)).min() > 1e-3


def test_attention_sees_differences_of_positions_only():
    layer = lively(Attention(16, 2))
    x = torch.randn(1, 6, 16)
    here = rotation(grid_positions(1, 2, 3), 8)
    there = rotation(grid_positions(1, 2, 3) + torch.tensor([5.0, 2.0, 7.0]), 8)
    torch.testing.assert_close(layer(x, here)[0], layer(x, there)[0], atol=1e-5, rtol=1e-4)
    assert (
        layer(x, here)[0] - layer(x, rotation(grid_positions(6, 1, 1), 8))[0]
    ).abs().max() > 0.01


def test_rotation_keeps_lengths():
    x = torch.randn(1, 2, 6, 8)
    turned = rotate(x, rotation(grid_positions(1, 2, 3), 8))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_every_group_is_encoded_from_its_own_frames():
    encoder = lively(KL(KLConfig.parse({"compression": [2, 8, 8], "width": 8, "depth": 1})))
    video = torch.rand(1, 8, 3, 16, 16) * 2 - 1
    before = encoder.encode(video)
    video[:, 5] = 0
    moved = (encoder.encode(video) - before).abs().amax((0, 2, 3, 4))
    assert moved.gt(1e-4).tolist() == [False, False, True, False]
    torch.testing.assert_close(encoder.encode(video[:, 2:]), encoder.encode(video)[:, 1:])


def test_decoding_looks_back_as_far_as_declared_and_never_forward():
    encoder = lively(KL(KLConfig.parse({"compression": [2, 8, 8], "width": 8, "look_back": 2})))
    latents = torch.randn(1, 6, 16, 2, 2)
    before = encoder.decode(latents)
    latents[:, 2] += 1
    moved = (encoder.decode(latents) - before).abs().amax((0, 2, 3, 4))
    assert moved.gt(1e-4).tolist() == [False] * 4 + [True] * 6 + [False] * 2


@pytest.mark.parametrize("pieces", [[1, 1, 4], [2, 3, 1], [6]])
def test_decoding_in_pieces_equals_decoding_at_once(pieces):
    encoder = lively(KL(KLConfig.parse({"compression": [2, 8, 8], "width": 8, "look_back": 2})))
    latents = torch.randn(1, 6, 16, 2, 2)
    streamed = torch.cat(list(encoder.decode_stream(iter(latents.split(pieces, dim=1)))), dim=1)
    torch.testing.assert_close(streamed, encoder.decode(latents), atol=1e-5, rtol=1e-5)


def conditioner(f_t=2):
    steer = lively(ActionsConditioner(ActionsConfig(), ConditionSpec({"actions": 3}, f_t, 16, 4)))
    steer.fit([{"actions": torch.randn(50, 3)}])
    return steer


@pytest.mark.parametrize("f_t", [1, 2, 4])
def test_the_action_at_frame_k_reaches_the_latent_of_frame_k_plus_1(f_t):
    steer, actions = conditioner(f_t), torch.randn(1, 8, 3)
    before = steer({"actions": actions}, 8 // f_t, 1).per_frame
    for k in range(8):
        changed = actions.clone()
        changed[:, k] += 1
        moved = (steer({"actions": changed}, 8 // f_t, 1).per_frame - before).abs().amax((0, 2))
        expected = [(k + 1) // f_t == i for i in range(8 // f_t)]
        assert moved.gt(1e-5).tolist() == expected, f"action {k}"


def test_incoming_actions_are_kept_apart_and_not_averaged():
    steer, actions = conditioner(2), torch.randn(1, 4, 3)
    swapped = actions[:, [0, 2, 1, 3]]
    one, other = (steer({"actions": a}, 2, 1).per_frame[:, 1] for a in (actions, swapped))
    assert (one - other).abs().max() > 1e-3


def test_unknown_actions_are_absent_and_not_zero():
    steer = conditioner()
    silent = steer({}, 2, 1)
    unknown = steer({"actions": torch.full((1, 4, 3), float("nan"))}, 2, 1)
    average = steer({"actions": steer.mean.expand(1, 4, 3)}, 2, 1)
    torch.testing.assert_close(silent.per_frame, unknown.per_frame)
    torch.testing.assert_close(silent.per_frame, silent.unconditional().per_frame)
    assert (average.per_frame - silent.per_frame).abs().max() > 1e-3


def test_memory_is_a_value_and_branches_do_not_meet():
    model, steer = flow(), condition(5)
    memory = model.start(torch.randn(2, 2, *SHAPE[:3]), steer[:2])
    kept = memory.latents.clone()
    first, _ = model.predict(memory, steer[2:4], 2, generator("a"))
    model.predict(memory, steer[2:4], 2, generator("b"))
    again, _ = model.predict(memory, steer[2:4], 2, generator("a"))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    torch.testing.assert_close(memory.latents, kept, rtol=0, atol=0)


def test_a_rollout_is_its_chunks_and_its_memory_is_bounded():
    model = flow()
    past, steer = torch.randn(2, 4, *SHAPE[:3]), condition(13)
    chunks = list(rollout(model, past, steer, 9, generator("r")))
    assert [chunk.shape[1] for chunk in chunks] == [3, 3, 3]
    memory = model.start(past, steer[:4])
    chance = generator("r")
    for number, chunk in enumerate(chunks):
        ahead = steer[4 + 3 * number : 7 + 3 * number]
        by_hand, memory = model.predict(memory, ahead, 3, chance)
        torch.testing.assert_close(chunk, by_hand, rtol=0, atol=0)
        assert memory.num_frames == 2


def test_parts_are_guided_apart_and_all_of_them_add_up():
    """Under all + sum of (g - 1)·(all - all but the part); parts that push by 1 are not asked."""
    past, parts = torch.randn(2, 2, *SHAPE[:3]), {name: condition(5) for name in ("words", "acts")}
    steer = Condition.together(parts)

    def drawn(guidance: float | dict[str, float], steer: Condition = steer) -> torch.Tensor:
        torch.manual_seed(3)
        model = lively(flow(sampling={"num_steps": 1, "guidance": guidance}))
        return model.predict(model.start(past, steer[:2]), steer[2:], 3, generator("g"))[0]

    plain, close = drawn(1.0), {"atol": 1e-4, "rtol": 1e-3}
    torch.testing.assert_close(drawn({"words": 1.0}), plain)
    without = drawn(1.0, steer.unconditional("words"))
    torch.testing.assert_close(drawn({"words": 3.0}), plain + 2 * (plain - without), **close)
    other = drawn({"acts": 2.5}) - plain
    both = drawn({"words": 3.0, "acts": 2.5}) - plain
    torch.testing.assert_close(both, other + 2 * (plain - without), **close)
    with pytest.raises(AvenirError, match="'joint'"):
        drawn({"sounds": 2.0})


def test_what_parts_say_is_cut_joined_and_repeated_with_their_sum():
    steer = Condition.together({name: condition(5) for name in ("words", "acts")})
    again = steer[:2].then(steer[2:])
    for kind in (None, "words", "acts"):
        torch.testing.assert_close(
            again.unconditional(kind).per_frame, steer.unconditional(kind).per_frame
        )
    twice = steer.repeated(2).unconditional("words").per_frame
    torch.testing.assert_close(twice[::2], steer.unconditional("words").per_frame)
    assert torch.equal(twice[::2], twice[1::2])
    everything = steer.unconditional("words").unconditional("acts")
    torch.testing.assert_close(everything.per_frame, steer.unconditional().per_frame)


def test_guidance_of_one_is_off_and_pushes_along_the_difference():
    steer, past = condition(5), torch.randn(2, 2, *SHAPE[:3])
    drawn = {}
    for guidance in (0.0, 1.0, 2.0):
        model = flow(sampling={"num_steps": 1, "guidance": guidance})
        torch.manual_seed(3)
        model = lively(model)
        memory = model.start(past, steer[:2])
        drawn[guidance], _ = model.predict(memory, steer[2:], 3, generator("g"))
    torch.testing.assert_close(
        drawn[2.0] - drawn[1.0], drawn[1.0] - drawn[0.0], atol=1e-4, rtol=1e-3
    )
