"""Flow matching and Gaussian diffusion over latent video, one class.

A space-time transformer sees every frame at its own level `tau` and says, per token, what a path
from noise to data needs: data, noise or velocity. Full-sequence, clean-context and
diffusion-forcing training are settings of one degradation (degradation.py); samplers are in
samplers.py. Timestep embedding: sinusoids, then an MLP (DiT, 2212.09748). Long steps can be learnt
by a network that is told how far they go (shortcut models, 2410.12557).
"""

import math
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from avenir.clip import Condition, Progress
from avenir.config import Config
from avenir.degradation import (
    Degradation,
    Mixed,
    Path,
    Target,
    draw_tau,
    hide_future,
    last_seen,
    shift_of,
    shifted,
)
from avenir.errors import AvenirError
from avenir.nn.transformer import Cache, Exit, SpaceTimeTransformer
from avenir.predictors import (
    LatentShape,
    Memory,
    Predictor,
    Tap,
    check_sinks,
    remembered,
    through_grid,
)
from avenir.samplers import Denoise, ddim, ddpm, euler, heun, schedule
from avenir.shapes import Latents, NoiseLevel, PerFrame

_HALVINGS = 4
"""Long steps are learnt from the whole way to an eighth of it."""

_FLOOR = 0.05
"""Least share of data or noise that is divided by: x-prediction's velocity near the data needs it
(JiT, 2511.13720), and noise prediction near the noise."""


class SamplingConfig(Config):
    """How a chunk is drawn."""

    sampler: Literal["euler", "heun", "ddim", "ddpm"] = "euler"
    """Which loop of samplers.py."""
    num_steps: int = Field(10, ge=1)
    """Steps from noise to data."""
    schedule: Literal["linear", "linear_quadratic"] = "linear"
    """How the steps are spread."""
    guidance: float = Field(1.0, ge=0)
    """How far to push from what nothing known predicts: 1 is off."""
    past_noise: float = Field(0.0, ge=0, le=1)
    """Noise on the past while predicting, its level told to the model."""


