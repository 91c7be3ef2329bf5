"""A tokenizer on a teacher: where its latents come from, and what noise it learns to bear."""

import pytest
import torch
from einops import rearrange
from torch.nn.functional import conv3d

from avenir.device import generator
from avenir.encoders.dino import DINO, DINOConfig
from avenir.encoders.rae import RAE, Bottleneck, RAEConfig
from avenir.errors import AvenirError
from avenir.losses.alignment import on_grid
from avenir.losses.reconstruction import kl, noised

TEACHER = {"kind": "dino", "patch": 4, "width": 24, "depth": 1, "heads": 2}
SMALL = {"teacher": TEACHER, "channels": 5, "width": 8, "decoder_depth": 1}


@pytest.fixture
def teacher() -> DINO:
    """A teacher of random weights, with statistics as if it had been trained."""
    made = DINO(DINOConfig.parse(TEACHER))
    made.latent_mean.copy_(torch.randn_like(made.latent_mean))
    made.latent_std.copy_(0.5 + torch.rand_like(made.latent_std))
    return made


def on(teacher: DINO, *compression: int) -> RAE:
    return RAE(RAEConfig.parse({**SMALL, "compression": compression}), teacher)


@pytest.mark.parametrize("compression", [(1, 4, 4), (2, 4, 8), (4, 16, 8)], ids=str)
def test_at_first_latents_are_projected_means_of_the_features_they_cover(teacher, compression):
    encoder, video = on(teacher, *compression), torch.rand(2, 8, 3, 32, 48) * 2 - 1
    _, t, _, h, w = encoder.encode(video).shape
    means = on_grid(teacher.encode(video), teacher.compression, (t, h, w), encoder.compression)
    project = rearrange(encoder.encoder.narrow.weight, "c (n d) -> n c d", d=24).sum(0)
    torch.testing.assert_close(project @ project.T, torch.eye(5), atol=1e-5, rtol=0)
    expected = torch.einsum("c d, b t d h w -> b t c h w", project, means)
    torch.testing.assert_close(encoder.encode(video), expected, atol=1e-5, rtol=1e-4)


def test_the_bottleneck_is_a_strided_convolution():
    cell = (2, 3, 2)
    bottleneck, features = Bottleneck(7, cell, 4), torch.randn(2, 4, 7, 9, 8)
    torch.nn.init.normal_(bottleneck.narrow.weight)
    torch.nn.init.normal_(bottleneck.narrow.bias)
    kernel = rearrange(
        bottleneck.narrow.weight, "c (f p q d) -> c d f p q", f=cell[0], p=cell[1], q=cell[2]
    )
    video = rearrange(features, "b t d h w -> b d t h w")
    expected = conv3d(video, kernel, bottleneck.narrow.bias, stride=cell)
    expected = rearrange(expected, "b c t h w -> b t c h w")
    torch.testing.assert_close(bottleneck(features), expected, atol=1e-4, rtol=1e-4)


def test_groups_do_not_meet(teacher):
    encoder, video = on(teacher, 2, 8, 8), torch.rand(1, 6, 3, 16, 24) * 2 - 1
    torch.nn.init.normal_(encoder.encoder.narrow.weight)
    changed = video.clone()
    changed[:, 2:4] *= -1
    moved = (encoder.encode(changed) - encoder.encode(video)).abs().amax((0, 2, 3, 4))
    assert moved[1] > 0.01
    assert moved[0] == moved[2] == 0


def test_only_bottleneck_and_decoder_learn_and_only_the_decoder_when_frozen(teacher):
    encoder, video = on(teacher, 2, 8, 8), torch.rand(1, 2, 3, 16, 24)
    [group] = encoder.parameter_groups()
    learnt = {*encoder.encoder.parameters(), *encoder.decoder.parameters()}
    assert set(group.parameters) == learnt
    encoder.requires_grad_(True).raw_posterior(video).mean.sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    encoder.freeze_encoder()
    latents = encoder.encode(video)
    assert not latents.requires_grad
    assert encoder.decode(latents).requires_grad
    assert set(encoder.parameter_groups()[0].parameters) == set(encoder.decoder.parameters())


@pytest.mark.parametrize("compression", [(2, 6, 8), (2, 8, 2)], ids=str)
def test_a_grid_that_cuts_features_is_refused(teacher, compression):
    with pytest.raises(AvenirError, match=r"on a teacher of \[1, 4, 4\].*give multiples"):
        on(teacher, *compression)


def test_divergence_without_a_variance_is_that_with_a_variance_of_one():
    mean = torch.randn(2, 3, 4, 5, 6)
    torch.testing.assert_close(kl(mean, None), kl(mean, torch.zeros_like(mean)))


def test_noise_is_of_a_strength_of_its_own_for_each_row_and_in_units_of_each_channel():
    sizes = torch.tensor([1.0, 10.0])[:, None, None]
    latents = sizes * torch.randn(16, 4, 2, 32, 32)
    noise = noised(latents, 0.5, generator("noise")) - latents
    strength = noise.std((1, 3, 4)) / sizes.flatten()
    assert strength.max() < 0.51
    assert strength[:, 0].std() > 0.1
    torch.testing.assert_close(strength[:, 0], strength[:, 1], atol=0.02, rtol=0.02)


def test_without_noise_nothing_is_drawn():
    chance, latents = generator("noise"), torch.randn(2, 1, 3, 2, 2)
    before = chance.get_state()
    assert noised(latents, 0.0, chance) is latents
    assert torch.equal(chance.get_state(), before)
