"""Principal components agree with a reference, and colours lie where the features are."""

import pytest
import torch

from avenir.evaluation.probing.features import components, paint
from avenir.shapes import Compression

CELL = Compression(2, 4, 8)


def test_components_are_those_of_a_singular_value_decomposition():
    scales = torch.tensor([0.5, 4.0, 1.0, 2.0, 0.1]).view(1, 1, 5, 1, 1)
    latents = torch.randn(1, 7, 5, 3, 4) * scales + 3
    found = components(latents)
    tokens = latents[0].permute(0, 2, 3, 1).reshape(-1, 5).double()
    centred = tokens - tokens.mean(0)
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close(found.mean.double(), tokens.mean(0), atol=1e-5, rtol=1e-5)
    spread = values[:3] / len(tokens) ** 0.5
    torch.testing.assert_close(found.spread.double(), spread, atol=1e-5, rtol=1e-5)
    alike = (found.axes.T.double() @ axes[:3].T).abs()
    torch.testing.assert_close(alike, torch.eye(3, dtype=torch.double), atol=1e-4, rtol=0)
    assert (found.axes.gather(0, found.axes.abs().argmax(0, keepdim=True)) > 0).all()


def test_one_feature_that_differs_is_painted_where_it_is():
    latents = torch.zeros(1, 3, 4, 5, 6)
    latents[0, 1, :, 2, 4] = torch.tensor([1.0, 2.0, 0.0, -1.0])
    frames = paint(latents, components(latents), CELL)
    assert frames.shape == (6, 3, 20, 48)
    differs = (frames != frames[0, :, :1, :1]).any(dim=1)
    there = torch.zeros(6, 20, 48, dtype=torch.bool)
    there[2:4, 8:12, 32:40] = True
    assert torch.equal(differs, there)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_fewer_than_three_channels_leave_the_other_colours_grey(channels):
    latents = torch.randn(1, 2, channels, 4, 4)
    colours = paint(latents, components(latents), CELL).float().std((0, 2, 3))
    assert ((colours > 0) == (torch.arange(3) < channels)).all()


def test_features_that_never_differ_are_grey():
    latents = torch.full((1, 2, 4, 3, 3), 0.7)
    frames = paint(latents, components(latents), CELL)
    assert (frames.float() - 127.5).abs().max() <= 1
