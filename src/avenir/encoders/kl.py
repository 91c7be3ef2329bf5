"""A continuous tokenizer: groups of frames to a few channels per block, with a slight KL.

Latent diffusion's autoencoder (Rombach et al. 2021, 2112.10752) on the group-local time grid of
GAIA-2 (2503.20523). Its losses need no download.
"""

import torch
from pydantic import Field
from torch import Tensor

from avenir.clip import Batch, Progress
from avenir.config import Config
from avenir.encoders import Encoder, ParameterGroup, Posterior, padded
from avenir.losses.adversarial import Critic, adversarial, critic_loss
from avenir.losses.lpips import LPIPS
from avenir.losses.reconstruction import edges, kl, motion
from avenir.nn.conv import GroupDecoder, GroupEncoder
from avenir.shapes import Compression, Latents, Video


class KLWeights(Config):
    """What each loss counts."""

    l1: float = 1.0
    """Mean absolute error."""
    l2: float = 1.0
    """Mean squared error."""
    perceptual: float = 1.0
    """Edges at three scales: sharpness."""
    motion: float = 0.0
    """Differences between frames."""
    kl: float = 1e-4
    """Divergence of the latents from N(0, 1), per latent."""
    adversarial: float = 0.0
    """Score of a critic that is trained alongside; for the decoder stage. 0: no critic."""
    lpips: float = 0.0
    """LPIPS, when `encoder.lpips` names its weights."""


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
    weights: KLWeights = KLWeights()
    """What each loss counts."""


class KL(Encoder):
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

        self.critic = Critic() if config.weights.adversarial else None
        # Kept out of the module: its public weights are not this encoder's to save, and a trained
        # encoder opens where they are missing.
        self._lpips: list[LPIPS] = []

    def raw_posterior(self, video: Video) -> Posterior:
        """Encode; the log-variance is bounded so that it can neither vanish nor explode."""
        mean, log_variance = self.encoder(video).chunk(2, dim=2)
        return Posterior(mean, log_variance.clamp(-20, 10))

    def raw_decode(self, latents: Latents) -> Video:
        """Decode."""
        return self.decoder(latents)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Compare the decoded sample with the video."""
        assert batch.video is not None
        video = padded(batch.video, self.compression)
        posterior = self.raw_posterior(video)
        latents = posterior.sample(progress.generator)
        if self.config.decoder_noise:
            latents = latents + self._noise(latents, progress.generator)
        decoded = self.raw_decode(latents)
        error = decoded - video
        assert posterior.log_variance is not None
        losses = {
            "l1": error.abs().mean(),
            "l2": error.square().mean(),
            "perceptual": edges(decoded, video),
            "motion": motion(decoded, video),
            "kl": kl(posterior.mean, posterior.log_variance),
        }
        if self.critic is not None:
            losses["adversarial"] = adversarial(self.critic, decoded)
            losses["critic"] = critic_loss(self.critic, decoded, video)
        if self.config.lpips:
            self._lpips = self._lpips or [LPIPS.load(self.config.lpips).to(video.device)]
            losses["lpips"] = self._lpips[0](decoded, video)
        return losses

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

    def _noise(self, latents: Latents, generator: torch.Generator) -> Latents:
        # Up to `decoder_noise`, uniformly: generated latents are off by varying amounts (RAE).
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        strength = torch.rand(len(latents), 1, 1, 1, 1, generator=generator, device=latents.device)
        scale = latents.detach().std((0, 1, 3, 4), keepdim=True)
        return self.config.decoder_noise * strength * scale * noise
