"""DINO: what is hidden stays hidden, views correspond, and the teacher is the student's average."""

import copy
import math

import pytest
import torch
from torch.nn.functional import log_softmax

from avenir.clip import Batch, Progress
from avenir.device import generator
from avenir.encoders.dino import DINO, DINOConfig, crop, hidden_patches
from avenir.errors import AvenirError
from avenir.losses.distillation import centred, sinkhorn

SMALL = {"width": 24, "depth": 1, "heads": 2, "num_prototypes": 12, "bottleneck": 8}


def dino(**settings) -> DINO:
    return DINO(DINOConfig.parse(SMALL | settings, "encoder"))


def clips(num: int = 4, frames: int = 2) -> torch.Tensor:
    return torch.rand(num, frames, 3, 32, 48) * 2 - 1


def test_hidden_pixels_never_reach_the_student():
    encoder, frames = dino(), clips()[:, 0]
    hide = torch.zeros(4, 24, dtype=torch.bool)
    hide[:, 7] = True  # the second row's second patch
    other = frames.clone()
    other[:, :, 8:16, 8:16] = torch.rand(4, 3, 8, 8)
    (whole, patches), (same, also) = (encoder.student.backbone(x, hide) for x in (frames, other))
    assert torch.equal(whole, same)
    assert torch.equal(patches, also)
    assert not torch.equal(encoder.student.backbone(frames)[1], encoder.student.backbone(other)[1])


def test_a_crop_of_everything_is_the_frame_or_its_mirror():
    frames = clips(8)[:, 0]
    cut = crop(frames, (32, 48), (1.0, 1.0), generator("crop"))
    mirrored = [torch.allclose(c, f.flip(-1), atol=1e-4) for c, f in zip(cut, frames, strict=True)]
    kept = [torch.allclose(c, f, atol=1e-4) for c, f in zip(cut, frames, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert any(mirrored) and any(kept)


def test_a_crop_shows_the_share_it_should():
    """On a ramp, what a crop shows of each side is the root of its share of the area."""
    ramp = torch.linspace(-1, 1, 64).expand(16, 3, 64, 64)
    cut = crop(ramp, (64, 64), (0.25, 0.25), generator("share"))
    shown = (cut.amax((1, 2, 3)) - cut.amin((1, 2, 3))) / 2
    torch.testing.assert_close(shown, torch.full((16,), 0.5), atol=0.02, rtol=0)


def test_half_of_the_views_hide_the_share_they_should():
    hide = hidden_patches(400, 50, (0.2, 0.4), generator("hide"))
    shares = hide.float().mean(1)
    hiding = shares > 0
    assert 0.4 < hiding.float().mean() < 0.6
    assert shares[hiding].min() >= 0.2 and shares[hiding].max() <= 0.42


def test_every_view_is_asked_for_what_the_teacher_says_of_each_other_large_view():
    encoder = dino()
    scores = [torch.randn(5, 12) for _ in range(3)]
    said = torch.randn(10, 12)
    targets = sinkhorn(said, 0.05).chunk(2)
    expected = [
        -(targets[i] * log_softmax(scores[j] / 0.1, -1)).sum(-1).mean()
        for i, j in ((0, 1), (0, 2), (1, 0), (1, 2))
    ]
    torch.testing.assert_close(encoder._image(scores, said), torch.stack(expected).mean())


@pytest.mark.parametrize("step", [0, 5, 9])
def test_the_teacher_is_an_average_of_the_student_that_moves_less_and_less(step):
    encoder = dino(momentum=0.9)
    with torch.no_grad():
        for parameter in encoder.student.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in encoder.teacher.parameters()]
    encoder.after_step(Progress(step, 10, generator("step")))
    momentum = 0.9 + 0.1 * (1 - math.cos(math.pi * step / 10)) / 2
    for old, slow, fast in zip(
        before, encoder.teacher.parameters(), encoder.student.parameters(), strict=True
    ):
        torch.testing.assert_close(slow, momentum * old + (1 - momentum) * fast)


def test_centres_are_running_means_of_what_the_teacher_says():
    encoder = dino(balance="centre")
    scores = torch.randn(6, 12)
    first, second = (encoder._targets(scores, encoder.patch_centre) for _ in range(2))
    torch.testing.assert_close(first, centred(scores, torch.zeros(12), 0.05))
    torch.testing.assert_close(second, centred(scores, 0.1 * scores.mean(0), 0.05))
    torch.testing.assert_close(encoder.patch_centre, 0.19 * scores.mean(0))
    assert not encoder.frame_centre.any()


def test_the_gram_anchor_is_the_teacher_of_its_moment():
    encoder = dino(gram_from=0.5, weights={"gram": 1.0})
    batch = Batch(clips(frames=1))
    assert "gram" not in encoder.losses(batch, Progress(4, 10, generator("gram")))
    with torch.no_grad():
        for parameter in encoder.student.parameters():
            parameter.mul_(1.5)
    encoder.after_step(Progress(4, 10, generator("gram")))
    theirs = encoder.teacher.backbone.state_dict()
    assert all(torch.equal(v, theirs[n]) for n, v in encoder.anchor.state_dict().items())
    held = encoder.losses(batch, Progress(5, 10, generator("gram")))["gram"]
    assert held.detach() > 0


def test_a_patch_is_as_deep_as_its_frames_and_colours_change_alike_in_all_of_them():
    encoder, video = dino(frames=2), clips(frames=4)
    assert encoder.encode(video).shape == (4, 2, 24, 4, 6)
    still = encoder._stacked(video[:, :1].expand(-1, 2, -1, -1, -1))
    first, second = encoder._coloured(still, generator("colour")).chunk(2, dim=1)
    assert torch.equal(first, second)
    assert not torch.allclose(first, still[:, :3])


def test_latents_are_the_features_of_the_blocks_that_are_named():
    encoder, video = dino(depth=3, blocks=[1, 3]), clips(frames=1)
    assert encoder.channels == 48
    first, last = encoder.encode(video).chunk(2, dim=2)
    _, expected = encoder.student.backbone(video[:, 0])
    torch.testing.assert_close(last[:, 0].flatten(2).mT, expected)
    shallow = copy.deepcopy(encoder.student.backbone)
    shallow.blocks = shallow.blocks[:1]
    shallow.norm = torch.nn.LayerNorm(24)
    torch.testing.assert_close(first[:, 0].flatten(2).mT, shallow(video[:, 0])[1])
    alone = dino(depth=3)
    alone.student.load_state_dict(encoder.student.state_dict())
    torch.testing.assert_close(alone.encode(video), last)
    with pytest.raises(AvenirError, match="counted from 1"):
        dino(depth=3, blocks=[0, 3])
