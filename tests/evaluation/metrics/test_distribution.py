"""Distances of sets: closed forms, a naive reference, no bias; and who may not judge."""

import numpy as np
import pytest
import torch
from einops import rearrange
from scipy.linalg import sqrtm

from avenir.card import Card
from avenir.errors import AvenirError
from avenir.evaluation.independence import check_independent, check_judge
from avenir.evaluation.metrics.distribution import (
    coverage,
    density,
    features_of,
    frechet,
    kernel_distance,
)
from avenir.evaluation.readers.readout import evaluator_for


def shaped(rows, mean, covariance):
    """Rows whose sample mean and covariance are exactly these."""
    white = rows - rows.mean(0)
    factor = torch.linalg.cholesky(white.T @ white / (len(rows) - 1))
    white = torch.linalg.solve_triangular(factor, white.T, upper=False).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


# Fréchet ----------------------------------------------------------------------------------------


def test_frechet_of_gaussians_whose_axes_agree_is_the_closed_form():
    spread_a, spread_b = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 2.0, 1.0])
    mean = torch.tensor([1.0, -2.0, 0.0], dtype=torch.double)
    a = shaped(draw(40, 3), torch.zeros(3), spread_a.square().diag().double())
    b = shaped(draw(50, 3, seed=1), mean, spread_b.square().diag().double())
    expected = mean.square().sum() + (spread_a - spread_b).square().sum()
    assert frechet(a, b) == pytest.approx(float(expected), rel=1e-9)


