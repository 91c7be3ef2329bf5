"""Losses against closed forms and direct computation."""

import math

import pytest
import torch
from safetensors.torch import save_file

from avenir.clip import Batch, Progress
from avenir.device import generator
from avenir.encoders.kl import KL, KLConfig
from avenir.errors import AvenirError
from avenir.losses.adversarial import Critic, adversarial, critic_loss
from avenir.losses.lpips import LPIPS
from avenir.losses.reconstruction import edges, kl, motion

VIDEO = (2, 4, 3, 16, 16)


def test_kl_is_zero_for_the_prior_and_has_its_closed_form():
    zero = torch.zeros(1, 1, 2, 2, 2)
    assert float(kl(zero, zero)) == 0
    mean, log_variance = zero + 0.7, zero + math.log(0.3)
    normal = torch.distributions.Normal(mean, math.sqrt(0.3))
    true = torch.distributions.kl_divergence(normal, torch.distributions.Normal(zero, zero + 1))
    torch.testing.assert_close(kl(mean, log_variance), true.mean())


def test_edges_forgive_brightness_and_see_displacement():
    video = torch.zeros(VIDEO)
    video[..., 8:] = 1
    assert float(edges(video + 0.3, video)) == pytest.approx(0, abs=1e-6)
    assert float(edges(video.roll(1, -1), video)) > 0.05


def test_motion_forgives_a_constant_error_and_a_single_frame_has_none():
    video = torch.rand(VIDEO)
    assert float(motion(video + 0.5, video)) == pytest.approx(0, abs=1e-6)
    assert float(motion(video[:, :1], video[:, :1] + 1)) == 0
    frozen = video[:, :1].expand(VIDEO)
    assert float(motion(frozen, video)) == pytest.approx(float(video.diff(dim=1).abs().mean()))


def test_the_critic_and_the_decoder_pull_apart_and_do_not_touch_each_other():
    critic, decoded = Critic(width=4), torch.rand(VIDEO, requires_grad=True)
    critic_loss(critic, decoded, torch.rand(VIDEO)).backward()
    assert decoded.grad is None
    adversarial(critic, decoded).backward()
    assert decoded.grad is not None
    with torch.no_grad():
        better = decoded - 5.0 * decoded.grad
        assert adversarial(critic, better) < adversarial(critic, decoded)


def test_an_adversarial_tokenizer_has_two_groups_that_share_no_parameter():
    table = {"width": 8, "depth": 1, "compression": [2, 8, 8], "weights": {"adversarial": 0.1}}
    encoder = KL(KLConfig.parse(table))
    decoder, critic = encoder.parameter_groups()
    assert not {id(p) for p in decoder.parameters} & {id(p) for p in critic.parameters}
    losses = encoder.losses(Batch(torch.rand(VIDEO)), Progress(0, 9, generator("adversarial")))
    assert {"adversarial", "critic"} <= losses.keys()
    assert critic.weights == {"critic": 1.0}
    assert "critic" not in decoder.weights


def test_lpips_is_a_distance_of_unit_features(tmp_path):
    metric = LPIPS(divide_widths_by=16)
    one, other = torch.rand(1, 1, 3, 32, 32), torch.rand(1, 1, 3, 32, 32)
    assert float(metric(one, one)) == 0
    torch.testing.assert_close(metric(one, other), metric(other, one))
    x, y = ((v[0] - metric.mean) / metric.std for v in (one, other))
    expected = 0.0

    def unit(features):
        return features / (features.norm(dim=1, keepdim=True) + 1e-10)

    for index, layer in enumerate(metric.features):
        x, y = layer(x), layer(y)
        if index in (3, 8, 15, 22, 29):
            expected += float((unit(x) - unit(y)).square().sum(1).mean())
    assert float(metric(one, other)) == pytest.approx(expected, rel=1e-4)


def test_lpips_weights_load_from_a_file_and_their_absence_is_explained(tmp_path):
    metric = LPIPS()
    save_file(metric.state_dict(), tmp_path / "lpips.safetensors")
    again = LPIPS.load(str(tmp_path / "lpips.safetensors"))
    assert torch.equal(again.features[0].weight, metric.features[0].weight)
    encoder = KL(KLConfig(lpips="nowhere.safetensors"))
    with pytest.raises(AvenirError, match="are not there"):
        encoder.losses(Batch(torch.rand(VIDEO)), Progress(0, 9, generator("lpips")))
