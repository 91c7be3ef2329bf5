"""Boxes: what is where in a frame, and of which category, for every token to look at.

GAIA-2 (2503.20523) steers agents by their boxes, projected into each view, features and whole boxes
dropped at random, and lets the model look at them by cross-attention. Here a token looks only at
boxes that reach it, so which is meant for which place need not be found out. Where every box of
a frame is given, one more token, which is seen from everywhere, says that there is nothing else.
"""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import one_hot

from avenir.clip import Condition, Context
from avenir.conditioners import (
    Conditioner,
    ConditionSpec,
    embedding,
    groups_of,
    kept_frames,
    set_mean_and_std,
)
from avenir.config import Config
from avenir.shapes import BOX_NUMBERS, Latents

_OCTAVES = 6
"""Sines of a place, each twice as fast as the one before: the last tells 1/64 of a frame apart."""

_LEAST = 2e-3
"""Of a frame: so wide and high is a box at least, for somebody to see it."""

_DEPTH, _CATEGORY = 4, 5


class BoxesConfig(Config):
    """Boxes of every frame."""

    kind: str = "boxes"
    categories: int = Field(16, ge=1)
    """Categories that are distinguished, counted from 1."""
    dropout: float = Field(0.1, ge=0, le=1)
    """Chance that no box of a window is known, which guidance needs."""
    part_dropout: float = Field(0.2, ge=0, le=1)
    """Chance that none is up to some frame, or from some frame on."""
    box_dropout: float = Field(0.3, ge=0, le=1)
    """Chance that only some are, the same all along."""
    feature_dropout: float = Field(0.1, ge=0, le=1)
    """Chance, of each number of each box but its place, that it is not."""


class BoxesConditioner(Conditioner):
    """Boxes `b T (m 6)`, as in shapes.py, to a context of `m + 1` tokens for every latent frame.

    A place in the list is the same thing in all frames of a latent one, and is seen wherever that
    is in any of them. Of a box without a number, NaN, the rest is used; one without a place is not
    used, and then nothing says that these are all there are.
    """

    Config = BoxesConfig
    mean: Float[Tensor, " 1"]
    std: Float[Tensor, " 1"]
    null: Tensor

    def __init__(self, config: BoxesConfig, spec: ConditionSpec) -> None:
        super().__init__()
        self.config, self.f_t = config, spec.f_t
        self.size = spec.sizes["boxes"]
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("std", torch.ones(1))
        self.register_buffer("null", torch.zeros(1, 1, spec.width), persistent=False)
        self.embed = embedding(4 * (2 * _OCTAVES + 1) + 2 + 1 + config.categories, spec.width)
        self.complete = nn.Parameter(torch.randn(1, 1, 1, spec.width))

    @classmethod
    def needs(cls, settings: BoxesConfig) -> tuple[str, ...]:
        """Read boxes."""
        return ("boxes",)

    @classmethod
    def gives_context(cls, settings: BoxesConfig) -> bool:
        """Say that boxes are looked at."""
        return True

    def forward(
        self,
        signals: dict[str, Tensor],
        num_frames: int,
        batch_size: int,
        generator: torch.Generator | None = None,
        latents: Latents | None = None,
    ) -> Condition:
        """Embed the boxes of the last frame of every latent frame, seen where they were in any."""
        shape = (batch_size, num_frames, self.size)
        given = groups_of(signals.get("boxes"), shape, self.f_t, self.mean.device)
        groups = rearrange(given, "b t f (m n) -> b t f m n", n=BOX_NUMBERS)
        if generator is not None:
            groups = self._dropped(groups, generator)
        boxes = groups[:, :, -1]
        placed = boxes[..., :2].isfinite().all(-1)
        there = placed & (boxes[..., _CATEGORY] != 0)
        things = Context(self._embedded(boxes), there, _edges(groups))
        every = self.complete.expand(*shape[:2], -1, -1)
        no_others = Context.everywhere(every, placed.all(-1, keepdim=True))
        unknown = self.null.expand(batch_size, num_frames, -1)
        context = Context.joined([things, no_others], dim=2)
        return Condition(unknown, self.null, context=context)

    def fit(self, signals: Sequence[dict[str, Tensor]]) -> None:
        """Normalise depths; all else are shares of a frame."""
        rows = torch.cat([signal["boxes"].reshape(-1, BOX_NUMBERS) for signal in signals])
        depths = rows[rows.isfinite().all(-1) & (rows[:, _CATEGORY] != 0), _DEPTH]
        set_mean_and_std(self, depths[:, None])

    def _embedded(self, boxes: Float[Tensor, "b t m 6"]) -> Float[Tensor, "b t m d"]:
        known = boxes.isfinite().float()
        values = boxes.masked_fill(~boxes.isfinite(), 0)
        speeds = 2 * math.pi * 2 ** torch.arange(_OCTAVES, device=boxes.device)
        angles = values[..., :4, None] * speeds
        places = torch.cat([angles.sin(), angles.cos()], dim=-1) * known[..., :4, None]
        depth = ((values[..., [_DEPTH]] - self.mean) / self.std) * known[..., [_DEPTH]]
        # A category beyond those that are told apart is the last.
        category = values[..., _CATEGORY].long().clamp(0, self.config.categories)
        kinds = one_hot(category, 1 + self.config.categories)[..., 1:]
        return self.embed(torch.cat([places.flatten(-2), depth, known, kinds], dim=-1))

    def _dropped(
        self, groups: Float[Tensor, "b t f m 6"], generator: torch.Generator
    ) -> Float[Tensor, "b t f m 6"]:
        """Leave out frames, boxes and numbers, each as its setting says."""
        config, (b, t, _, m, n) = self.config, groups.shape

        def draw(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=generator.device)

        kept = kept_frames(b, t, config.dropout, config.part_dropout, generator)
        some: Bool[Tensor, "b 1"] = draw(b, 1) < config.box_dropout
        left_out = some & (draw(b, m) < draw(b, 1))
        numbers = draw(b, m, n) < config.feature_dropout
        numbers[..., :2] = False
        # An empty place has no numbers to forget.
        unknown = numbers[:, None, None] & (groups[..., [_CATEGORY]] != 0)
        unknown = unknown | left_out[:, None, None, :, None] | ~kept[..., None, None, None]
        return groups.masked_fill(unknown, torch.nan)


def _edges(groups: Float[Tensor, "b t f m 6"]) -> Float[Tensor, "b t m 4"]:
    """Return left, top, right and bottom of what each box covers in any frame of a latent one.

    Of a box of unknown size that is its middle, and hardly more.
    """
    middle, size = groups[..., :2], groups[..., 2:4]
    half = size.where(size.isfinite(), 0).clamp(min=_LEAST) / 2
    absent = ~middle.isfinite().all(-1, keepdim=True) | (groups[..., [_CATEGORY]] == 0)
    first = (middle - half).masked_fill(absent, torch.inf).amin(2)
    last = (middle + half).masked_fill(absent, -torch.inf).amax(2)
    return torch.cat([first, last], dim=-1)
