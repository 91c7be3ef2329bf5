"""Prediction in the space of an encoder: the next latents themselves, nothing drawn, no pixels.

V-JEPA 2-AC (2506.09985, section 3): a frame-causal transformer on a frozen encoder says the latents
of every next frame from the true ones before it, and those of the last frames from what it said
itself; both by L1. It says what changes: at first every frame is the one before. Where the future
is open its prediction is the middle of what may come. Every encoder will do; one that cannot decode
makes a world that foresees, and cannot be watched.
"""

import math
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from avenir.clip import Condition, Progress
from avenir.config import Config
from avenir.nn.transformer import Cache, FinalLayer, SpaceTimeTransformer, in_order
from avenir.predictors import (
    MOST_FRAMES,
    FeatureHook,
    Hidden,
    LatentShape,
    Memory,
    Predictor,
    remembered,
    through_grid,
)
from avenir.shapes import Latents


class JointEmbeddingConfig(Config):
    """The predictor of representations."""

    kind: str = "joint_embedding"
    width: int = Field(256, ge=16)
    """Width of the transformer."""
    depth: int = Field(8, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    patch: int = Field(1, ge=1)
    """Latent rows and columns per token."""
    attention: Literal["full", "factorised"] = "full"
    """All tokens at once, or space then time."""
    past: int = Field(4, ge=1, le=MOST_FRAMES)
    """Latent frames remembered."""
    rollout: int = Field(2, ge=1, le=MOST_FRAMES)
    """Last frames of a training window that are predicted from predictions."""


class JointEmbedding(Predictor):
    """Latents `b t c h w` and a condition `b t d` to the latents that come next."""

    Config = JointEmbeddingConfig

    def __init__(self, config: JointEmbeddingConfig, shape: LatentShape) -> None:
        super().__init__()
        self.config = config
        self.width, self.depth, self.patch = config.width, config.depth, config.patch
        self.num_train_frames = config.past + config.rollout
        token = shape.channels * config.patch**2
        num_tokens = math.prod(shape.grid(config.patch))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(num_tokens, config.width))
        self.unsteered = nn.Parameter(0.02 * torch.randn(config.width))
        self.proj_in = nn.Linear(token, config.width)
        self.proj_condition = nn.Linear(config.width, config.width)
        self.transformer = SpaceTimeTransformer(
            config.width, config.depth, config.heads, config.attention
        )
        self.proj_out = FinalLayer(config.width, token)

    def losses(
        self,
        latents: Latents,
        condition: Condition | None,
        progress: Progress,
        hook: FeatureHook | None = None,
    ) -> dict[str, Tensor]:
        """Say every next frame from the true ones, then the last ones from what was said."""
        t, steps = latents.shape[1], min(self.config.rollout, latents.shape[1] - 1)
        output, _ = self.forward(
            latents[:, :-1], _after(condition, 0, t - 1), hook=_after_hook(hook)
        )
        rolled = latents[:, : t - steps]
        for _ in range(steps):
            seen = rolled.shape[1]
            after, _ = self.forward(rolled, _after(condition, 0, seen))
            rolled = torch.cat([rolled, after[:, -1:]], dim=1)
        return {
            "teacher_forced": (output - latents[:, 1:]).abs().mean(),
            "rolled_out": (rolled - latents)[:, t - steps :].abs().mean(),
        }

    def forward(
        self,
        latents: Latents,
        condition: Condition | None,
        cache: Cache | None = None,
        hook: FeatureHook | None = None,
    ) -> tuple[Latents, Cache]:
        """Say, at every frame, the next; `condition` is that of the frames to be said.

        `cache` stands for frames before these.
        """
        (b, t), p = latents.shape[:2], self.patch
        h, w = latents.shape[-2] // p, latents.shape[-1] // p
        x = self.proj_in(rearrange(latents, "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=p))
        x = x + self.pos_embed
        per_frame = self.unsteered.expand(b, t, -1)
        if condition is not None:
            per_frame = per_frame + condition.per_frame
            x = x + self.proj_condition(condition.per_frame)[:, :, None]
        attention_mask = in_order(b, t, x.device) if t > 1 else None
        counts = torch.ones(b, t, device=x.device)
        after = None if hook is None else {hook.layer: through_grid(hook, counts, h)}
        x, kept = self.transformer(x, per_frame, (h, w), attention_mask, cache, after)
        change = self.proj_out(x, per_frame)
        change = rearrange(change, "b t (h w) (c p q) -> b t c (h p) (w q)", h=h, p=p, q=p)
        return latents + change, kept

    def start(self, past: Latents, condition: Condition | None) -> Memory:
        """Remember the last `past` latent frames."""
        return remembered(past, condition, self.config.past)

    @torch.no_grad()
    def predict(
        self, memory: Memory, condition: Condition | None, length: int, generator: torch.Generator
    ) -> tuple[Latents, Memory]:
        """Say one frame after the other; each is computed once and kept. Nothing is drawn."""
        both, frames, cache = memory.led_by(condition), memory.latents, None
        new = frames
        for _ in range(length):
            seen = frames.shape[1]
            output, kept = self.forward(new, _after(both, seen - new.shape[1], seen), cache)
            cache = kept if cache is None else _joined(cache, kept)
            new = output[:, -1:]
            frames = torch.cat([frames, new], dim=1)
        return frames[:, memory.num_frames :], self.start(frames, both)


def _after(condition: Condition | None, first: int, end: int) -> Condition | None:
    """Return the condition of the frames that come after frames `first` to `end`."""
    return None if condition is None else condition[first + 1 : end + 1]


def _after_hook(hook: FeatureHook | None) -> FeatureHook | None:
    """Show a hook every token at the frame that it predicts; none predicts the first."""
    if hook is None:
        return None

    def through(tokens: Hidden, counts: Float[Tensor, "b t"]) -> Hidden:
        tokens, counts = (torch.cat([0 * x[:, :1], x], dim=1) for x in (tokens, counts))
        return hook.through(tokens, counts)[:, 1:]

    return FeatureHook(hook.layer, through)


def _joined(cache: Cache, new: Cache) -> Cache:
    return tuple(
        type(old)(*(torch.cat(pair, dim=2) for pair in zip(old, here, strict=True)))
        for old, here in zip(cache, new, strict=True)
    )
