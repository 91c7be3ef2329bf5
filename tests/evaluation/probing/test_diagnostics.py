"""What latents alone tell, on latents made so that the answer is known."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from avenir.evaluation.probing.diagnostics import (
    Split,
    active_channels,
    between_neighbours,
    channel_spectrum,
    high_frequencies,
    incoming,
    inverse_dynamics,
    linear_dynamics,
    local_similarity,
    nearest_elsewhere,
    pooled,
    temporal_distance,
    velocity_variance,
)
from avenir.losses.distillation import effective_rank


@pytest.fixture
def noise():
    """White noise, as latents."""
    return torch.randn(200, 6, 4, 3, 3)


# Channels ---------------------------------------------------------------------------------------


def test_effective_rank_is_the_number_of_equal_channels_and_one_of_a_line(noise):
    assert effective_rank(channel_spectrum(noise)) == pytest.approx(4, abs=0.01)
    line = noise[:, :, :1] * torch.tensor([1.0, -2.0, 0.5, 3.0]).view(4, 1, 1)
    assert effective_rank(channel_spectrum(line)) == pytest.approx(1, abs=1e-6)
    halves = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(4, 1, 1)
    assert effective_rank(channel_spectrum(noise * halves)) == pytest.approx(2, abs=0.01)


def test_channel_spectrum_is_that_of_the_covariance(noise):
    latents = noise * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1) + 5
    tokens = latents.permute(2, 0, 1, 3, 4).flatten(1).double().numpy()
    expected = np.linalg.eigvalsh(np.cov(tokens, bias=True))
    np.testing.assert_allclose(channel_spectrum(latents).numpy(), expected, rtol=1e-5)


def test_channels_that_never_vary_or_are_all_doubt_are_not_active(noise):
    latents = noise * torch.tensor([1.0, 1.0, 0.05, 0.0]).view(4, 1, 1)
    assert active_channels(latents, torch.zeros(4)) == 2
    assert active_channels(latents, torch.tensor([0.5, 1000.0, 0.0, 0.0])) == 1


# Space and time ---------------------------------------------------------------------------------


def test_high_frequencies_of_a_constant_and_of_a_checkerboard():
    constant = torch.ones(2, 3, 4, 8, 8) * torch.randn(2, 3, 4, 1, 1)
    assert high_frequencies(constant).mean() == pytest.approx(0, abs=1e-12)
    board = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8)).expand(2, 3, 4, 8, 8)
    # The cosine transform of alternating signs leaks a little from its highest frequency.
    assert 0.98 < high_frequencies(board).mean() <= 1
    wave = torch.cos(math.pi * (2 * torch.arange(8) + 1) * 7 / 16)
    highest = (wave[:, None] * wave).expand(2, 3, 4, 8, 8)
    assert high_frequencies(highest).mean() == pytest.approx(1)


def test_high_frequencies_of_white_noise_are_the_share_of_frequencies():
    rows = torch.arange(8)
    expected = (rows[:, None] + rows > 7).double().mean().item()
    found = high_frequencies(torch.randn(300, 2, 4, 8, 8)).mean()
    assert found == pytest.approx(expected, abs=0.005)


def test_local_similarity_sets_smooth_latents_apart_from_noise(noise):
    assert local_similarity(noise).mean() == pytest.approx(0, abs=0.02)
    turn = torch.linspace(0, math.pi, 8)
    smooth = torch.stack([turn.cos(), turn.sin()])[:, None].expand(2, 8, 8)
    found = local_similarity(smooth.expand(3, 2, 2, 8, 8))
    # Rows are equal, columns turn by π/7.
    near = (1 + math.cos(math.pi / 7)) / 2
    rows, columns = np.indices((8, 8)).reshape(2, -1)
    apart = abs(rows[:, None] - rows) + abs(columns[:, None] - columns)
    far = np.cos(math.pi / 7 * (columns[:, None] - columns))[apart >= 7].mean()
    assert found.tolist() == pytest.approx([near - far] * 3, rel=1e-5)
    assert local_similarity(torch.randn(2, 3, 4, 1, 1)).isnan().all()


def test_temporal_distance_of_stills_noise_and_alternation(noise):
    assert temporal_distance(noise[:, :1].expand(-1, 5, -1, -1, -1)).mean() == 0
    assert temporal_distance(noise).mean() == pytest.approx(2, abs=0.02)
    # Free of scale and shift; from -1 to 1 is four variances.
    signs = torch.tensor([1.0, -1.0]).repeat(3).view(6, 1, 1, 1)
    assert temporal_distance(7 * signs.expand(2, 6, 4, 3, 3) + 3).mean() == pytest.approx(4)
    flat = noise.clone()
    flat[:, :, 0] = 1
    assert temporal_distance(flat).mean() == pytest.approx(2, abs=0.02)


# Velocity ---------------------------------------------------------------------------------------


def test_velocity_variance_is_the_integral_of_what_a_gaussian_leaves_open():
    spreads = torch.tensor([0.2, 1.0, 3.0])
    samples = torch.randn(4000, 3, 2, 2) * spreads.view(3, 1, 1)

    def left(value):
        return quad(lambda tau: value / ((1 - tau) ** 2 + tau**2 * value), 0, 1)[0]

    expected = np.mean([left(float(s) ** 2) for s in spreads])
    assert velocity_variance(samples) == pytest.approx(expected, rel=0.01)


def test_velocity_variance_finds_factors_over_channels_and_places():
    channels, places = torch.randn(4, 4).double(), torch.randn(6, 6).double()
    white = torch.randn(3000, 4, 6).double()
    samples = (channels @ white @ places.T).reshape(-1, 4, 2, 3)
    spread = torch.linalg.svdvals(channels)[:, None] * torch.linalg.svdvals(places)
    expected = math.pi / 2 * float(spread.mean())
    assert velocity_variance(samples) == pytest.approx(expected, rel=0.02)


def test_velocity_variance_falls_when_latents_are_compact_or_correlated():
    white = torch.randn(500, 4, 3, 3)
    assert velocity_variance(white) == pytest.approx(math.pi / 2, rel=0.02)
    assert velocity_variance(white / 2) == pytest.approx(math.pi / 4, rel=0.02)
    alike = white[:, :1].expand(-1, 4, -1, -1)
    # One of four eigenvalues is left, four times as large.
    assert velocity_variance(alike) == pytest.approx(math.pi / 4, rel=0.02)
    assert velocity_variance(torch.zeros(50, 4, 3, 3)) == 0


# Dynamics ---------------------------------------------------------------------------------------


def split_of(latents, actions=None):
    """Half to learn from, half to judge on."""
    half = len(latents) // 2
    held_out = torch.arange(half) % 5 == 0
    if actions is None:
        return Split(latents[:half], latents[half:], None, None, held_out)
    return Split(latents[:half], latents[half:], actions[:half], actions[half:], held_out)


def turning(num_clips, num_frames, pushes=None):
    """Latents that turn by one rotation at every step, and are pushed by actions."""
    turn = torch.linalg.qr(torch.randn(8, 8)).Q
    push = torch.randn(2, 8)
    state, states = torch.randn(num_clips, 8), []
    for frame in range(num_frames):
        if frame:
            state = state @ turn
            if pushes is not None:
                state = state + pushes[:, frame] @ push
        states.append(state)
    return torch.stack(states, dim=1).view(num_clips, num_frames, 2, 2, 2)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_linear_latents_are_told_by_linear_dynamics(step):
    found = linear_dynamics(split_of(turning(120, 6)), step)
    assert found.r2.mean() == pytest.approx(1, abs=1e-4)
    assert found.held.mean() < 0.9
    assert velocity_variance(found.error) < 0.02
    assert found.error.shape == (60 * (6 - step), 2, 2, 2)


def test_actions_are_what_dynamics_need_where_latents_are_pushed():
    pushes = torch.randn(160, 6, 2)
    latents = turning(160, 6, pushes)
    told = linear_dynamics(split_of(latents, pushes), 2).r2.mean()
    silent = linear_dynamics(split_of(latents), 2).r2.mean()
    assert told == pytest.approx(1, abs=1e-4)
    assert silent < 0.9
    assert inverse_dynamics(split_of(latents, pushes)).mean() == pytest.approx(1, abs=1e-4)


def test_of_white_noise_nothing_is_told(noise):
    found = linear_dynamics(split_of(noise), 1)
    assert -0.2 < found.r2.mean() <= 0
    assert found.held.mean() == pytest.approx(-1, abs=0.05)
    assert velocity_variance(found.error) == pytest.approx(math.pi / 2, rel=0.1)
    assert inverse_dynamics(split_of(noise, torch.randn(200, 6, 2))).mean() < 0.02


def test_scores_are_one_per_clip_and_mean_to_the_ratio():
    latents = turning(100, 6) + 0.5 * torch.randn(100, 6, 2, 2, 2)
    found = linear_dynamics(split_of(latents), 1)
    later = latents[50:, 1:].flatten(0, 1)
    whole = (later - later.mean(0)).square().sum()
    assert found.r2.shape == (50,)
    assert found.r2.mean() == pytest.approx(float(1 - found.error.square().sum() / whole), rel=1e-5)
    moved = (latents[50:, 1:] - latents[50:, :-1]).square().sum()
    assert found.held.mean() == pytest.approx(float(1 - moved / whole), rel=1e-5)


def test_incoming_actions_are_those_of_the_time_grid():
    actions = torch.arange(1, 9).view(1, 8, 1).float()
    assert incoming(actions, 4)[0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert incoming(actions, 1)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_large_latent_frames_are_pooled():
    small, large = torch.randn(2, 3, 16, 8, 8), torch.randn(2, 3, 64, 8, 6)
    assert pooled(small) is small
    found = pooled(large)
    assert found.shape == (2, 3, 64, 4, 3)
    torch.testing.assert_close(found[1, 2, 5, 0, 1], large[1, 2, 5, :2, 2:4].mean())
    assert pooled(torch.randn(1, 2, 3000, 2, 2)).shape[-2:] == (1, 1)
    assert pooled(large, 16).shape[-2:] == (4, 3)


# Neighbours -------------------------------------------------------------------------------------


def test_the_nearest_latents_are_those_of_another_recording():
    latents = torch.tensor([0.0, 0.1, 1.0, 5.0, 5.2]).view(5, 1, 1, 1, 1)
    assert nearest_elsewhere(latents, list("abcde")).tolist() == [1, 0, 1, 4, 3]
    assert nearest_elsewhere(latents, list("aabcc")).tolist() == [2, 2, 1, 2, 2]


def test_only_inner_latent_frames_are_replaced():
    latents = torch.tensor([0.0, 1.0, 4.0, 9.0]).view(1, 4, 1, 1, 1)
    assert between_neighbours(latents).flatten().tolist() == [0, 2, 5, 9]
    steady = torch.arange(5.0).view(1, 5, 1, 1, 1) * torch.randn(3, 1, 2, 2, 2)
    torch.testing.assert_close(between_neighbours(steady), steady)
