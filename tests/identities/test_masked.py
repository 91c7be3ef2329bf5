"""Masked prediction: the bound by enumeration, exact draws, nothing seen that is hidden."""

import itertools
from math import factorial

import pytest
import torch
from torch.nn.functional import cross_entropy

from avenir.clip import Condition, Progress
from avenir.degradation import draw_rate
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.predictors import LatentShape, masked
from avenir.predictors.masked import Masked, MaskedConfig
from avenir.rollout import rollout
from avenir.samplers import DrawingConfig, draw, hidden_after, unmask

SHAPE = LatentShape(channels=3, h=2, w=3, vocabulary=11)
WORD = LatentShape(channels=2, h=1, w=1, vocabulary=4)


def predictor(shape: LatentShape = SHAPE, **settings) -> Masked:
    torch.manual_seed(4)
    small = {"width": 32, "depth": 2, "heads": 4, "past": 2, "chunk": 2}
    made = Masked(MaskedConfig.parse(small | settings), shape)
    made.codes.normal_()
    for weight in made.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return made.eval()


def steering(frames: int) -> Condition:
    chance = generator("steering")
    return Condition(torch.randn(2, frames, 32, generator=chance), torch.zeros(1, 1, 32))


def some_tokens(frames: int) -> torch.Tensor:
    return torch.randint(11, (2, frames, 2, 3), generator=generator("tokens"))


def none(tokens: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(tokens).bool()


@pytest.mark.parametrize("hide", ["uniform", "cosine"])
def test_the_bound_is_the_sum_over_all_ways_to_hide(hide):
    """Of k hidden among n, the integral over rates of rate^(k-1) (1-rate)^(n-k) is a Beta."""
    n, rows = 4, 60_000
    text = predictor(WORD, past=0, chunk=n, width=16, depth=1, hide=hide, loss="bound")
    tokens = torch.tensor([2, 0, 3, 1]).view(1, n, 1, 1)
    bound = 0.0
    with torch.no_grad():
        for places in itertools.product([False, True], repeat=n):
            hidden, k = torch.tensor(places).view(1, n, 1, 1), sum(places)
            if k:
                scores = text(tokens, hidden, None)
                error = cross_entropy(scores.view(n, -1), tokens.flatten(), reduction="none")
                weight = factorial(k - 1) * factorial(n - k) / factorial(n)
                bound += weight * float(error[hidden.flatten()].sum()) / n
        latents = text.embed(tokens).expand(rows, -1, -1, -1, -1)
        found = text.losses(latents, None, Progress(0, 1, generator("bound", hide)))
    assert float(found["cross_entropy"]) == pytest.approx(bound, rel=0.01)


def test_the_cost_of_frames_is_the_bound_on_them_given_the_past():
    """Two frames after two that are given: hidden are one, the other, or both."""
    text = predictor(WORD, past=2, chunk=2, width=16, depth=1)
    tokens, given = torch.tensor([2, 0, 3, 1]).view(1, 4, 1, 1), torch.tensor([[0, 0, 1, 1]])
    degradation = text.degrade(1, 4, generator("degrade"))
    degradation = type(degradation)(given.float(), given, given.float())
    wanted = torch.zeros(2)
    with torch.no_grad():
        for places, weight in (((1, 0), 1 / 2), ((0, 1), 1 / 2), ((1, 1), 1 / 2)):
            hidden = torch.tensor([0, 0, *places]).bool().view(1, 4, 1, 1)
            scores = text(tokens, hidden, None, degradation)
            error = cross_entropy(scores.view(4, -1), tokens.flatten(), reduction="none")
            wanted += weight * (error * hidden.flatten())[2:]
        latents = text.embed(tokens).expand(40_000, -1, -1, -1, -1)
        found = text.cost(latents, None, 2, generator("cost")).mean(0)
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0)


@pytest.mark.parametrize("hide", ["uniform", "cosine"])
def test_rates_are_spread_evenly_and_weights_are_one_over_rate_and_density(hide):
    rate, weight = draw_rate(100_000, hide, generator("rates"))
    # The mean of weight·f(rate) is the integral of f(r)/r: here of r² over [0, 1].
    assert float((weight * rate**3).mean()) == pytest.approx(1 / 3, abs=1e-3)
    median = 0.5 if hide == "uniform" else 0.5**0.5
    assert float(rate.median()) == pytest.approx(median, abs=1e-3)


