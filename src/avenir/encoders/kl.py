"""A continuous tokenizer: groups of frames to a few channels per block, with a slight KL.

Latent diffusion's autoencoder (Rombach et al. 2021, 2112.10752) on the group-local time grid of
GAIA-2 (2503.20523). Its losses need no download.
"""

from pydantic import Field
from torch import Tensor

from avenir.clip import Progress
from avenir.config import Config
from avenir.encoders import Hide, ParameterGroup, Posterior, Tokenizer
from avenir.losses.reconstruction import Comparison, ReconstructionWeights, kl, noised
from avenir.nn.conv import GroupDecoder, GroupEncoder
from avenir.shapes import Compression, Latents, Video


class KLConfig(Config):
    """The continuous tokenizer."""

    kind: str = "kl"
    compression: tuple[int, int, int] = (4, 8, 8)
    """Frames, rows and columns per latent, from 1, 8, 8 to 8, 32, 32."""
    channels: int = Field(16, ge=1)
    """Numbers per latent position."""
    width: int = Field(64, ge=8)
    """Channels of the first stage; they double at every halving, up to four times."""
    depth: int = Field(2, ge=1)
    """Residual blocks per stage of the encoder."""
    decoder_depth: int = Field(3, ge=1)
    """Residual blocks per stage of the decoder."""
    look_back: int = Field(1, ge=0)
    """Earlier latent frames that decoding a frame may use."""
    decoder_noise: float = Field(0.0, ge=0)
    """Noise on latents, in their standard deviations, that decoding learns to bear."""
    lpips: str | None = None
    """A safetensors file with LPIPS' weights; none: not used."""
    weights: ReconstructionWeights = ReconstructionWeights()
    """What each loss counts."""


class KL(Tokenizer):
    """`b T C H W -> b t c h w` and back; trained on samples of the posterior, used by its mean."""

    Config = KLConfig

    def __init__(self, config: KLConfig) -> None:
        super().__init__(Compression(*config.compression), config.channels)
        self.config = config
        self.look_back = config.look_back
        self.encoder = GroupEncoder(
            self.compression, config.width, config.depth, 2 * config.channels
        )
        self.decoder = GroupDecoder(
            self.compression, config.width, config.decoder_depth, config.channels, config.look_back
        )
        self.compare = Comparison(config.weights, config.lpips)
        self.critic = self.compare.critic

    def raw_posterior(self, video: Video) -> Posterior:
        """Encode; the log-variance is bounded so that it can neither vanish nor explode."""
        mean, log_variance = self.encoder(video).chunk(2, dim=2)
        return Posterior(mean, log_variance.clamp(-20, 10))

    def raw_decode(self, latents: Latents) -> Video:
        """Decode."""
        return self.decoder(latents)

    def decoding_losses(
        self, posterior: Posterior, video: Video, progress: Progress, hide: Hide = lambda z: z
    ) -> dict[str, Tensor]:
        """Compare the decoded sample with the video."""
        latents = posterior.sample(progress.generator)
        latents = noised(latents, self.config.decoder_noise, progress.generator)
        return self.compare(self.raw_decode(hide(latents)), video) | {"kl": kl(*posterior)}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Train all that is not frozen; the critic descends its own loss only."""
        parts = [self.encoder, self.decoder]
        trained = [p for part in parts for p in part.parameters() if p.requires_grad]
        groups = [ParameterGroup(trained, self.config.weights.model_dump())]
        if self.critic is not None:
            groups.append(ParameterGroup(list(self.critic.parameters()), {"critic": 1.0}))
        return groups

    def freeze_encoder(self) -> None:
        """Train the decoder only."""
        self.encoder.requires_grad_(False)
