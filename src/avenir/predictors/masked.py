"""Masked prediction over tokens: some are hidden, and all hidden ones are predicted at once.

One training for video (MaskGIT, 2202.04200; MAGVIT, 2212.05199) and for text (masked diffusion,
MDLM, 2406.07524): they differ in how often much is hidden, and in what a hidden token counts. The
past of a window is never hidden and never looks ahead, so that it is computed once and kept. Text
is a video of one token per frame.
"""

from collections.abc import Callable
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from avenir.clip import Condition, Progress
from avenir.config import Config
from avenir.degradation import Degradation, draw_rate, hide_future
from avenir.errors import AvenirError
from avenir.nn.transformer import Cache, FinalLayer, SpaceTimeTransformer
from avenir.predictors import (
    MOST_FRAMES,
    FeatureHook,
    LatentShape,
    Memory,
    TokenPredictor,
    remembered,
    through_grid,
)
from avenir.samplers import (
    MOST_STEPS,
    DrawingConfig,
    Hidden,
    draw,
    hidden_after,
    hidden_places,
    unmask,
)
from avenir.shapes import Latents, Tokens


class UnmaskingConfig(DrawingConfig):
    """How a chunk is revealed."""

    num_steps: int = Field(8, ge=1, le=MOST_STEPS)
    """Steps until nothing is hidden."""
    schedule: Literal["linear", "cosine"] = "cosine"
    """How many are revealed at each: equally many, or few at first."""
    order: Literal["confidence", "random"] = "confidence"
    """Which are revealed first: the surest, or any."""
    noise: float = Field(1.0, ge=0)
    """How far chance decides which are surest, at first."""


