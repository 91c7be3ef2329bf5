"""The contract of an encoder: video to latents and, where it can, back.

One file in this folder is one kind. An encoder knows nothing of conditions, predictors or files.
A teacher is an encoder; a tokenizer is an encoder that can decode.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from avenir.clip import Batch, Progress
from avenir.config import Config
from avenir.errors import AvenirError
from avenir.losses.reconstruction import PixelWeights, ReconstructionLoss, noised
from avenir.nn.conv import GroupDecoder, GroupEncoder
from avenir.nn.quantize import Codebook, CodeUsage, FiniteScalar, perplexity, usage
from avenir.nn.wavelet import WaveletDecoder, WaveletEncoder
from avenir.shapes import Compression, Latents, Tokens, Video

COLLAPSED = 0.05
"""Share of what latents could fill, of codes or of directions, below which they have collapsed."""

Hide = Callable[[Latents], Latents]
"""Puts something else in the place of some latents, so that decoding has to do without them."""


class Posterior(NamedTuple):
    """What an encoder knows of the latents: their mean and, when it doubts, a log-variance.

    Where latents are codes, `before` is what was quantised.
    """

    mean: Latents
    log_variance: Latents | None = None
    before: Latents | None = None

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
    modality: ClassVar[Literal["video", "text"]] = "video"
    """What its frames are: pictures, or the tokens of a text."""
    views: int = 1
    """Cameras whose pictures stand side by side in a frame: each is encoded on its own."""
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

    def raw_tokens(self, latents: Latents) -> Tokens:
        """Number codes that are not normalised."""
        raise AvenirError(
            f"a {type(self).__name__} was asked for tokens; its latents are numbers, not codes: "
            "use a discrete encoder, such as kind 'fsq'"
        )

    def raw_embed(self, tokens: Tokens) -> Latents:
        """Return the codes of tokens, not normalised."""
        raise AvenirError(
            f"a {type(self).__name__} was given tokens; its latents are numbers, not codes: "
            "use a discrete encoder, such as kind 'fsq'"
        )

    def after_step(self, progress: Progress) -> None:
        """Do what follows every step of training: move averages, codebooks."""

    def posterior(self, video: Video) -> Posterior:
        """Encode any size and length: edges are repeated up to whole blocks and groups."""
        raw = self.raw_posterior(padded(self.apart(video), self.compression))
        mean, log_variance = (raw.mean - self.latent_mean) / self.latent_std, raw.log_variance
        if log_variance is not None:
            log_variance = self._together(log_variance - 2 * self.latent_std.log())
        return Posterior(self._together(mean), log_variance)

    def encode(self, video: Video) -> Latents:
        """Return the mean latents, normalised."""
        return self.posterior(video).mean

    def decode(self, latents: Latents) -> Video:
        """Decode normalised latents to `t·f_t` frames."""
        raw = self.apart(latents) * self.latent_std + self.latent_mean
        return self._together(self.raw_decode(raw))

    def apart(self, wide: Float[Tensor, "b t c h wide"]) -> Float[Tensor, "rows t c h w"]:
        """Take the views out of each frame, those of a row of the batch in a row."""
        return rearrange(wide, "b t c h (v w) -> (b v) t c h w", v=self.views)

    def _together(self, views: Float[Tensor, "rows t c h w"]) -> Float[Tensor, "b t c h wide"]:
        return rearrange(views, "(b v) t c h w -> b t c h (v w)", v=self.views)

    def tokens(self, latents: Latents) -> Tokens:
        """Number normalised latents by the nearest codes; discrete encoders only."""
        return self.raw_tokens(latents * self.latent_std + self.latent_mean)

    def embed(self, tokens: Tokens) -> Latents:
        """Return the normalised latents of tokens; the inverse of `tokens` on codes."""
        return (self.raw_embed(tokens) - self.latent_mean) / self.latent_std

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


class FixedTokenizer(Tokenizer):
    """A tokenizer that has nothing to learn."""

    def decoding_losses(
        self, posterior: Posterior, video: Video, progress: Progress, hide: Hide = lambda z: z
    ) -> dict[str, Tensor]:
        """Compare what is left where something was hidden."""
        return {"l1": (self.raw_decode(hide(posterior.mean)) - video).abs().mean()}

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Refuse: there is nothing to learn."""
        raise AvenirError(
            f"a {type(self).__name__} has no weights to be trained; the statistics of its latents "
            "are taken all the same: train its recipe as it is"
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """Name nothing."""
        return []

    def freeze_encoder(self) -> None:
        """Freeze nothing."""


class DecodingConfig(Config):
    """How a convolutional tokenizer decodes, and what it learns by."""

    compression: tuple[int, int, int] = (4, 8, 8)
    """Frames, rows and columns per latent, from 1, 8, 8 to 8, 32, 32."""
    width: int = Field(64, ge=8)
    """Channels of the finest stage; they double at every halving, up to four times."""
    decoder_depth: int = Field(3, ge=1)
    """Residual blocks per stage of the decoder."""
    look_back: int = Field(1, ge=0, le=1024)
    """Earlier latent frames that decoding a frame may use."""
    decoder_noise: float = Field(0.0, ge=0)
    """Noise on latents, in their standard deviations, that decoding learns to bear."""
    trunk: Literal["wavelet"] | None = None
    """How pixels are separated before convolutions: coarse from fine, in two levels, along time
    too (Cosmos); none: blocks of pixels and all frames of a group are folded into channels."""
    lpips: str | None = None
    """A safetensors file with LPIPS' weights; none: not used."""


class TrunkConfig(DecodingConfig):
    """How a tokenizer encodes that is convolutional on both sides."""

    depth: int = Field(2, ge=1)
    """Residual blocks per stage of the encoder."""


def encoding_trunk(config: TrunkConfig, channels: int) -> GroupEncoder | WaveletEncoder:
    """Build what makes `channels` numbers per latent position, each group on its own."""
    trunk = WaveletEncoder if config.trunk == "wavelet" else GroupEncoder
    return trunk(Compression(*config.compression), config.width, config.depth, channels)


class ConvolutionalTokenizer(Tokenizer):
    """A tokenizer that decodes by convolutions, a few groups at a time, from what `encoder` says.

    Kinds differ in that, and in what they ask of latents.
    """

    def __init__(
        self, config: DecodingConfig, weights: PixelWeights, channels: int, encoder: nn.Module
    ) -> None:
        super().__init__(Compression(*config.compression), channels)
        self.look_back, self.decoder_noise = config.look_back, config.decoder_noise
        self.encoder = encoder
        trunk = WaveletDecoder if config.trunk == "wavelet" else GroupDecoder
        self.decoder = trunk(
            self.compression, config.width, config.decoder_depth, channels, config.look_back
        )
        self.weights = weights.model_dump()
        self.compare = ReconstructionLoss(weights, config.lpips)
        self.critic = self.compare.critic

    @abstractmethod
    def latent_losses(self, posterior: Posterior, progress: Progress) -> dict[str, Tensor]:
        """Return what is asked of latents beside decoding, and what is worth watching in them."""

    def raw_decode(self, latents: Latents) -> Video:
        """Decode."""
        return self.decoder(latents)

    def decoding_losses(
        self, posterior: Posterior, video: Video, progress: Progress, hide: Hide = lambda z: z
    ) -> dict[str, Tensor]:
        """Compare what is decoded from a sample, with noise on it, with the video."""
        latents = posterior.sample(progress.generator)
        latents = noised(latents, self.decoder_noise, progress.generator)
        losses = self.compare(self.raw_decode(hide(latents)), video)
        return losses | self.latent_losses(posterior, progress)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Train all that is not frozen; the critic descends its own loss only."""
        parts = [self.encoder, self.decoder]
        trained = [p for part in parts for p in part.parameters() if p.requires_grad]
        groups = [ParameterGroup(trained, self.weights)]
        if self.critic is not None:
            groups.append(ParameterGroup(list(self.critic.parameters()), {"critic": 1.0}))
        return groups

    def freeze_encoder(self) -> None:
        """Train the decoder only."""
        self.encoder.requires_grad_(False)


class DiscreteTokenizer(ConvolutionalTokenizer):
    """A convolutional tokenizer whose latents are codes: tokens and embeddings are one to one."""

    def __init__(
        self,
        config: DecodingConfig,
        weights: PixelWeights,
        channels: int,
        encoder: nn.Module,
        quantiser: FiniteScalar | Codebook,
    ) -> None:
        super().__init__(config, weights, channels, encoder)
        self.quantiser, self.vocabulary = quantiser, quantiser.vocabulary
        self.code_usage = CodeUsage(quantiser.vocabulary)

    def raw_posterior(self, video: Video) -> Posterior:
        """Encode and quantise."""
        before = self.encoder(video)
        return Posterior(self.quantiser(before), before=before)

    def raw_tokens(self, latents: Latents) -> Tokens:
        """Number the nearest codes."""
        return self.quantiser.tokens(latents)

    def raw_embed(self, tokens: Tokens) -> Latents:
        """Return the codes."""
        return self.quantiser.codes(tokens)

    def latent_losses(self, posterior: Posterior, progress: Progress) -> dict[str, Tensor]:
        """Watch how many codes are in use lately, and how evenly: shares of the vocabulary."""
        self.code_usage.add(self.raw_tokens(posterior.mean.detach()))
        shares = self.code_usage.shares
        return {"usage": usage(shares), "perplexity": perplexity(shares)}

    def after_step(self, progress: Progress) -> None:
        """Warn, half-way and at the end, when nearly all codes lie idle."""
        if is_asked(progress):
            used, vocabulary = float(perplexity(self.code_usage.shares)), self.quantiser.vocabulary
            if used < COLLAPSED * vocabulary:
                warnings.warn(
                    f"after {progress.step + 1} steps latents say as much as {used:.0f} codes "
                    f"chosen equally would, of {vocabulary:,}: the codebook has collapsed; take a "
                    "smaller vocabulary, more channels, or a lower learning rate",
                    stacklevel=2,
                )


def is_asked(progress: Progress) -> bool:
    """Say when it is asked whether latents have collapsed: half-way and at the end."""
    return progress.step + 1 in (progress.steps // 2, progress.steps)


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
