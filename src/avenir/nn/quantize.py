"""Few instead of many: a latent becomes one of a fixed number of codes, and gradients pass through.

Latents are `b t c h w`; a token is one code per position, `b t h w`, below `vocabulary`. Gradients
reach what was quantised as if nothing had happened (straight-through; 1308.3432). Knows no losses.
"""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding

from avenir.shapes import Latents, Tokens


class FiniteScalar(nn.Module):
    """Round each channel to one of its levels (FSQ, 2309.15505): the codes are a grid, not learnt.

    Codes lie in [-1, 1]; a token counts them in mixed radix, the first channel fastest.
    """

    levels: Tensor
    halves: Tensor
    width: Tensor
    offset: Tensor
    shift: Tensor
    basis: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.vocabulary = math.prod(levels)
        count = torch.tensor(levels)[:, None, None]
        # An even number of levels has none at 0: the curve is moved by half a level, and back.
        offset = torch.where(count % 2 == 0, 0.5, 0.0)
        width = (count - 1) / 2 * (1 + 1e-3)
        basis = torch.tensor([math.prod(levels[:i]) for i in range(len(levels))])[:, None, None]
        for name, value in {
            "levels": count,
            "halves": count // 2,
            "width": width,
            "offset": offset,
            "shift": torch.atanh(offset / width),
            "basis": basis,
        }.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, latents: Latents) -> Latents:
        """Bound and round (eq. 1)."""
        bounded = torch.tanh(latents + self.shift) * self.width - self.offset
        return _straight_through(self._nearest(bounded), bounded) / self.halves

    def tokens(self, codes: Latents) -> Tokens:
        """Number the codes nearest to what is given; the inverse of `codes`."""
        digits = self._nearest(codes * self.halves).long() + self.halves
        return (digits * self.basis).sum(2)

    def codes(self, tokens: Tokens) -> Latents:
        """Return the codes of tokens."""
        digits = tokens[:, :, None] // self.basis % self.levels
        return (digits - self.halves) / self.halves

    def _nearest(self, x: Latents) -> Latents:
        """Round to whole levels, those at the ends the last: there is none beyond."""
        return x.round().clamp(-self.halves, self.levels - 1 - self.halves)


class Codebook(nn.Module):
    """The nearest of `vocabulary` learnt vectors (VQ-VAE, 1711.00937), moved as running means.

    Every vector is the average of what chose it lately (appendix A.1). One that hardly anything
    chooses begins anew at a latent of the last batch. The first batch begins all of them.
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, vocabulary: int, channels: int, decay: float) -> None:
        super().__init__()
        self.vocabulary, self.decay = vocabulary, decay
        self.register_buffer("vectors", torch.randn(vocabulary, channels))
        self.register_buffer("counts", torch.zeros(vocabulary))
        self.register_buffer("sums", torch.zeros(vocabulary, channels))

    def forward(self, latents: Latents) -> Latents:
        """Replace every latent by the vector nearest to it."""
        return _straight_through(self.codes(self.tokens(latents)), latents)

    def tokens(self, latents: Latents) -> Tokens:
        """Number the nearest vectors."""
        return nearest(latents, self.vectors)

    def codes(self, tokens: Tokens) -> Latents:
        """Return the vectors of tokens."""
        return looked_up(tokens, self.vectors)

    @torch.no_grad()
    def follow(self, latents: Latents, rare: float, generator: torch.Generator) -> None:
        """Move vectors toward the means of what chose them in this batch.

        One whose share of choices falls below `rare` of an equal share begins anew.
        """
        points = rearrange(latents, "b t c h w -> (b t h w) c")
        if not self.counts.any():
            self._begin(torch.ones_like(self.counts, dtype=torch.bool), points, generator)
        chosen = self.tokens(latents).flatten()
        self.counts.mul_(self.decay)
        self.sums.mul_(self.decay)
        share = 1 - self.decay
        self.counts.index_add_(0, chosen, torch.full_like(points[:, 0], share))
        self.sums.index_add_(0, chosen, share * points)
        self._begin(self.counts < rare * self.counts.mean(), points, generator)
        self.vectors.copy_(self.sums / self.counts[:, None])

    def _begin(
        self, which: Bool[Tensor, " n"], points: Float[Tensor, "m c"], generator: torch.Generator
    ) -> None:
        """Put some vectors at latents drawn from a batch, with an equal share of the choices."""
        drawn = torch.randint(len(points), (len(which),), generator=generator, device=points.device)
        average = self.counts.mean() if self.counts.any() else torch.tensor(1.0)
        where = points[drawn[which]]
        self.vectors[which], self.counts[which] = where, average
        self.sums[which] = average * where


def nearest(latents: Latents, vectors: Float[Tensor, "v c"]) -> Tokens:
    """Number the vectors nearest to latents."""
    points = rearrange(latents, "b t c h w -> b t h w c")
    # |x - e|² without |x|², which all vectors share.
    return (vectors.square().sum(1) - 2 * points @ vectors.T).argmin(-1)


def looked_up(tokens: Tokens, vectors: Float[Tensor, "v c"]) -> Latents:
    """Return the vectors of tokens."""
    return rearrange(embedding(tokens, vectors), "b t h w c -> b t c h w")


class CodeUsage(nn.Module):
    """Counts which codes were chosen lately: over about ten choices of each code."""

    counts: Tensor

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(vocabulary))

    @torch.no_grad()
    def add(self, tokens: Int[Tensor, "*n"]) -> None:
        """Count tokens; what was counted before fades."""
        vocabulary = len(self.counts)
        self.counts.mul_(math.exp(-tokens.numel() / (10 * vocabulary)))
        self.counts.add_(torch.bincount(tokens.flatten(), minlength=vocabulary))

    @property
    def shares(self) -> Float[Tensor, " v"]:
        """How often each code is chosen; they sum to 1."""
        return self.counts / self.counts.sum().clamp(min=1)


def usage(shares: Float[Tensor, " v"]) -> Float[Tensor, ""]:
    """Return which share of codes is chosen at all: at least a hundredth as often as on average."""
    return (shares > 0.01 / len(shares)).float().mean()


def perplexity(shares: Float[Tensor, " v"]) -> Float[Tensor, ""]:
    """Return the exponential of the entropy: as many codes, chosen equally, would say as much."""
    return torch.special.xlogy(shares, shares).sum().neg().exp()


def _straight_through(quantised: Latents, latents: Latents) -> Latents:
    """Return exactly `quantised`, with the gradient of `latents`."""
    return quantised + (latents - latents.detach())
