"""A Haar transform that loses nothing, and trunks that stand on it."""

import pytest
import torch

from avenir.errors import AvenirError
from avenir.nn.conv import GroupEncoder
from avenir.nn.wavelet import WaveletDecoder, WaveletEncoder, haar, halvings, levels, unhaar
from avenir.shapes import Compression

GRIDS = [(1, 8, 8), (2, 8, 8), (4, 16, 16), (8, 8, 8), (8, 32, 32)]


@pytest.mark.parametrize("axes", [(1,), (3, 4), (1, 3, 4)])
def test_what_is_split_is_joined_again(axes):
    video = torch.randn(2, 4, 3, 8, 4, dtype=torch.float64)
    bands = haar(video, axes)
    assert bands.numel() == video.numel() and bands.shape[2] == 3 * 2 ** len(axes)
    torch.testing.assert_close(unhaar(bands, axes), video, atol=1e-12, rtol=0)


def test_the_first_channels_are_means_and_a_still_grey_picture_is_nothing_else():
    video = torch.randn(1, 4, 3, 8, 8)
    means = video.unflatten(1, (2, 2)).unflatten(4, (4, 2)).unflatten(6, (4, 2)).mean((2, 5, 7))
    torch.testing.assert_close(haar(video, (1, 3, 4))[:, :, :3], means)
    assert not haar(torch.ones(1, 2, 3, 4, 4), (1, 3, 4))[:, :, 3:].any()


def test_energy_is_kept_up_to_the_scale_of_each_axis():
    """Mean and half difference of a pair have half its energy: the transform is orthogonal."""
    video = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    energy = haar(video, (1, 3, 4)).square().sum()
    torch.testing.assert_close(8 * energy, video.square().sum())


@pytest.mark.parametrize("grid", GRIDS)
def test_levels_and_halvings_make_the_compression(grid):
    total = [1, 1, 1]
    for axes in levels(Compression(*grid)):
        for place, axis in enumerate((1, 3, 4)):
            total[place] *= 2 if axis in axes else 1
    for block in halvings(Compression(*grid)):
        total = [done * step for done, step in zip(total, block, strict=True)]
    assert tuple(total) == grid


@pytest.mark.parametrize("grid", [(3, 8, 8), (6, 8, 8), (4, 12, 12)])
def test_other_factors_than_powers_of_two_are_refused(grid):
    with pytest.raises(AvenirError, match="powers of two"):
        WaveletEncoder(Compression(*grid), 8, 1, 5)
    if grid[1] == 12:
        with pytest.raises(AvenirError, match="powers of two"):
            GroupEncoder(Compression(*grid), 8, 1, 5)


@pytest.mark.parametrize("grid", GRIDS)
def test_trunks_are_on_the_grid(grid):
    compression = Compression(*grid)
    t, h, w = (2 * factor for factor in grid)
    video = torch.randn(2, t, 3, h, w)
    latents = WaveletEncoder(compression, 8, 1, 5)(video)
    assert latents.shape == (2, 2, 5, 2, 2)
    assert WaveletDecoder(compression, 8, 1, 5, 1)(latents).shape == video.shape


def test_over_time_a_group_looks_back_only():
    """In a group of 8 frames, 2 are left after the wavelets: the later one never reaches back."""
    torch.manual_seed(0)
    encoder = WaveletEncoder(Compression(8, 8, 8), 8, 2, 5)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    before = torch.nn.Sequential(*list(encoder.layers)[:3])  # until frames are joined
    video = torch.randn(1, 2, 3 * 64, 4, 4, requires_grad=True)
    early, late = before(video).unbind(1)
    assert not torch.autograd.grad(early.sum(), video, retain_graph=True)[0][:, 1].any()
    assert torch.autograd.grad(late.sum(), video)[0][:, 0].any()
