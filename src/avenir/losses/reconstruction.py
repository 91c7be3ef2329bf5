"""How far a decoded video is from the true one, pixel by pixel and edge by edge."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from avenir.shapes import Latents, Video


def edges(decoded: Video, video: Video, num_scales: int = 3) -> Float[Tensor, ""]:
    """Compare horizontal and vertical differences at several scales, L1.

    A perceptual term that needs no download: it rewards an edge in the right place more than the
    right shade, which is what L1 and L2 alone smear.
    """
    error = rearrange(decoded - video, "b t c h w -> (b t) c h w")
    total = error.new_zeros(())
    for _ in range(num_scales):
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        if min(error.shape[-2:]) < 4:
            break
        error = avg_pool2d(error, 2)
    return total


def kl(mean: Latents, log_variance: Latents) -> Float[Tensor, ""]:
    """Divergence of N(mean, variance) from N(0, 1), averaged over latents (1312.6114, App. B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def motion(decoded: Video, video: Video) -> Float[Tensor, ""]:
    """Compare differences of successive frames, L1: without it a still background pays best."""
    return (
        (decoded.diff(dim=1) - video.diff(dim=1)).abs().mean()
        if video.shape[1] > 1
        else (torch.zeros((), device=video.device))
    )
