"""What an encoder sees, as colours: the first three principal components of its features.

Where two places have one colour, the encoder finds them alike (as DINOv2 shows it, 2304.07193).
Components belong to one video and one encoder: colours of two encoders may not be compared, what
they set apart may. Knows latents, no file and no world.
"""

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from avenir.clip import to_frames
from avenir.shapes import Compression, Frames, Latents

_REACH = 2.0
"""Deviations from the mean at which a colour is full."""


class Components(NamedTuple):
    """The mean feature, and the three directions in which features differ most."""

    mean: Float[Tensor, " c"]
    axes: Float[Tensor, "c 3"]
    """Orthonormal, the largest entry of each positive; zeros beyond `c` channels."""
    spread: Float[Tensor, "3"]
    """Standard deviation along each."""


def components(latents: Latents) -> Components:
    """Find the components of one video's features."""
    tokens = rearrange(latents, "b t c h w -> (b t h w) c").double()
    mean = tokens.mean(0)
    values, vectors = torch.linalg.eigh((tokens - mean).T @ (tokens - mean) / len(tokens))
    axes, values = vectors.flip(1)[:, :3], values.flip(0)[:3].clamp(min=0)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    missing = (0, 3 - axes.shape[1])
    axes, spread = pad(axes * largest.sign(), missing), pad(values.sqrt(), missing)
    return Components(mean.float(), axes.float(), spread.float())


def paint(latents: Latents, found: Components, cell: Compression) -> Frames:
    """Paint the features of one clip, `1 t c h w`, as frames `T 3 H W`, a block for each."""
    centred = rearrange(latents[0], "t c h w -> t h w c") - found.mean
    colours = to_frames(centred @ found.axes / (_REACH * found.spread.clamp(min=1e-6)))
    return repeat(colours, "t h w c -> (t ft) c (h fh) (w fw)", ft=cell.t, fh=cell.h, fw=cell.w)