class FlowConfig(Config):
    """The continuous predictor: flow or diffusion, by its path."""

    kind: str = "flow"
    width: int = Field(256, ge=16)
    """Width of the transformer; at least the numbers in a token when it predicts data."""
    depth: int = Field(8, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    patch: int = Field(2, ge=1)
    """Latent rows and columns per token."""
    attention: Literal["full", "factorised"] = "full"
    """All tokens at once, or space then time."""
    path: Literal["flow", "diffusion"] = "flow"
    """A straight line, or the unit circle."""
    predicts: Target = "velocity"
    """What the network says."""
    loss: Target = "velocity"
    """In which of the three its error is measured."""
    tau: Literal["uniform", "logit_normal"] = "logit_normal"
    """How flow times are drawn in training."""
    shift: float | None = Field(None, gt=0)
    """Shift of the flow times toward noise; none: from the latent's size."""
    past: int = Field(4, ge=1)
    """Latent frames remembered."""
    sinks: int = Field(0, ge=0)
    """How many of them are the first that were ever seen (attention sinks, 2309.17453)."""
    chunk: int = Field(4, ge=1)
    """Latent frames predicted by one call once the memory is full."""
    full_past: float = Field(0.5, ge=0, le=1)
    """Chance that a training window shows the full past, rather than 1 to `past` frames of it."""
    forcing: float = Field(0.0, ge=0, le=1)
    """Chance that every frame of a window is noised by its own level: diffusion forcing."""
    past_noise: float = Field(0.1, ge=0, le=1)
    """Most noise put on the past in training, its level told to the model."""
    shortcut: float = Field(0.0, ge=0, le=1)
    """Share of every batch on which it also learns to go as far in one step as in two, and so to
    draw in 1, 2, 4 or 8; 0: it is not told how far a step goes."""
    own_past: float | None = Field(None, gt=0, le=1)
    """Share of every batch, in the second half of training, whose last frame of the past is what
    the predictor itself makes of those before it; none: pasts are true."""
    sampling: SamplingConfig = SamplingConfig.model_validate({})
    """How a chunk is drawn."""


class Flow(Predictor):
    """Latents `b t c h w` and a condition `b t d` to the latents that come next."""

    Config = FlowConfig

    def __init__(self, config: FlowConfig, shape: LatentShape) -> None:
        super().__init__()
        check_sinks(config.sinks, config.past)
        if config.own_past is not None and config.past < 2:
            raise AvenirError(
                f"predictor.own_past is {config.own_past} and past {config.past}; the last frame "
                "of the past is made of those before it: remember 2 or more"
            )
        self.config = config
        self.width, self.depth, self.patch = config.width, config.depth, config.patch
        self.path = Path(config.path)
        self.num_train_frames = config.past + config.chunk
        token = shape.channels * config.patch**2
        self.shift = config.shift or shift_of(
            self.num_train_frames * shape.channels * shape.h * shape.w
        )
        num_tokens = math.prod(shape.grid(config.patch))
        self.where = nn.Parameter(0.02 * torch.randn(num_tokens, config.width))
        self.enter = nn.Linear(2 * token, config.width)
        self.enter_condition = nn.Linear(config.width, config.width)
        self.level = nn.Sequential(
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )
        self.stride = None
        if config.shortcut:
            if config.path != "flow" or config.sampling.sampler != "euler":
                raise AvenirError(
                    f"predictor.shortcut is {config.shortcut}, its path {config.path!r} and its "
                    f"sampler {config.sampling.sampler!r}; long steps are along a straight path: "
                    "use path 'flow' and sampler 'euler'"
                )
            self.stride = nn.Linear(config.width, config.width)
        self.transformer = SpaceTimeTransformer(
            config.width, config.depth, config.heads, config.attention
        )
        self.leave = Exit(config.width, token)
        self.shares = nn.Linear(config.width, 2 * shape.channels)
        nn.init.zeros_(self.shares.weight)
        nn.init.zeros_(self.shares.bias)

    # Training ---------------------------------------------------------------------------------

    def losses(
        self,
        latents: Latents,
        condition: Condition | None,
        progress: Progress,
        tap: Tap | None = None,
    ) -> dict[str, Tensor]:
        """Degrade, predict, compare: one weighted mean over the hidden frames."""
        true_latents, own = latents, 0
        if self.config.own_past is not None and progress.fraction >= 0.5:
            own = max(1, round(self.config.own_past * len(latents)))
            latents = self._with_own_past(latents, condition, own, progress.generator)
        degradation = self.degrade(latents, progress.generator, full=own)
        tau = degradation.level[:, :, None, None, None]
        noise = torch.randn(latents.shape, generator=progress.generator, device=latents.device)
        true = Mixed(latents, noise)
        x = self.path.mix(latents, noise, tau)
        said, _ = self.forward(
            x, degradation.level, condition, last_seen(x, degradation), degradation, tap=tap
        )

        def measured(value: Latents) -> Latents:
            ends = self.path.ends(self.config.predicts, value, x, tau, floor=_FLOOR)
            return self.path.target(self.config.loss, ends, tau)

        error = measured(said) - measured(self.path.target(self.config.predicts, true, tau))
        losses = {"flow": _weighted(error, degradation)}
        if self.stride is not None:
            rows = max(1, round(self.config.shortcut * len(latents)))
            steer = None if condition is None else condition.rows(rows)
            losses["shortcut"] = self._shortcut(true_latents[:rows], steer, progress.generator)
        return losses

    def _shortcut(
        self, latents: Latents, condition: Condition | None, chance: torch.Generator
    ) -> Float[Tensor, ""]:
        """Compare one long step with two of half its length (2410.12557, eq. 5).

        Steps are those of schedules of 1, 2, 4 … of them. Halves of the shortest are as small as
        any: the flow itself.
        """
        b, device = len(latents), latents.device
        halving = torch.randint(_HALVINGS, (b,), generator=chance, device=device)
        count = 2**halving
        number = (torch.rand(b, generator=chance, device=device) * count).floor()
        start, middle, end = (
            shifted((number + part) / count, self.shift)[:, None] for part in (0, 0.5, 1)
        )
        degradation = self.degrade(latents, chance, start[:, 0])
        future = degradation.weight
        noise = torch.randn(latents.shape, generator=chance, device=device)
        x = self.path.mix(latents, noise, degradation.level[:, :, None, None, None])
        seen = last_seen(x, degradation)

        def velocity(x: Latents, tau: Tensor, stride: Tensor) -> Latents:
            level = torch.where(future > 0, tau, degradation.level)
            said, _ = self.forward(x, level, condition, seen, degradation, stride=(stride * future))
            tau = tau[:, :, None, None, None]
            return self.path.velocity(
                self.path.ends(self.config.predicts, said, x, tau, floor=_FLOOR), tau
            )

        with torch.no_grad():
            small = (halving < _HALVINGS - 1)[:, None]
            first = velocity(x, start, small * (middle - start))
            there = (future * (middle - start))[:, :, None, None, None]
            second = velocity(x + there * first, middle, small * (end - middle))
            share = ((middle - start) / (end - start))[:, :, None, None, None]
            both = share * first + (1 - share) * second
        tau = start[:, :, None, None, None]
        said = velocity(x, start, end - start)
        one, two = (
            self.path.target(self.config.loss, self.path.ends("velocity", v, x, tau), tau)
            for v in (said, both)
        )
        return _weighted(one - two, degradation)

    def _with_own_past(
        self, latents: Latents, condition: Condition | None, rows: int, chance: torch.Generator
    ) -> Latents:
        """Put what it makes itself in the place of the last past frame of the first rows.

        While it predicts it is fed with what it made: here it learns to go back to the truth from
        there, as in self-forcing (2506.08009), by the true next frames instead of a critic.
        """
        last = min(self.config.past, latents.shape[1] - 1) - 1
        steer = None if condition is None else condition.rows(rows)
        before, after = (None, None) if steer is None else (steer[:last], steer[last : last + 1])
        made, _ = self.predict(self.start(latents[:rows, :last], before), after, 1, chance)
        latents = latents.clone()
        latents[:rows, last : last + 1] = made
        return latents

    def degrade(
        self,
        latents: Latents,
        generator: torch.Generator,
        tau: Float[Tensor, " b"] | None = None,
        full: int = 0,
    ) -> Degradation:
        """Draw what each window hides: its past is given, or every frame has its own level.

        With `tau` all that is hidden of a window is at the window's. The first `full` rows show the
        full past.
        """
        config, (b, t) = self.config, latents.shape[:2]
        device = latents.device

        def chance(probability: float) -> Tensor:
            return torch.rand(b, generator=generator, device=device) < probability

        if tau is None:
            own = draw_tau((b, t), config.tau, self.shift, generator)
            forced = chance(config.forcing)
            every = torch.where(forced[:, None], own, own[:, :1])
        else:
            every, forced = tau[:, None].expand(b, t), chance(0.0)
        most = min(config.past, t - 1)
        some = torch.randint(1, most + 1, (b,), generator=generator, device=device)
        num_past = torch.where(chance(config.full_past), most, some).masked_fill(forced, 0)
        num_past[:full] = most
        noise = torch.rand(b, generator=generator, device=device) * config.past_noise
        return hide_future(every, num_past, 1 - noise)

    # The network ------------------------------------------------------------------------------

    def forward(
        self,
        x: Latents,
        level: NoiseLevel,
        condition: Condition | None,
        seen: Float[Tensor, "b 1 c h w"],
        degradation: Degradation | None = None,
        cache: Cache | None = None,
        tap: Tap | None = None,
        stride: Float[Tensor, "b t"] | None = None,
    ) -> tuple[Latents, Cache]:
        """Say what the path needs at every token; `cache` stands for frames before `x`.

        `stride` says how far each frame is taken at once; none: not at all, as in the flow.

        `seen` `b 1 c h w`, the last frame of the past, is shown to every frame at each position:
        what does not move need not be found by attention. At the exit a share of `x` and of `seen`,
        set by level and channel, is added: tokens need only carry what these do not say.
        """
        p = self.config.patch
        h, w = x.shape[-2] // p, x.shape[-1] // p
        both = torch.cat([x, seen.expand_as(x)], dim=2)
        tokens = self.enter(rearrange(both, "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=p))
        # Rotary positions say how far apart two tokens are; this says where each one is.
        tokens = tokens + self.where
        per_frame = self.level(_sinusoids(level, self.width))
        if self.stride is not None:
            far = torch.zeros_like(level) if stride is None else stride
            per_frame = per_frame + self.stride(_sinusoids(far, self.width))
        if condition is not None:
            per_frame = per_frame + condition.per_frame
            # Written into the tokens as well: attention then carries it from frame to frame.
            tokens = tokens + self.enter_condition(condition.per_frame)[:, :, None]
        look = None if degradation is None else degradation.look
        after = None
        if tap is not None and degradation is not None:
            after = {tap.layer: through_grid(tap, degradation.weight, h)}
        tokens, kept = self.transformer(tokens, per_frame, (h, w), look, cache, after)
        said = self.leave(tokens, per_frame)
        said = rearrange(said, "b t (h w) (c p q) -> b t c (h p) (w q)", h=h, p=p, q=p)
        of_x, of_seen = self.shares(silu(per_frame))[..., None, None].chunk(2, dim=2)
        return said + of_x * x + of_seen * seen, kept

    # Prediction -------------------------------------------------------------------------------

    def start(self, past: Latents, condition: Condition | None) -> Memory:
        """Remember the first `sinks` latent frames and the last ones, `past` in all."""
        return remembered(past, condition, self.config.past, self.config.sinks)

    @torch.no_grad()
    def predict(
        self, memory: Memory, condition: Condition | None, length: int, generator: torch.Generator
    ) -> tuple[Latents, Memory]:
        """Draw one chunk; the past is computed once and kept while the sampler steps."""
        sampling = self.config.sampling
        (b, _, *chw), device = memory.latents.shape, memory.latents.device
        past = self._noised_past(memory.latents, generator)
        guided = condition is not None and sampling.guidance != 1
        sides = [(memory.condition, condition)]
        if guided:
            assert memory.condition is not None and condition is not None
            sides.append((memory.condition.absent(), condition.absent()))
        past_level = torch.full((b, memory.num_frames), 1 - sampling.past_noise, device=device)
        seen = past[:, -1:]
        caches = [self.forward(past, past_level, before, seen)[1] for before, _ in sides]

        # In any other number of steps, strides that were never learnt: then along the flow itself.
        learnt = sampling.num_steps in [2**halving for halving in range(_HALVINGS)]
        strides = learnt and sampling.schedule == "linear"

        def denoise(x: Latents, tau: Tensor, then: Tensor) -> Mixed:
            level, far = (each.expand(b, length) for each in (tau, strides * (then - tau)))
            said = [
                self.forward(x, level, after, seen, cache=cache, stride=far)[0]
                for (_, after), cache in zip(sides, caches, strict=True)
            ]
            best = said[0] if not guided else said[1] + sampling.guidance * (said[0] - said[1])
            return self.path.ends(self.config.predicts, best, x, tau, floor=_FLOOR)

        noise = torch.randn((b, length, *chw), generator=generator, device=device)
        chunk = self._sample(denoise, noise, generator)
        return chunk, self.start(
            torch.cat([memory.latents, chunk], dim=1), memory.led_by(condition)
        )

    def _sample(self, denoise: Denoise, noise: Latents, generator: torch.Generator) -> Latents:
        sampling = self.config.sampling
        taus = schedule(sampling.num_steps, sampling.schedule, self.shift)
        if sampling.sampler == "ddpm":
            return ddpm(denoise, self.path, noise, taus, generator)
        sampler = {"euler": euler, "heun": heun, "ddim": ddim}[sampling.sampler]
        return sampler(denoise, self.path, noise, taus)

    def _noised_past(self, latents: Latents, generator: torch.Generator) -> Latents:
        share = self.config.sampling.past_noise
        if not share:
            return latents
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        return self.path.mix(latents, noise, torch.tensor(1 - share, device=latents.device))


def _weighted(error: Latents, degradation: Degradation) -> Float[Tensor, ""]:
    """Average squared errors over the frames that count."""
    weight = degradation.weight
    return (error.square().mean(dim=(2, 3, 4)) * weight).sum() / weight.sum()


def _sinusoids(level: NoiseLevel, width: int, longest: float = 1000.0) -> PerFrame:
    half = width // 2
    speeds = longest ** (-torch.arange(half, device=level.device) / half)
    angles = level[..., None] * 1000 * speeds
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
