"""Attention over tokens of space-time: rotary positions, normalised queries and keys, a cache.

RoPE: Su et al. 2021 (2104.09864), one third of the pairs per axis t, h, w. Normalised queries and
keys: Henry et al. 2020 (2010.04245). Knows nothing of frames: positions and masks are given.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import linear, pad, rms_norm, scaled_dot_product_attention


class Rotation(NamedTuple):
    """Cosine and sine of every token's angles, `n head_dim/2` each; rows of a batch may differ."""

    cos: Float[Tensor, "*b n p"]
    sin: Float[Tensor, "*b n p"]

    def __getitem__(self, tokens: slice) -> "Rotation":  # type: ignore[override]
        return Rotation(self.cos[tokens], self.sin[tokens])


class KeysValues(NamedTuple):
    """What later tokens need of earlier ones: `b k n e`, keys already rotated."""

    keys: Float[Tensor, "b k n e"]
    values: Float[Tensor, "b k n e"]


def rotation(positions: Float[Tensor, "n axes"], head_dim: int, longest: float = 100.0) -> Rotation:
    """Turn positions on several axes into rotary angles, the pairs shared out among the axes."""
    pairs, axes = head_dim // 2, positions.shape[1]
    shares = [pairs // axes + (axis < pairs % axes) for axis in range(axes)]
    angles = [
        positions[:, axis, None]
        * longest ** -(torch.arange(share, device=positions.device) / share)
        for axis, share in enumerate(shares)
    ]
    stacked = torch.cat(angles, dim=1)
    return Rotation(stacked.cos(), stacked.sin())


def grid_positions(
    t: int, h: int, w: int, first_t: int = 0, views: int = 1
) -> Float[Tensor, "n 3"]:
    """Number the tokens of a latent video, `n = t·h·w` in reading order.

    Of several views side by side each begins anew: the last column of one is no neighbour of the
    first of the next.
    """
    columns = torch.arange(w) % (w // views)
    axes = (torch.arange(first_t, first_t + t), torch.arange(h), columns)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3).float()


def rotate(x: Float[Tensor, "b k n e"], angles: Rotation) -> Float[Tensor, "b k n e"]:
    """Rotate pairs of features by each token's angles; dot products then see differences only."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat(
        [first * angles.cos - second * angles.sin, second * angles.cos + first * angles.sin], dim=-1
    )


class CrossAttention(nn.Module):
    """Multi-head attention of `b n d` to what there is to look at, `b m d`.

    Everyone may look at nothing as well, a key and a value of zeros: where nothing is known, that
    is what is seen, exactly.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.query_scale = nn.Parameter(torch.ones(width // heads))
        self.key_scale = nn.Parameter(torch.ones(width // heads))
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        things: Float[Tensor, "b m d"],
        seen: Bool[Tensor, "b n m"],
    ) -> Float[Tensor, "b n d"]:
        """Look at what each sees."""
        query = rearrange(self.query(x), "b n (k e) -> b k n e", k=self.heads)
        key, value = rearrange(
            self.key_value(things), "b m (two k e) -> two b k m e", two=2, k=self.heads
        )
        query = rms_norm(query, query.shape[-1:], self.query_scale)
        key = rms_norm(key, key.shape[-1:], self.key_scale)
        nothing = (0, 0, 0, 1)
        mask = pad(seen, (0, 1), value=True)[:, None]
        mixed = scaled_dot_product_attention(query, pad(key, nothing), pad(value, nothing), mask)
        return self.out(rearrange(mixed, "b k n e -> b n (k e)"))


class Attention(nn.Module):
    """Multi-head self-attention over `b n d`, optionally looking back into a cache."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.query_scale = nn.Parameter(torch.ones(width // heads))
        self.key_scale = nn.Parameter(torch.ones(width // heads))
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        angles: Rotation,
        mask: Bool[Tensor, "b 1 n m"] | None = None,
        past: KeysValues | None = None,
    ) -> tuple[Float[Tensor, "b n d"], KeysValues]:
        """Attend where `mask` is true; return what later tokens need of these as well."""
        query, key, value = rearrange(
            self.query_key_value(x), "b n (three k e) -> three b k n e", three=3, k=self.heads
        )
        query = rotate(rms_norm(query, query.shape[-1:], self.query_scale), angles)
        here = self._kept(key, value, angles)
        key, value = here
        if past is not None:
            key = torch.cat([past.keys, key], dim=2)
            value = torch.cat([past.values, value], dim=2)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(rearrange(mixed, "b k n e -> b n (k e)")), here

    def remember(self, x: Float[Tensor, "b n d"], angles: Rotation) -> KeysValues:
        """Return what later tokens need of these, where nothing else is asked of them."""
        weight = self.query_key_value.weight[x.shape[-1] :]
        key, value = rearrange(
            linear(x, weight), "b n (two k e) -> two b k n e", two=2, k=self.heads
        )
        return self._kept(key, value, angles)

    def _kept(self, key: Tensor, value: Tensor, angles: Rotation) -> KeysValues:
        return KeysValues(rotate(rms_norm(key, key.shape[-1:], self.key_scale), angles), value)
