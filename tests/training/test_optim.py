"""Optimisers against their definitions and against PyTorch's own."""

import pytest
import torch
from torch import nn

from avenir.training.ema import EMA
from avenir.training.optim import OptimConfig, Optimiser, orthogonalise, rate


@pytest.mark.parametrize("shape", [(8, 8), (4, 12), (12, 4), (2, 5, 9)])
def test_orthogonalising_keeps_singular_vectors_and_levels_singular_values(shape):
    matrix = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.mT @ orthogonalise(matrix) @ v.mT
    values = inside.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(inside, torch.diag_embed(values), atol=1e-6, rtol=0)
    assert values.min() > 0.4
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(8, 8), (4, 12), (12, 4), (3, 16, 144)])
def test_orthogonalising_is_the_quintic_on_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, values, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm(dim=-1, keepdim=True)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    expected = u @ torch.diag_embed(values) @ v
    torch.testing.assert_close(orthogonalise(matrix).double(), expected, atol=1e-4, rtol=0)


def test_adamw_agrees_with_pytorch():
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    config = OptimConfig(kind="adamw", learning_rate=0.01, weight_decay=0.1, clip=None)
    mine = Optimiser(ours.parameters(), config)
    groups = [{"params": [theirs.weight]}, {"params": [theirs.bias], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=config.betas, weight_decay=0.1)
    for _ in range(20):
        x = torch.randn(7, 5)
        for module, optimiser in ((ours, mine), (theirs, reference)):
            optimiser.zero_grad()
            module(x).square().mean().backward()
            optimiser.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_muon_moves_every_direction_alike():
    weight = nn.Parameter(torch.zeros(4, 6))
    optimiser = Optimiser([weight], OptimConfig(matrix_learning_rate=0.1, weight_decay=0))
    weight.grad = torch.diag(torch.tensor([1.0, 0.1, 0.01, 0.5])) @ torch.eye(4, 6)
    optimiser.step()
    moved = weight.detach().diagonal().abs()
    assert moved.min() > 0.04
    assert moved.max() < 0.13


def test_decay_is_decoupled_and_at_the_rate_of_what_moves_a_matrix():
    """Where there is no gradient a matrix shrinks by 1 - rate·decay a step (1711.05101, Alg. 2)."""
    for kind, expected in {"muon": 1 - 0.5 * 0.1 * 0.3, "adamw": 1 - 0.5 * 0.01 * 0.3}.items():
        table = {"kind": kind, "learning_rate": 0.01, "matrix_learning_rate": 0.1}
        weight, bias = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6))
        before = weight.detach().clone(), bias.detach().clone()
        optimiser = Optimiser([weight, bias], OptimConfig.parse(table | {"weight_decay": 0.3}))
        for settings in optimiser.param_groups:
            settings["rate"] = 0.5
        for _ in range(3):
            weight.grad, bias.grad = torch.zeros(4, 6), torch.zeros(6)
            optimiser.step()
        torch.testing.assert_close(weight.detach(), before[0] * expected**3)
        assert torch.equal(bias.detach(), before[1])


def test_the_rate_is_a_trapezoid():
    config = OptimConfig(warmup=0.1, cooldown=0.5)
    rates = [rate(config, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:51] == [1.0] * 42
    assert rates[75] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.03


def test_the_rate_falls_along_a_cosine_to_what_is_left_of_it():
    config = OptimConfig(warmup=0.1, decay="cosine", floor=0.2)
    rates = [rate(config, step, 100) for step in range(100)]
    assert rates[4] == pytest.approx(0.5)
    assert rates[50] == pytest.approx(0.2 + 0.8 * 0.5)
    assert rates[99] == pytest.approx(0.2, abs=1e-3) and min(rates[10:]) > 0.2
    plain = OptimConfig(warmup=0.0, cooldown=0.5, floor=0.2)
    assert rate(plain, 75, 100) == pytest.approx(0.2 + 0.8 * 0.5)


def test_the_average_of_a_short_run_forgets_its_start():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1000.0)
    ema = EMA(module, decay=0.9999, steps=100)
    with torch.no_grad():
        module.weight.fill_(1.0)
    for step in range(100):
        ema.update(module, step)
    assert float(ema.average["weight"]) == pytest.approx(1.0, abs=0.2)


def test_the_average_is_the_weighted_sum_of_what_it_saw():
    module, seen, expected = nn.Linear(1, 1, bias=False), [], None
    ema = EMA(module, decay=0.9, steps=1000)
    expected = float(module.weight.detach())
    for step in range(50):
        with torch.no_grad():
            module.weight.normal_()
        seen.append(float(module.weight.detach()))
        ema.update(module, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * seen[-1]
    assert float(ema.average["weight"]) == pytest.approx(expected, rel=1e-4)


def test_swapping_twice_changes_nothing():
    module = nn.Linear(2, 2)
    ema = EMA(module, 0.9, 100)
    with torch.no_grad():
        module.weight.add_(1)
    before = module.weight.clone()
    ema.swap(module)
    assert not torch.equal(module.weight, before)
    ema.swap(module)
    assert torch.equal(module.weight, before)
