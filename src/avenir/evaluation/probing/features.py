"""What an encoder sees, as colours: the first three principal components of its features.

Where two places have one colour, the encoder finds them alike (as DINOv2 shows it, 2304.07193).
Components belong to one video and one encoder: colours of two encoders may not be compared, what
they set apart may. Knows no file.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from avenir.clip import Clip, to_frames
from avenir.shapes import Compression, Frames, Latents
from avenir.world import World

_REACH = 2.0
"""Deviations from the mean at which a colour is full."""


_PIECE = 8
"""Latent frames that are encoded at once."""

_SHOWN_PIXELS = 192
"""Height of every panel."""


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


@torch.no_grad()
def painted(world: World, clip: Clip) -> Clip:
    """Paint what a world's encoder sees in a clip of its size and rate."""
    cell, device = world.encoder.compression, world.encoder.latent_mean.device
    pieces = clip.video.split(_PIECE * cell.t, dim=1)
    latents = torch.cat([world.encoder.encode(p.to(device)).cpu() for p in pieces], dim=1)
    frames = paint(latents, components(latents), cell)
    height, width = clip.size
    return Clip(frames[: clip.num_frames, :, :height, :width], clip.fps)


def beside_each_other(clip: Clip, features: Sequence[Clip]) -> Clip:
    """Put a clip and what encoders see in it next to each other, at one height and its rate."""
    first = _panel(clip)
    panels = [first, *(_panel(each).resampled(first.fps) for each in features)]
    length = min(panel.num_frames for panel in panels)
    return Clip(torch.cat([panel.frames[:length] for panel in panels], dim=-1), first.fps)


def _panel(clip: Clip) -> Clip:
    """Bring a panel to the common height, its proportions kept and its width even."""
    height, width = clip.size
    return clip.resized(_SHOWN_PIXELS, 2 * round(_SHOWN_PIXELS * width / height / 2))
