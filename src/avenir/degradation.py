"""What each way of predicting hides: how noised every frame is, and who may look at whom.

Degrade the real data, predict, optimise: ways of predicting differ only in the degradation. The
paths say how data and noise mix at flow time `tau` (0 is noise, 1 is data):

    x_tau = signal(tau)·data + noise(tau)·noise        velocity = d x_tau / d tau

A straight path is flow matching (Lipman et al. 2022, 2210.02747); a path on the unit circle is
Gaussian diffusion with the cosine schedule (Nichol & Dhariwal 2021, 2102.09672). Divided by
`signal + noise`, the second is the first at another time: same process, other coordinates.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from avenir.shapes import Latents, NoiseLevel

Target = Literal["data", "velocity", "noise"]


class Mixed(NamedTuple):
    """The two ends of a path, both of the shape of the latents."""

    data: Latents
    noise: Latents


class Rates(NamedTuple):
    """Share of data and of noise at one `tau`, and how fast each changes."""

    signal: Tensor
    noise: Tensor
    signal_slope: Tensor
    noise_slope: Tensor


@dataclass(frozen=True)
class Path:
    """How data and noise mix: `flow` along a line, `diffusion` along the unit circle."""

    kind: Literal["flow", "diffusion"]

    def rates(self, tau: Tensor) -> Rates:
        """Evaluate the path; every rate has the shape of `tau`."""
        if self.kind == "flow":
            one = torch.ones_like(tau)
            return Rates(tau, 1 - tau, one, -one)
        quarter = math.pi / 2
        sin, cos = torch.sin(quarter * tau), torch.cos(quarter * tau)
        return Rates(sin, cos, quarter * cos, -quarter * sin)

    def mix(self, data: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
        """Return `x_tau`."""
        r = self.rates(tau)
        return r.signal * data + r.noise * noise

    def velocity(self, ends: Mixed, tau: Tensor) -> Tensor:
        """Return `d x_tau / d tau`."""
        r = self.rates(tau)
        return r.signal_slope * ends.data + r.noise_slope * ends.noise

    def target(self, kind: Target, ends: Mixed, tau: Tensor) -> Tensor:
        """Return what a network that predicts `kind` should have said."""
        return {"data": ends.data, "noise": ends.noise}.get(kind, self.velocity(ends, tau))

    def ends(
        self, kind: Target, output: Tensor, x: Tensor, tau: Tensor, floor: float = 0.0
    ) -> Mixed:
        """Solve for data and noise, given `x_tau` and one prediction of any kind.

        `floor` bounds the shares that are divided by: 0.05 is what x-prediction with a velocity
        loss needs near the data (JiT, 2511.13720); sampling needs a little near the ends.
        """
        r = self.rates(tau)
        if kind == "data":
            return Mixed(output, (x - r.signal * output) / r.noise.clamp(min=floor))
        if kind == "noise":
            return Mixed((x - r.noise * output) / r.signal.clamp(min=floor), output)
        determinant = r.signal * r.noise_slope - r.signal_slope * r.noise
        data = (r.noise_slope * x - r.noise * output) / determinant
        noise = (r.signal * output - r.signal_slope * x) / determinant
        return Mixed(data, noise)


@dataclass(frozen=True)
class Degradation:
    """What is hidden of a window of latent frames.

    `level` `b t`: tau of each frame. `rank` `b t`: a frame looks at frames of its own rank and
    below. `weight` `b t`: how much each frame counts in the loss. `known` `b t h w`: places of
    hidden frames that are given all the same; none: no such.
    """

    level: NoiseLevel
    rank: Int[Tensor, "b t"]
    weight: Float[Tensor, "b t"]
    known: Bool[Tensor, "b t h w"] | None = None

    @property
    def attention_mask(self) -> Bool[Tensor, "b t t"]:
        """Say which frame (second axis) may look at which (third)."""
        return self.rank[:, :, None] >= self.rank[:, None, :]

    def in_order(self) -> "Degradation":
        """Let no frame look at a later one."""
        order = torch.arange(self.rank.shape[1], device=self.rank.device)
        return replace(self, rank=order.expand_as(self.rank))


@dataclass(frozen=True)
class Inpainting:
    """Places of latent frames that are given, `known` `b t h w`, in `latents` `b t c h w`.

    What is in the latents elsewhere is of no account: that is to be imagined.
    """

    latents: Latents
    known: Bool[Tensor, "b t h w"]

    def __getitem__(self, frames: slice) -> "Inpainting":
        return Inpainting(self.latents[:, frames], self.known[:, frames])

    def over(self, x: Latents) -> Latents:
        """Put what is given in its place in `x`."""
        return torch.where(self.known[:, :, None], self.latents, x)


Times = Literal["uniform", "logit_normal", "bimodal"]


def draw_tau(
    shape: tuple[int, ...], distribution: Times, shift: float, generator: torch.Generator
) -> Tensor:
    """Draw flow times, then shift them toward noise.

    Logit-normal(0, 1) as SD3 (2403.03206), or bimodal as GAIA-2 (2503.20523): four fifths of
    logit-normal(0.5, 1.4), and a fifth of (-3, 1), where all but the coarse is noise.
    """
    device = generator.device
    if distribution == "uniform":
        return shifted(torch.rand(shape, generator=generator, device=device), shift)
    logit = torch.randn(shape, generator=generator, device=device)
    if distribution == "bimodal":
        early = torch.rand(shape, generator=generator, device=device) < 0.2
        logit = torch.where(early, logit - 3.0, 1.4 * logit + 0.5)
    return shifted(logit.sigmoid(), shift)


def shifted(tau: Tensor, shift: float) -> Tensor:
    """Spend more time near the noise when latents are large: `tau / (tau + a·(1 - tau))`."""
    return tau / (tau + shift * (1 - tau))


def shift_of(dimension: int) -> float:
    """Return the shift `a = sqrt(dimension / 4096)` (RAE, 2510.11690), never below 1."""
    return max(1.0, math.sqrt(dimension / 4096))


def draw_rate(
    count: int, distribution: Literal["uniform", "cosine"], generator: torch.Generator
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Draw which share of the tokens of each row is hidden, and how much a hidden one counts.

    Shares are uniform (MDLM, 2406.07524), or the cosine of a uniform angle, which hides much more
    often than little (MaskGIT, 2202.04200). Draws are spread evenly over the rows. With weights
    `1 / (rate · density)` the expected sum over hidden tokens bounds the negative log-likelihood,
    whatever the distribution: an integral over shares of the loss at each, divided by the share.
    """
    device = generator.device
    start = torch.rand((), generator=generator, device=device)
    u = (start + torch.arange(count, device=device) / count) % 1
    u = u[torch.randperm(count, generator=generator, device=device)].clamp(min=1e-3)
    if distribution == "uniform":
        return u, 1 / u
    # u is the angle from nothing hidden: rate = sin(pi u / 2), density 2 / (pi cos(pi u / 2)).
    angle = math.pi / 2 * u
    return angle.sin(), math.pi / 2 * angle.cos() / angle.sin()


