"""A tokenizer on a frozen teacher: features of another encoder, made few and coarse, and decoded.

RAE (2510.11690), with a learned bottleneck that strides over space and time as MIRA's does. It
starts as the mean over the cells it covers, as V-RAE's pooling (2608.13556). Latents are
deterministic. The teacher is received built; its weights never change and are saved along.
"""

import math
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from avenir.clip import Progress
from avenir.encoders import ConvolutionalTokenizer, DecodingConfig, Encoder, Posterior
from avenir.errors import AvenirError
from avenir.losses.reconstruction import ReconstructionWeights, kl
from avenir.shapes import Compression, Latents, Video


class RAEConfig(DecodingConfig):
    """The tokenizer on a frozen teacher."""

    kind: str = "rae"
    teacher: dict[str, Any]
    """The encoder whose features it reads: a recipe to train first, or a run folder."""
    compression: tuple[int, int, int] = (4, 16, 16)
    """Frames, rows and columns per latent, whole multiples of the teacher's, up to 8, 32, 32."""
    channels: int = Field(64, ge=1)
    """Numbers per latent position."""
    decoder_noise: float = Field(0.3, ge=0)
    """Noise on latents, in their standard deviations, that decoding learns to bear: those that are
    imagined are off by varying amounts."""
    weights: ReconstructionWeights = ReconstructionWeights()
    """What each loss counts."""


class RAE(ConvolutionalTokenizer):
    """`b T C H W -> b t c h w` through the teacher's features, and back."""

    Config = RAEConfig

    def __init__(self, config: RAEConfig, teacher: Encoder) -> None:
        cell = _cell(Compression(*config.compression), teacher.compression)
        bottleneck = Bottleneck(teacher.channels, cell, config.channels)
        super().__init__(config, config.weights, config.channels, bottleneck)
        self.teacher = teacher.requires_grad_(False).eval()

    def raw_posterior(self, video: Video) -> Posterior:
        """Encode with the teacher, by its own statistics, and narrow what it says."""
        with torch.no_grad():
            features = self.teacher.encode(video)
        return Posterior(self.encoder(features))

    def latent_losses(self, posterior: Posterior, progress: Progress) -> dict[str, Tensor]:
        """Stay small."""
        return {"kl": kl(posterior.mean, posterior.log_variance)}


class Bottleneck(nn.Module):
    """Features to fewer numbers on a coarser grid: one linear map per cell, no cell meets another.

    At first the mean over the cell, projected.
    """

    def __init__(self, features: int, cell: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        self.cell, places = cell, math.prod(cell)
        self.narrow = nn.Linear(places * features, channels)
        project = nn.init.orthogonal_(torch.empty(channels, features)) / places
        with torch.no_grad():
            self.narrow.weight.copy_(repeat(project, "c d -> c (n d)", n=places))
            self.narrow.bias.zero_()

    def forward(self, features: Float[Tensor, "b _t d _h _w"]) -> Latents:
        """Narrow whole cells."""
        f, p, q = self.cell
        cells = rearrange(features, "b (t f) d (h p) (w q) -> b t h w (f p q d)", f=f, p=p, q=q)
        return rearrange(self.narrow(cells), "b t h w c -> b t c h w")


def _cell(ours: Compression, teachers: Compression) -> tuple[int, int, int]:
    """Return how many features of the teacher, along time, rows and columns, make one latent."""
    if any(large % small for large, small in zip(ours, teachers, strict=True)):
        raise AvenirError(
            f"compression {list(ours)} was given on a teacher of {list(teachers)}; every latent "
            "needs whole features: give multiples of the teacher's numbers"
        )
    t, h, w = (large // small for large, small in zip(ours, teachers, strict=True))
    return t, h, w
