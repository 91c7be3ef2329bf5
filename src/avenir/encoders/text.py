"""Text: the number in a frame's one pixel becomes a code of bits, and back; nothing is learnt.

A token is a pixel, its number in base 256, red first (data/text.py). Its code is its bits, each 1
or -1 (analog bits, 2208.04202), so that predictors of tokens and of numbers both continue text.
"""

import math

import torch
from pydantic import Field
from torch import Tensor

from avenir.config import Config
from avenir.encoders import FixedTokenizer, Posterior
from avenir.errors import AvenirError
from avenir.shapes import Compression, Latents, Tokens, Video


class TokenEncoderConfig(Config):
    """Bytes, or other numbers that stand for pieces of text."""

    kind: str = "text"
    vocabulary: int = Field(256, ge=2, le=2**24)
    """How many different tokens there are."""


class Text(FixedTokenizer):
    """`b T 3 1 1 -> b t c 1 1`: the bits of every token, and exactly back."""

    Config = TokenEncoderConfig
    modality = "text"
    bits: Tensor

    def __init__(self, config: TokenEncoderConfig) -> None:
        super().__init__(Compression(1, 1, 1), math.ceil(math.log2(config.vocabulary)))
        self.config, self.vocabulary = config, config.vocabulary
        self.register_buffer("bits", 2 ** torch.arange(self.channels), persistent=False)

    def raw_posterior(self, video: Video) -> Posterior:
        """Read the number of every pixel; AvenirError for one that is no token."""
        tokens = numbers(video)
        if tokens.numel() and int(tokens.max()) >= self.config.vocabulary:
            raise AvenirError(
                f"token {int(tokens.max())} was given, and encoder.vocabulary is "
                f"{self.config.vocabulary}: make it as large as data.vocabulary"
            )
        return Posterior(self.raw_embed(tokens))

    def raw_decode(self, latents: Latents) -> Video:
        """Write the number of every code into a pixel."""
        number = self.raw_tokens(latents)
        digits = torch.stack([number % 256, number // 256 % 256, number // 65536], dim=2)
        return digits / 127.5 - 1

    def raw_tokens(self, latents: Latents) -> Tokens:
        """Read the bits."""
        number = ((latents > 0) * self.bits[:, None, None]).sum(2)
        return number.clamp(max=self.config.vocabulary - 1)

    def raw_embed(self, tokens: Tokens) -> Latents:
        """Write the bits: 1 where one is set, -1 where it is not."""
        is_set = tokens[:, :, None] // self.bits[:, None, None] % 2
        return 2.0 * is_set - 1


def numbers(video: Video) -> Tokens:
    """Read the number that every pixel holds in base 256, red first."""
    digits = ((video + 1) * 127.5).round().long()
    return digits[:, :, 0] + 256 * digits[:, :, 1] + 65536 * digits[:, :, 2]
