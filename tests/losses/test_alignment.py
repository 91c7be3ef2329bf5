"""Alignment: every loss against loops in float64, and the teacher's grid on the latents' grid."""

import itertools
import math

import numpy as np
import pytest
import torch

from avenir.clip import Progress
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.losses.alignment import (
    Alignment,
    AlignmentConfig,
    balanced,
    directions,
    local_correlation,
    on_grid,
    relations,
    shuffled,
)
from avenir.losses.reconstruction import noised
from avenir.shapes import Compression

CELL = Compression(4, 16, 16)


def latents(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def places(z: torch.Tensor) -> list[tuple[int, int, int]]:
    return list(itertools.product(range(z.shape[1]), range(z.shape[3]), range(z.shape[4])))


def at(z: torch.Tensor, row: int, place: tuple[int, int, int]) -> np.ndarray:
    t, y, x = place
    return z[row, t, :, y, x].numpy()


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_directions_agree_with_a_loop(margin):
    z, f = latents(2, 3, 5, 2, 3), latents(2, 3, 5, 2, 3)
    terms = [
        max(0.0, 1 - margin - cosine(at(z, b, p), at(f, b, p))) for b in range(2) for p in places(z)
    ]
    assert float(directions(z, f, margin)) == pytest.approx(np.mean(terms), abs=1e-12)


@pytest.mark.parametrize("margin", [0.0, 0.25])
def test_relations_agree_with_a_loop_over_pairs_in_space_and_time(margin):
    z, f = latents(2, 2, 4, 2, 3), latents(2, 2, 7, 2, 3)
    terms = [
        max(0.0, abs(cosine(at(z, b, p), at(z, b, q)) - cosine(at(f, b, p), at(f, b, q))) - margin)
        for b in range(2)
        for p in places(z)
        for q in places(z)
    ]
    assert float(relations(z, f, margin)) == pytest.approx(np.mean(terms), abs=1e-12)


def test_frames_count_by_what_they_are_told_and_pairs_by_the_product():
    z, f, g = latents(2, 3, 4, 1, 2), latents(2, 3, 4, 1, 2), latents(2, 3, 7, 1, 2)
    counts = torch.tensor([[0, 1, 0.5], [0, 0, 1]], dtype=torch.float64)
    every = [(b, p) for b in range(2) for p in places(z)]
    singles = [float(counts[b, p[0]]) for b, p in every]
    terms = [1 - cosine(at(z, b, p), at(f, b, p)) for b, p in every]
    assert float(directions(z, f, 0.0, counts)) == pytest.approx(np.average(terms, weights=singles))
    pairs = [(b, p, q) for b, p in every for q in places(z)]
    terms = [
        abs(cosine(at(z, b, p), at(z, b, q)) - cosine(at(g, b, p), at(g, b, q)))
        for b, p, q in pairs
    ]
    products = [float(counts[b, p[0]] * counts[b, q[0]]) for b, p, q in pairs]
    assert float(relations(z, g, 0.0, counts)) == pytest.approx(np.average(terms, weights=products))


@pytest.mark.parametrize("shape", [(2, 3, 6, 4, 3), (1, 1, 6, 2, 2), (1, 4, 6, 1, 3)])
def test_local_correlation_agrees_with_pearson_in_every_window(shape):
    z = latents(*shape)
    reach = [min(2, size) for size in (shape[1], shape[3], shape[4])]
    terms = []
    for b in range(shape[0]):
        corners = [range(n - r + 1) for n, r in zip(np.array(shape)[[1, 3, 4]], reach, strict=True)]
        for corner in itertools.product(*corners):
            inside = [tuple(np.add(corner, step)) for step in itertools.product(*map(range, reach))]
            pairs = [
                np.corrcoef(at(z, b, p), at(z, b, q))[0, 1]
                for p, q in itertools.permutations(inside, 2)
            ]
            terms.append(max(0.0, 0.75 - np.mean(pairs)))
    assert float(local_correlation(z, 0.75)) == pytest.approx(np.mean(terms), abs=1e-12)


def test_a_single_latent_has_no_neighbours():
    assert float(local_correlation(latents(2, 1, 4, 1, 1), 0.75)) == 0


@pytest.mark.parametrize(
    ("size", "teacher", "student"),
    [
        ((7, 33, 49), (1, 8, 8), (4, 16, 16)),
        ((9, 45, 77), (2, 14, 14), (4, 16, 16)),
        ((8, 64, 64), (1, 16, 16), (4, 8, 8)),
        ((5, 21, 30), (2, 6, 10), (1, 4, 4)),
    ],
    ids=str,
)
def test_what_happens_at_a_pixel_lands_on_the_latents_that_stand_for_it(size, teacher, student):
    """Features that are means of cells of a delta video overlap exactly the right latents."""
    have = tuple(-(-n // f) for n, f in zip(size, teacher, strict=True))
    want = tuple(-(-n // f) for n, f in zip(size, student, strict=True))
    for pixel in [(0, 0, 0), tuple(n - 1 for n in size), tuple(n // 2 for n in size)]:
        cell = tuple(p // f for p, f in zip(pixel, teacher, strict=True))
        features = torch.zeros(1, have[0], 1, have[1], have[2], dtype=torch.float64)
        features[0, cell[0], 0, cell[1], cell[2]] = 1
        laid = on_grid(features, Compression(*teacher), want, Compression(*student))[0, :, 0]
        shares = [
            [_shared(i, f, cell[axis], g) for i in range(want[axis])]
            for axis, (f, g) in enumerate(zip(student, teacher, strict=True))
        ]
        covered = [
            [sum(_shared(i, f, j, g) for j in range(have[axis])) for i in range(want[axis])]
            for axis, (f, g) in enumerate(zip(student, teacher, strict=True))
        ]
        t, h, w = (np.divide(s, c) for s, c in zip(shares, covered, strict=True))
        np.testing.assert_allclose(laid, np.einsum("t,h,w->thw", t, h, w), atol=1e-12)
        own = tuple(p // f for p, f in zip(pixel, student, strict=True))
        assert laid[own] > 0


def _shared(i: int, length: int, j: int, other: int) -> int:
    return len(set(range(i * length, (i + 1) * length)) & set(range(j * other, (j + 1) * other)))


def test_equal_grids_change_nothing_and_coarser_ones_take_means():
    features = latents(2, 4, 3, 4, 6)
    cell = Compression(1, 8, 8)
    assert torch.equal(on_grid(features, cell, (4, 4, 6), cell), features)
    coarse = on_grid(features, cell, (2, 2, 3), Compression(2, 16, 16))
    expected = features.reshape(2, 2, 2, 3, 2, 2, 3, 2).mean(dim=(2, 5, 7))
    torch.testing.assert_close(coarse, expected)


def test_the_second_gradient_is_scaled_to_its_share_of_the_first():
    z = latents(2, 1, 3, 2, 2).requires_grad_()
    first, second = balanced(z, 0.3)
    (7 * first.sin().sum() + 1e-4 * second.square().sum()).backward()
    decoding, aligning = 7 * z.detach().cos(), 2e-4 * z.detach()
    expected = decoding + 0.3 * decoding.norm() / aligning.norm() * aligning
    torch.testing.assert_close(z.grad, expected)


def test_a_silent_second_gradient_changes_nothing():
    z = latents(1, 1, 3, 2, 2).requires_grad_()
    first, _ = balanced(z, 0.5)
    first.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))


def test_the_placebo_keeps_every_feature_of_a_clip_and_none_in_its_place():
    f = latents(2, 3, 4, 3, 5)
    moved = shuffled(f, generator("test"))
    orders = []
    for b in range(2):
        before, after = (x[b].movedim(1, -1).reshape(45, 4) for x in (f, moved))
        order = [int((before - token).abs().sum(-1).argmin()) for token in after]
        assert sorted(order) == list(range(45))
        assert torch.equal(before[order], after)
        orders.append(order)
    assert orders[0] != orders[1]


def test_a_placebo_tells_nothing_of_what_stays_in_its_place():
    """Features that only say where they are, the same in all frames: relations must not show it."""
    f = latents(1, 1, 16, 4, 4).expand(400, 4, -1, -1, -1)
    moved = shuffled(f, generator("place")).movedim(2, -1).flatten(2, 3)
    moved = moved - moved.mean((1, 2), keepdim=True)
    unit = moved / moved.norm(dim=-1, keepdim=True)
    alike = torch.einsum("b t n c, b s m c -> t s n m", unit, unit) / len(unit)
    same = alike[0, 1].diagonal().mean()
    other = alike[0, 1][~torch.eye(16, dtype=torch.bool)].mean()
    assert abs(float(same - other)) < 0.02


def test_alignment_lets_go_at_the_end():
    alignment = Alignment(AlignmentConfig(share=0.5, decay_fraction=0.2), CELL, 4, CELL, 6)
    shares = [alignment.share(Progress(step, 100, generator("test"))) for step in (0, 79, 90, 99)]
    assert shares[0] == shares[1] == pytest.approx(0.5)
    assert shares[2] == pytest.approx(0.25)
    assert shares[3] == pytest.approx(0.25 * (1 - math.cos(math.pi * 0.05)))
    kept = Alignment(
        AlignmentConfig(share=0.5, decay_fraction=0.2, final_share=0.3), CELL, 4, CELL, 6
    )
    for step, share in zip((0, 79, 90, 99), shares, strict=True):
        expected = 0.5 * 0.3 + 0.7 * share
        assert kept.share(Progress(step, 100, generator("test"))) == pytest.approx(expected)
    steady = Alignment(AlignmentConfig(share=0.5, decay_fraction=0.0), CELL, 4, CELL, 6)
    assert steady.share(Progress(99, 100, generator("test"))) == pytest.approx(0.5)


def test_features_a_projection_can_reach_cost_nothing():
    alignment = Alignment(
        AlignmentConfig(directions_margin=0, relations_margin=0), CELL, 5, CELL, 5
    )
    with torch.no_grad():
        alignment.project.weight.copy_(torch.eye(5))
        alignment.project.bias.zero_()
    features = torch.randn(2, 2, 5, 3, 3)
    features = features - features.mean(dim=(1, 3, 4), keepdim=True)
    losses = alignment(features, features + 3.0, generator("test"))  # what all share is taken off
    assert all(float(loss.detach()) == pytest.approx(0, abs=1e-6) for loss in losses.values())


def test_directions_without_a_teacher_are_refused():
    with pytest.raises(AvenirError, match="no teacher"):
        Alignment(AlignmentConfig(), CELL, 4)
    free = Alignment(AlignmentConfig(directions=0, relations=0, local_correlation=1), CELL, 4)
    assert set(free(torch.randn(1, 2, 4, 2, 2), None, generator("test"))) == {"local_correlation"}


def futures(**settings) -> Alignment:
    config = AlignmentConfig(directions=0, relations=0, future=1, **settings)
    alignment = Alignment(config, CELL, 3)
    with torch.no_grad():
        alignment.padding.fill_(9)
    return alignment


@pytest.mark.parametrize("most", [1, 2, 3])
def test_hidden_are_the_last_latents_none_to_as_many_as_may_be(most):
    z = torch.randn(300, 4, 3, 2, 2)
    hidden = futures(decay_fraction=0).without_future(z, most, Progress(0, 1, generator("hide")))
    padded = (hidden == 9).all(dim=4).all(dim=3).all(dim=2)
    count = padded.sum(dim=1)
    assert torch.equal(padded, torch.arange(4) >= 4 - count[:, None])
    assert torch.equal(hidden[~padded], z[~padded])
    shares = torch.bincount(count) / len(z)
    assert shares.tolist() == pytest.approx([1 / (most + 1)] * (most + 1), abs=0.1)


def test_hiding_is_by_chance_and_lets_go():
    z, often = torch.randn(400, 2, 3, 1, 1), []
    for step in (0, 75, 99):
        hidden = futures(decay_fraction=0.5).without_future(
            z, 1, Progress(step, 100, generator(step))
        )
        often.append(float((hidden != z).any(dim=2).float().sum()) / 400)
    assert often == pytest.approx([0.5, 0.25, 0], abs=0.08)


@pytest.mark.parametrize(
    ("teacher", "parts"),
    [((1, 8, 8), (4, 2, 2)), ((2, 14, 14), (2, 1, 1)), ((8, 32, 32), (1, 1, 1))],
    ids=str,
)
def test_a_latent_is_given_each_of_its_features_in_its_place(teacher, parts):
    """Features that say where they are come back side by side, none finer than the teacher's."""
    alignment = Alignment(AlignmentConfig(), CELL, 4, Compression(*teacher), 3)
    assert alignment.parts == parts
    assert alignment.project.out_features == 3 * math.prod(parts)
    if parts == (4, 2, 2):
        features = torch.arange(8 * 4 * 6).reshape(1, 8, 1, 4, 6).double()
        laid = alignment._laid(features, latents(1, 2, 4, 2, 3))
        cell = features[0, 4:8, 0, 2:4, 4:6]  # of the latent at t 1, row 1, column 2
        assert torch.equal(laid[0, 1, :, 1, 2], cell.flatten())


def test_features_that_end_before_latents_go_on_with_their_last():
    """33 pixels are 3 latents of 16 and 5 features of 8: the sixth part repeats the fifth."""
    features = torch.arange(5.0).reshape(1, 1, 1, 1, 5)
    laid = on_grid(features, Compression(1, 8, 8), (1, 1, 6), Compression(1, 8, 8))
    assert laid.flatten().tolist() == [0, 1, 2, 3, 4, 4]


def test_noise_is_put_on_what_is_projected_and_on_nothing_else():
    torch.manual_seed(0)
    settings = {"noise": 0.7, "local_correlation": 1.0}
    alignment = Alignment(AlignmentConfig.parse(settings, "alignment"), CELL, 4, CELL, 6)
    clean = Alignment(AlignmentConfig(local_correlation=1.0), CELL, 4, CELL, 6)
    clean.load_state_dict(alignment.state_dict())
    z, f = torch.randn(2, 2, 4, 2, 3), torch.randn(2, 2, 6, 2, 3)
    found = alignment(z, f, generator("noise"))
    without = clean(z, f, generator("noise"))
    assert torch.equal(found["relations"], without["relations"])
    assert torch.equal(found["local_correlation"], without["local_correlation"])
    projected = alignment._projected(alignment.project, noised(z, 0.7, generator("noise")))
    about = f - f.mean(dim=(1, 3, 4), keepdim=True)
    torch.testing.assert_close(found["directions"], directions(projected, about, 0.0))
    assert found["directions"] > without["directions"]
