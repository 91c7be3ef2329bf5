"""How far a decoded video is from the true one, pixel by pixel, edge by edge, and to judges.

What every tokenizer that decodes to pixels has in common: terms, their weights, the networks that
some of them ask, and noise on latents. Knows no encoder.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from avenir.config import Config
from avenir.losses.adversarial import Critic, adversarial, critic_loss
from avenir.losses.lpips import LPIPS
from avenir.shapes import Latents, Video


class PixelWeights(Config):
    """What each loss of decoded pixels counts."""

    l1: float = 1.0
    """Mean absolute error."""
    l2: float = 1.0
    """Mean squared error."""
    perceptual: float = 1.0
    """Edges at three scales: sharpness."""
    motion: float = 0.0
    """Differences between frames."""
    adversarial: float = 0.0
    """Score of a critic that is trained alongside; for the decoder stage. 0: no critic."""
    lpips: float = 0.0
    """LPIPS, when `encoder.lpips` names its weights."""


class ReconstructionWeights(PixelWeights):
    """What each loss counts."""

    kl: float = 1e-4
    """Divergence of the latents from N(0, 1), per latent."""


class ReconstructionLoss:
    """The losses of a decoded video, with the networks that judge it.

    No module: the critic is the tokenizer's to train and to save; LPIPS' public weights are not,
    and a trained tokenizer opens where they are missing.
    """

    def __init__(self, weights: PixelWeights, lpips: str | None) -> None:
        self.critic = Critic() if weights.adversarial else None
        self._path = lpips
        self._lpips: LPIPS | None = None

    def __call__(self, decoded: Video, video: Video) -> dict[str, Tensor]:
        """Return every term by its plain name, unweighted; LPIPS is opened when first asked."""
        error = decoded - video
        losses = {
            "l1": error.abs().mean(),
            "l2": error.square().mean(),
            "perceptual": edges(decoded, video),
            "motion": motion(decoded, video),
        }
        if self.critic is not None:
            losses["adversarial"] = adversarial(self.critic, decoded)
            losses["critic"] = critic_loss(self.critic, decoded, video)
        if self._path is not None:
            self._lpips = self._lpips or LPIPS.load(self._path).to(video.device)
            losses["lpips"] = self._lpips(decoded, video)
        return losses


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


def kl(mean: Latents, log_variance: Latents | None) -> Float[Tensor, ""]:
    """Divergence of N(mean, variance) from N(0, 1), averaged over latents (1312.6114, App. B).

    Without a variance it is taken as 1: half the square is left, as in regularised autoencoders
    (1903.12436).
    """
    if log_variance is None:
        return 0.5 * mean.square().mean()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def motion(decoded: Video, video: Video) -> Float[Tensor, ""]:
    """Compare differences of successive frames, L1: without it a still background pays best."""
    return (
        (decoded.diff(dim=1) - video.diff(dim=1)).abs().mean()
        if video.shape[1] > 1
        else (torch.zeros((), device=video.device))
    )


def noised(latents: Latents, most: float, generator: torch.Generator) -> Latents:
    """Put up to `most` standard deviations of noise on latents, so that decoding learns to bear it.

    Each row by its own strength, drawn uniformly: generated latents are off by varying amounts
    (RAE, 2510.11690).
    """
    if not most:
        return latents
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    strength = torch.rand(len(latents), 1, 1, 1, 1, generator=generator, device=latents.device)
    return latents + most * strength * latents.detach().std((0, 1, 3, 4), keepdim=True) * noise
