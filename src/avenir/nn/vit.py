"""A vision transformer over the patches of single frames, with one token for the frame as a whole.

A patch may be as deep as a few frames, stacked as channels. Blocks are pre-norm with SwiGLU; rotary
positions (nn/attention.py) leave the number of patches open, so crops and frames of any size, and
only some of their patches, meet the same weights. Registers: 2309.16588.
"""

from collections.abc import Iterator, Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad

from avenir.nn.attention import Attention, Rotation, grid_positions, rotation
from avenir.nn.transformer import SwiGLU

_NUM_REGISTERS = 2
"""Tokens without a place beside the frame's own: room for what belongs to no patch."""


class ViT(nn.Module):
    """Frames `n C H W` to one vector per frame and one per patch."""

    def __init__(self, patch: int, width: int, depth: int, heads: int, frames: int = 1) -> None:
        super().__init__()
        self.patch, self.head_dim = patch, width // heads
        self.embed = nn.Linear(3 * frames * patch**2, width)
        self.placeless = nn.Parameter(0.02 * torch.randn(1 + _NUM_REGISTERS, width))
        self.hidden = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(ViTBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        frames: Float[Tensor, "n C H W"],
        hide: Bool[Tensor, "n s"] | None = None,
        keep: Int[Tensor, "n m"] | None = None,
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n m d"]]:
        """Return the vector of each frame and of its patches, all `s` or the `m` in `keep`.

        Those in `hide` are not shown; those not in `keep` are not even computed.
        """
        *_, x = self._after_blocks(frames, hide, keep)
        x = self.norm(x)
        return x[:, 0], x[:, len(self.placeless) :]

    def levels(
        self, frames: Float[Tensor, "n C H W"], blocks: Sequence[int]
    ) -> Float[Tensor, "n s _"]:
        """Return what some blocks, counted from 1, make of every patch, side by side.

        Each normalised: the last as always, earlier ones to mean 0 and variance 1 per patch.
        """
        seen = list(self._after_blocks(frames))
        last = len(seen)
        parts = [
            self.norm(seen[k - 1]) if k == last else layer_norm(seen[k - 1], seen[0].shape[-1:])
            for k in blocks
        ]
        return torch.cat(parts, dim=-1)[:, len(self.placeless) :]

    def _after_blocks(
        self,
        frames: Float[Tensor, "n C H W"],
        hide: Bool[Tensor, "n s"] | None = None,
        keep: Int[Tensor, "n m"] | None = None,
    ) -> Iterator[Float[Tensor, "n _ d"]]:
        """Yield all tokens, those without a place first, after every block."""
        p, (h, w) = self.patch, (frames.shape[-2] // self.patch, frames.shape[-1] // self.patch)
        patches = rearrange(frames, "n C (h p) (w q) -> n (h w) (C p q)", p=p, q=p)
        angles = self._angles(h, w, frames.device)
        if keep is not None:
            patches = take(patches, keep)
            num_placeless = len(self.placeless)  # all of them as the first
            angles = at(angles, pad(keep + num_placeless, (num_placeless, 0)))
        x = self.embed(patches)
        if hide is not None:
            x = torch.where(hide[..., None], self.hidden, x)
        x = torch.cat([self.placeless.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x, angles)
            yield x

    def _angles(self, h: int, w: int, device: torch.device) -> Rotation:
        places = grid_positions(1, h, w)[:, 1:]
        placeless = torch.zeros(len(self.placeless), 2)
        return rotation(torch.cat([placeless, places]).to(device), self.head_dim)


class ViTBlock(nn.Module):
    """Attention, then SwiGLU, each on normalised tokens and added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before_attention, self.before_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.feed_forward = Attention(width, heads), SwiGLU(width)

    def forward(self, x: Float[Tensor, "n m d"], angles: Rotation) -> Float[Tensor, "n m d"]:
        """Mix tokens, then features."""
        x = x + self.attention(self.before_attention(x), angles)[0]
        return x + self.feed_forward(self.before_feed_forward(x))


def take(x: Float[Tensor, "n s d"], places: Int[Tensor, "n m"]) -> Float[Tensor, "n m d"]:
    """Take of every row its own tokens, in the order of `places`."""
    return torch.take_along_dim(x, places[..., None], dim=1)


def at(angles: Rotation, places: Int[Tensor, "n m"]) -> Rotation:
    """Take the angles of every row's own tokens, `n 1 m p`: the same for all heads."""
    return Rotation(angles.cos[places][:, None], angles.sin[places][:, None])
