"""What latents alone tell of how hard they are to imagine: spectrum, spread, linear dynamics.

Latents come as an encoder gives them, `b t c h w`, of about unit variance per channel. What is a
mean over clips is returned clip by clip, so that recordings can be drawn again. Nothing is decoded
or trained but ridge regressions, in closed form. Knows no encoder and no source.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from scipy.fft import dctn
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from avenir.evaluation.probing.probes import learn, r2, ratio
from avenir.shapes import Actions, Latents

PerClip = Float[Tensor, " b"]
"""One number per clip."""

Spectrum = Float[Tensor, " c"]
"""Eigenvalues, largest last."""

_MOST_NUMBERS = 1024
"""Numbers of a latent frame that regressions see; larger grids are pooled."""

_MOST_TOKENS = 256
"""Tokens of a latent frame that are related to each other; larger grids are pooled."""

_MOST_FRAMES = 1024
"""Latent frames, evenly spaced, that a covariance is fitted to."""

_ACTIVE = 0.01
"""Least variance of a channel, and least share of it that is no doubt, to call it active (Burda et
al., 1509.00519, who take the first of raw latents)."""

_FLIPS = 5
"""Rounds in which the two factors of a covariance are fitted, each given the other."""


# Channels ---------------------------------------------------------------------------------------


def channel_spectrum(latents: Latents) -> Spectrum:
    """Return the eigenvalues of the channels' covariance over clips and positions."""
    tokens = rearrange(latents, "b t c h w -> (b t h w) c").double()
    centred = tokens - tokens.mean(0)
    return torch.linalg.eigvalsh(centred.T @ centred / len(tokens)).clamp(min=0)


def active_channels(latents: Latents, doubt: Float[Tensor, " c"]) -> int:
    """Count the channels that tell something: that vary, and by more than their own `doubt`.

    `doubt` is the mean variance of each channel's posterior, in the same units.
    """
    variance = rearrange(latents, "b t c h w -> c (b t h w)").double().var(1)
    share = variance / (variance + doubt.double()).clamp(min=1e-12)
    return int(((variance > _ACTIVE) & (share > _ACTIVE)).sum())


# Space and time ---------------------------------------------------------------------------------


def high_frequencies(latents: Latents, above: float = 0.5) -> PerClip:
    """Return the share of spectral energy at high frequencies in space (SEC; 2606.03578, eq. 9).

    Energy of the cosine transform of every channel, at rows + columns of the transform beyond the
    share `above` of the largest; the zero frequency counts in the whole.
    """
    energy = torch.from_numpy(dctn(latents.double().numpy(), axes=(3, 4), norm="ortho")).square()
    energy = reduce(energy, "b t c h w -> b h w", "sum")
    h, w = energy.shape[1:]
    frequency = torch.arange(h)[:, None] + torch.arange(w)
    high = energy * (frequency > above * (h + w - 2))
    return ratio(high.sum((1, 2))[:, None], energy.sum((1, 2))[:, None])


def local_similarity(latents: Latents) -> PerClip:
    """Return how much more alike neighbours are than distant tokens (LDS of iREPA, 2512.10794).

    The mean cosine of tokens beside or below each other, minus that of tokens farther apart, by at
    least half the most rows and columns there are. Grids of more than 16×16 are pooled first; NaN
    where a grid has no such pairs.
    """
    latents = pooled(latents, _MOST_TOKENS)
    tokens = normalize(rearrange(latents, "b t c h w -> b t (h w) c").double(), dim=-1)
    h, w = latents.shape[-2:]
    rows, columns = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)
    apart = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    alike = reduce(tokens @ tokens.mT, "b t n m -> b n m", "mean")
    near, far = apart == 1, (apart > 1) & (2 * apart >= h + w - 2)
    return alike[:, near].mean(1) - alike[:, far].mean(1)


def temporal_distance(latents: Latents) -> PerClip:
    """Return the mean squared change from one latent frame to the next, over the variance.

    After the LTD of PV-VAE (2605.02134), made free of scale channel by channel: 0 of what stands
    still, 2 of what is drawn anew at every instant. Channels that never vary are left out.
    """
    variance = rearrange(latents, "b t c h w -> c (b t h w)").double().var(1, correction=0)
    change = reduce(latents.double().diff(dim=1).square(), "b t c h w -> b c", "mean")
    known = variance > 1e-12
    return (change[:, known] / variance[known]).mean(1)


# Velocity ---------------------------------------------------------------------------------------


