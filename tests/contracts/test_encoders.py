"""Every encoder keeps the contract: drop a file into encoders/ and it is tested here."""

import pytest
import torch

from avenir.assembly import check_fits
from avenir.card import Card
from avenir.clip import Batch, Progress
from avenir.device import generator
from avenir.encoders import Encoder, Tokenizer
from avenir.errors import AvenirError
from avenir.registry import find, kinds
from avenir.world import World

SMALL = {
    "kl": {"width": 8, "depth": 1, "decoder_depth": 1, "channels": 4},
    "rae": {
        "teacher": {"kind": "dino", "width": 24, "depth": 1, "heads": 2},
        "compression": (2, 16, 16),
        "channels": 4,
        "width": 8,
        "decoder_depth": 1,
    },
    "lewm": {
        "size": (8, 8),
        "patch": 4,
        "channels": 4,
        "width": 24,
        "depth": 1,
        "heads": 2,
        "actions": 2,
    },
    "text": {"vocabulary": 2**24},  # any colour is a token
    "regressor": {"outputs": 3, "widths": (8, 8), "channels": 4},
    "vjepa": {"width": 24, "depth": 1, "heads": 2, "predictor_width": 16, "predictor_depth": 1},
    "dino": {"width": 24, "depth": 1, "heads": 2, "weights": {"gram": 1.0}, "gram_from": 0.0},
}
"""Settings that make a kind small enough for tests; a new kind may have none."""

GRIDS = [(1, 8, 8), (4, 8, 8), (4, 16, 16), (8, 32, 32)]


OTHER_TRUNK = "kl, wavelet"


@pytest.fixture(params=[*kinds("encoders"), OTHER_TRUNK])
def card(request, tmp_path) -> Card:
    kind = request.param
    small = SMALL.get(kind, {})
    if kind == OTHER_TRUNK:
        kind, small = "kl", SMALL["kl"] | {"trunk": "wavelet", "compression": (8, 8, 8)}
    if kind == "hub":
        pytest.importorskip("transformers")
        from tests.test_hub import save_tiny

        small = {"model": str(save_tiny(tmp_path))}
    return Card(fps=10.0, size=(64, 64), encoder={"kind": kind, **small})


@pytest.fixture
def encoder(card) -> Encoder:
    return World.build(card).encoder.eval()


def video(encoder: Encoder, groups: int = 2, rows: int = 2, columns: int = 3) -> torch.Tensor:
    f_t, f_h, f_w = encoder.compression
    return torch.rand(2, groups * f_t, 3, rows * f_h * 8, columns * f_w * 8) * 2 - 1


def test_latents_have_the_declared_shape(encoder):
    clip = video(encoder)
    latents = encoder.encode(clip)
    assert latents.shape[2] == encoder.channels
    t, h, w = encoder.compression.latent_shape(clip.shape[1], *clip.shape[3:])
    assert latents.shape == (2, t, encoder.channels, h, w)


def test_its_weights_are_known_from_its_card_alone(card, tmp_path):
    """Names and shapes on the device `meta` are those that it saves; reading draws nothing more."""
    torch.manual_seed(1)
    World.build(card).save(tmp_path / "world")
    after = torch.random.get_rng_state()
    torch.manual_seed(1)
    check_fits(card, tmp_path / "world")
    World.build(card)
    assert torch.equal(torch.random.get_rng_state(), after)


def test_encoding_draws_nothing(encoder):
    clip = video(encoder)
    assert torch.equal(encoder.encode(clip), encoder.encode(clip))


def test_rows_of_a_batch_do_not_meet(encoder):
    clip = video(encoder)
    torch.testing.assert_close(
        encoder.encode(clip)[:1], encoder.encode(clip[:1]), atol=1e-5, rtol=1e-4
    )


def test_groups_do_not_meet(encoder):
    clip, f_t = video(encoder), encoder.compression.t
    torch.testing.assert_close(
        encoder.encode(clip)[:, 1:], encoder.encode(clip[:, f_t:]), atol=1e-5, rtol=1e-4
    )


