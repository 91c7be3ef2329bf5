"""From noise to data: one visible loop per sampler; from scores to tokens.

A sampler knows the path and a `denoise` function that, at `x_tau` and `tau`, says where both ends
of the path lie, and is told how far it will be trusted. It knows nothing of networks, conditions or
video.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from avenir.config import Config
from avenir.degradation import Mixed, Path, shifted
from avenir.device import normal, uniform
from avenir.shapes import Tokens

Denoise = Callable[[Tensor, Tensor, Tensor], Mixed]
"""Of `x_tau`, a scalar `tau` and the one that is gone to next: the data and the noise it is thought
to be made of."""

Sampler = Literal["euler", "heun", "ddim", "ddpm"]

MOST_STEPS = 10_000
"""From noise to data, or until nothing is hidden; the longest schedules in use have a thousand."""

Hidden = Bool[Tensor, "b t h w"]
"""Which tokens are hidden."""


@cache
def schedule(
    num_steps: int, kind: Literal["linear", "linear_quadratic"], shift: float = 1.0
) -> tuple[float, ...]:
    """Return `num_steps + 1` flow times from 0 to 1; kept, as numbers that a graph may hold.

    Linear-quadratic (GAIA-2, 2503.20523; Movie Gen, 2410.13720): half of the steps go linearly to
    0.1, the others quadratically to 1, so that most are spent where the picture is decided. Where
    the line ends the parabola begins at its slope.
    """
    if kind == "linear":
        tau = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    else:
        half = num_steps // 2
        slope = 0.1 / half if half else 0.0
        step = torch.arange(num_steps + 1, dtype=torch.float64)
        bend = (1 - slope * num_steps) / (num_steps - half) ** 2
        tau = slope * step + bend * (step - half).clamp(min=0) ** 2
    return tuple(shifted(tau, shift).tolist())


def euler(denoise: Denoise, path: Path, x: Tensor, taus: Sequence[float]) -> Tensor:
    """Follow the velocity in straight steps."""
    for tau, after in zip(taus[:-1], taus[1:], strict=True):
        x = x + (after - tau) * _velocity(denoise, path, x, tau, after)
    return x


def heun(denoise: Denoise, path: Path, x: Tensor, taus: Sequence[float]) -> Tensor:
    """Follow the mean of the velocities at both ends of each step (Karras et al. 2022, Alg. 1)."""
    for tau, after in zip(taus[:-1], taus[1:], strict=True):
        here = _velocity(denoise, path, x, tau, after)
        there = x + (after - tau) * here
        if after < 1:
            here = (here + _velocity(denoise, path, there, after, after)) / 2
        x = x + (after - tau) * here
    return x


def ddim(denoise: Denoise, path: Path, x: Tensor, taus: Sequence[float]) -> Tensor:
    """Estimate both ends, then mix them again a little closer to the data (2010.02502, Eq. 12)."""
    for tau, after in zip(taus[:-1], taus[1:], strict=True):
        now, then = (torch.tensor(each, dtype=x.dtype, device=x.device) for each in (tau, after))
        ends = denoise(x, now, then)
        x = path.mix(ends.data, ends.noise, then)
    return x


def ddpm(
    denoise: Denoise, path: Path, x: Tensor, taus: Sequence[float], generator: torch.Generator
) -> Tensor:
    """Sample the ancestral posterior of each step (Ho et al. 2020, 2006.11239, Eq. 6-7).

    It is `ddim` with part of the noise replaced by fresh noise; at the data none is left.
    """
    for tau, after in zip(taus[:-1], taus[1:], strict=True):
        now, then = (torch.tensor(each, dtype=x.dtype, device=x.device) for each in (tau, after))
        ends, before, later = denoise(x, now, then), path.rates(now), path.rates(then)
        kept = before.signal * later.noise / (later.signal * before.noise)
        fresh = normal(x.shape, generator, x.dtype)
        noise = kept * ends.noise + (1 - kept**2).sqrt() * fresh
        x = path.mix(ends.data, noise, then)
    return x


def sample(
    sampler: Sampler,
    denoise: Denoise,
    path: Path,
    x: Tensor,
    taus: Sequence[float],
    generator: torch.Generator | None,
) -> Tensor:
    """Take noise to data in the loop of that name; only `ddpm` needs more chance."""
    if sampler == "ddpm":
        assert generator is not None
        return ddpm(denoise, path, x, taus, generator)
    loops = {"euler": euler, "heun": heun, "ddim": ddim}
    return loops[sampler](denoise, path, x, taus)


class DrawingConfig(Config):
    """How tokens are drawn."""

    temperature: float = Field(1.0, ge=0)
    """Below 1 the likely is drawn more often; 0 is always the likeliest."""
    top_k: int | None = Field(None, ge=1, le=2**24)
    """How many of the likeliest tokens may be drawn; none: all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """The fewest tokens that together have this chance may be drawn."""


