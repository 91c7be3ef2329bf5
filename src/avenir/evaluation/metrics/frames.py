"""How near made frames are to true ones: PSNR, SSIM, and PSNR where something moved.

Every score is per clip and per frame, `b T`, so that means and intervals can be taken afterwards.
Videos come in [-1, 1] and are compared in [0, 1]. Knows no worlds and no recordings.
"""

from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor

from avenir.errors import AvenirError
from avenir.shapes import Video

Scores = dict[str, Float[Tensor, "b T"]]
"""One score per clip and frame under each metric's name; NaN where there is nothing to score."""

Frame = Float[Tensor, "b 1 C H W"]
"""One frame of every clip, in [-1, 1]."""

BEST_PSNR = 60.0
"""In dB; frames that agree to within 8-bit rounding (58.9 dB) are equal, and an infinite PSNR would
spoil every mean."""

MOVING = 10.5 / 255
"""A pixel moved when a channel changed by more than 10 of 255 levels, whatever rounding does."""

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


class Metric(NamedTuple):
    """How to name a score, in which unit, and which way is better."""

    label: str
    unit: str
    higher_is_better: bool


METRICS = {
    "psnr": Metric("PSNR", "dB", True),
    "moving_psnr": Metric("PSNR of moving pixels", "dB", True),
    "ssim": Metric("SSIM", "", True),
    "ego_error": Metric("Ego position error", "px", False),
    "ego_iou": Metric("Ego overlap (IoU)", "", True),
    "object_error": Metric("Object position error", "px", False),
    "returned_error": Metric("Position error of what was hidden", "px", False),
    "large_iou": Metric("Overlap of cars and trucks (IoU)", "", True),
    "small_iou": Metric("Overlap of motorbikes and pedestrians (IoU)", "", True),
    "state_error": Metric("Error of the state read", "deviations", False),
}
"""Every metric there is: those of pictures first, then those that `readout.py` takes."""


def compare(made: Video, true: Video, last: Frame) -> Scores:
    """Score made frames against true ones; `last` is the last observed one."""
    moved = moving_pixels(true, last)
    return {
        "psnr": psnr(made, true),
        "moving_psnr": psnr(made, true, moved),
        "ssim": ssim(made, true),
    }


def psnr(
    made: Video, true: Video, where: Bool[Tensor, "b T H W"] | None = None
) -> Float[Tensor, "b T"]:
    """Return 10·log10(1 / mean squared error) in dB, at most `BEST_PSNR`.

    `where` restricts the mean to some pixels; a frame that has none of them scores NaN.
    """
    squares = (_unit(made) - _unit(true)).square().mean(2)
    if where is None:
        error = squares.mean((2, 3))
    else:
        error = (squares * where).sum((2, 3)) / where.sum((2, 3))
    return -10 * torch.log10(error.clamp(min=10 ** (-BEST_PSNR / 10)))


def moving_pixels(true: Video, last: Frame) -> Bool[Tensor, "b T H W"]:
    """Mark pixels of which a channel differs from the last observed frame by over 10 levels."""
    return (_unit(true) - _unit(last)).abs().amax(2) > MOVING


def ssim(made: Video, true: Video) -> Float[Tensor, "b T"]:
    """Return the structural similarity (Wang et al. 2004, eq. 13), meaned over channels.

    An 11×11 Gaussian of deviation 1.5 weighs every neighbourhood that lies inside the picture.
    """
    if min(true.shape[-2:]) < _WINDOW:
        raise AvenirError(
            f"SSIM was given frames of {true.shape[-2]}×{true.shape[-1]}; its window needs "
            f"{_WINDOW}×{_WINDOW} pixels: evaluate at a larger size"
        )
    x, y = (rearrange(_unit(video), "b T C H W -> (b T C) 1 H W") for video in (made, true))
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x * mean_x
    variance_y = _blurred(y * y) - mean_y * mean_y
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    similarity = luminance * structure
    return reduce(similarity, "(b T C) 1 H W -> b T", "mean", b=len(true), C=true.shape[2])


def _unit(video: Tensor) -> Tensor:
    return (video.float().clamp(-1, 1) + 1) / 2


def _blurred(images: Float[Tensor, "n 1 H W"]) -> Float[Tensor, "n 1 h w"]:
    # Two products with banded matrices: on a CPU ten times as fast as the convolution they equal.
    down, across = (_band(size, images.device) for size in images.shape[-2:])
    return down @ images @ across.T


def _band(size: int, device: torch.device) -> Float[Tensor, "h H"]:
    """Return the matrix that weighs every neighbourhood inside a line of `size` pixels."""
    offsets = torch.arange(_WINDOW, device=device) - _WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    rows = torch.arange(size - _WINDOW + 1, device=device)
    band = torch.zeros(len(rows), size, device=device)
    for index, weight in enumerate(weights / weights.sum()):
        band[rows, rows + index] = weight
    return band