def test_scores_do_not_depend_on_what_is_hidden():
    world, tokens, condition = predictor(), some_tokens(4), steering(4)
    hidden = torch.rand(tokens.shape, generator=generator("hide")) < 0.5
    other = torch.where(hidden, (tokens + 1) % 11, tokens)
    assert torch.equal(world(tokens, hidden, condition), world(other, hidden, condition))
    assert not torch.equal(
        world(tokens, none(tokens), condition), world(other, none(tokens), condition)
    )


def test_the_past_that_was_kept_gives_the_scores_of_the_whole_window():
    world, tokens, condition = predictor(), some_tokens(4), steering(4)
    degradation = world.degrade(2, 4, generator("degrade"))
    degradation = type(degradation)(
        degradation.level, torch.tensor([[0, 0, 1, 1]] * 2), degradation.weight
    )
    hidden = none(tokens)
    hidden[:, 2:, 0] = True
    whole = world(tokens, hidden, condition, degradation)
    cache = world.remember(tokens[:, :2], condition[:2])
    ahead = world(tokens[:, 2:], hidden[:, 2:], condition[2:], cache=cache)
    torch.testing.assert_close(ahead, whole[:, 2:], atol=1e-5, rtol=1e-5)
    some = world.at_hidden(tokens[:, 2:], hidden[:, 2:], condition[2:], cache=cache)
    wanted = whole[hidden].view(2, -1, 11)
    torch.testing.assert_close(some, wanted, atol=1e-5, rtol=1e-5)


def test_drawing_one_at_a_time_in_any_order_draws_from_the_joint_distribution():
    """With exact conditionals of three tokens that depend on each other."""
    joint = torch.rand(3, 3, 3, generator=generator("joint")) ** 3
    joint /= joint.sum()
    rows = 30_000

    def score(tokens, hidden):
        """Sum the joint over all other hidden tokens, at the tokens that are known."""
        known = [
            torch.where(h[:, None], 1.0, torch.nn.functional.one_hot(x, 3).float())
            for x, h in zip(tokens.flatten(1).T, hidden.flatten(1).T, strict=True)
        ]
        apart = [
            torch.einsum("abc,nb,nc->na", joint, known[1], known[2]),
            torch.einsum("abc,na,nc->nb", joint, known[0], known[2]),
            torch.einsum("abc,na,nb->nc", joint, known[0], known[1]),
        ]
        every = torch.stack(apart, dim=1).clamp(min=1e-12).log()
        return every[hidden.flatten(1)].view(rows, -1, 3)

    start = torch.zeros(rows, 3, 1, 1, dtype=torch.long)
    chance = generator("unmask")
    drawn = unmask(
        score,
        start,
        torch.ones_like(start).bool(),
        hidden_after(3, 3, "linear"),
        "random",
        0.0,
        lambda scores: draw(scores, DrawingConfig.model_validate({}), chance),
        chance,
    ).flatten(1)
    index = drawn[:, 0] * 9 + drawn[:, 1] * 3 + drawn[:, 2]
    shares = torch.bincount(index, minlength=27).view(3, 3, 3) / rows
    torch.testing.assert_close(shares, joint, atol=0.012, rtol=0)


def test_a_hole_with_nothing_behind_it_is_the_future():
    """Cached or not, under the conditions of the same frames."""
    sure = {"temperature": 0.0, "noise": 0.0, "num_steps": 3}
    world, condition = predictor(past=2, chunk=2, sampling=sure), steering(5)
    before, chance = world.embed(some_tokens(3)), generator("fill")
    made = world.infill(before, before[:, :0], condition, 2, chance)
    ahead, _ = world.predict(world.start(before, condition[:3]), condition[3:], 2, chance)
    assert torch.equal(made, ahead)


