"""A discrete tokenizer whose codes are a grid: every channel is rounded to one of a few levels.

Finite scalar quantisation (Mentzer et al. 2023, 2309.15505) on the trunk of the continuous
tokenizer. No codebook is learnt, nothing but decoding is asked of it, and it hardly ever collapses.
"""

from typing import Annotated

from pydantic import Field

from avenir.encoders import DecodingConfig, DiscreteTokenizer
from avenir.losses.reconstruction import PixelWeights
from avenir.nn.conv import GroupEncoder
from avenir.nn.quantize import FiniteScalar
from avenir.shapes import Compression


class FSQConfig(DecodingConfig):
    """The discrete tokenizer on a grid."""

    kind: str = "fsq"
    levels: tuple[Annotated[int, Field(ge=3)], ...] = Field((8, 5, 5, 5), min_length=1)
    """Values of each channel, 5 or more of them best: of 2, one is hardly ever taken. Their product
    is the vocabulary."""
    depth: int = Field(2, ge=1)
    """Residual blocks per stage of the encoder."""
    weights: PixelWeights = PixelWeights()
    """What each loss counts."""


class FSQ(DiscreteTokenizer):
    """`b T C H W -> b t c h w`, one of `vocabulary` codes at every position, and back."""

    Config = FSQConfig

    def __init__(self, config: FSQConfig) -> None:
        compression, channels = Compression(*config.compression), len(config.levels)
        encoder = GroupEncoder(compression, config.width, config.depth, channels)
        super().__init__(config, config.weights, channels, encoder, FiniteScalar(config.levels))
