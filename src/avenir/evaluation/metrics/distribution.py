"""How far made clips are from real ones as two sets of points: no clip is compared with its own.

Every clip becomes one vector in the eyes of an *evaluator*, any encoder that learnt by another
objective, with other weights and from other recordings than whatever taught the judged one. Knows
no predictor, and nothing of how clips were made.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d, one_hot

from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.evaluation.metrics.bootstrap import LEVEL, NUM_RESAMPLES, Interval
from avenir.shapes import Latents, Video

Features = Float[Tensor, "n d"]
"""One vector per clip."""

OtherFeatures = Float[Tensor, "m d"]
"""Vectors of another set of clips."""

_SIDE = 4
"""Most rows, and most columns, of the grid that latents are pooled to."""

_MOST_NUMBERS = 2000
"""Most numbers of a clip's vector, as far as pooling can reach it."""

_READ_NUMBERS = 2**21
"""Numbers of video that an evaluator sees at once: its activations hold many times as many."""


# Features ---------------------------------------------------------------------------------------


@torch.no_grad()
def features_of(encoder: Encoder, video: Video) -> Features:
    """Describe every clip by one vector: what is where at every instant, and how much it changes.

    Latents, of unit variance per channel, are averaged over a grid of at most 4×4 cells, in every
    latent frame; beside them stands, per channel and cell, the root mean square change from one
    latent frame to the next, which tells of motion inside a cell. When that makes more than 2000
    numbers, neighbouring latent frames are averaged, down to two, then cells, then those two; an
    evaluator of more than 1000 channels gives two numbers for each.
    """
    return described(seen_by(encoder, video))


@torch.no_grad()
def seen_by(encoder: Encoder, video: Video) -> Latents:
    """Encode clips, a few at a time: an evaluator's activations hold many times their numbers."""
    device = encoder.latent_mean.device
    rows = max(1, _READ_NUMBERS // video[0].numel())
    return torch.cat([encoder.encode(piece.to(device)).cpu() for piece in video.split(rows)])


def described(latents: Latents) -> Features:
    """Make one vector of the latents of every clip: see `features_of`."""
    t, h, w = _grid(*latents.shape[1:])
    places = rearrange(latents, "b t c h w -> b c t h w")
    parts = [adaptive_avg_pool3d(places, (t, h, w)).flatten(1)]
    if latents.shape[1] > 1:
        changes = latents.diff(dim=1).square().mean(1)
        parts.append(adaptive_avg_pool2d(changes, (h, w)).sqrt().flatten(1))
    return torch.cat(parts, dim=1)


def _grid(t: int, c: int, h: int, w: int) -> tuple[int, int, int]:
    """Choose how many instants, rows and columns are kept."""
    h, w = min(h, _SIDE), min(w, _SIDE)
    while (t + 1) * c * h * w > _MOST_NUMBERS and t * h * w > 1:
        if t > 2 or h * w == 1:
            t = -(-t // 2)
        else:
            h, w = -(-h // 2), -(-w // 2)
    return t, h, w


# Distances --------------------------------------------------------------------------------------


def frechet(a: Features, b: OtherFeatures) -> float:
    """Return the squared Fréchet distance between the Gaussians of two sets (FID, 1706.08500).

    |mean a - mean b|² + tr(A + B - 2 (A B)^½), A and B the covariances. With A = RᵀR and B = SᵀS
    the last trace is the sum of the singular values of R Sᵀ: no root of a matrix is taken, and
    sets may have fewer rows than columns. Too large by about 1/n: compare at equal numbers of rows.
    """
    a, b = a.double(), b.double()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    r, s = _root(a), _root(b)
    shared = torch.linalg.svdvals(r @ s.T).sum()
    return max(0.0, float(shift + r.square().sum() + s.square().sum() - 2 * shared))


def _root(rows: Features) -> Float[Tensor, "k d"]:
    """Return a triangular R with RᵀR the covariance of the rows."""
    centred = (rows - rows.mean(0)) / math.sqrt(len(rows) - 1)
    return torch.linalg.qr(centred, mode="r").R


def kernel_distance(
    a: Features,
    b: OtherFeatures,
    groups_a: Sequence[str],
    groups_b: Sequence[str],
    seed: int = 0,
) -> Interval:
    """Return the squared kernel distance of two sets, by the cubic kernel of KID (1801.01401).

    mean k(a, a') + mean k(b, b') - 2 mean k(a, b), k(x, y) = (x·y/d + 1)³, over all pairs from
    *different recordings*: a U-statistic, so that 0 is expected of equal distributions whatever
    the numbers of clips, also when `b` was made from the very clips of `a`. It may be negative. The
    interval resamples recordings; near 0 it is too wide rather than too narrow.
    """
    names = {name: i for i, name in enumerate(sorted({*groups_a, *groups_b}))}
    in_a, in_b = (
        one_hot(torch.tensor([names[g] for g in groups]), len(names)).double()
        for groups in (groups_a, groups_b)
    )
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), NUM_RESAMPLES
    )
    # The first row counts every recording once: the estimate itself.
    weights = torch.cat([torch.ones(1, len(names)), torch.from_numpy(drawn)]).double()
    a, b = a.double(), b.double()
    values = (
        _mean_kernel(a, a, in_a, in_a, weights)
        + _mean_kernel(b, b, in_b, in_b, weights)
        - 2 * _mean_kernel(a, b, in_a, in_b, weights)
    ).numpy()
    if np.isnan(values[0]):
        return Interval(mean=None)
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(values[1:], (tail, 1 - tail))
    return Interval(mean=float(values[0]), low=float(low), high=float(high))


def _mean_kernel(
    x: Features,
    y: OtherFeatures,
    in_x: Float[Tensor, "n g"],
    in_y: Float[Tensor, "m g"],
    weights: Float[Tensor, "k g"],
) -> Float[Tensor, " k"]:
    """Average the kernel over pairs of different recordings, each recording as often as drawn."""
    kernel = (x @ y.T / x.shape[1] + 1) ** 3
    sums, counts = in_x.T @ kernel @ in_y, torch.outer(in_x.sum(0), in_y.sum(0))
    sums.fill_diagonal_(0)
    counts.fill_diagonal_(0)
    return ((weights @ sums) * weights).sum(1) / ((weights @ counts) * weights).sum(1)


def coverage(real: Features, made: OtherFeatures, k: int = 5) -> float:
    """Return the share of real points that have a made one near (2002.09797, eq. 7).

    Near: no farther than the k-th nearest other real point. Sets that are equally distributed and
    of equal size score about 1 - 2^-k; what was never made lowers it.
    """
    return _inside(real, made, k).any(1).double().mean().item()


def density(real: Features, made: OtherFeatures, k: int = 5) -> float:
    """Return how densely real points lie around made ones (2002.09797, eq. 6).

    The mean number of real neighbourhoods a made point is in, over k: 1 is expected of equal
    distributions; below, made points lie where no real ones are.
    """
    return _inside(real, made, k).sum(0).double().mean().item() / k


def _inside(real: Features, made: OtherFeatures, k: int) -> Tensor:
    if len(real) <= k:
        raise AvenirError(
            f"coverage was given {len(real)} real clips and k = {k}; every clip needs {k} others: "
            "judge on more clips"
        )
    exact = "donot_use_mm_for_euclid_dist"
    real, made = real.double(), made.double()
    # Every point is its own nearest, at distance 0.
    radius = torch.cdist(real, real, compute_mode=exact).kthvalue(k + 1, dim=1).values
    return torch.cdist(real, made, compute_mode=exact) <= radius[:, None]


# Which may judge ----------------------------------------------------------------------------------