def test_partial_groups_and_blocks_are_padded_with_their_edges(encoder):
    f_t, f_h, f_w = encoder.compression
    clip = torch.rand(1, 1, 3, 8 * f_h + (f_h > 1), 8 * f_w) * 2 - 1
    repeated = clip.repeat_interleave(f_t, dim=1)
    torch.testing.assert_close(encoder.encode(clip), encoder.encode(repeated))


def test_statistics_normalise_latents_and_do_not_change_pictures(encoder):
    clip = video(encoder)
    raw = encoder.encode(clip)
    encoder.latent_mean.fill_(0.5)
    encoder.latent_std.fill_(2.0)
    torch.testing.assert_close(encoder.encode(clip), (raw - 0.5) / 2, atol=1e-5, rtol=1e-4)
    if encoder.can_decode:
        torch.testing.assert_close(encoder.decode((raw - 0.5) / 2), encoder.raw_decode(raw))


def test_decoded_video_has_the_shape_of_what_was_encoded(encoder):
    clip = video(encoder)
    if encoder.can_decode:
        assert encoder.decode(encoder.encode(clip)).shape == clip.shape


def test_every_loss_is_finite_weighted_and_reaches_a_parameter(encoder):
    encoder.train()
    clip = video(encoder)
    signals = {
        "segmentation": torch.zeros(*clip.shape[:2], *clip.shape[3:], dtype=torch.uint8),
        "objects": torch.zeros(*clip.shape[:2], 3, 4),
        "state": torch.randn(*clip.shape[:2], 3),
        "actions": torch.randn(*clip.shape[:2], 2),
    }
    batch = Batch(clip, {name: signals[name] for name in encoder.needs})
    if not list(encoder.parameters()):
        with pytest.raises(AvenirError, match="to be trained"):
            encoder.losses(batch, Progress(0, 10, generator("test")))
        return
    losses = encoder.losses(batch, Progress(0, 10, generator("test")))
    assert all(torch.isfinite(value) and value.dim() == 0 for value in losses.values())
    for group in encoder.parameter_groups():
        total = torch.stack([w * losses[n] for n, w in group.weights.items() if n in losses]).sum()
        gradients = torch.autograd.grad(total, group.parameters, allow_unused=True)
        assert any(g is not None and g.abs().sum() > 0 for g in gradients)


def test_what_is_decoded_in_training_goes_through_what_may_hide_it(encoder, monkeypatch):
    if not isinstance(encoder, Tokenizer):
        return
    clip, progress, decoded = video(encoder), Progress(0, 10, generator("hide")), []
    decode = encoder.raw_decode
    monkeypatch.setattr(encoder, "raw_decode", lambda z: decoded.append(z) or decode(z))
    encoder.decoding_losses(encoder.raw_posterior(clip), clip, progress, lambda z: 0 * z + 7)
    assert [float(each.detach().mean()) for each in decoded] == [7]
    assert torch.equal(decoded[0], torch.full_like(encoder.encode(clip), 7))


def test_freezing_the_encoder_leaves_only_its_decoder_to_train(encoder):
    assert encoder.can_decode == isinstance(encoder, Tokenizer)
    if not isinstance(encoder, Tokenizer):
        with pytest.raises(AvenirError, match="cannot make any"):
            encoder.raw_decode(encoder.encode(video(encoder)))
        return
    encoder.freeze_encoder()
    latents = encoder.encode(video(encoder))
    assert not latents.requires_grad
    assert encoder.decode(latents).requires_grad == bool(list(encoder.parameters()))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_continuous_tokenizer_reaches_every_compression(grid):
    cls = find("encoders", "kl")
    encoder = cls(cls.Config.parse({"compression": grid, "width": 8, "depth": 1, "channels": 5}))
    clip = torch.rand(1, 2 * grid[0], 3, 64, 96)
    latents = encoder.encode(clip)
    assert latents.shape == (1, 2, 5, 64 // grid[1], 96 // grid[2])
    assert encoder.decode(latents).shape == clip.shape