def draw(
    scores: Float[Tensor, "*n v"], settings: DrawingConfig, generator: torch.Generator
) -> Int[Tensor, "*n"]:
    """Draw one token for each row of scores; at temperature 0 the likeliest.

    Of the `top_k` likeliest, and of the fewest that together have a chance of `top_p` (nucleus
    sampling, 1904.09751), both taken at the temperature.
    """
    if settings.temperature == 0:
        return scores.argmax(-1)
    chances = (scores / settings.temperature).softmax(-1)
    if settings.top_p == 1 and settings.top_k is None:
        return _inverted(chances, generator)
    chances, order = chances.sort(dim=-1, descending=True)
    # The likeliest is always kept: before it there is no chance at all.
    chances = chances.masked_fill(chances.cumsum(-1) - chances >= settings.top_p, 0)
    if settings.top_k is not None:
        chances = chances[..., : settings.top_k]
    return order.gather(-1, _inverted(chances, generator)[..., None])[..., 0]


def _inverted(chances: Float[Tensor, "*n v"], generator: torch.Generator) -> Int[Tensor, "*n"]:
    """Draw by inverting the cumulative chances, which need not sum to 1.

    One random number a row; `torch.multinomial` draws one for every chance.
    """
    up_to = chances.double().cumsum(-1)
    level = uniform((*chances.shape[:-1], 1), generator, torch.double)
    # To the right of equal levels: what has no chance is never drawn.
    place = torch.searchsorted(up_to, level * up_to[..., -1:], right=True)[..., 0]
    return place.clamp(max=chances.shape[-1] - 1)


def unmask(
    score: Callable[[Tokens, Hidden], Float[Tensor, "b n v"]],
    tokens: Tokens,
    hidden: Hidden,
    counts: list[int],
    order: Literal["confidence", "random"],
    noise: float,
    drawn: Callable[[Tensor], Tensor],
    generator: torch.Generator,
) -> Tokens:
    """Reveal hidden tokens, those first that are surest, until none is hidden.

    `score` says what the hidden ones may be, in the order of `hidden_places`. After step k,
    `counts[k]` tokens of each row stay hidden. All hidden ones are drawn at every
    step; the surest of them are kept: by the chance that each was given, with Gumbel noise on its
    logarithm, `noise` at first and none at the end (MaskGIT, 2202.04200). In `random` order any are
    kept, which draws from masked diffusion (MDLM, 2406.07524).
    """
    for step, count in enumerate(counts, start=1):
        places, scores = hidden_places(hidden), score(tokens, hidden)
        guess = drawn(scores)
        sure = -(-uniform(guess.shape, generator).clamp(1e-20, 1 - 1e-7).log()).log()
        if order == "confidence":
            probability = scores.log_softmax(-1).gather(-1, guess[..., None])[..., 0]
            sure = probability + noise * (1 - step / len(counts)) * sure
        tokens = tokens.flatten(1).scatter(1, places, guess).view_as(tokens)
        unsure = places.gather(1, sure.argsort(1)[:, :count])
        hidden = torch.zeros_like(hidden).flatten(1).scatter(1, unsure, True).view_as(hidden)
    return tokens


def hidden_places(hidden: Hidden) -> Int[Tensor, "b n"]:
    """Number the hidden tokens of each row, equally many in all, in reading order."""
    return hidden.flatten(1).nonzero()[:, 1].view(len(hidden), -1)


def hidden_after(num_hidden: int, num_steps: int, kind: Literal["linear", "cosine"]) -> list[int]:
    """Say how many tokens stay hidden after each step; after the last none does.

    The cosine reveals few at first, when little is known to go by.
    """
    part = [(step + 1) / num_steps for step in range(num_steps)]
    left = [1 - p if kind == "linear" else math.cos(math.pi / 2 * p) for p in part]
    return [*(int(num_hidden * share) for share in left[:-1]), 0]


def _velocity(denoise: Denoise, path: Path, x: Tensor, tau: float, after: float) -> Tensor:
    now, then = (torch.tensor(each, dtype=x.dtype, device=x.device) for each in (tau, after))
    return path.velocity(denoise(x, now, then), now)