def test_a_hole_is_filled_by_what_is_on_both_sides_as_far_as_a_window_reaches(monkeypatch):
    world = predictor(past=2, chunk=3, sampling={"num_steps": 1})
    before, after = world.embed(some_tokens(3)), world.embed(some_tokens(4)[:, 1:])
    other, seen = world.embed((some_tokens(3) + 1) % 11), []

    def watched(scores, *settings):
        seen.append(scores)
        return draw(scores, *settings)

    def scores(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        assert world.infill(before, after, steering(7), 1, generator("fill")).shape[1] == 1
        return seen.pop()

    def mixed(first: torch.Tensor, then: torch.Tensor, count: int) -> torch.Tensor:
        return torch.cat([first[:, :count], then[:, count:]], dim=1)

    monkeypatch.setattr(masked, "draw", watched)
    usual = scores(before, after)
    assert torch.equal(scores(mixed(other, before, 1), after), usual)  # out of the window
    assert not torch.allclose(scores(mixed(before, other, 2), after), usual)
    assert not torch.allclose(scores(before, mixed(other, after, 1)), usual)
    assert torch.equal(scores(before, mixed(after, other, 2)), usual)  # it holds 2 + 3 frames


@pytest.mark.parametrize("length", [1, 2])
def test_a_window_of_a_long_past_and_one_frame_ahead_still_sees_what_comes_after(length):
    """As in recipes/predictors/masked.toml: half of what the hole leaves goes to either side."""
    world = predictor(past=3, chunk=1, sampling={"temperature": 0.0, "noise": 0.0, "num_steps": 1})
    before, after = world.embed(some_tokens(4)), world.embed(some_tokens(2))
    others = [world.embed(torch.full_like(some_tokens(2), token)) for token in range(11)]
    made = [
        world.infill(before, each, steering(4 + length + 2), length, generator("fill"))
        for each in (after, *others)
    ]
    assert made[0].shape[1] == length
    assert any(not torch.equal(each, made[0]) for each in made[1:])


@pytest.mark.parametrize(("length", "num_after"), [(3, 1), (4, 0)])
def test_a_hole_that_leaves_no_room_for_both_sides_is_refused(length, num_after):
    world = predictor(past=2, chunk=2)
    before, after = world.embed(some_tokens(3)), world.embed(some_tokens(1))[:, :num_after]
    with pytest.raises(AvenirError, match="make it smaller"):
        world.infill(before, after, None, length, generator("fill"))


def test_the_surest_are_revealed_first_and_what_is_known_stays():
    sure = torch.tensor([3.0, 9.0, 5.0, 7.0])
    seen = []

    def score(tokens, hidden):
        seen.append(hidden.flatten().tolist())
        scores = torch.zeros(1, 4, 6)
        scores[0, :, 4] = sure
        return scores[hidden.flatten(1)][None]

    tokens = torch.tensor([0, 0, 2, 0]).view(1, 4, 1, 1)
    hidden = torch.tensor([True, True, False, True]).view(1, 4, 1, 1)
    made = unmask(
        score,
        tokens,
        hidden,
        hidden_after(3, 3, "linear"),
        "confidence",
        0.0,
        lambda scores: scores.argmax(-1),
        generator("sure"),
    )
    assert made.flatten().tolist() == [4, 4, 2, 4]
    assert seen == [[1, 1, 0, 1], [1, 0, 0, 1], [1, 0, 0, 0]]


def test_how_many_stay_hidden_falls_to_none():
    assert hidden_after(16, 4, "linear") == [12, 8, 4, 0]
    assert hidden_after(16, 4, "cosine") == [14, 11, 6, 0]
    assert hidden_after(5, 1, "cosine") == [0]


def test_a_sequence_that_counts_is_learnt_and_continued():
    world = predictor(past=2, chunk=1, full_past_probability=1.0, sampling={"temperature": 0.0})
    optimiser = torch.optim.Adam(world.parameters(), 3e-3)
    numbers = torch.arange(22) % 11
    every = torch.stack([numbers[i : i + 3] for i in range(11)])[:, :, None, None]
    latents = world.embed(every.expand(-1, -1, 2, 3))
    for step in range(150):
        loss = world.losses(latents, None, Progress(step, 150, generator("learn", step)))
        optimiser.zero_grad()
        loss["cross_entropy"].backward()
        optimiser.step()
    past = world.embed(torch.tensor([[4, 5], [9, 10]])[..., None, None].expand(-1, -1, 2, 3))
    made = torch.cat(list(rollout(world, past, None, 8, generator("rollout"))), dim=1)
    wanted = torch.tensor([[(6 + i) % 11 for i in range(8)], [i % 11 for i in range(8)]])
    assert torch.equal(world.tokens(made), wanted[..., None, None].expand(-1, -1, 2, 3))
