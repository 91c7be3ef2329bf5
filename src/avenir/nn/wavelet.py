"""Convolutional trunks on wavelets: coarse and fine are told apart before any weight is.

After Cosmos' tokenizers (2501.03575): two levels of a Haar transform over frames, rows and columns,
then convolutions over pictures and over time apart, those over time causal. Their time is that of a
group, which meets no other, as in conv.py: so pasts slide and are kept. Nothing is lost before the
first convolution, and it has an eighth of the places to visit for every level.
"""

import math
from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from avenir.errors import AvenirError
from avenir.nn.conv import ChannelNorm, Grow, LookBack, ResidualBlock, widths
from avenir.shapes import Compression, Latents, Video

_AXES = (1, 3, 4)
"""Frames, rows and columns of `b t c h w`."""

_LEVELS = 2
"""How often coarse and fine are told apart, where the compression allows."""


def haar(x: Float[Tensor, "b t c h w"], axes: tuple[int, ...]) -> Float[Tensor, "b _t _c _h _w"]:
    """Replace pairs along each axis by their mean and half their difference, in channels.

    The first channels are the means: a smaller video in the same range.
    """
    for axis in axes:
        one, other = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
        x = torch.cat([(one + other) / 2, (one - other) / 2], dim=2)
    return x


def unhaar(x: Float[Tensor, "b t c h w"], axes: tuple[int, ...]) -> Float[Tensor, "b _t _c _h _w"]:
    """Undo `haar`."""
    for axis in reversed(axes):
        mean, half = x.chunk(2, dim=2)
        x = torch.stack([mean + half, mean - half], dim=axis + 1).flatten(axis, axis + 1)
    return x


class WaveletEncoder(nn.Module):
    """Frames to features, `b T C H W -> b t c h w`, each group on its own."""

    def __init__(self, compression: Compression, width: int, depth: int, channels: int) -> None:
        super().__init__()
        self.compression, self.levels = compression, levels(compression)
        blocks = halvings(compression)
        sizes, frames = widths(width, len(blocks)), math.prod(block[0] for block in blocks)
        incoming = 3 * 2 ** sum(map(len, self.levels))
        layers: list[nn.Module] = []
        for block, size in zip(blocks, sizes, strict=True):
            frames //= block[0]
            layers.append(_Shrink(incoming, size, block))
            layers += [_Mix(size, frames) for _ in range(depth)]
            incoming = size
        self.layers = nn.Sequential(*layers)
        self.proj_out = nn.Sequential(ChannelNorm(incoming), nn.Conv2d(incoming, channels, 1))

    def forward(self, video: Video) -> Latents:
        """Encode whole groups; the caller has padded."""
        x = rearrange(video, "b (t f) C H W -> (b t) f C H W", f=self.compression.t)
        for axes in self.levels:
            x = haar(x, axes)
        features = self.proj_out(self.layers(x).flatten(0, 1))
        return rearrange(features, "(b t) c h w -> b t c h w", b=len(video))


class WaveletDecoder(nn.Module):
    """Features to frames, `b t c h w -> b T C H W`, looking `reach` groups back."""

    def __init__(
        self, compression: Compression, width: int, depth: int, channels: int, reach: int
    ) -> None:
        super().__init__()
        self.levels = levels(compression)
        *blocks, _ = halvings(compression)[::-1]
        sizes, frames = widths(width, len(blocks) + 1)[::-1], 1
        self.proj_in = nn.Conv2d(channels, sizes[0], 3, padding=1)
        self.look_back = LookBack(sizes[0], reach) if reach else nn.Identity()
        layers: list[nn.Module] = [_Mix(sizes[0], frames) for _ in range(depth)]
        for block, (size, outgoing) in zip(blocks, pairwise(sizes), strict=True):
            frames *= block[0]
            layers.append(_Spread(size, outgoing, block))
            layers += [_Mix(outgoing, frames) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        bands = 3 * 2 ** sum(map(len, self.levels))
        self.proj_out = nn.Sequential(
            ChannelNorm(sizes[-1]), nn.SiLU(), nn.Conv2d(sizes[-1], bands, 3, padding=1)
        )

    def forward(self, latents: Latents) -> Video:
        """Decode every group."""
        b = len(latents)
        x = self.proj_in(rearrange(latents, "b t c h w -> (b t) c h w"))
        x = self.look_back(rearrange(x, "(b t) c h w -> b t c h w", b=b))
        x = self.layers(rearrange(x, "b t c h w -> (b t) 1 c h w"))
        x = self.proj_out(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        for axes in reversed(self.levels):
            x = unhaar(x, axes)
        return rearrange(x, "(b t) f C H W -> b (t f) C H W", b=b).contiguous()


def levels(compression: Compression) -> list[tuple[int, ...]]:
    """Return the axes that each level halves."""
    axes = (
        tuple(a for a, factor in zip(_AXES, compression, strict=True) if factor % 2**level == 0)
        for level in range(1, _LEVELS + 1)
    )
    return [each for each in axes if each]


def halvings(compression: Compression) -> list[tuple[int, int, int]]:
    """Return the blocks of frames, rows and columns by which the trunk goes on; first by none.

    Raises AvenirError when a factor is no power of two.
    """
    if any(factor & (factor - 1) for factor in compression):
        raise AvenirError(
            f"compression {list(compression)} was given; wavelets and what follows them halve: "
            "give powers of two"
        )
    t, h, w = (factor // math.gcd(factor, 2**_LEVELS) for factor in compression)
    blocks = [(1, 1, 1)]
    while (t, h, w) != (1, 1, 1):
        block = tuple(2 if left > 1 else 1 for left in (t, h, w))
        blocks.append((block[0], block[1], block[2]))
        t, h, w = (left // step for left, step in zip((t, h, w), block, strict=True))
    return blocks


class _Mix(nn.Module):
    """A residual block over each picture, then, where a group still has several, over time."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.picture = ResidualBlock(channels)
        self.time = LookBack(channels, min(2, frames - 1)) if frames > 1 else nn.Identity()

    def forward(self, x: Float[Tensor, "n t c h w"]) -> Float[Tensor, "n t c h w"]:
        """Mix pictures, then frames with those before them."""
        pictures = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return self.time(self.picture(pictures).unflatten(0, x.shape[:2]))


class _Shrink(nn.Module):
    """A strided convolution of blocks of frames, rows and columns."""

    def __init__(self, channels: int, outgoing: int, block: tuple[int, int, int]) -> None:
        super().__init__()
        self.frames, p, q = block
        self.conv = nn.Conv2d(channels * self.frames, outgoing, (p, q), stride=(p, q))

    def forward(self, x: Float[Tensor, "n t c h w"]) -> Float[Tensor, "n _t _c _h _w"]:
        """Fold frames into channels, then stride."""
        folded = rearrange(x, "n (t f) c h w -> (n t) (f c) h w", f=self.frames)
        return self.conv(folded).unflatten(0, (len(x), -1))


class _Spread(nn.Module):
    """A 3×3 convolution into blocks of frames, rows and columns."""

    def __init__(self, channels: int, outgoing: int, block: tuple[int, int, int]) -> None:
        super().__init__()
        self.frames, p, q = block
        self.grow = Grow(channels, outgoing * self.frames, (p, q))

    def forward(self, x: Float[Tensor, "n t c h w"]) -> Float[Tensor, "n _t _c _h _w"]:
        """Grow, then unfold frames from channels."""
        grown = self.grow(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return rearrange(grown, "n t (f c) h w -> n (t f) c h w", f=self.frames)
