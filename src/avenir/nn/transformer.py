"""A transformer over space-time tokens, modulated by one vector per frame.

Blocks are AdaLN-zero (Peebles & Xie 2022, 2212.09748) with SwiGLU (Shazeer 2020, 2002.05202).
Attention is full over all tokens, or factorised into space then time (GAIA-2, 2503.20523), and
then, where there is something to look at beside, to that. Earlier frames may be kept as a cache:
then only new frames are computed, with the same result.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from avenir.clip import Context
from avenir.nn.attention import Attention, CrossAttention, KeysValues, grid_positions, rotation

Tokens = Float[Tensor, "b t s d"]
PerFrame = Float[Tensor, "b t d"]
Cache = tuple[KeysValues, ...]


class SwiGLU(nn.Module):
    """A gated feed-forward layer, `… d -> … d`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 16 * round(width * 8 / 3 / 16)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Gate and project."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(silu(gate) * up)


class Modulation(nn.Module):
    """Shift, scale and gate for several sub-layers, zero at first: a block starts as identity."""

    def __init__(self, width: int, num_sublayers: int) -> None:
        super().__init__()
        self.num_sublayers = num_sublayers
        self.project = nn.Linear(width, 3 * num_sublayers * width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, condition: PerFrame) -> Float[Tensor, "sublayers three b t 1 d"]:
        """Spread one vector per frame over that frame's tokens."""
        return rearrange(
            self.project(silu(condition)),
            "b t (sublayers three d) -> sublayers three b t 1 d",
            sublayers=self.num_sublayers,
            three=3,
        )


class SpaceTimeBlock(nn.Module):
    """One space-time block: attention, then SwiGLU, each modulated and gated."""

    def __init__(self, width: int, heads: int, factorised: bool, looks: bool) -> None:
        super().__init__()
        self.space = Attention(width, heads) if factorised else None
        self.time = Attention(width, heads)
        self.things = CrossAttention(width, heads) if looks else None
        self.feed_forward = SwiGLU(width)
        self.modulation = Modulation(width, 2 + factorised + looks)
        # What attention over time sees as one row: all tokens, or those of one place.
        self._rows = "(b s) t d" if factorised else "b (t s) d"

    def forward(
        self,
        x: Tokens,
        condition: PerFrame,
        positions: "Positions",
        past: KeysValues | None,
        things: "Things | None" = None,
    ) -> tuple[Tokens, KeysValues]:
        """Return the tokens and what later frames need of them."""
        modulation = self.modulation(condition)
        x = self._over_space(x, modulation, positions)
        shift, scale, gate = modulation[-2 if self.things is None else -3]
        rows = rearrange(_modulate(x, shift, scale), f"b t s d -> {self._rows}")
        mixed, here = self.time(rows, positions.time, positions.mask, past)
        x = x + gate * rearrange(mixed, f"{self._rows} -> b t s d", b=len(x), t=x.shape[1])
        x = self._at_things(x, modulation, things)
        shift, scale, gate = modulation[-1]
        return x + gate * self.feed_forward(_modulate(x, shift, scale)), here

    def remember(self, x: Tokens, condition: PerFrame, positions: "Positions") -> KeysValues:
        """Return what later frames need of these, where nothing else is asked of them."""
        modulation = self.modulation(condition)
        x = self._over_space(x, modulation, positions)
        shift, scale, _ = modulation[-2 if self.things is None else -3]
        rows = rearrange(_modulate(x, shift, scale), f"b t s d -> {self._rows}")
        return self.time.remember(rows, positions.time)

    def _over_space(self, x: Tokens, modulation: Tensor, positions: "Positions") -> Tokens:
        if self.space is None:
            return x
        shift, scale, gate = modulation[0]
        frames = rearrange(_modulate(x, shift, scale), "b t s d -> (b t) s d")
        mixed, _ = self.space(frames, positions.space)
        return x + gate * rearrange(mixed, "(b t) s d -> b t s d", b=len(x))

    def _at_things(self, x: Tokens, modulation: Tensor, things: "Things | None") -> Tokens:
        """Let every token look at what there is beside."""
        if self.things is None or things is None:
            return x
        shift, scale, gate = modulation[-2]
        frames = rearrange(_modulate(x, shift, scale), "b t s d -> (b t) s d")
        mixed = self.things(frames, things.tokens, things.seen)
        return x + gate * rearrange(mixed, "(b t) s d -> b t s d", b=len(x))


class Things(NamedTuple):
    """What the tokens of each frame look at beside, and which of them see what."""

    tokens: Float[Tensor, "f m d"]
    seen: Bool[Tensor, "f s m"]

    @classmethod
    def of(cls, context: Context | None, grid: tuple[int, int]) -> "Things | None":
        """Lay a context over frames of `grid = (h, w)` tokens."""
        if context is None:
            return None
        return cls(context.tokens.flatten(0, 1), context.seen(grid).flatten(0, 1))