def draw_known(
    size: tuple[int, int, int, int], views: int, share: float, generator: torch.Generator
) -> Bool[Tensor, "b t h w"]:
    """Draw which tokens are given, in `share` of the windows of `size` `b t h w`; of others none.

    Of several views side by side some are given and some are not; of one, all but a rectangle is.
    The same places in all frames of a window.
    """
    b, t, h, w = size
    device = generator.device

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    if views > 1:
        given = draw(b, views) < 0.5
        # All or nothing given is no such task: then one is the other way round.
        same = given.all(1, keepdim=True) | ~given.any(1, keepdim=True)
        one = torch.arange(views, device=device) == (draw(b, 1) * views).long()
        columns = (given ^ (same & one)).repeat_interleave(w // views, dim=1)
        where = columns[:, None, None, :].expand(b, t, h, w)
    else:
        rows, columns = (_stretch(draw(b, 2) * n, n) for n in (h, w))
        where = ~(rows[:, :, None] & columns[:, None, :])[:, None].expand(b, t, h, w)
    return where & (draw(b, 1, 1, 1) < share)


def _stretch(ends: Float[Tensor, "b 2"], length: int) -> Bool[Tensor, "b n"]:
    """Mark what lies between two places, both included."""
    low, high = ends.long().sort(dim=1).values[:, :, None].unbind(1)
    places = torch.arange(length, device=ends.device)
    return (places >= low) & (places <= high)


def hide_future(
    tau: NoiseLevel, num_past: Int[Tensor, " b"], past_level: Float[Tensor, " b"]
) -> Degradation:
    """Give the past (`num_past` first frames of each row) at `past_level`; hide the rest at `tau`.

    With equal `tau` along a row this is full-sequence diffusion after a clean or slightly noised
    context; with `num_past` 0 and independent `tau`, `in_order`, it is diffusion forcing
    (2407.01392). The past never looks at the future, so that it can be computed once and kept.
    """
    b, t = tau.shape
    is_past = torch.arange(t, device=tau.device).expand(b, t) < num_past[:, None]
    return Degradation(
        level=torch.where(is_past, past_level[:, None], tau),
        rank=(~is_past).long(),
        weight=(~is_past).float(),
    )


def last_seen(x: Latents, degradation: Degradation) -> Float[Tensor, "b 1 c h w"]:
    """Return the last frame of each row's past, `b 1 c h w`; zeros where nothing is given."""
    num_past = (degradation.weight == 0).sum(dim=1)
    rows = torch.arange(len(x), device=x.device)
    frame = x[rows, (num_past - 1).clamp(min=0)][:, None]
    return frame * (num_past > 0)[:, None, None, None, None]


def before_each(path: Path, x: Latents, level: NoiseLevel) -> Latents:
    """Return the frame before each of a row, as far as its noise lets it be seen; zeros before all.

    The best linear guess of data of variance 1: of noise alone it shows nothing, of data all.
    """
    rates = path.rates(level[:, :-1, None, None, None])
    guess = rates.signal / (rates.signal**2 + rates.noise**2) * x[:, :-1]
    return torch.cat([torch.zeros_like(x[:, :1]), guess], dim=1)


def hidden_error(
    error: Latents, degradation: Degradation, inpainting: Inpainting | None = None
) -> Float[Tensor, ""]:
    """Average squared errors over the frames that count, and of these over what is not known."""
    weight = degradation.weight
    if inpainting is None:
        return (error.square().mean(dim=(2, 3, 4)) * weight).sum() / weight.sum()
    places = weight[:, :, None, None] * ~inpainting.known
    return (error.square().mean(dim=2) * places).sum() / places.sum()
