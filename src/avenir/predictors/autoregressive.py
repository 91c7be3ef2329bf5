"""Autoregression over tokens: every token is drawn given all that came before it.

In `raster` order tokens come one by one, row by row, frame by frame, as in a language model
(VideoGPT, 2104.10157). In `block` order the tokens of a frame are drawn at once, each on its own,
from all earlier frames: fast, and blind to what its neighbours become. The condition of the frame
that a token belongs to is added to what it is predicted from, so that actions stand between frames.
Text is a video of one token per frame.
"""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from avenir.clip import Condition, Progress
from avenir.config import Config
from avenir.errors import AvenirError
from avenir.nn.attention import Rotation, grid_positions, rotation
from avenir.nn.decoder import Decoder, Kept
from avenir.predictors import (
    MOST_FRAMES,
    FeatureHook,
    LatentShape,
    Memory,
    TokenPredictor,
    check_sinks,
    remembered,
)
from avenir.samplers import DrawingConfig, draw
from avenir.shapes import Latents, Tokens


class AutoregressiveConfig(Config):
    """The token predictor that draws one after the other."""

    kind: str = "autoregressive"
    order: Literal["raster", "block"] = "raster"
    """Token after token, or all tokens of a frame at once."""
    width: int = Field(256, ge=16)
    """Width of the decoder."""
    depth: int = Field(8, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """Heads of queries."""
    kv_heads: int = Field(2, ge=1)
    """Heads of keys and values, shared by those of queries."""
    past: int = Field(4, ge=1, le=MOST_FRAMES)
    """Latent frames remembered."""
    sinks: int = Field(0, ge=0, le=MOST_FRAMES)
    """How many of them are the first that were ever seen (attention sinks, 2309.17453)."""
    chunk: int = Field(1, ge=1, le=MOST_FRAMES)
    """Latent frames predicted by one call once the memory is full."""
    sampling: DrawingConfig = DrawingConfig.model_validate({})
    """How tokens are drawn."""


class Autoregressive(TokenPredictor):
    """Latents `b t c h w`, as tokens, and a condition `b t d` to the tokens that come next."""

    Config = AutoregressiveConfig
    patch = 1

    def __init__(self, config: AutoregressiveConfig, shape: LatentShape) -> None:
        super().__init__(config.kind, shape)
        if config.heads % config.kv_heads or config.width % (2 * config.heads):
            raise AvenirError(
                f"predictor.width is {config.width}, heads {config.heads} and kv_heads "
                f"{config.kv_heads}; kv_heads must divide heads, and twice the heads the width"
            )
        check_sinks(config.sinks, config.past)
        self.config, self.width, self.depth = config, config.width, config.depth
        self.h, self.w = shape.h, shape.w
        self.num_train_frames = config.past + config.chunk
        self.proj_in = nn.Embedding(len(self.codes), config.width)
        self.unknown = nn.Parameter(torch.zeros(config.width))
        self.pos_embed = nn.Parameter(torch.zeros(shape.h * shape.w, config.width))
        self.proj_condition = nn.Linear(config.width, config.width)
        self.decoder = Decoder(config.width, config.depth, config.heads, config.kv_heads)
        self.proj_out = nn.Linear(config.width, len(self.codes), bias=False)
        for weight in (self.proj_in.weight, self.pos_embed, self.unknown):
            nn.init.normal_(weight, std=0.02)
        nn.init.zeros_(self.proj_out.weight)

    # Training ---------------------------------------------------------------------------------

    def losses(
        self,
        latents: Latents,
        condition: Condition | None,
        progress: Progress,
        hook: FeatureHook | None = None,
    ) -> dict[str, Tensor]:
        """Score every token given those before it: nats per token."""
        return {"cross_entropy": self._error(latents, condition, hook).mean()}

    def cost(
        self,
        latents: Latents,
        condition: Condition | None,
        num_past: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "b s"]:
        """Sum the nats of each frame's tokens; nothing is drawn."""
        return self._error(latents, condition)[:, num_past:].sum((2, 3))

    def _error(
        self, latents: Latents, condition: Condition | None, hook: FeatureHook | None = None
    ) -> Float[Tensor, "b t h w"]:
        tokens = self.tokens(latents)
        scores = self.scores(tokens, condition, hook)
        error = cross_entropy(scores.flatten(0, -2), tokens.flatten(), reduction="none")
        return error.view_as(tokens)

    def scores(
        self, tokens: Tokens, condition: Condition | None, hook: FeatureHook | None = None
    ) -> Float[Tensor, "b t h w v"]:
        """Score all tokens at every place, each from what may be known there.

        In raster order those are the earlier tokens, in block order the earlier frames.
        """
        b, t, h, w = tokens.shape
        known = self.proj_in(tokens.flatten(2))
        if self.config.order == "raster":
            first = self.unknown.expand(b, 1, -1)
            before = torch.cat([first, known.flatten(1, 2)[:, :-1]], dim=1)
            x = self._placed(before.view_as(known), condition)
            hidden = self._decode(x, self._angles(t), None, hook, t)
        else:
            both = [known, self.unknown.expand_as(known)]
            x = torch.cat([self._placed(each, condition) for each in both], dim=1)
            angles = self._angles(t)
            twice = Rotation(*(torch.cat([each, each]) for each in angles))
            hidden = self._decode(x, twice, self._look(t), hook, t)[:, t * h * w :]
        return rearrange(self.proj_out(hidden), "b (t h w) v -> b t h w v", t=t, h=h)

    def _look(self, t: int) -> Bool[Tensor, "n n"]:
        """Let known frames look at themselves and earlier ones, asked ones at what came before."""
        frame = torch.arange(t, device=self.codes.device).repeat_interleave(self.h * self.w)
        later, same = frame[:, None] > frame, frame[:, None] == frame
        known = torch.cat([later | same, torch.zeros_like(same)], dim=1)
        return torch.cat([known, torch.cat([later, same], dim=1)])

    def _decode(
        self,
        x: Float[Tensor, "b n d"],
        angles: Rotation,
        mask: Bool[Tensor, "n n"] | None,
        hook: FeatureHook | None,
        t: int,
    ) -> Float[Tensor, "b n d"]:
        if hook is None:
            return self.decoder(x, angles, mask)
        counts = torch.ones(len(x), t, device=x.device)

        def through(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
            asked = tokens[:, -t * self.h * self.w :]
            hidden = rearrange(asked, "b (t h w) d -> b t d h w", t=t, h=self.h)
            back = rearrange(hook.through(hidden, counts), "b t d h w -> b (t h w) d")
            return torch.cat([tokens[:, : -back.shape[1]], back], dim=1)

        return self.decoder(x, angles, mask, after={hook.layer: through})

    # Prediction -------------------------------------------------------------------------------

    def start(self, past: Latents, condition: Condition | None) -> Memory:
        """Remember the first `sinks` latent frames and the last ones, `past` in all."""
        return remembered(past, condition, self.config.past, self.config.sinks)

    @torch.no_grad()
    def predict(
        self, memory: Memory, condition: Condition | None, length: int, generator: torch.Generator
    ) -> tuple[Latents, Memory]:
        """Draw one chunk; keys and values of what is known are computed once."""
        past = self.tokens(memory.latents)
        both = memory.led_by(condition)
        make = self._token_by_token if self.config.order == "raster" else self._frame_by_frame
        # What is made inside may not be learnt from: only its codes leave. A tenth faster.
        with torch.inference_mode():
            made = make(past, both, length, generator)
        chunk = self.embed(made)
        return chunk, self.start(torch.cat([memory.latents, chunk], dim=1), both)

    def _token_by_token(
        self, past: Tokens, condition: Condition | None, length: int, generator: torch.Generator
    ) -> Int[Tensor, "b _t h w"]:
        b, t, h, w = past.shape
        size, end = h * w, t + length
        angles, kept = self._angles(end), Kept(self.decoder, b, end * size)
        placed = self._placed(self.proj_in.weight.new_zeros(b, end, size, self.width), condition)
        line = past.flatten(1)
        first = self.unknown.expand(b, 1, -1)
        before = torch.cat([first, self.proj_in(line[:, :-1])], dim=1)
        self.decoder(placed[:, : t * size] + before, angles[: t * size], kept=kept)
        token, made = line[:, -1:], []
        for place in range(t * size, end * size):
            here = slice(place, place + 1)
            x = placed[:, here] + self.proj_in(token)
            token = self._drawn(self.decoder(x, angles[here], kept=kept), generator)
            made.append(token)
        return rearrange(torch.cat(made, dim=1), "b (t h w) -> b t h w", h=h, w=w)

    def _frame_by_frame(
        self, past: Tokens, condition: Condition | None, length: int, generator: torch.Generator
    ) -> Int[Tensor, "b _t h w"]:
        b, t, h, w = past.shape
        size, end = h * w, t + length
        angles, kept = self._angles(end), Kept(self.decoder, b, end * size)
        placed = self._placed(self.proj_in.weight.new_zeros(b, end, size, self.width), condition)
        known = self.proj_in(past.flatten(1)) + placed[:, : t * size]
        self.decoder(known, angles[: t * size], self._look(t)[: t * size, : t * size], kept)
        made = []
        for frame in range(t, end):
            here = slice(frame * size, (frame + 1) * size)
            attention_mask = torch.ones(
                size, (frame + 1) * size, dtype=torch.bool, device=past.device
            )
            asked = placed[:, here] + self.unknown
            tokens = self._drawn(
                self.decoder(asked, angles[here], attention_mask, kept, False), generator
            )
            made.append(tokens)
            if frame < end - 1:
                self.decoder(
                    placed[:, here] + self.proj_in(tokens), angles[here], attention_mask, kept
                )
        return rearrange(torch.stack(made, dim=1), "b t (h w) -> b t h w", h=h)

    def _drawn(
        self, hidden: Float[Tensor, "b n d"], generator: torch.Generator
    ) -> Int[Tensor, "b n"]:
        return draw(self.proj_out(hidden), self.config.sampling, generator)

    # Tokens -----------------------------------------------------------------------------------

    def _placed(
        self, x: Float[Tensor, "b t s d"], condition: Condition | None
    ) -> Float[Tensor, "b n d"]:
        """Add to every token where it is, and the condition of its frame."""
        x = x + self.pos_embed
        if condition is not None:
            x = x + self.proj_condition(condition.per_frame)[:, :, None]
        return x.flatten(1, 2)

    def _angles(self, t: int) -> Rotation:
        places = grid_positions(t, self.h, self.w).to(self.codes.device)
        return rotation(places, self.decoder.head_dim)
