"""Adjusted mutual information: chance by enumeration, and sortings alike, unrelated or late."""

import itertools

import numpy as np
import pytest
import torch

from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.questions.latent_actions import (
    adjusted_mutual_information,
    kinds_of,
    measure_latent_actions,
    mutual_information,
)
from avenir.signals import Signal


def drawn(count: int, kinds: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(kinds, size=count)


def test_the_same_sorting_under_other_names_is_one():
    a = drawn(200, 5, 0)
    assert adjusted_mutual_information(a, (a * 3 + 1) % 5) == pytest.approx(1.0)


def test_what_chance_gives_is_the_mean_over_all_ways_to_deal_out():
    a, b = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 2, 2])
    every = [mutual_information(a, b[list(order)]) for order in itertools.permutations(range(6))]
    adjusted = [
        adjusted_mutual_information(a, b[list(order)]) for order in itertools.permutations(range(6))
    ]
    assert np.mean(adjusted) == pytest.approx(0, abs=1e-12)
    assert np.mean(every) > 0.3  # unadjusted it looks like something


def test_unrelated_sortings_are_zero_however_many_kinds_there_are():
    for kinds in (2, 20):
        found = adjusted_mutual_information(drawn(2000, kinds, 1), drawn(2000, kinds, 2))
        assert abs(found) < 0.01


def test_one_kind_says_nothing_of_many_and_everything_of_one():
    one, many = np.zeros(50, int), drawn(50, 4, 3)
    assert adjusted_mutual_information(one, many) == 0
    assert adjusted_mutual_information(one, one) == 1


def test_numbers_are_sorted_into_thirds_of_their_range_and_choices_as_they_are():
    signal = Signal(role="action", size=2, low=(-1, 0), high=(1, 3))
    actions = torch.tensor([[[-1.0, 0.0], [0.0, 1.5], [1.0, 3.0], [-0.4, 2.5], [-1.0, 0.5]]])
    assert kinds_of(actions, signal).tolist() == [[0, 2, 3, 1, 0]]
    choices = torch.eye(4)[[2, 0, 3]][None]
    assert kinds_of(choices, Signal.choice(4)).tolist() == [[2, 0, 3]]


@pytest.mark.parametrize("f_t", [1, 2])
def test_a_world_that_reads_the_wheel_agrees_and_one_that_draws_lots_does_not(f_t):
    """Codes at the right moments: those read a step late agree less."""
    source = Synthetic(SyntheticConfig.parse({"kind": "synthetic", "episode_frames": 24}))
    task = HeldOut(source, source.spread("test", 20, 12), 4, 16, 1, 4, 0)
    chance = torch.Generator().manual_seed(0)

    def reading(batch_actions, late: int):
        """Say the kind of the mean action into each latent, as a code of nine."""
        rows = batch_actions[:, f_t - 1 : 19].unflatten(1, (-1, f_t)).mean(2)
        thirds = ((rows + 1) * 1.5).long().clamp(0, 2)
        kinds = (3 * thirds[..., 0] + thirds[..., 1]).roll(late, dims=1)
        every = torch.full((len(batch_actions), 20, 9), torch.nan)
        every[:, f_t - 1 : 19] = torch.eye(9)[kinds].repeat_interleave(f_t, dim=1)
        return every

    def found(late: int):
        batches = iter(list(task.batches("", lambda *_: None)))
        return measure_latent_actions(
            lambda video: reading(next(batches)[1].signals["actions"], late),
            task,
            f_t,
            lambda *_: None,
        )

    def lots(video):
        return torch.eye(9)[torch.randint(9, video.shape[:2], generator=chance)]

    exact, late = found(0), found(1)
    assert exact.adjusted.mean == pytest.approx(1.0)
    assert exact.adjusted.low > 0.99
    assert late.adjusted.mean < 0.9
    none = measure_latent_actions(lots, task, f_t, lambda *_: None)
    assert none.adjusted.low < 0 < none.adjusted.high
    assert exact.shuffled.low < 0 < exact.shuffled.high
    assert none.num_moments == 12 * (20 // f_t - 1)