class MaskedConfig(Config):
    """The token predictor that fills in what is hidden."""

    kind: str = "masked"
    width: int = Field(256, ge=16)
    """Width of the transformer."""
    depth: int = Field(8, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    attention: Literal["full", "factorised"] = "full"
    """All tokens at once, or space then time."""
    hide: Literal["uniform", "cosine"] = "cosine"
    """How the share of hidden tokens is drawn: evenly, or mostly much."""
    loss: Literal["mean", "bound"] = "mean"
    """Every hidden token counts the same, or as much as makes the loss a bound on the negative
    log-likelihood, in nats per token."""
    past: int = Field(4, ge=0, le=MOST_FRAMES)
    """Latent frames remembered."""
    chunk: int = Field(1, ge=1, le=MOST_FRAMES)
    """Latent frames predicted by one call once the memory is full."""
    full_past_probability: float = Field(0.5, ge=0, le=1)
    """Chance that a training window shows the full past, rather than fewer frames of it."""
    sampling: UnmaskingConfig = UnmaskingConfig.model_validate({})
    """How a chunk is revealed."""


class Masked(TokenPredictor):
    """Latents `b t c h w`, as tokens, and a condition `b t d` to the tokens that come next."""

    Config = MaskedConfig
    patch = 1
    bounds = True

    def __init__(self, config: MaskedConfig, shape: LatentShape) -> None:
        super().__init__(config.kind, shape)
        self.config, self.width, self.depth = config, config.width, config.depth
        self.h, self.w = shape.h, shape.w
        self.num_train_frames = config.past + config.chunk
        self.proj_in = nn.Embedding(len(self.codes), config.width)
        self.hidden = nn.Parameter(torch.zeros(config.width))
        self.pos_embed = nn.Parameter(torch.zeros(shape.h * shape.w, config.width))
        self.unsteered = nn.Parameter(torch.zeros(config.width))
        self.proj_condition = nn.Linear(config.width, config.width)
        self.transformer = SpaceTimeTransformer(
            config.width, config.depth, config.heads, config.attention
        )
        self.proj_out = FinalLayer(config.width, len(self.codes))
        for weight in (self.proj_in.weight, self.pos_embed, self.hidden, self.unsteered):
            nn.init.normal_(weight, std=0.02)

    # Training ---------------------------------------------------------------------------------

    def losses(
        self,
        latents: Latents,
        condition: Condition | None,
        progress: Progress,
        hook: FeatureHook | None = None,
    ) -> dict[str, Tensor]:
        """Hide, score, compare where something is hidden: nats per token."""
        (b, t), generator = latents.shape[:2], progress.generator
        degradation = self.degrade(b, t, generator)
        error, weight, hidden = self._error(
            latents, condition, degradation, self.config.hide, generator, hook
        )
        if self.config.loss == "mean":
            return {"cross_entropy": error.sum() / hidden.sum().clamp(min=1)}
        places = degradation.weight.sum(1) * self.h * self.w
        return {"cross_entropy": (weight * error.sum((1, 2, 3)) / places).mean()}

    def cost(
        self,
        latents: Latents,
        condition: Condition | None,
        num_past: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "b s"]:
        """Sum the weighted nats of each frame's hidden tokens, hiding once in every row."""
        (b, t), device = latents.shape[:2], generator.device
        past = torch.full((b,), num_past, device=device)
        degradation = hide_future(
            torch.zeros(b, t, device=device), past, torch.ones(b, device=device)
        )
        error, weight, _ = self._error(latents, condition, degradation, "uniform", generator)
        return (weight[:, None] * error.sum((2, 3)))[:, num_past:]

    def _error(
        self,
        latents: Latents,
        condition: Condition | None,
        degradation: Degradation,
        hide: Literal["uniform", "cosine"],
        generator: torch.Generator,
        hook: FeatureHook | None = None,
    ) -> tuple[Float[Tensor, "b t h w"], Float[Tensor, " b"], Hidden]:
        """Hide some of what is to be predicted: nats where hidden, the rows' weights, and where."""
        tokens = self.tokens(latents)
        rate, weight = draw_rate(len(tokens), hide, generator)
        drawn = torch.rand(tokens.shape, generator=generator, device=tokens.device)
        future = degradation.weight[..., None, None] > 0
        hidden = (drawn < rate[:, None, None, None]) & future
        scores = self.forward(tokens, hidden, condition, degradation, hook=hook)
        error = cross_entropy(scores.flatten(0, -2), tokens.flatten(), reduction="none")
        return error.view_as(tokens) * hidden, weight, hidden

    def degrade(self, b: int, t: int, generator: torch.Generator) -> Degradation:
        """Draw how many frames of each window are past; the others are to be predicted."""
        device, most = generator.device, min(self.config.past, t - 1)
        least = min(1, most)
        some = torch.randint(least, most + 1, (b,), generator=generator, device=device)
        full = torch.rand(b, generator=generator, device=device) < self.config.full_past_probability
        zeros, ones = torch.zeros(b, t, device=device), torch.ones(b, device=device)
        return hide_future(zeros, torch.where(full, most, some), ones)

    # The network ------------------------------------------------------------------------------

    def forward(
        self,
        tokens: Tokens,
        hidden: Hidden,
        condition: Condition | None,
        degradation: Degradation | None = None,
        cache: Cache | None = None,
        hook: FeatureHook | None = None,
    ) -> Float[Tensor, "b t h w v"]:
        """Score all tokens at every place; `cache` stands for frames before these."""
        x, per_frame = self._seen(tokens, hidden, condition, degradation, cache, hook)
        return rearrange(self.proj_out(x, per_frame), "b t (h w) v -> b t h w v", h=self.h)

    def at_hidden(
        self,
        tokens: Tokens,
        hidden: Hidden,
        condition: Condition | None,
        degradation: Degradation | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "b n v"]:
        """Score all tokens where they are hidden, at equally many places in every row."""
        x, per_frame = self._seen(tokens, hidden, condition, degradation, cache)
        return self.proj_out.at(x, per_frame, hidden_places(hidden))

    def remember(self, tokens: Tokens, condition: Condition | None) -> Cache:
        """Return what the others need of frames that are known."""
        x, per_frame = self._placed(self.proj_in(tokens.flatten(2)), condition)
        return self.transformer.remember(x, per_frame, (self.h, self.w))

    def _seen(
        self,
        tokens: Tokens,
        hidden: Hidden,
        condition: Condition | None,
        degradation: Degradation | None,
        cache: Cache | None,
        hook: FeatureHook | None = None,
    ) -> tuple[Float[Tensor, "b t s d"], Float[Tensor, "b t d"]]:
        """Run the transformer; return its tokens, and the vectors of their frames."""
        shown = self.proj_in(tokens.flatten(2))
        x = torch.where(hidden.flatten(2)[..., None], self.hidden, shown)
        x, per_frame = self._placed(x, condition)
        attention_mask = None if degradation is None else degradation.attention_mask
        after = None
        if hook is not None and degradation is not None:
            after = {hook.layer: through_grid(hook, degradation.weight, self.h)}
        x, _ = self.transformer(x, per_frame, (self.h, self.w), attention_mask, cache, after)
        return x, per_frame

    def _placed(
        self, x: Float[Tensor, "b t s d"], condition: Condition | None
    ) -> tuple[Float[Tensor, "b t s d"], Float[Tensor, "b t d"]]:
        """Add to every token where it is, and what leads into its frame; return both."""
        x, per_frame = x + self.pos_embed, self.unsteered.expand(*x.shape[:2], -1)
        if condition is None:
            return x, per_frame
        led = self.proj_condition(condition.per_frame)[:, :, None]
        return x + led, per_frame + condition.per_frame

    # Prediction -------------------------------------------------------------------------------

    def start(self, past: Latents, condition: Condition | None) -> Memory:
        """Remember the last `past` latent frames."""
        return remembered(past, condition, self.config.past)

    @torch.no_grad()
    def predict(
        self, memory: Memory, condition: Condition | None, length: int, generator: torch.Generator
    ) -> tuple[Latents, Memory]:
        """Reveal one chunk; the past is computed once and kept meanwhile."""
        cache, shape = None, (len(memory.latents), length, self.h, self.w)
        if memory.num_frames:
            cache = self.remember(self.tokens(memory.latents), memory.condition)
        unknown = torch.zeros(shape, dtype=torch.long, device=self.codes.device)
        tokens = self._revealed(
            lambda tokens, hidden: self.at_hidden(tokens, hidden, condition, cache=cache),
            unknown,
            torch.ones_like(unknown).bool(),
            generator,
        )
        chunk = self.embed(tokens)
        return chunk, self.start(
            torch.cat([memory.latents, chunk], dim=1), memory.led_by(condition)
        )

    @torch.no_grad()
    def infill(
        self,
        before: Latents,
        after: Float[Tensor, "b s c h w"],
        condition: Condition | None,
        length: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "b _n c h w"]:
        """Reveal a hole in a window as long as those of training, where both its sides are known.

        Half of what the hole leaves of the window is given to either side, more where the other is
        short; nothing is seen of what lies farther away. Raises AvenirError when it leaves no room.
        """
        room, least = self.num_train_frames - length, min(1, self.config.past)
        if room < least + min(1, after.shape[1]):
            raise AvenirError(
                f"a hole of {length} latent frames is to be filled, and a window of this predictor "
                f"holds {self.num_train_frames} with what is known around it: make it smaller, or "
                "train with a larger predictor.chunk"
            )
        num_after = min(after.shape[1], max(1, room // 2))
        num_past = min(before.shape[1], self.config.past, room - num_after)
        past, coming = before[:, before.shape[1] - num_past :], after[:, : room - num_past]
        if condition is not None:
            first = before.shape[1] - past.shape[1]
            condition = condition[first : before.shape[1] + length + coming.shape[1]]
        unknown = torch.zeros_like(before[:, :1]).expand(-1, length, -1, -1, -1)
        tokens = self.tokens(torch.cat([past, unknown, coming], dim=1))
        (b, t), start = tokens.shape[:2], past.shape[1]
        hidden = torch.zeros_like(tokens).bool()
        hidden[:, start : start + length] = True
        ones = torch.ones(b, device=tokens.device)
        degradation = hide_future(0 * ones[:, None].expand(b, t), (start * ones).long(), ones)
        revealed = self._revealed(
            lambda tokens, hidden: self.at_hidden(tokens, hidden, condition, degradation),
            tokens,
            hidden,
            generator,
        )
        return self.embed(revealed[:, start : start + length])

    def _revealed(
        self,
        score: Callable[[Tokens, Hidden], Float[Tensor, "b n v"]],
        tokens: Tokens,
        hidden: Hidden,
        generator: torch.Generator,
    ) -> Tokens:
        """Reveal what is hidden, equally much in every row, by the settings there are."""
        sampling, count = self.config.sampling, int(hidden[0].sum())
        return unmask(
            score,
            tokens,
            hidden,
            hidden_after(count, sampling.num_steps, sampling.schedule),
            sampling.order,
            sampling.noise,
            lambda scores: draw(scores, sampling, generator),
            generator,
        )