def test_frechet_agrees_with_a_root_of_matrices():
    a, b = draw(30, 6) @ draw(6, 6, seed=2), draw(40, 6, seed=1) @ draw(6, 6, seed=3) + 1
    first, second = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = np.trace(sqrtm(first @ second)).real
    shift = float((a.mean(0) - b.mean(0)).square().sum())
    expected = shift + np.trace(first) + np.trace(second) - 2 * root
    assert frechet(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_is_the_same_with_fewer_rows_than_columns():
    a, b = draw(12, 5), 2 * draw(15, 5, seed=1) + 0.3
    wide = torch.linalg.qr(draw(80, 5, seed=2)).Q.T
    assert frechet(a @ wide, b @ wide) == pytest.approx(frechet(a, b), rel=1e-9)


@pytest.mark.parametrize("columns", [4, 60])
def test_frechet_of_a_set_to_itself_is_zero(columns):
    a = draw(20, columns)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


# Kernel -----------------------------------------------------------------------------------------


def test_kernel_distance_agrees_with_a_double_loop_over_other_recordings():
    a, b = draw(9, 4), draw(11, 4, seed=1) + 0.5
    groups_a, groups_b = list("aaabbccde"), list("ccddeeffggg")

    def mean(x, y, groups_x, groups_y):
        values = [
            (float(x[i] @ y[j]) / 4 + 1) ** 3
            for i in range(len(x))
            for j in range(len(y))
            if groups_x[i] != groups_y[j]
        ]
        return sum(values) / len(values)

    expected = mean(a, a, groups_a, groups_a) + mean(b, b, groups_b, groups_b)
    expected -= 2 * mean(a, b, groups_a, groups_b)
    assert kernel_distance(a, b, groups_a, groups_b).mean == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_of_a_set_to_itself_is_zero_and_surely_so():
    a, groups = draw(12, 5), [str(i // 2) for i in range(12)]
    found = kernel_distance(a, a, groups, groups)
    assert found.mean == pytest.approx(0, abs=1e-12)
    assert found.low == pytest.approx(0, abs=1e-12) == found.high


@pytest.mark.parametrize("paired", [False, True], ids=["unrelated", "made from the real ones"])
def test_kernel_distance_is_zero_on_average_for_equal_distributions(paired):
    groups = [str(i // 3) for i in range(18)]
    others = groups if paired else [f"other {name}" for name in groups]
    values = []
    for trial in range(300):
        # Clips of one recording resemble each other; so do a clip and what was made of it.
        recordings = draw(6, 4, seed=2 * trial).repeat_interleave(3, 0)
        a = recordings + draw(18, 4, seed=10_000 + trial)
        own = recordings if paired else draw(6, 4, seed=2 * trial + 1).repeat_interleave(3, 0)
        b = own + draw(18, 4, seed=20_000 + trial)
        values.append(kernel_distance(a, b, groups, others).mean)
    values = np.array(values)
    error = values.std(ddof=1) / len(values) ** 0.5
    assert abs(values.mean()) < 3 * error
    assert (values < 0).any()


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_intervals_cover_the_true_kernel_distance(shift):
    # In one dimension (xy + 1)³ compares the first three moments.
    moments = (shift, 1 + shift**2, shift**3 + 3 * shift)
    true = sum(w * (m - n) ** 2 for w, m, n in zip((3, 3, 1), moments, (0, 1, 0), strict=True))
    names, others = [str(i) for i in range(50)], [f"b{i}" for i in range(50)]
    covered = 0
    for trial in range(150):
        a, b = draw(50, 1, seed=trial), draw(50, 1, seed=1000 + trial) + shift
        found = kernel_distance(a, b, names, others, trial)
        assert found.low is not None and found.high is not None
        covered += found.low <= true <= found.high
    assert covered / 150 >= 0.87


def test_one_recording_has_no_kernel_distance():
    assert kernel_distance(draw(3, 2), draw(3, 2, seed=1), list("aaa"), list("aaa")).mean is None


# Coverage ---------------------------------------------------------------------------------------


def test_coverage_and_density_agree_with_loops():
    real, made, k = draw(20, 3), draw(25, 3, seed=1) + 0.3, 4
    inside = np.zeros((20, 25))
    for i in range(20):
        radius = sorted(float((real[i] - r).norm()) for j, r in enumerate(real) if j != i)[k - 1]
        for j in range(25):
            inside[i, j] = float((real[i] - made[j]).norm()) <= radius
    assert coverage(real, made, k) == pytest.approx(inside.any(1).mean())
    assert density(real, made, k) == pytest.approx(inside.sum(0).mean() / k)


def test_coverage_of_equal_distributions_is_as_expected():
    found = [coverage(draw(80, 2, seed=i), draw(80, 2, seed=500 + i)) for i in range(60)]
    # Of the 2n - 1 others, the five nearest must not all be real (2002.09797, lemma 2).
    n, k = 80, 5
    missed = np.prod([(n - 1 - i) / (2 * n - 1 - i) for i in range(k)])
    assert np.mean(found) == pytest.approx(1 - missed, abs=3 * np.std(found) / len(found) ** 0.5)


def test_what_is_never_made_is_not_covered():
    real = torch.cat([draw(30, 2), draw(30, 2, seed=1) + 100])
    assert coverage(real, real) == 1
    assert coverage(real, real[:30]) == 0.5
    assert density(real, real + 1000) == 0


def test_coverage_of_too_few_clips_says_so():
    with pytest.raises(AvenirError, match="given 5 real clips and k = 5"):
        coverage(draw(5, 2), draw(9, 2))


# Features ---------------------------------------------------------------------------------------


@pytest.fixture
def encoder(world):
    return world.encoder


def clip_with_square(x, y=4, size=3, frames=8):
    """A square whose left edge is `x` at every frame."""
    video = torch.zeros(1, frames, 3, 16, 16)
    for frame in range(frames):
        left = x[frame] if isinstance(x, list) else x
        video[0, frame, :, y : y + size, left : left + size] = 1
    return video


def test_features_are_area_means_and_changes(encoder):
    video = torch.rand(2, 6, 3, 16, 16)
    means = rearrange(video, "b t c (h y) (w x) -> b c t h w (y x)", h=4, w=4).mean(-1)
    change = rearrange(video.diff(dim=1), "b t c (h y) (w x) -> b c h w (t y x)", h=4, w=4)
    expected = [means.flatten(1), change.square().mean(-1).sqrt().flatten(1)]
    torch.testing.assert_close(features_of(encoder, video), torch.cat(expected, dim=1))


def test_features_tell_where_things_are_and_how_they_move(encoder):
    still = features_of(encoder, clip_with_square(4))
    elsewhere = features_of(encoder, clip_with_square(9))
    # Within one cell: the mean of the cell does not tell.
    trembles = features_of(encoder, clip_with_square([4, 5] * 4))
    there = features_of(encoder, clip_with_square([2, 3, 4, 5, 6, 7, 8, 9]))
    back = features_of(encoder, clip_with_square([9, 8, 7, 6, 5, 4, 3, 2]))
    for one, other in ((still, elsewhere), (still, trembles), (there, back)):
        assert (one - other).norm() > 0.3


def test_features_of_long_and_large_clips_stay_small_and_do_not_depend_on_their_neighbours(encoder):
    for shape in ((2, 64, 3, 8, 8), (2, 1, 3, 40, 40), (2, 40, 3, 17, 90)):
        video = torch.rand(shape)
        found = features_of(encoder, video)
        assert found.shape[1] <= 2000
        torch.testing.assert_close(found[1:], features_of(encoder, video[1:]))


@pytest.mark.parametrize("channels", [11, 60, 130, 400, 900])
def test_features_of_many_channels_are_pooled_further(encoder, channels):
    encoder.encode = lambda video: torch.randn(len(video), 16, channels, 8, 8)
    found = features_of(encoder, torch.zeros(1, 16, 3, 16, 16))
    assert 600 < found.shape[1] <= 2000


# Independence -----------------------------------------------------------------------------------


def card(name, kind="kl", **provenance):
    return Card(name=name, fps=10, size=(64, 64), encoder={"kind": kind}, provenance=provenance)


def test_an_evaluator_of_other_weights_objective_and_recordings_may_judge():
    evaluator = card("judge", "segmenter", key="1", data="d", recordings=["b", "c"])
    check_independent(evaluator, card("teacher", "dino", key="2", data="d", recordings=["a"]))
    # Recordings of other files may be called the same.
    evaluator = card("judge", "segmenter", key="1", data="d", recordings=["b#1", "c#2"])
    check_independent(evaluator, card("teacher", "dino", key="2", data="e", recordings=["b#3"]))


@pytest.mark.parametrize(
    ("teacher", "reason"),
    [
        (card("teacher", "dino", key="1"), "weights, those of run 1"),
        (card("teacher", "segmenter", key="2"), "an objective, that of encoder kind 'segmenter'"),
        (
            card("teacher", "dino", key="2", data="d", recordings=["c", "b", "a"]),
            "2 training recordings, 'b' among them",
        ),
        (  # another split, size or rate of the same files
            card("teacher", "dino", key="2", data="e", recordings=["a", "c"]),
            "1 training recordings, 'c' among them",
        ),
    ],
)
def test_an_evaluator_that_shares_something_may_not(teacher, reason):
    evaluator = card("judge", "segmenter", key="1", data="d", recordings=["b", "c"])
    with pytest.raises(AvenirError, match=f"'judge' and teacher 'teacher' share {reason}"):
        check_independent(evaluator, teacher)


def test_recordings_in_a_row_are_told_apart_by_where_it_begins_and_ends():
    def teacher(**seen):
        return card("teacher", "dino", key="2", data="e", **seen)

    evaluator = card("judge", "segmenter", key="1", data="d", between=["train-000", "train-499"])
    check_independent(evaluator, teacher(between=["train-500", "train-999"]))
    check_independent(evaluator, teacher(recordings=["train-500", "train-777"]))
    with pytest.raises(AvenirError, match="share training recordings, 'train-400' to 'train-499'"):
        check_independent(evaluator, teacher(between=["train-400", "train-999"]))
    with pytest.raises(AvenirError, match="share 1 training recordings, 'train-123' among them"):
        check_independent(evaluator, teacher(recordings=["train-123", "train-777"]))


def test_what_stands_behind_a_run_counts_as_well():
    teacher = card("teacher", "dino", key="t")
    aligned = card("aligned", "kl", key="k", parents={"teacher": teacher.model_dump()})
    with pytest.raises(AvenirError, match="weights, those of run t"):
        check_independent(aligned, teacher)
    world = card("world", "kl", key="w", parents={"tokenizer": aligned.model_dump()})
    with pytest.raises(AvenirError, match="teacher 'teacher' share an objective"):
        check_judge(card("judge", "dino", key="j"), world)
    with pytest.raises(AvenirError, match="'aligned' is part of 'world'"):
        check_judge(aligned, world)
    check_judge(card("judge", "segmenter", key="j"), world)


def test_the_evaluator_that_ships_may_judge_beside_a_teacher_that_saw_other_recordings(source):
    from avenir.data.synthetic import Synthetic, SyntheticConfig

    evaluator = evaluator_for(Synthetic(SyntheticConfig()), "cpu")
    assert evaluator is not None
    apart = Synthetic(SyntheticConfig(first_recording=1_000_000)).fingerprint
    check_independent(evaluator.card, card("teacher", "dino", key="t", data=apart))
    same = Synthetic(SyntheticConfig()).fingerprint
    with pytest.raises(AvenirError, match="no card says which recordings"):
        check_independent(evaluator.card, card("teacher", "dino", key="t", data=same))
    assert evaluator_for(Synthetic(SyntheticConfig(size=(32, 32))), "cpu") is None
    assert evaluator_for(source, "cpu") is None
