"""A continuous tokenizer: groups of frames to a few channels per block, with a slight KL.

Latent diffusion's autoencoder (Rombach et al. 2021, 2112.10752) on the group-local time grid of
GAIA-2 (2503.20523). Its losses need no download.
"""

from pydantic import Field
from torch import Tensor

from avenir.clip import Progress
from avenir.encoders import ConvolutionalTokenizer, Posterior, TrunkConfig, encoding_trunk
from avenir.losses.reconstruction import ReconstructionWeights, kl
from avenir.shapes import Video


class KLConfig(TrunkConfig):
    """The continuous tokenizer."""

    kind: str = "kl"
    channels: int = Field(16, ge=1)
    """Numbers per latent position."""
    weights: ReconstructionWeights = ReconstructionWeights()
    """What each loss counts."""


class KL(ConvolutionalTokenizer):
    """`b T C H W -> b t c h w` and back; trained on samples of the posterior, used by its mean."""

    Config = KLConfig

    def __init__(self, config: KLConfig) -> None:
        encoder = encoding_trunk(config, 2 * config.channels)
        super().__init__(config, config.weights, config.channels, encoder)

    def raw_posterior(self, video: Video) -> Posterior:
        """Encode; the log-variance is bounded so that it can neither vanish nor explode."""
        mean, log_variance = self.encoder(video).chunk(2, dim=2)
        return Posterior(mean, log_variance.clamp(-20, 10))

    def latent_losses(self, posterior: Posterior, progress: Progress) -> dict[str, Tensor]:
        """Stay near N(0, 1)."""
        return {"kl": kl(posterior.mean, posterior.log_variance)}
