"""The contract of an encoder: video to latents and, where it can, back.

One file in this folder is one kind. An encoder knows nothing of conditions, predictors or files.
A teacher is an encoder; a tokenizer is an encoder that can decode.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from avenir.clip import Batch, Progress
from avenir.config import Config
from avenir.errors import AvenirError
from avenir.shapes import Compression, Latents, Video

Hide = Callable[[Latents], Latents]
"""Puts something else in the place of some latents, so that decoding has to do without them."""


class Posterior(NamedTuple):
    """What an encoder knows of the latents: their mean and, when it doubts, a log-variance."""

    mean: Latents
    log_variance: Latents | None = None

    def sample(self, generator: torch.Generator) -> Latents:
        """Draw latents; a deterministic encoder gives its mean."""
        if self.log_variance is None:
            return self.mean
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device)
        return self.mean + noise * (0.5 * self.log_variance).exp()


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters and the losses they descend, each by its weight."""

    parameters: list[nn.Parameter]
    weights: dict[str, float]


class Encoder(nn.Module, ABC):
    """Video `b T C H W` in [-1, 1] to latents `b t c h w`, on the group-local time grid.

    Latents leave normalised by `latent_mean` and `latent_std`, statistics of the training latents
    that are set once after training and stored with the weights.
    """

    Config: ClassVar[type[Config]]
    compression: Compression
    channels: int
    vocabulary: int | None = None
    can_decode: bool = False
    look_back: int = 0
    """How many earlier latent frames a decoded frame may depend on."""
    needs: tuple[str, ...] = ()
    """Signals that training reads from the batch."""
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, compression: Compression, channels: int) -> None:
        super().__init__()
        self.compression, self.channels = compression, channels
        self.register_buffer("latent_mean", torch.zeros(channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(channels, 1, 1))

    @abstractmethod
    def raw_posterior(self, video: Video) -> Posterior:
        """Encode whole groups and blocks; latents not yet normalised."""

    @abstractmethod
    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return every term of training by its plain name, unweighted."""

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """Say which parameters descend which losses; the first group makes the latents."""

    def raw_decode(self, latents: Latents) -> Video:
        """Decode latents that are not normalised."""
        raise AvenirError(
            f"a {type(self).__name__} was asked to decode; it reads video and cannot make any: "
            "use an encoder that can decode, such as kind 'kl'"
        )

    def after_step(self, progress: Progress) -> None:
        """Do what follows every step of training: move averages, codebooks."""

    def posterior(self, video: Video) -> Posterior:
        """Encode any size and length: edges are repeated up to whole blocks and groups."""
        raw = self.raw_posterior(padded(video, self.compression))
        log_variance = raw.log_variance
        if log_variance is not None:
            log_variance = log_variance - 2 * self.latent_std.log()
        return Posterior((raw.mean - self.latent_mean) / self.latent_std, log_variance)

    def encode(self, video: Video) -> Latents:
        """Return the mean latents, normalised."""
        return self.posterior(video).mean

    def decode(self, latents: Latents) -> Video:
        """Decode normalised latents to `t·f_t` frames."""
        return self.raw_decode(latents * self.latent_std + self.latent_mean)

    def decode_stream(self, chunks: Iterator[Latents]) -> Iterator[Video]:
        """Decode chunk by chunk in bounded memory, equal to decoding all at once."""
        earlier: Latents | None = None
        for chunk in chunks:
            window = chunk if earlier is None else torch.cat([earlier, chunk], dim=1)
            num_old = window.shape[1] - chunk.shape[1]
            yield self.decode(window)[:, num_old * self.compression.t :]
            earlier = window[:, max(0, window.shape[1] - self.look_back) :]


class Tokenizer(Encoder):
    """An encoder that can decode, and learns by what its decoding loses."""

    can_decode = True

    @abstractmethod
    def raw_decode(self, latents: Latents) -> Video:
        """Decode latents that are not normalised."""

    @abstractmethod
    def decoding_losses(
        self, posterior: Posterior, video: Video, progress: Progress, hide: Hide = lambda z: z
    ) -> dict[str, Tensor]:
        """Compare what is decoded from a raw posterior with its `video`, whole groups and blocks.

        Apart from `losses`, so that more may be asked of the latents on their way. What is decoded
        goes through `hide` last, when all that decoding draws is drawn.
        """

    @abstractmethod
    def freeze_encoder(self) -> None:
        """Stop training what makes latents, so that only their decoding goes on improving."""

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Encode, decode, compare."""
        assert batch.video is not None
        video = padded(batch.video, self.compression)
        return self.decoding_losses(self.raw_posterior(video), video, progress)


def padded(video: Video, compression: Compression) -> Tensor:
    """Repeat the last frame, row and column until every group and block is whole."""
    for axis, factor in ((1, compression.t), (3, compression.h), (4, compression.w)):
        missing = -video.shape[axis] % factor
        if missing:
            edge = video.narrow(axis, video.shape[axis] - 1, 1)
            repeats = [1] * video.dim()
            repeats[axis] = missing
            video = torch.cat([video, edge.repeat(repeats)], dim=axis)
    return video
