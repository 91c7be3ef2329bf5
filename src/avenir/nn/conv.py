"""Convolutional trunks for groups of frames: the only place where channels come before time.

A group of `f_t` frames is folded into channels, so an encoder sees one group and nothing else. The
decoder may look back at earlier groups, never forward. Knows nothing of losses or statistics.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from avenir.errors import AvenirError
from avenir.shapes import Compression, Latents, Video


class ChannelNorm(nn.Module):
    """Normalise every position over its channels: nothing leaks across a picture, `b c h w`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Divide by the root mean square."""
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6) * self.scale


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut; it starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ChannelNorm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add what the convolutions say."""
        return x + self.layers(x)


class LookBack(nn.Module):
    """Mix each latent frame with the `reach` frames before it, position by position."""

    def __init__(self, channels: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.mix = nn.Conv3d(channels, channels, (reach + 1, 1, 1))
        nn.init.zeros_(self.mix.weight)
        assert self.mix.bias is not None
        nn.init.zeros_(self.mix.bias)

    def forward(self, x: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t c h w"]:
        """Add a causal convolution over `t`; before the first frame there is nothing."""
        video = pad(rearrange(x, "b t c h w -> b c t h w"), (0, 0, 0, 0, self.reach, 0))
        return x + rearrange(self.mix(video), "b c t h w -> b t c h w")


def stages(compression: Compression) -> list[tuple[int, int]]:
    """Split the spatial factors after a first block of up to 4×4 pixels into halvings.

    Raises AvenirError when one is no power of two.
    """
    if any(factor & (factor - 1) for factor in compression[1:]):
        raise AvenirError(
            f"compression {list(compression)} was given; rows and columns are halved step by step: "
            "give powers of two"
        )
    steps, (height, width) = [], compression[1:]
    first = (min(4, height), min(4, width))
    height, width = height // first[0], width // first[1]
    while height > 1 or width > 1:
        step = (2 if height > 1 else 1, 2 if width > 1 else 1)
        steps.append(step)
        height, width = height // step[0], width // step[1]
    return [first, *steps]


def widths(width: int, num_stages: int) -> list[int]:
    """Double the channels at every halving, up to four times the first width."""
    return [width * min(2**stage, 4) for stage in range(num_stages)]


class GroupEncoder(nn.Module):
    """Frames to features, `b T C H W -> b t c h w`, each group on its own."""

    def __init__(self, compression: Compression, width: int, depth: int, channels: int) -> None:
        super().__init__()
        self.compression = compression
        blocks = stages(compression)
        sizes = widths(width, len(blocks))
        layers: list[nn.Module] = []
        incoming = 3 * compression.t
        for block, size in zip(blocks, sizes, strict=True):
            layers.append(nn.Conv2d(incoming, size, block, stride=block))
            layers += [ResidualBlock(size) for _ in range(depth)]
            incoming = size
        layers += [ChannelNorm(incoming), nn.Conv2d(incoming, channels, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, video: Video) -> Latents:
        """Encode whole groups; the caller has padded."""
        groups = rearrange(video, "b (t f) C H W -> (b t) (f C) H W", f=self.compression.t)
        features = self.layers(groups.contiguous(memory_format=torch.channels_last))
        return rearrange(features, "(b t) c h w -> b t c h w", b=len(video))


class GroupDecoder(nn.Module):
    """Features to frames, `b t c h w -> b T C H W`, looking `reach` groups back."""

    def __init__(
        self, compression: Compression, width: int, depth: int, channels: int, reach: int
    ) -> None:
        super().__init__()
        self.compression, self.reach = compression, reach
        blocks = stages(compression)[::-1]
        sizes = widths(width, len(blocks))[::-1]
        self.proj_in = nn.Conv2d(channels, sizes[0], 3, padding=1)
        self.look_back = LookBack(sizes[0], reach) if reach else nn.Identity()
        layers: list[nn.Module] = []
        for index, (block, size) in enumerate(zip(blocks, sizes, strict=True)):
            layers += [ResidualBlock(size) for _ in range(depth)]
            last = index == len(blocks) - 1
            outgoing = 3 * compression.t if last else sizes[index + 1]
            layers += [ChannelNorm(size), nn.SiLU()] if last else []
            layers.append(Grow(size, outgoing, block))
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Latents) -> Video:
        """Decode every group."""
        b = len(latents)
        x = self.proj_in(rearrange(latents, "b t c h w -> (b t) c h w"))
        x = self.look_back(rearrange(x, "(b t) c h w -> b t c h w", b=b))
        x = rearrange(x, "b t c h w -> (b t) c h w").contiguous(memory_format=torch.channels_last)
        frames = self.layers(x)
        return rearrange(
            frames, "(b t) (f C) H W -> b (t f) C H W", b=b, f=self.compression.t
        ).contiguous()


class Grow(nn.Module):
    """A 3×3 convolution into blocks of pixels, `b c h w -> b C H W`."""

    def __init__(self, channels: int, outgoing: int, block: tuple[int, int]) -> None:
        super().__init__()
        self.block = block
        self.conv = nn.Conv2d(channels, outgoing * block[0] * block[1], 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b C H W"]:
        """Depth to space."""
        p, q = self.block
        return rearrange(self.conv(x), "b (c p q) h w -> b c (h p) (w q)", p=p, q=q)
