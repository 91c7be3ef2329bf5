"""What is hidden stays hidden, dropping is masking, places are told apart, nothing collapses."""

import pytest
import torch
from einops import rearrange

from avenir.clip import Batch, Progress
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.device import generator
from avenir.encoders.vjepa import (
    VJEPA,
    VisiblePlaces,
    VJEPAConfig,
    over_the_clip,
    seen,
    shown_places,
    visible_and_hidden,
)
from avenir.errors import AvenirError
from avenir.evaluation.probing.diagnostics import channel_spectrum
from avenir.losses.distillation import effective_rank
from avenir.nn.attention import grid_positions
from avenir.training.optim import OptimConfig, Optimiser

GRID = (3, 4, 5)
SMALL = {"patch": 4, "width": 24, "depth": 2, "heads": 2, "predictor_width": 16}


def vjepa(cls=VJEPA, **settings):
    return cls(VJEPAConfig.parse({**SMALL, **settings}))


def lively(module):
    """Draw every weight anew: what starts at zero would pass any test."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


def clips(count=2):
    t, h, w = GRID
    return torch.rand(count, 2 * t, 3, 4 * h, 4 * w) * 2 - 1


def every_mask(encoder, count=2):
    masks = encoder.masks(count, GRID, generator("masks"))
    assert [shown.num_frames for shown in masks] == [3, 3, 2]
    return masks


def test_hidden_pixels_reach_the_teacher_and_never_the_student():
    encoder, video = lively(vjepa()), clips()
    t, h, w = GRID
    for shown in every_mask(encoder):
        _, hidden = visible_and_hidden(shown, t, h * w)
        moved = torch.zeros(2, t * h * w).scatter_(1, hidden, 1).view(2, *GRID)
        moved = moved.repeat_interleave(2, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
        other = torch.where(moved[:, :, None] > 0, clips(), video)
        assert not torch.equal(other, video)
        before, after = (
            seen(encoder.student, encoder.tubelets(x)[:, : shown.num_frames], shown.places)
            for x in (video, other)
        )
        assert torch.equal(before, after)
        features, others = (seen(encoder.teacher, encoder.tubelets(x)) for x in (video, other))
        changed = (features - others).abs().amax((0, 2, 3)) > 1e-3
        assert changed.tolist() == [shown.num_frames == t] * (t - 1) + [True]


def test_dropping_places_is_masking_them_in_attention():
    encoder, video = lively(vjepa()), clips()
    network, (_, h, w) = encoder.student, GRID
    for shown in every_mask(encoder):
        tubelets = encoder.tubelets(video)[:, : shown.num_frames]
        frames = tubelets.flatten(0, 1)
        patches = rearrange(frames, "n C (h p) (w q) -> n (h w) (C p q)", p=4, q=4)
        x = torch.cat([network.placeless.expand(len(frames), -1, -1), network.embed(patches)], 1)
        angles = network._angles(h, w, x.device)
        visible = torch.zeros(2, h * w).scatter_(1, shown.places, 1) > 0
        placeless = torch.ones(2, len(network.placeless), dtype=torch.bool)
        mask = torch.cat([placeless, visible], 1).repeat_interleave(shown.num_frames, 0)
        mask = mask[:, None, None].expand(-1, -1, mask.shape[1], -1)
        for block in network.blocks:
            x = x + block.attention(block.before_attention(x), angles, mask)[0]
            x = x + block.feed_forward(block.before_feed_forward(x))
        masked = network.norm(x)[:, len(network.placeless) :].unflatten(0, (2, -1))
        expected = masked.gather(
            2, shown.places[:, None, :, None].expand(2, masked.shape[1], -1, 24)
        )
        torch.testing.assert_close(
            seen(network, tubelets, shown.places), expected, atol=1e-5, rtol=1e-5
        )


def test_what_is_said_of_a_hidden_place_is_of_that_place():
    encoder, where = lively(vjepa()), grid_positions(*GRID)
    visible, hidden = visible_and_hidden(every_mask(encoder)[0], 3, 20)
    context = torch.randn(*visible.shape, 24)
    _, said = encoder.predictor(context, visible, hidden, where)
    swapped = hidden.clone()
    swapped[:, [0, 7]] = hidden[:, [7, 0]]
    _, again = encoder.predictor(context, visible, swapped, where)
    expected = said.clone()
    expected[:, [0, 7]] = said[:, [7, 0]]
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-5)
    assert (said[:, 0] - said[:, 7]).abs().max() > 1e-3


def test_the_order_of_what_is_visible_says_nothing():
    encoder, where = lively(vjepa()), grid_positions(*GRID)
    visible, hidden = visible_and_hidden(every_mask(encoder)[0], 3, 20)
    context, order = torch.randn(*visible.shape, 24), torch.randperm(visible.shape[1])
    _, said = encoder.predictor(context, visible, hidden, where)
    _, again = encoder.predictor(context[:, order], visible[:, order], hidden, where)
    torch.testing.assert_close(again, said, atol=1e-5, rtol=1e-5)
    _, apart = encoder.predictor(context[:, order], visible, hidden, where)
    assert (apart - said).abs().max() > 1e-2


def test_losses_are_the_mean_error_at_hidden_places_and_a_weighted_one_at_visible_places():
    """Against a predictor that says zero everywhere, so that the error is the target."""
    encoder, video = lively(vjepa()), clips()
    encoder.predictor.requires_grad_(False)
    encoder.predictor.proj_out.weight.zero_()
    encoder.predictor.proj_out.bias.zero_()
    losses = encoder.losses(Batch(video), Progress(0, 10, generator("masks")))
    size = encoder.targets(encoder.tubelets(video)).abs().mean(-1).view(2, *GRID)
    hidden_errors, visible_errors = [], []
    for shown in every_mask(encoder):
        hide = torch.ones(2, *GRID, dtype=torch.bool)
        for row, places in enumerate(shown.places.tolist()):
            for place in places:
                hide[row, : shown.num_frames, place // 5, place % 5] = False
        hidden_errors.append(size[hide].mean())
        weighted = [
            size[row][tuple(place)] / (place - hide[row].nonzero()).pow(2).sum(1).min() ** 0.25
            for row in range(2)
            for place in (~hide[row]).nonzero()
        ]
        visible_errors.append(torch.stack(weighted).mean())
    torch.testing.assert_close(losses["hidden"], torch.stack(hidden_errors).mean())
    torch.testing.assert_close(losses["visible"], torch.stack(visible_errors).mean())


def test_the_teacher_is_the_running_average_of_the_student():
    encoder = vjepa(momentum=0.9)
    first = [slow.clone() for slow in encoder.teacher.parameters()]
    lively(encoder.student)
    for step in range(7):
        encoder.after_step(Progress(step, 7, generator("none")))
    kept = 0.9**7
    networks = (encoder.teacher.parameters(), encoder.student.parameters())
    for slow, fast, start in zip(*networks, first, strict=True):
        torch.testing.assert_close(slow, kept * start + (1 - kept) * fast)
    assert not any(slow.requires_grad for slow in encoder.teacher.parameters())


def test_what_a_whole_clip_shares_is_no_target():
    features = torch.randn(2, 3, 20, 24)
    brighter = 1.5 * features + torch.randn(2, 1, 1, 24)
    targets = over_the_clip(features)
    torch.testing.assert_close(over_the_clip(brighter), targets, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(targets.mean(1), torch.zeros(2, 24), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.var(1, correction=0), torch.ones(2, 24), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("num_blocks", "share"), [(1, 0.3), (8, 0.65), (2, 0.8)])
def test_every_clip_has_the_same_number_of_hidden_places(num_blocks, share):
    shown = shown_places(num_blocks, share, (6, 9), 50, generator("blocks"))
    assert shown.shape == (50, 54 - round(share * 54))
    visible, hidden = visible_and_hidden(VisiblePlaces(shown, 2), 2, 54)
    everything = torch.cat([visible, hidden], dim=1).sort(dim=1).values
    assert torch.equal(everything, torch.arange(108).expand(50, -1))
    assert torch.equal(visible[:, : shown.shape[1]] + 54, visible[:, shown.shape[1] :])


def test_a_block_is_a_block():
    """Whole but for its rim, which is cut where the number of hidden places is reached."""
    shown = shown_places(1, 0.3, (12, 12), 50, generator("blocks"))
    hide = torch.ones(50, 144).scatter_(1, shown, 0).view(50, 12, 12)
    for block in hide:
        rows, columns = block.nonzero().unbind(1)
        inside = block[rows.min() + 1 : rows.max(), columns.min() + 1 : columns.max()]
        assert inside.numel() >= 0.4 * block.sum()
        assert inside.all()


def test_frames_of_one_place_are_refused():
    video = torch.zeros(1, 2, 3, 4, 4)
    with pytest.raises(AvenirError, match="give larger frames"):
        vjepa().losses(Batch(video), Progress(0, 1, generator("none")))


class Unstopped(VJEPA):
    """The same without average and stop-gradient: what must collapse."""

    def targets(self, tubelets):
        return over_the_clip(seen(self.student, tubelets))


@torch.no_grad()
def rank_of(encoder, video):
    return float(effective_rank(channel_spectrum(encoder.encode(video))))


def rank_after(encoder, train, test, steps=40):
    """Train shortly; return the effective rank of the features."""
    (group,) = encoder.parameter_groups()
    optimiser = Optimiser(group.parameters, OptimConfig())
    for step in range(steps):
        chance = generator("collapse", step)
        rows = torch.randint(len(train), (16,), generator=chance)
        progress = Progress(step, steps, chance)
        losses = encoder.losses(Batch(train[rows]), progress)
        loss = sum(group.weights[name] * value for name, value in losses.items())
        gradients = torch.autograd.grad(loss, group.parameters, allow_unused=True)
        for parameter, gradient in zip(group.parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
        encoder.after_step(progress)
    return rank_of(encoder, test)


@pytest.mark.slow
def test_features_keep_their_directions_and_without_average_and_stop_gradient_would_not():
    source = Synthetic(SyntheticConfig(size=(32, 32)))
    train, test = (source.read(source.draw(split, 6, 128, 0)).video for split in ("train", "test"))
    ranks = {}
    for cls in (VJEPA, Unstopped):
        torch.manual_seed(0)
        encoder = vjepa(cls, patch=8, width=48)
        before = rank_of(encoder, test)
        ranks[cls] = rank_after(encoder, train, test) / before
    assert ranks[VJEPA] > 0.7
    assert ranks[Unstopped] < 0.3
