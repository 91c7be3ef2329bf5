"""Autoregression: what is kept changes nothing, nothing looks ahead, and a sequence is learnt."""

import math

import pytest
import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from avenir.clip import Condition, Progress
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.nn.attention import grid_positions, rotate, rotation
from avenir.nn.decoder import Decoder, GroupedAttention, RMSNorm
from avenir.predictors import LatentShape, autoregressive
from avenir.predictors.autoregressive import Autoregressive, AutoregressiveConfig
from avenir.rollout import rollout
from avenir.samplers import DrawingConfig, draw

SHAPE = LatentShape(channels=3, h=2, w=3, vocabulary=11)
ORDERS = ("raster", "block")


def predictor(order: str, **settings) -> Autoregressive:
    torch.manual_seed(3)
    small = {"width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "past": 3, "chunk": 2}
    made = Autoregressive(AutoregressiveConfig.parse(small | {"order": order} | settings), SHAPE)
    made.codes.normal_()
    for weight in (made.proj_out.weight, made.pos_embed, made.proj_in.weight):
        torch.nn.init.normal_(weight)
    return made.eval()


def steering(frames: int, width: int = 32) -> Condition:
    chance = generator("steering")
    return Condition(torch.randn(2, frames, width, generator=chance), torch.zeros(1, 1, width))


def some_tokens(frames: int) -> torch.Tensor:
    return torch.randint(11, (2, frames, 2, 3), generator=generator("tokens"))


@pytest.mark.parametrize("order", ORDERS)
def test_scores_while_drawing_are_those_of_the_whole_sequence(order, monkeypatch):
    """Cached equals uncached, with and without a past of several frames."""
    world, condition, seen = predictor(order), steering(5), []

    def watched(scores, *settings):
        seen.append(scores)
        return draw(scores, *settings)

    monkeypatch.setattr(autoregressive, "draw", watched)
    past = world.embed(some_tokens(3))
    memory = world.start(past, condition[:3])
    chunk, _ = world.predict(memory, condition[3:], 2, generator("draw"))
    whole = world.scores(world.tokens(torch.cat([past, chunk], dim=1)), condition)
    made = torch.cat(seen, dim=1).view(2, 2, 2, 3, 11)
    torch.testing.assert_close(made, whole[:, 3:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_no_score_depends_on_what_it_may_not_know(order):
    """Change one token: only scores after it, or in later frames, move; and some do."""
    world, tokens, condition = predictor(order), some_tokens(4), steering(4)
    before = world.scores(tokens, condition).flatten(1, 3)
    changed = tokens.clone()
    changed[:, 1, 0, 2] = (changed[:, 1, 0, 2] + 1) % 11
    moved = (world.scores(changed, condition).flatten(1, 3) - before).abs().amax((0, 2))
    first = 6 + 2 + 1 if order == "raster" else 12
    assert moved[:first].max() < 1e-5
    assert moved[first:].min() > 1e-4


@pytest.mark.parametrize("order", ORDERS)
def test_actions_reach_their_own_frame_and_no_earlier_one(order):
    world, tokens, condition = predictor(order), some_tokens(4), steering(4)
    before = world.scores(tokens, condition)
    condition.per_frame[:, 2] += 1
    moved = (world.scores(tokens, condition) - before).abs().amax((0, 2, 3, 4))
    assert moved[:2].max() < 1e-5 < 1e-3 < moved[2:].min()


def test_at_first_every_token_is_equally_likely():
    torch.manual_seed(0)
    world = Autoregressive(AutoregressiveConfig.parse({"width": 32, "depth": 1}), SHAPE)
    world.codes.normal_()
    losses = world.losses(world.embed(some_tokens(5)), None, Progress(0, 1, generator("no")))
    assert float(losses["cross_entropy"].detach()) == pytest.approx(math.log(11), abs=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_what_frames_cost_is_what_their_tokens_cost(order):
    world, tokens, condition = predictor(order), some_tokens(4), steering(4)
    chances = world.scores(tokens, condition).log_softmax(-1).gather(-1, tokens[..., None])
    cost = world.cost(world.embed(tokens), condition, 1, generator("no"))
    torch.testing.assert_close(cost, -chances[..., 0].sum((2, 3))[:, 1:])


@pytest.mark.parametrize("order", ORDERS)
def test_a_sequence_that_counts_is_learnt_and_continued(order):
    """Every frame is one number; the next frame is the next number."""
    world = predictor(order, past=2, chunk=1, sampling={"temperature": 0.0})
    optimiser = torch.optim.Adam(world.parameters(), 3e-3)
    numbers = torch.arange(22) % 11
    every = torch.stack([numbers[i : i + 3] for i in range(11)])[:, :, None, None]
    latents = world.embed(every.expand(-1, -1, 2, 3))
    for step in range(150):
        loss = world.losses(latents[:, :], None, Progress(step, 150, generator("learn")))
        optimiser.zero_grad()
        loss["cross_entropy"].backward()
        optimiser.step()
    start = world.embed(torch.tensor([[4], [9]])[..., None, None].expand(-1, -1, 2, 3))
    past = torch.cat(
        [start, world.embed(torch.tensor([[5], [10]])[..., None, None].expand(-1, -1, 2, 3))], dim=1
    )
    made = torch.cat(list(rollout(world, past, None, 8, generator("rollout"))), dim=1)
    wanted = torch.tensor([[(6 + i) % 11 for i in range(8)], [i % 11 for i in range(8)]])
    assert torch.equal(world.tokens(made), wanted[..., None, None].expand(-1, -1, 2, 3))


def test_heads_that_share_keys_are_heads_with_their_keys_repeated():
    layer, x = GroupedAttention(24, heads=6, kv_heads=2), torch.randn(2, 7, 24)
    torch.nn.init.normal_(layer.norm.weight)
    angles = rotation(grid_positions(7, 1, 1), 4)
    rows = (x @ layer.query_key_value.weight.T).view(2, 7, 10, 4).transpose(1, 2)

    def turned(heads, scale):
        unit = heads / heads.square().mean(-1, keepdim=True).add(1.1920929e-07).sqrt()
        return rotate(unit * scale, angles)

    query = turned(rows[:, :6], layer.norm.weight[:6])
    key = turned(rows[:, 6:8], layer.norm.weight[6:]).repeat_interleave(3, dim=1)
    value = rows[:, 8:].repeat_interleave(3, dim=1)
    mixed = scaled_dot_product_attention(query, key, value, is_causal=True)
    wanted = mixed.transpose(1, 2).reshape(2, 7, 24) @ layer.out.weight.T
    torch.testing.assert_close(layer(x, angles, None, None, 0), wanted, atol=1e-5, rtol=1e-4)


def test_the_norm_is_pytorchs():
    ours, x = RMSNorm(12), torch.randn(3, 5, 12)
    torch.nn.init.normal_(ours.weight)
    torch.testing.assert_close(ours(x), rms_norm(x, (12,), ours.weight, 1e-12))


def test_a_decoder_sees_how_far_apart_tokens_are_and_not_where_they_are():
    torch.manual_seed(1)
    decoder, x = Decoder(24, 2, 4, 2), torch.randn(1, 6, 24)
    here, there = (decoder(x, rotation(grid_positions(6, 1, 1, first), 6)) for first in (0, 40))
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)


def test_tokens_are_drawn_as_often_as_their_scores_say():
    scores = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(40000, 4)

    def shares(temperature: float, top_k: int | None, top_p: float) -> list[float]:
        settings = DrawingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
        drawn = draw(scores, settings, generator("draw"))
        return (torch.bincount(drawn, minlength=4) / len(drawn)).tolist()

    assert shares(1.0, None, 1.0) == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.01)
    squares = [each**2 / 0.3 for each in (0.1, 0.2, 0.3, 0.4)]
    assert shares(0.5, None, 1.0) == pytest.approx(squares, abs=0.01)
    assert shares(1.0, 2, 1.0) == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=0.01)
    assert shares(1.0, None, 0.71) == pytest.approx([0, 2 / 9, 3 / 9, 4 / 9], abs=0.01)
    assert shares(1.0, None, 0.39) == [0, 0, 0, 1]
    assert shares(0.0, None, 1.0) == [0, 0, 0, 1]


def test_what_cannot_be_is_refused_in_words():
    with pytest.raises(AvenirError, match="latents are numbers"):
        Autoregressive(AutoregressiveConfig(), LatentShape(3, 2, 2))
    with pytest.raises(AvenirError, match="kv_heads must divide heads"):
        predictor("raster", heads=4, kv_heads=3)
