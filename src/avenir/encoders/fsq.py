"""A discrete tokenizer whose codes are a grid: every channel is rounded to one of a few levels.

Finite scalar quantisation (Mentzer et al. 2023, 2309.15505) on the trunk of the continuous
tokenizer. No codebook is learnt, nothing but decoding is asked of it, and it hardly ever collapses.
"""

from typing import Annotated

from pydantic import Field

from avenir.encoders import DiscreteTokenizer, TrunkConfig, encoding_trunk
from avenir.losses.reconstruction import PixelWeights
from avenir.nn.quantize import FiniteScalar


class FSQConfig(TrunkConfig):
    """The discrete tokenizer on a grid."""

    kind: str = "fsq"
    levels: tuple[Annotated[int, Field(ge=3)], ...] = Field((8, 5, 5, 5), min_length=1)
    """Values of each channel, 5 or more of them best: of 2, one is hardly ever taken. Their product
    is the vocabulary."""
    weights: PixelWeights = PixelWeights()
    """What each loss counts."""


class FSQ(DiscreteTokenizer):
    """`b T C H W -> b t c h w`, one of `vocabulary` codes at every position, and back."""

    Config = FSQConfig

    def __init__(self, config: FSQConfig) -> None:
        channels, quantiser = len(config.levels), FiniteScalar(config.levels)
        encoder = encoding_trunk(config, channels)
        super().__init__(config, config.weights, channels, encoder, quantiser)
