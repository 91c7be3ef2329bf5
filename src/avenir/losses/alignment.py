"""How far latents are from what another encoder, the teacher, sees in the same video.

Latents and features are small videos, `b t c h w`, laid on one grid. Compared are directions, after
a linear projection, and relations: which tokens of a clip are alike, over space and time
(VideoREPA, 2505.23656). Inside a margin nothing is asked (VF loss of VA-VAE, 2501.01423; without
margin and relations it is GAIA-2's distillation, 2503.20523). What all tokens of a clip share is
taken from the features first: it is alike everywhere (iREPA, 2512.10794). Local correlation needs
no teacher (SSVAE, 2512.05394), nor does hiding the future from decoding, so that latents tell it
(PV-VAE, 2605.02134). The tokens inside a predictor are drawn in the same way as the latents of a
tokenizer (REPA, 2410.06940). Knows no encoder and no predictor.
"""

import math
from typing import Any, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize, relu

from avenir.clip import Progress
from avenir.config import Config
from avenir.errors import AvenirError
from avenir.losses.reconstruction import noised
from avenir.shapes import Compression, Latents

Features = Float[Tensor, "b t f h w"]
"""A teacher's latents, laid on the grid of a tokenizer's."""


Counts = Float[Tensor, "b t"]
"""How much every frame counts."""


class AlignmentConfig(Config):
    """What training asks of a tokenizer's latents beside decoding, or of a predictor's tokens."""

    teacher: dict[str, Any] | None = None
    """The encoder that they are drawn toward: a recipe to train first, or a run folder."""
    layer: int | None = Field(None, ge=1)
    """After which block of a predictor; none: after a third of them."""
    reduction: Literal["mean", "each"] = "each"
    """Where one latent stands for several features: their mean, or each of them in its place."""
    directions: float = Field(1.0, ge=0)
    """Weight of pointing where the teacher's features do."""
    directions_margin: float = Field(0.0, ge=0)
    """Cosine distance that is free."""
    relations: float = Field(1.0, ge=0)
    """Weight of tokens being as alike as the teacher finds them."""
    relations_margin: float = Field(0.0, ge=0)
    """Difference of cosines that is free."""
    local_correlation: float = Field(0.0, ge=0)
    """Weight of neighbouring latents being alike; asks no teacher."""
    correlation: float = Field(0.75, ge=0, le=1)
    """How alike is enough."""
    future: float = Field(0.0, ge=0, le=1)
    """Chance that the last latents of a window, as many as decoding looks back or fewer, are hidden
    from it, so that earlier ones must tell what comes; asks no teacher."""
    share: float = Field(0.2, gt=0)
    """Size of the gradient that the losses above send into latents, against that of decoding; into
    a predictor's tokens, against that of prediction."""
    decay_fraction: float = Field(0.5, ge=0, lt=1)
    """Share of training, at the end, over which `share` and `future` fall along a cosine."""
    final_share: float = Field(0.0, ge=0, le=1)
    """To which part of themselves they fall; 0: nothing is asked at the end."""
    noise: float = Field(0.0, ge=0)
    """Most noise on latents, in their standard deviations, when their directions are compared: what
    is asked must then be told where latents vary much, which a generator learns first."""
    shuffle: bool = False
    """Placebo: the teacher's features change places at random within every clip, over space and
    time: what stays in its place for a while would teach that places persist."""


