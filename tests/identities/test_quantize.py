"""Quantisers: tokens and codes are one to one, gradients pass, codebooks follow their means."""

import math
from itertools import product

import pytest
import torch

from avenir.device import generator
from avenir.encoders.fsq import FSQ, FSQConfig
from avenir.encoders.vq import VQ, VQConfig
from avenir.nn.quantize import Codebook, CodeUsage, FiniteScalar, perplexity, usage

LEVELS = [(3,), (4,), (8, 5, 5, 5), (8, 8, 8), (4, 3, 7)]


def every_token(vocabulary: int) -> torch.Tensor:
    return torch.arange(vocabulary).view(1, 1, vocabulary, 1)


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_every_token_of_a_grid_has_a_code_of_its_own_and_comes_back(levels):
    grid = FiniteScalar(levels)
    tokens = every_token(grid.vocabulary)
    codes = grid.codes(tokens)
    assert grid.vocabulary == math.prod(levels)
    assert torch.equal(grid.tokens(codes), tokens)
    # Written out: the digits of a token are which level each channel is on, the first one fastest.
    halves = [count // 2 for count in levels]
    wanted = [
        [(digit - half) / half for digit, half in zip(reversed(digits), halves, strict=True)]
        for digits in product(*(range(count) for count in reversed(levels)))
    ]
    torch.testing.assert_close(codes[0, 0, :, :, 0].T, torch.tensor(wanted))


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_any_latent_becomes_a_code_of_the_grid_and_all_are_reached(levels):
    grid = FiniteScalar(levels)
    even = torch.rand(1, 1, len(levels), 200, 200, generator=generator("latents"))
    latents = torch.atanh(2 * even - 1)
    codes = grid(latents)
    tokens = grid.tokens(codes)
    assert torch.equal(grid.codes(tokens), codes)
    assert tokens.min() >= 0 and tokens.max() < grid.vocabulary
    assert len(tokens.unique()) == grid.vocabulary


@pytest.mark.parametrize("spread", [1.0, 30.0, math.inf])
@pytest.mark.parametrize("levels", [*LEVELS, (1002, 3)], ids=str)
def test_whatever_is_given_gets_the_number_of_the_nearest_code(levels, spread):
    """What is imagined is no code: it may lie beyond the grid on any side."""
    grid = FiniteScalar(levels)
    given = spread * torch.randn(1, 2, len(levels), 20, 20, generator=generator("given"))
    tokens = grid.tokens(given)
    assert tokens.min() >= 0 and tokens.max() < grid.vocabulary
    places = [(torch.arange(count) - count // 2) / (count // 2) for count in levels]
    for channel, where in enumerate(places):
        off = (given[:, :, channel, ..., None].clamp(-9, 9) - where).abs()
        found = (grid.codes(tokens)[:, :, channel, ..., None] - where).abs().argmin(-1)
        assert (off.take_along_dim(found[..., None], -1)[..., 0] <= off.amin(-1) + 1e-6).all()
    assert torch.equal(grid.tokens(grid.codes(tokens)), tokens)
    assert torch.equal(grid.codes(grid.tokens(grid(given))), grid(given))


def test_a_grid_rounds_the_bounded_latent_to_the_nearest_level():
    """Against the formula in plain numbers: FSQ, 2309.15505, section 3.1 and its listing."""
    grid, latents = FiniteScalar((8, 5)), torch.linspace(-3, 3, 61)
    codes = grid(latents[None, None, None, :, None].expand(1, 1, 2, 61, 1))[0, 0, :, :, 0]
    for row, count in enumerate((8, 5)):
        half, offset = (count - 1) * 1.001 / 2, 0.5 if count % 2 == 0 else 0.0
        for z, code in zip(latents.tolist(), codes[row].tolist(), strict=True):
            bounded = math.tanh(z + math.atanh(offset / half)) * half - offset
            assert code == pytest.approx(round(bounded) / (count // 2), abs=1e-6)


def test_gradients_pass_a_grid_as_if_it_only_bounded():
    latents = torch.randn(1, 1, 2, 3, 3, requires_grad=True)
    grid = FiniteScalar((5, 5))
    grid(latents).sum().backward()
    slope = (1 - torch.tanh(latents) ** 2) * 2 * 1.001 / 2
    torch.testing.assert_close(latents.grad, slope.detach())


def test_every_latent_becomes_the_nearest_vector_exactly():
    book = Codebook(7, 3, 0.9)
    latents = torch.randn(2, 2, 3, 4, 5, requires_grad=True)
    codes = book(latents)
    points = latents.detach().permute(0, 1, 3, 4, 2)
    distances = (points[..., None, :] - book.vectors).square().sum(-1)
    assert torch.equal(book.tokens(latents.detach()), distances.argmin(-1))
    assert torch.equal(codes, book.codes(distances.argmin(-1)))
    assert torch.equal(book.tokens(book.codes(every_token(7))), every_token(7))
    codes.sum().backward()
    assert torch.equal(latents.grad, torch.ones_like(latents))


def test_vectors_are_running_means_of_what_chose_them():
    """Against sums over all batches, each fading (1711.00937, eq. 6-8)."""
    book, chance = Codebook(2, 1, 0.8), generator("codebook")
    near = torch.tensor([[-1.0], [1.0]])
    book.vectors.copy_(near)
    book.counts.fill_(1.0)
    book.sums.copy_(near)
    count, total = [1.0, 1.0], [-1.0, 1.0]
    for batch in ([-1.2, -0.9, 0.8], [-1.1, 1.4, 1.3]):
        book.follow(torch.tensor(batch).view(1, 1, 1, 3, 1), 0.0, chance)
        for side in (0, 1):
            chose = [x for x in batch if (x > 0) == bool(side)]
            count[side] = 0.8 * count[side] + 0.2 * len(chose)
            total[side] = 0.8 * total[side] + 0.2 * sum(chose)
    wanted = torch.tensor([[total[0] / count[0]], [total[1] / count[1]]])
    torch.testing.assert_close(book.vectors, wanted)


def test_idle_vectors_begin_anew_at_latents_of_the_batch_and_without_that_stay_idle():
    def used(rare: float) -> int:
        book, chance = Codebook(32, 2, 0.9), generator("idle")
        book.vectors.copy_(torch.cat([torch.zeros(1, 2), torch.full((31, 2), 100.0)]))
        book.counts.fill_(1.0)
        book.sums.copy_(book.vectors)
        for number in range(60):
            points = torch.randn(1, 1, 2, 16, 16, generator=generator("points", number))
            book.follow(points, rare, chance)
        return len(book.tokens(points).unique())

    assert used(0.0) == 1
    assert used(0.1) == 32


@pytest.mark.parametrize("kind", ["fsq", "vq"])
def test_tokens_of_what_was_encoded_embed_to_the_same_latents(kind):
    torch.manual_seed(0)
    small = {"width": 8, "depth": 1, "decoder_depth": 1, "compression": (2, 8, 8)}
    encoder = (
        FSQ(FSQConfig.parse(small | {"levels": (4, 3)}))
        if kind == "fsq"
        else VQ(VQConfig.parse(small | {"vocabulary": 12, "channels": 3}))
    )
    encoder.latent_mean.fill_(0.3)
    encoder.latent_std.fill_(1.7)
    latents = encoder.encode(torch.rand(2, 4, 3, 16, 24) * 2 - 1)
    tokens = encoder.tokens(latents)
    assert tokens.shape == (2, 2, 2, 3) and tokens.max() < encoder.vocabulary == 12
    torch.testing.assert_close(encoder.embed(tokens), latents)
    every = every_token(12)
    assert torch.equal(encoder.tokens(encoder.embed(every)), every)


def test_usage_and_perplexity_in_closed_form():
    even = torch.full((8,), 1 / 8)
    one = torch.tensor([1.0] + [0.0] * 7)
    half = torch.tensor([0.25] * 4 + [0.0] * 4)
    assert [float(usage(each)) for each in (even, one, half)] == [1, 1 / 8, 1 / 2]
    assert [float(perplexity(each)) for each in (even, one, half)] == pytest.approx([8, 1, 4])


def test_the_use_of_codes_forgets_what_was_long_ago():
    code_usage = CodeUsage(4)
    for _ in range(200):
        code_usage.add(torch.tensor([0, 1]))
    assert code_usage.shares.tolist() == [0.5, 0.5, 0, 0]
    for _ in range(200):
        code_usage.add(torch.tensor([2, 3]))
    torch.testing.assert_close(code_usage.shares, torch.tensor([0, 0, 0.5, 0.5]), atol=1e-3, rtol=0)
