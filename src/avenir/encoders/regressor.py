"""What a recorded signal says, read from frames: a small network that regresses a robot's state.

Its latents are the features that its answer is made of. An evaluator for video that has no exact
labels: it judges what worlds imagine, by its features and by the signal it reads from them, so it
learns to bear what imagined frames suffer from. Frames are read one by one. It cannot decode.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, huber_loss, pixel_unshuffle

from avenir.augmentation import Worsening, worsened
from avenir.clip import Batch, Progress
from avenir.encoders import Encoder, ParameterGroup, Posterior
from avenir.errors import AvenirError
from avenir.nn.conv import ChannelNorm, ResidualBlock
from avenir.shapes import Compression, Latents, Video

_CELLS = 4
"""Rows and columns that features are pooled to before the signal is read: where things are."""


class RegressorConfig(Worsening):
    """The reader of a recorded signal."""

    kind: str = "regressor"
    signal: str = "state"
    """What is read; every frame has its own."""
    outputs: int = Field(ge=1)
    """Numbers of the signal."""
    widths: tuple[int, ...] = (32, 48, 64)
    """Channels at half, a quarter, an eighth … of the frame's sides."""
    channels: int = Field(32, ge=1)
    """Channels of the features."""


class Regressor(Encoder):
    """`b T C H W -> b T c h w`: features from which `read` takes the signal."""

    Config = RegressorConfig

    def __init__(self, config: RegressorConfig) -> None:
        side = 2 ** len(config.widths)
        super().__init__(Compression(1, side, side), config.channels)
        self.config, self.needs = config, (config.signal,)
        layers: list[nn.Module] = [nn.Conv2d(12, config.widths[0], 3, padding=1)]
        for width, wider in zip(config.widths, config.widths[1:], strict=False):
            layers += [ResidualBlock(width), nn.Conv2d(width, wider, 2, stride=2)]
        last = config.widths[-1]
        layers += [ResidualBlock(last), ResidualBlock(last), ChannelNorm(last), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(last, config.channels, 1))
        self.head = nn.Sequential(
            nn.SiLU(),
            nn.Linear(config.channels * _CELLS**2, 4 * config.channels),
            nn.SiLU(),
            nn.Linear(4 * config.channels, config.outputs),
        )
        # Brings the signal to mean 0 and deviation 1; what it counts while training is what
        # readings are brought back by.
        self.scale = nn.BatchNorm1d(config.outputs, eps=1e-8, momentum=None, affine=False)

    def raw_posterior(self, video: Video) -> Posterior:
        """Return the features of every frame."""
        frames = rearrange(video, "b T C H W -> (b T) C H W")
        features = self._features(frames)
        return Posterior(rearrange(features, "(b T) c h w -> b T c h w", b=len(video)))

    @torch.no_grad()
    def read(self, latents: Latents) -> Float[Tensor, "b T a"]:
        """Read the signal from latents, in its deviations from its mean over training."""
        features = latents * self.latent_std + self.latent_mean
        return self._regress(features.flatten(0, 1)).unflatten(0, latents.shape[:2])

    @torch.no_grad()
    def measured(self, video: Video) -> Float[Tensor, "b T a"]:
        """Read the signal from frames, in its own unit."""
        mean, deviation = self._statistics
        output = self._regress(self._features(video.flatten(0, 1))).unflatten(0, video.shape[:2])
        return output * deviation + mean

    def normalised(self, signal: Float[Tensor, "b T a"]) -> Float[Tensor, "b T a"]:
        """Bring a true signal to the unit of readings."""
        mean, deviation = self._statistics
        return (signal - mean) / deviation

    @property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the signal over training."""
        mean, variance = self.scale.running_mean, self.scale.running_var
        assert mean is not None and variance is not None
        return mean, (variance + self.scale.eps).sqrt()

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Compare with the signal, beyond one deviation by the distance itself."""
        assert batch.video is not None
        true = batch.signals[self.config.signal].flatten(0, 1)
        if true.shape[1] != self.config.outputs:
            raise AvenirError(
                f"signal {self.config.signal!r} has {true.shape[1]} numbers and encoder.outputs is "
                f"{self.config.outputs}: set encoder.outputs={true.shape[1]}"
            )
        frames = rearrange(batch.video, "b T C H W -> (b T) C H W")
        output = self._regress(self._features(worsened(frames, self.config, progress.generator)))
        return {"signal": huber_loss(output, self.scale(true))}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Train everything."""
        return [ParameterGroup(list(self.parameters()), {"signal": 1.0})]

    def _features(self, frames: Float[Tensor, "n C H W"]) -> Float[Tensor, "n c h w"]:
        return self.layers(pixel_unshuffle(frames.contiguous(memory_format=torch.channels_last), 2))

    def _regress(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n a"]:
        return self.head(adaptive_avg_pool2d(features, _CELLS).flatten(1))