class Alignment(nn.Module):
    """The losses of one training, and what is learnt with them and thrown away.

    `cell` and `channels` are those of the latents, or of the tokens of a predictor. With `mixed`,
    neighbours in a frame are mixed before the projection, by a 3×3 convolution (iREPA).
    """

    def __init__(
        self,
        config: AlignmentConfig,
        cell: Compression,
        channels: int,
        teacher_cell: Compression | None = None,
        features: int | None = None,
        mixed: bool = False,
    ) -> None:
        super().__init__()
        if features is None and (config.directions or config.relations):
            raise AvenirError(
                "alignment has no teacher, and asks for directions or relations: name one with "
                "alignment.teacher, or set both to 0 and ask for local_correlation or future"
            )
        self.config, self.cell, self.teacher_cell = config, cell, teacher_cell
        self.parts = Compression(1, 1, 1)
        if config.reduction == "each" and teacher_cell is not None:
            self.parts = Compression(*map(_parts, cell, teacher_cell))
        self.project, self.mix = None, None
        if features and config.directions:
            self.project = nn.Linear(channels, features * math.prod(self.parts))
            # Apart from the projection, which is wide where one place stands for many features.
            self.mix = nn.Conv2d(channels, channels, 3, padding=1) if mixed else None
        self.padding = nn.Parameter(torch.zeros(channels, 1, 1)) if config.future else None

    def share(self, progress: Progress) -> float:
        """Return the gradient's size against the other one: constant, then falling to 0."""
        return self.config.share * self._hold(progress)

    def _hold(self, progress: Progress) -> float:
        left = (1 - progress.fraction) / max(self.config.decay_fraction, 1e-9)
        hold = (1 - math.cos(math.pi * min(1.0, left))) / 2
        return self.config.final_share + (1 - self.config.final_share) * hold

    def without_future(self, latents: Latents, most: int, progress: Progress) -> Latents:
        """Put the padding in the place of the last 0 to `most` latents of every row, by chance."""
        if self.padding is None:
            return latents
        (b, t), device, generator = latents.shape[:2], latents.device, progress.generator
        count = torch.randint(0, most + 1, (b,), generator=generator, device=device)
        often = torch.rand(b, generator=generator, device=device)
        count = count * (often < self.config.future * self._hold(progress))
        hidden = torch.arange(t, device=device) >= t - count[:, None]
        return torch.where(hidden[:, :, None, None, None], self.padding, latents)

    def forward(
        self,
        latents: Latents,
        features: Float[Tensor, "b _t f _h _w"] | None,
        generator: torch.Generator,
        counts: Counts | None = None,
    ) -> dict[str, Tensor]:
        """Compare latents with the teacher's features; every weighted term by its name.

        `counts` is how much each frame counts against a teacher; none: all of them the same.
        """
        config, losses = self.config, {}
        if features is not None:
            features = self._laid(features, latents)
            if config.shuffle:
                features = shuffled(features, generator)
            features = features - features.mean(dim=(1, 3, 4), keepdim=True)
            if self.project is not None:
                projected = self._projected(self.project, noised(latents, config.noise, generator))
                loss = directions(projected, features, config.directions_margin, counts)
                losses["directions"] = config.directions * loss
            if config.relations:
                loss = relations(latents, features, config.relations_margin, counts)
                losses["relations"] = config.relations * loss
        if config.local_correlation:
            loss = local_correlation(latents, config.correlation)
            losses["local_correlation"] = config.local_correlation * loss
        return losses

    def _projected(self, project: nn.Linear, latents: Latents) -> Features:
        if self.mix is not None:
            latents = self.mix(latents.flatten(0, 1)).view_as(latents)
        return project(latents.movedim(2, -1)).movedim(-1, 2)

    def _laid(self, features: Tensor, latents: Latents) -> Features:
        """Give every latent the features of its cell: their mean, or parts of it side by side."""
        assert self.teacher_cell is not None
        parts, (_, t, _, h, w) = self.parts, latents.shape
        fine = Compression(*(size // n for size, n in zip(self.cell, parts, strict=True)))
        grid = t * parts.t, h * parts.h, w * parts.w
        features = on_grid(features, self.teacher_cell, grid, fine)
        return rearrange(
            features,
            "b (t r) f (h p) (w q) -> b t (f r p q) h w",
            r=parts.t,
            p=parts.h,
            q=parts.w,
        )


def _parts(size: int, teacher_size: int) -> int:
    """Return into how many parts, none smaller than the teacher's cell, a cell divides evenly."""
    return max(
        n for n in range(1, size + 1) if size % n == 0 and size // n >= min(size, teacher_size)
    )


def balanced(latents: Latents, share: float) -> tuple[Latents, Latents]:
    """Hand out latents twice, for decoding and for alignment, and balance what comes back.

    The second gradient is scaled to `share` times the first one's norm before both are added: the
    adaptive weight of VA-VAE, here taken at the latents themselves, at every step, without another
    backward pass.
    """
    return _Balanced.apply(latents, share)  # type: ignore[return-value]


class _Balanced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latents: Tensor, share: float) -> tuple[Tensor, Tensor]:
        ctx.share = share
        return latents.clone(), latents.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        decoding, aligning = gradients
        ratio = decoding.norm() / aligning.norm().clamp(min=1e-12)
        return decoding + ctx.share * ratio * aligning, None


def on_grid(
    features: Float[Tensor, "b _t f _h _w"],
    cell: Compression,
    grid: tuple[int, int, int],
    grid_cell: Compression,
) -> Features:
    """Lay features, one per `cell` of frames and pixels, on a `grid` `t h w` of another cell.

    Every place gets the mean of the features it overlaps, by the volume of the overlap. Both begin
    at the first frame's upper left corner; where they end differently because video was padded to
    whole cells, only what overlaps counts.
    """
    sizes = features.shape[1], *features.shape[3:]
    t, h, w = (
        _overlap(*lengths).to(features)
        for lengths in zip(sizes, cell, grid, grid_cell, strict=True)
    )
    features = torch.einsum("s t, b t c h w -> b s c h w", t, features)
    return torch.einsum("y h, x w, b t c h w -> b t c y x", h, w, features)


def _overlap(have: int, length: int, want: int, cell: int) -> Float[Tensor, "want have"]:
    """Return the share of each wanted interval of length `cell` in each one of `length`."""
    low = torch.maximum(torch.arange(want)[:, None] * cell, torch.arange(have) * length)
    high = torch.minimum(
        torch.arange(1, want + 1)[:, None] * cell, torch.arange(1, have + 1) * length
    )
    shared = (high - low).clamp(min=0).double()
    # Where latents were padded farther than features, the last feature goes on, as pixels do.
    shared[shared.sum(dim=1) == 0, -1] = 1
    return shared / shared.sum(dim=1, keepdim=True)


def shuffled(features: Features, generator: torch.Generator) -> Features:
    """Let all features of every clip change places at random, over space and time."""
    b, t, _, h, w = features.shape
    order = torch.rand(b, t * h * w, generator=generator, device=features.device).argsort(dim=1)
    rows = torch.arange(b, device=features.device)[:, None]
    flat = rearrange(features, "b t c h w -> b (t h w) c")[rows, order]
    return rearrange(flat, "b (t h w) c -> b t c h w", t=t, h=h)


def directions(
    projected: Features, features: Features, margin: float, counts: Counts | None = None
) -> Float[Tensor, ""]:
    """Ask every projected latent to point where the feature does (2501.01423, eq. 4)."""
    error = relu(1 - margin - cosine_similarity(projected, features, dim=2))
    return _mean(error, None if counts is None else counts[:, :, None, None])


def relations(
    latents: Latents, features: Features, margin: float, counts: Counts | None = None
) -> Float[Tensor, ""]:
    """Ask the tokens of a clip, all pairs, to be as alike as features are (2501.01423, eq. 5).

    A pair counts by the product of what its frames count.
    """
    error = relu((_alike(latents) - _alike(features)).abs() - margin)
    if counts is None:
        return _mean(error, None)
    each = repeat(counts, "b t -> b (t n)", n=latents.shape[3] * latents.shape[4])
    return _mean(error, each[:, :, None] * each[:, None])


def _mean(error: Tensor, weight: Tensor | None) -> Float[Tensor, ""]:
    if weight is None:
        return error.mean()
    weight = weight.expand_as(error)
    return (error * weight).sum() / weight.sum()


def _alike(latents: Features) -> Float[Tensor, "b n n"]:
    tokens = normalize(rearrange(latents, "b t c h w -> b (t h w) c"), dim=-1)
    return tokens @ tokens.mT


def local_correlation(latents: Latents, enough: float) -> Float[Tensor, ""]:
    """Ask neighbours to correlate over channels: the mean over pairs in windows of 2×2×2.

    From unit vectors u of a window, the mean over its n·(n-1) pairs is (|Σu|² - n) / (n·(n-1)).
    """
    unit = normalize(latents - latents.mean(dim=2, keepdim=True), dim=2).movedim(2, 1)
    window = unit
    for axis in (2, 3, 4):
        window = window.unfold(axis, min(2, unit.shape[axis]), 1)
    window = window.flatten(5)
    n = window.shape[-1]
    if n == 1:
        return latents.sum() * 0
    correlation = (window.sum(-1).square().sum(1) - n) / (n * (n - 1))
    return relu(enough - correlation).mean()
