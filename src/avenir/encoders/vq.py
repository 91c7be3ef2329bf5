"""A discrete tokenizer whose codes are learnt: a latent becomes the nearest vector of a codebook.

VQ-VAE (van den Oord et al. 2017, 1711.00937) on the trunk of the continuous tokenizer, its
codebook moved as running means (appendix A.1), its idle vectors begun anew (Jukebox, 2005.00341).
"""

from pydantic import Field
from torch import Tensor

from avenir.clip import Progress
from avenir.encoders import DiscreteTokenizer, Posterior, TrunkConfig, encoding_trunk
from avenir.losses.reconstruction import PixelWeights
from avenir.nn.quantize import Codebook


class VQWeights(PixelWeights):
    """What each loss counts."""

    commitment: float = 0.25
    """Latents staying near the code they became."""


class VQConfig(TrunkConfig):
    """The discrete tokenizer with a codebook."""

    kind: str = "vq"
    vocabulary: int = Field(1024, ge=2)
    """Vectors in the codebook."""
    channels: int = Field(16, ge=1)
    """Numbers in each of them."""
    decay: float = Field(0.99, gt=0, lt=1)
    """How long vectors remember what chose them."""
    rare: float = Field(0.05, ge=0, lt=1)
    """Share of an equal share of the choices below which a vector begins anew."""
    weights: VQWeights = VQWeights()
    """What each loss counts."""


class VQ(DiscreteTokenizer):
    """`b T C H W -> b t c h w`, one of `vocabulary` vectors at every position, and back."""

    Config = VQConfig
    quantiser: Codebook

    def __init__(self, config: VQConfig) -> None:
        encoder = encoding_trunk(config, config.channels)
        codebook = Codebook(config.vocabulary, config.channels, config.decay)
        super().__init__(config, config.weights, config.channels, encoder, codebook)
        self.rare = config.rare
        self._chosen: Posterior | None = None

    def latent_losses(self, posterior: Posterior, progress: Progress) -> dict[str, Tensor]:
        """Ask latents to stay near the code they became; codes follow after the step."""
        assert posterior.before is not None
        self._chosen = posterior
        error = posterior.before - posterior.mean.detach()
        return super().latent_losses(posterior, progress) | {"commitment": error.square().mean()}

    def after_step(self, progress: Progress) -> None:
        """Move the codebook toward the latents that chose from it."""
        if self._chosen is not None and self._chosen.before is not None:
            self.quantiser.follow(self._chosen.before, self.rare, progress.generator)
            self._chosen = None
        super().after_step(progress)
