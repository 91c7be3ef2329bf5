"""A decoder over a sequence of tokens: what comes is computed from what was, one token at a time.

The Llama family's block (2302.13971): root-mean-square norms, rotary positions, SwiGLU, and several
heads of queries to one of keys and values (2305.13245). Queries and keys are normalised
(2010.04245). Keys and values of earlier tokens are kept: a new token costs itself alone.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from avenir.nn.attention import KeysValues, Rotation, rotate
from avenir.nn.transformer import SwiGLU

Sequence = Float[Tensor, "b n d"]


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last axis (1910.07467), and scale.

    PyTorch's is made of a dozen operations on a CPU: several times slower for a single token.
    """

    def __init__(self, *size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Normalise."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-6)
        return x / length * (self.weight * x.shape[-1] ** 0.5)


class Kept:
    """Keys and values of the tokens so far, in every layer, with room for `most` of them.

    Written in place: it belongs to one prediction, and nothing else may keep it.
    """

    def __init__(self, decoder: "Decoder", batch_size: int, most: int) -> None:
        weight = decoder.norm.weight
        size = (len(decoder.blocks), 2, batch_size, decoder.kv_heads, most, decoder.head_dim)
        self.room = torch.empty(size, dtype=weight.dtype, device=weight.device)
        self.length = 0

    def extended(self, layer: int, here: KeysValues) -> KeysValues:
        """Write a layer's new tokens behind the earlier ones and return all of them."""
        end = self.length + here.keys.shape[2]
        keys, values = self.room[layer]
        keys[:, :, self.length : end], values[:, :, self.length : end] = here
        return KeysValues(keys[:, :, :end], values[:, :, :end])


class GroupedAttention(nn.Module):
    """Attention whose heads of queries share fewer heads of keys and values."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        self.query_key_value = nn.Linear(width, (heads + 2 * kv_heads) * self.head_dim, bias=False)
        self.norm = RMSNorm(heads + kv_heads, 1, self.head_dim)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Sequence,
        angles: Rotation,
        mask: Bool[Tensor, "n m"] | None,
        kept: Kept | None,
        layer: int,
    ) -> Sequence:
        """Look where `mask` is true; none: at the kept tokens and, causally, at each other."""
        b, n, d = x.shape
        split = self.query_key_value(x).view(b, n, -1, self.head_dim).transpose(1, 2)
        turned, value = split.split([self.heads + self.kv_heads, self.kv_heads], dim=1)
        # Queries and keys go through the same, so they go together.
        turned = rotate(self.norm(turned), angles)
        query, key = turned.split([self.heads, self.kv_heads], dim=1)
        if kept is not None:
            key, value = kept.extended(layer, KeysValues(key, value))
        causal = mask is None and n > 1
        mixed = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=True
        )
        return self.out(mixed.transpose(1, 2).reshape(b, n, d))


class DecoderBlock(nn.Module):
    """Attention, then SwiGLU, each on normalised tokens and added."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.before_attention, self.before_feed_forward = RMSNorm(width), RMSNorm(width)
        self.attention = GroupedAttention(width, heads, kv_heads)
        self.feed_forward = SwiGLU(width)

    def forward(
        self,
        x: Sequence,
        angles: Rotation,
        mask: Bool[Tensor, "n m"] | None,
        kept: Kept | None,
        layer: int,
    ) -> Sequence:
        """Mix tokens, then features."""
        x = x + self.attention(self.before_attention(x), angles, mask, kept, layer)
        return x + self.feed_forward(self.before_feed_forward(x))


class Decoder(nn.Module):
    """A stack of blocks over `b n d`."""

    def __init__(self, width: int, depth: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.kv_heads, self.head_dim = kv_heads, width // heads
        self.blocks = nn.ModuleList(DecoderBlock(width, heads, kv_heads) for _ in range(depth))
        self.norm = RMSNorm(width)

    def forward(
        self,
        x: Sequence,
        angles: Rotation,
        mask: Bool[Tensor, "n m"] | None = None,
        kept: Kept | None = None,
        keep: bool = True,
        after: Mapping[int, Callable[[Sequence], Sequence]] | None = None,
    ) -> Sequence:
        """Decode tokens at the positions of `angles`.

        `mask` says which token may look at which; none is causal. With `kept`, `x` holds new tokens
        only, which join the earlier ones unless `keep` is false. Several new tokens behind earlier
        ones need a mask. What `after` holds for a block, counted from 1, gets its tokens; what it
        returns goes on.
        """
        for layer, block in enumerate(self.blocks):
            x = block(x, angles, mask, kept, layer)
            if after is not None and layer + 1 in after:
                x = after[layer + 1](x)
        if kept is not None and keep:
            kept.length += x.shape[1]
        return self.norm(x)
