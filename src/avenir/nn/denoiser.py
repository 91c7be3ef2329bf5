"""The network of flows and diffusions: latents at their levels of noise to what a path needs.

Every frame has a level of its own, so one network sees a clean past and a noisy future. Timestep
embedding: sinusoids, then an MLP (DiT, 2212.09748). Knows neither losses nor samplers.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import silu

from avenir.clip import Condition
from avenir.degradation import Inpainting
from avenir.nn.transformer import Cache, FinalLayer, SpaceTimeTransformer, Tokens, sinusoids
from avenir.shapes import Latents, NoiseLevel


class Denoiser(nn.Module):
    """Latents `b t c h w`, their levels `b t` and a condition `b t d` to latents of that shape.

    `grid` is the tokens of a frame, `h w`, of `patch` rows and columns of latents each; several
    `views` stand side by side in it. With `strides` it is told how far a step goes, with `inpaints`
    which tokens are given, and with `looks` it sees the condition's context.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        attention: Literal["full", "factorised"],
        channels: int,
        patch: int,
        grid: tuple[int, int],
        views: int = 1,
        strides: bool = False,
        inpaints: bool = False,
        looks: bool = False,
    ) -> None:
        super().__init__()
        self.width, self.depth, self.patch, self.views = width, depth, patch, views
        token, num_tokens = channels * patch**2, grid[0] * grid[1]
        self.pos_embed = nn.Parameter(0.02 * torch.randn(num_tokens, width))
        self.proj_in = nn.Linear(2 * token, width)
        self.proj_condition = nn.Linear(width, width)
        self.level = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.stride = nn.Linear(width, width) if strides else None
        self.given = nn.Parameter(torch.zeros(width)) if inpaints else None
        self.transformer = SpaceTimeTransformer(width, depth, heads, attention, views, looks)
        self.proj_out = FinalLayer(width, token)
        self.shares = nn.Linear(width, 2 * channels)
        nn.init.zeros_(self.shares.weight)
        nn.init.zeros_(self.shares.bias)

    def forward(
        self,
        x: Latents,
        level: NoiseLevel,
        condition: Condition | None,
        seen: Float[Tensor, "b #t c h w"],
        attention_mask: Bool[Tensor, "b m m"] | None = None,
        cache: Cache | None = None,
        *,
        after: Mapping[int, Callable[[Tokens], Tokens]] | None = None,
        stride: Float[Tensor, "b t"] | None = None,
        inpainting: Inpainting | None = None,
    ) -> Latents:
        """Say what the path needs at every token; `cache` stands for frames before `x`.

        `stride` says how far each frame is taken at once; none: not at all, as in the flow. What is
        `inpainting` of these frames takes the place of `x` there. `look` and `after` are the
        transformer's.

        `seen`, the last frame of the past, `b 1 c h w`, or the one before each, `b t c h w`, is
        shown at each position: what does not move need not be found by attention. At the exit a
        share of `x` and of `seen`, set by level and channel, is added: tokens need only carry what
        these do not say.
        """
        p, (h, w) = self.patch, self.grid(x)
        tokens, per_frame = self._entered(x, level, condition, seen, stride, inpainting)
        context = condition and condition.context
        tokens, _ = self.transformer(
            tokens, per_frame, (h, w), attention_mask, cache, after, context
        )
        output = self.proj_out(tokens, per_frame)
        output = rearrange(output, "b t (h w) (c p q) -> b t c (h p) (w q)", h=h, p=p, q=p)
        of_x, of_seen = self.shares(silu(per_frame))[..., None, None].chunk(2, dim=2)
        return output + of_x * x + of_seen * seen

    def remember(
        self,
        past: Latents,
        level: NoiseLevel,
        condition: Condition | None,
        seen: Float[Tensor, "b #t c h w"],
        attention_mask: Bool[Tensor, "b m m"] | None = None,
    ) -> Cache:
        """Return what `forward` needs of frames that are known."""
        tokens, per_frame = self._entered(past, level, condition, seen)
        context = condition and condition.context
        return self.transformer.remember(
            tokens, per_frame, self.grid(past), context, attention_mask
        )

    def grid(self, latents: Latents) -> tuple[int, int]:
        """Return rows and columns of tokens."""
        return latents.shape[-2] // self.patch, latents.shape[-1] // self.patch

    def per_token(self, places: Bool[Tensor, "b t h w"]) -> Bool[Tensor, "b t s"]:
        """Mark the tokens of which every latent is marked."""
        p = self.patch
        return rearrange(places, "b t (h p) (w q) -> b t (h w) (p q)", p=p, q=p).all(-1)

    def _entered(
        self,
        x: Latents,
        level: NoiseLevel,
        condition: Condition | None,
        seen: Float[Tensor, "b #t c h w"],
        stride: Float[Tensor, "b t"] | None = None,
        inpainting: Inpainting | None = None,
    ) -> tuple[Float[Tensor, "b t s d"], Float[Tensor, "b t d"]]:
        """Turn latents into tokens, and what is known of each frame into its vector."""
        p = self.patch
        known = x if inpainting is None else inpainting.over(x)
        both = torch.cat([known, seen.expand_as(x)], dim=2)
        tokens = self.proj_in(rearrange(both, "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=p))
        # Rotary positions say how far apart two tokens are; this says where each one is.
        tokens = tokens + self.pos_embed
        if inpainting is not None and self.given is not None:
            tokens = tokens + self.given * self.per_token(inpainting.known)[..., None]
        per_frame = self.level(sinusoids(level, self.width))
        if self.stride is not None:
            far = torch.zeros_like(level) if stride is None else stride
            per_frame = per_frame + self.stride(sinusoids(far, self.width))
        if condition is not None:
            per_frame = per_frame + condition.per_frame
            # Written into the tokens as well: attention then carries it from frame to frame.
            tokens = tokens + self.proj_condition(condition.per_frame)[:, :, None]
            if condition.per_view is not None:
                h, w = self.grid(x)
                columns = condition.per_view.repeat_interleave(w // self.views, dim=2)
                tokens = tokens + columns.repeat(1, 1, h, 1)
        return tokens, per_frame
