"""What an encoder sees, as colours: the first three principal components of its features.

Where two places have one colour, the encoder finds them alike (as DINOv2 shows it, 2304.07193).
Components belong to one video and one encoder: colours of two encoders may not be compared, what
they set apart may. Knows latents, no file and no world.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

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


def components(pieces: Iterable[Latents]) -> Components:
    """Find the components of all pieces of one video together, in memory of one piece."""
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for piece in pieces:
        tokens = rearrange(piece, "b t c h w -> (b t h w) c").double().cpu()
        count += len(tokens)
        total = total + tokens.sum(0)
        products = products + tokens.T @ tokens
    mean = total / count
    values, vectors = torch.linalg.eigh(products / count - torch.outer(mean, mean))
    axes, values = vectors.flip(1)[:, :3], values.flip(0)[:3].clamp(min=0)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    missing = 3 - axes.shape[1]
    axes = torch.nn.functional.pad(axes * largest.sign(), (0, missing))
    spread = torch.nn.functional.pad(values.sqrt(), (0, missing))
    return Components(mean.float(), axes.float(), spread.float())


def paint(latents: Latents, found: Components, cell: Compression) -> Frames:
    """Paint the features of one clip, `1 t c h w`, as frames `T 3 H W`, a block for each."""
    centred = rearrange(latents[0].cpu(), "t c h w -> t h w c") - found.mean
    along = centred @ found.axes / found.spread.clamp(min=1e-6)
    colours = ((along / _REACH + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return repeat(colours, "t h w c -> (t ft) c (h fh) (w fw)", ft=cell.t, fh=cell.h, fw=cell.w)