class Positions:
    """Where the tokens of a grid stand, and which of them may look at which."""

    def __init__(
        self,
        grid: tuple[int, int, int],
        head_dim: int,
        factorised: bool,
        attention_mask: Bool[Tensor, "b t m"] | None,
        first_t: int,
        views: int,
        device: torch.device,
    ) -> None:
        t, h, w = grid
        where = grid_positions(t, h, w, first_t, views).to(device)
        if factorised:
            self.space = rotation(where[: h * w, 1:], head_dim)
            times = torch.arange(first_t, first_t + t, device=device)
            self.time = rotation(times[:, None].float(), head_dim)
            self.mask = (
                None
                if attention_mask is None
                else repeat(attention_mask, "b t m -> (b s) 1 t m", s=h * w)
            )
        else:
            self.space = self.time = rotation(where, head_dim)
            self.mask = (
                None
                if attention_mask is None
                else repeat(attention_mask, "b t m -> b 1 (t s) (m r)", s=h * w, r=h * w)
            )


class SpaceTimeTransformer(nn.Module):
    """A stack of blocks over `b t s d`, one conditioning vector per frame of `views` views.

    One that `looks` has cross-attention, to the `context` it is given.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        attention: Literal["full", "factorised"],
        views: int = 1,
        looks: bool = False,
    ) -> None:
        super().__init__()
        self.head_dim, self.views = width // heads, views
        self.factorised = attention == "factorised"
        self.blocks = nn.ModuleList(
            SpaceTimeBlock(width, heads, self.factorised, looks) for _ in range(depth)
        )

    def forward(
        self,
        x: Tokens,
        condition: PerFrame,
        grid: tuple[int, int],
        attention_mask: Bool[Tensor, "b m m"] | None = None,
        cache: Cache | None = None,
        after: Mapping[int, Callable[[Tokens], Tokens]] | None = None,
        context: Context | None = None,
    ) -> tuple[Tokens, Cache]:
        """Run the blocks over frames of `grid = (h, w)` tokens.

        `look[b, i, j]` says whether frame i may look at frame j; None lets all look at all. With
        a `cache` of earlier frames, `x` holds the new ones only and sees the others through it;
        `look` is of all of them.
        What `after` holds for a block, counted from 1, gets its tokens; what it returns goes on.
        """
        first_t = 0 if cache is None else self._cached_frames(cache, grid)
        positions = self._positions(x, grid, attention_mask, first_t)
        things, kept = Things.of(context, grid), list[KeysValues]()
        pasts: Sequence[KeysValues | None] = cache or [None] * len(self.blocks)
        for number, (block, past) in enumerate(zip(self.blocks, pasts, strict=True), start=1):
            x, here = block(x, condition, positions, past, things)
            kept.append(here)
            if after is not None and number in after:
                x = after[number](x)
        return x, tuple(kept)

    def remember(
        self,
        x: Tokens,
        condition: PerFrame,
        grid: tuple[int, int],
        context: Context | None = None,
        attention_mask: Bool[Tensor, "b m m"] | None = None,
    ) -> Cache:
        """Return the cache of frames, and of the last block no more.

        `look` is as in `forward`, and may be of later frames as well.
        """
        positions, things = self._positions(x, grid, attention_mask), Things.of(context, grid)
        kept: list[KeysValues] = []
        *blocks, last = self.blocks
        assert isinstance(last, SpaceTimeBlock)
        for block in blocks:
            x, here = block(x, condition, positions, None, things)
            kept.append(here)
        return (*kept, last.remember(x, condition, positions))

    def _positions(
        self,
        x: Tokens,
        grid: tuple[int, int],
        attention_mask: Bool[Tensor, "b m m"] | None = None,
        first_t: int = 0,
    ) -> Positions:
        size, end = (x.shape[1], *grid), first_t + x.shape[1]
        attention_mask = None if attention_mask is None else attention_mask[:, first_t:end, :end]
        return Positions(
            size, self.head_dim, self.factorised, attention_mask, first_t, self.views, x.device
        )

    def _cached_frames(self, cache: Cache, grid: tuple[int, int]) -> int:
        tokens = cache[0].keys.shape[2]
        return tokens if self.factorised else tokens // (grid[0] * grid[1])


class FinalLayer(nn.Module):
    """Read tokens `b t s d` out under their frame's vector; zero at first (DiT, 2212.09748)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, channels)
        for layer in (self.modulation, self.project):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tokens, condition: PerFrame) -> Float[Tensor, "b t s c"]:
        """Norm, shift and scale, project."""
        return self.project(self._modulated(x, condition))

    def at(
        self, x: Tokens, condition: PerFrame, places: Int[Tensor, "b n"]
    ) -> Float[Tensor, "b n c"]:
        """Read out some tokens of each row, numbered over all its frames."""
        every = self._modulated(x, condition).flatten(1, 2)
        return self.project(every.take_along_dim(places[..., None], dim=1))

    def _modulated(self, x: Tokens, condition: PerFrame) -> Tokens:
        shift, scale = self.modulation(silu(condition))[:, :, None].chunk(2, dim=-1)
        return _modulate(x, shift, scale)


def in_order(b: int, t: int, device: torch.device) -> Bool[Tensor, "b t t"]:
    """Let frames look at themselves and at those before them."""
    return torch.ones(t, t, dtype=torch.bool, device=device).tril().expand(b, t, t)


def sinusoids(level: Float[Tensor, "b t"], width: int, longest: float = 1000.0) -> PerFrame:
    """Write numbers from 0 to 1 as sines and cosines of many speeds (DiT, 2212.09748)."""
    half = width // 2
    speeds = longest ** (-torch.arange(half, device=level.device) / half)
    angles = level[..., None] * 1000 * speeds
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _modulate(x: Tokens, shift: Tensor, scale: Tensor) -> Tokens:
    return layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
