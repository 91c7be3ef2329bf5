import math

import pytest
import torch

from avenir.errors import AvenirError
from avenir.evaluation.metrics.frames import BEST_PSNR, moving_pixels, psnr, ssim


def video(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_psnr_of_a_constant_shift_is_that_of_the_shift():
    true = torch.zeros(2, 3, 3, 16, 16)
    made = true + 0.2  # 0.1 in [0, 1]
    assert torch.allclose(psnr(made, true), torch.full((2, 3), 20.0), atol=1e-4)


def test_psnr_of_equal_frames_is_the_best_and_finite():
    true = video(1, 2, 3, 16, 16)
    assert torch.equal(psnr(true, true), torch.full((1, 2), BEST_PSNR))


def test_values_out_of_range_are_compared_as_they_would_be_shown():
    true = torch.ones(1, 1, 3, 16, 16)
    assert psnr(true * 3, true).item() == BEST_PSNR


def test_psnr_is_per_clip_and_per_frame():
    true = torch.zeros(2, 2, 3, 16, 16)
    made = true.clone()
    made[1, 0] += 0.2
    scores = psnr(made, true)
    assert scores[1, 0].item() == pytest.approx(20, abs=1e-4)
    assert (scores.flatten()[[0, 1, 3]] == BEST_PSNR).all()


def test_moving_pixels_are_those_that_changed_by_more_than_ten_levels_in_any_channel():
    last = torch.zeros(1, 1, 3, 16, 16)
    true = last.repeat(1, 2, 1, 1, 1)
    true[0, 0, 2, :4] += 11 / 127.5
    true[0, 1, :, :4] += 10 / 127.5
    moved = moving_pixels(true, last)
    assert moved[0, 0].sum() == 4 * 16
    assert moved[0, 0, :4].all()
    assert not moved[0, 1].any()


def test_moving_psnr_looks_at_moving_pixels_only():
    last = torch.full((1, 1, 3, 16, 16), -1.0)
    true = last.clone()
    true[..., :4, :] = 0.5
    made = true.clone()
    made[..., :4, :] -= 0.2
    made[..., 4:, :] += 1
    assert psnr(made, true, moving_pixels(true, last)).item() == pytest.approx(20, abs=1e-4)


def test_moving_psnr_of_a_still_frame_is_unknown():
    still = video(1, 1, 3, 16, 16)
    assert psnr(still, still, moving_pixels(still, still)).isnan().all()


def test_ssim_of_a_video_with_itself_is_one():
    true = video(2, 3, 3, 16, 20)
    assert torch.allclose(ssim(true, true), torch.ones(2, 3), atol=1e-5)


def test_ssim_equals_the_paper_computed_pixel_by_pixel():
    x, y = video(1, 1, 3, 13, 14, seed=1), video(1, 1, 3, 13, 14, seed=2)
    a, b = ((v[0, 0].double().numpy() + 1) / 2 for v in (x, y))
    weights = [
        [math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / 4.5) for j in range(11)] for i in range(11)
    ]
    total = sum(map(sum, weights))
    values = []
    for c in range(3):
        for top in range(3):
            for left in range(4):
                patch = [
                    (weights[i][j] / total, a[c, top + i, left + j], b[c, top + i, left + j])
                    for i in range(11)
                    for j in range(11)
                ]
                mean_a = sum(w * p for w, p, _ in patch)
                mean_b = sum(w * q for w, _, q in patch)
                var_a = sum(w * (p - mean_a) ** 2 for w, p, _ in patch)
                var_b = sum(w * (q - mean_b) ** 2 for w, _, q in patch)
                cov = sum(w * (p - mean_a) * (q - mean_b) for w, p, q in patch)
                values.append(
                    (2 * mean_a * mean_b + 1e-4)
                    * (2 * cov + 9e-4)
                    / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
                )
    assert ssim(x, y).item() == pytest.approx(sum(values) / len(values), abs=1e-5)


def test_ssim_of_too_small_frames_says_what_it_needs():
    with pytest.raises(AvenirError, match="8×16"):
        ssim(video(1, 1, 3, 8, 16), video(1, 1, 3, 8, 16))