def velocity_variance(deviations: Float[Tensor, "n c h w"]) -> float:
    """Return how ambiguous velocity is on the way from noise to such latents (VIV, 2606.03578).

    Of Gaussian latents with eigenvalues λ, given their condition, flow matching's velocity keeps
    the variance mean ∫ λ/((1-tau)² + tau² λ) dtau = mean (π/2)√λ over their numbers, whatever the
    network (eq. 4 and 5). `deviations` are latents minus what their condition tells. Their
    covariance is taken as one over channels ⊗ one over places, fitted in turn (eq. 3) and scaled
    to the whole variance. π/2 of white noise, 0 of what the condition settles. It depends on the
    shape, which is pooled to at most 16×16: compare at equal shapes.
    """
    deviations = pooled(deviations[None], _MOST_TOKENS)[0]
    chosen = deviations[:: -(-len(deviations) // _MOST_FRAMES)]
    samples = rearrange(chosen.double(), "n c h w -> n c (h w)")
    whole = samples.square().mean(0).sum()
    places = torch.eye(samples.shape[2], dtype=torch.float64)
    channels = torch.eye(samples.shape[1], dtype=torch.float64)
    for _ in range(_FLIPS):
        channels = _factor(samples, places)
        places = _factor(samples.mT, channels)
    values = torch.outer(_spread(channels), _spread(places))
    return float(math.pi / 2 * (values * whole / values.sum().clamp(min=1e-12)).sqrt().mean())


def _factor(samples: Float[Tensor, "n p q"], other: Float[Tensor, "q q"]) -> Float[Tensor, "p p"]:
    """Return the covariance along `p` of samples whose covariance along `q` is `other`."""
    n, p, q = samples.shape
    # Directions in which nothing varies would otherwise be divided by nothing.
    floor = 1e-6 * other.diagonal().mean() + 1e-12
    inverse = torch.linalg.inv(other + floor * torch.eye(q, dtype=other.dtype))
    return torch.einsum("n p q, n r q -> p r", samples @ inverse, samples) / (n * q)


def _spread(covariance: Float[Tensor, "p p"]) -> Float[Tensor, " p"]:
    return torch.linalg.eigvalsh(covariance).clamp(min=0)


# Dynamics ---------------------------------------------------------------------------------------


class Split(NamedTuple):
    """Pooled latents of training clips and test clips, with the actions that lead into them."""

    train: Latents
    test: Latents
    train_actions: Actions | None
    """`n t a`: of every latent frame, those that lead into its frames; row 0 is never used."""
    test_actions: Actions | None
    """The same of test clips."""
    held_out: Bool[Tensor, " n"]
    """Training clips that penalties are chosen on."""


class Dynamics(NamedTuple):
    """How well a linear map of a latent frame tells a later one."""

    r2: PerClip
    """1 - squared error / squared deviation from the mean, all numbers together."""
    held: PerClip
    """The same of holding the latent frame that is known."""
    error: Float[Tensor, "n c h w"]
    """What the linear map could not tell, of every pair of latent frames."""


def pooled(latents: Latents, most_tokens: int | None = None) -> Latents:
    """Average neighbouring tokens, two by two, until a latent frame has at most `most_tokens`.

    None: until it has at most 1024 numbers, as regressions see it.
    """
    b, _, c, h, w = latents.shape
    most_tokens = most_tokens or _MOST_NUMBERS // c
    while h * w > max(1, most_tokens):
        h, w = -(-h // 2), -(-w // 2)
    if (h, w) == tuple(latents.shape[-2:]):
        return latents
    small = adaptive_avg_pool2d(latents.flatten(0, 1), (h, w))
    return rearrange(small, "(b t) c h w -> b t c h w", b=b)


def incoming(actions: Actions, f_t: int) -> Actions:
    """Lay beside each other the actions that lead into the frames of every latent frame.

    The action at frame k leads to frame k+1. The one before the first frame is not known and 0.
    """
    known = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], dim=1)
    return rearrange(known, "b (t f) a -> b t (f a)", f=f_t)


def linear_dynamics(split: Split, step: int) -> Dynamics:
    """Tell latent frame i + step from frame i and the actions between (RAE-NWM, 2603.09241).

    z[i+step] = z[i] + A z[i] + B actions + constant, by ridge regression on the training clips; the
    penalty pulls toward holding z[i], and is chosen per number on recordings left out.
    """
    x, y = _pairs(split.train, split.train_actions, step)
    asked, truth = _pairs(split.test, split.test_actions, step)
    pairs = len(x) // len(split.train)
    error = truth - learn(x, y, split.held_out.repeat_interleave(pairs))(asked)
    later = rearrange(split.test[:, step:], "b t c h w -> (b t) (c h w)").double()
    n, shape = len(split.test), split.test.shape[2:]

    def per_clip(errors: Tensor) -> PerClip:
        squares = (errors, later - later.mean(0))
        parts, wholes = (v.square().reshape(n, -1).sum(1, keepdim=True) for v in squares)
        return 1 - ratio(parts, wholes)

    return Dynamics(per_clip(error), per_clip(truth), error.reshape(-1, *shape))


def inverse_dynamics(split: Split) -> PerClip:
    """Tell the actions between two latent frames from both: R², every number of them alike."""
    assert split.train_actions is not None and split.test_actions is not None
    x, asked = (
        rearrange(torch.cat([z[:, :-1], z[:, 1:]], dim=2), "b t c h w -> (b t) (c h w)")
        for z in (split.train, split.test)
    )
    y, truth = split.train_actions[:, 1:], split.test_actions[:, 1:]
    held_out = split.held_out.repeat_interleave(y.shape[1])
    return r2(learn(x, y.flatten(0, 1), held_out)(asked).reshape(truth.shape), truth)


def _pairs(latents: Latents, actions: Actions | None, step: int) -> tuple[Tensor, Tensor]:
    """Return rows of what is known, and of what changes until `step` latent frames later."""
    rows = rearrange(latents, "b t c h w -> b t (c h w)").double()
    known, change = rows[:, :-step], rows[:, step:] - rows[:, :-step]
    if actions is not None:
        windows = actions[:, 1:].unfold(1, step, 1).flatten(2)
        known = torch.cat([known, windows], dim=2)
    return known.flatten(0, 1), change.flatten(0, 1)


# Neighbours -------------------------------------------------------------------------------------


def nearest_elsewhere(latents: Latents, groups: Sequence[str]) -> Int[Tensor, " b"]:
    """Return the clip of another recording whose latents are nearest (iFID, 2603.05630)."""
    names = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    group = torch.tensor([names[name] for name in groups])
    rows = latents.flatten(1)
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.masked_fill(group[:, None] == group, torch.inf).argmin(1)


def between_neighbours(latents: Latents) -> Latents:
    """Replace every inner latent frame by the mean of the two beside it (tFVD, 2608.13556)."""
    middle = (latents[:, :-2] + latents[:, 2:]) / 2
    return torch.cat([latents[:, :1], middle, latents[:, -1:]], dim=1)
