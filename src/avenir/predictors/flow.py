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
)
from avenir.errors import AvenirError
from avenir.losses.shortcut import HALVINGS, draw_steps, in_one_and_in_two
from avenir.nn.transformer import Cache, Exit, SpaceTimeTransformer, sinusoids
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
from avenir.shapes import Latents, NoiseLevel

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
        true, x, seen = self._mixed(latents, degradation, progress.generator)
        said = self.forward(x, degradation.level, condition, seen, degradation, tap=tap)

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
        """Compare one long step with two of half its length."""
        steps = draw_steps(len(latents), self.shift, chance)
        degradation = self.degrade(latents, chance, steps.start[:, 0])
        hidden = degradation.weight
        _, x, seen = self._mixed(latents, degradation, chance)

        def velocity(x: Latents, tau: Tensor, stride: Tensor) -> Latents:
            level = torch.where(hidden > 0, tau, degradation.level)
            said = self.forward(x, level, condition, seen, degradation, stride=stride * hidden)
            tau = tau[:, :, None, None, None]
            return self.path.velocity(
                self.path.ends(self.config.predicts, said, x, tau, floor=_FLOOR), tau
            )

        tau = steps.start[:, :, None, None, None]
        one, two = (
            self.path.target(self.config.loss, self.path.ends("velocity", v, x, tau), tau)
            for v in in_one_and_in_two(velocity, x, steps, hidden)
        )
        return _weighted(one - two, degradation)

    def _mixed(
        self, latents: Latents, degradation: Degradation, chance: torch.Generator
    ) -> tuple[Mixed, Latents, Float[Tensor, "b 1 c h w"]]:
        """Mix every frame with noise at its level: both ends, the mixture, the last frame seen."""
        noise = torch.randn(latents.shape, generator=chance, device=latents.device)
        level = degradation.level[:, :, None, None, None]
        x = self.path.mix(latents, noise, level)
        return Mixed(latents, noise), x, last_seen(x, degradation)

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
    ) -> Latents:
        """Say what the path needs at every token; `cache` stands for frames before `x`.

        `stride` says how far each frame is taken at once; none: not at all, as in the flow.

        `seen` `b 1 c h w`, the last frame of the past, is shown to every frame at each position:
        what does not move need not be found by attention. At the exit a share of `x` and of `seen`,
        set by level and channel, is added: tokens need only carry what these do not say.
        """
        p, (h, w) = self.config.patch, self._grid(x)
        tokens, per_frame = self._entered(x, level, condition, seen, stride)
        look = None if degradation is None else degradation.look
        after = None
        if tap is not None and degradation is not None:
            after = {tap.layer: through_grid(tap, degradation.weight, h)}
        tokens, _ = self.transformer(tokens, per_frame, (h, w), look, cache, after)
        said = self.leave(tokens, per_frame)
        said = rearrange(said, "b t (h w) (c p q) -> b t c (h p) (w q)", h=h, p=p, q=p)
        of_x, of_seen = self.shares(silu(per_frame))[..., None, None].chunk(2, dim=2)
        return said + of_x * x + of_seen * seen

    def remember(
        self,
        past: Latents,
        level: NoiseLevel,
        condition: Condition | None,
        seen: Float[Tensor, "b 1 c h w"],
    ) -> Cache:
        """Return what `forward` needs of frames that are known."""
        tokens, per_frame = self._entered(past, level, condition, seen)
        return self.transformer.remember(tokens, per_frame, self._grid(past))

    def _entered(
        self,
        x: Latents,
        level: NoiseLevel,
        condition: Condition | None,
        seen: Float[Tensor, "b 1 c h w"],
        stride: Float[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b t s d"], Float[Tensor, "b t d"]]:
        """Turn latents into tokens, and what is known of each frame into its vector."""
        p, both = self.config.patch, torch.cat([x, seen.expand_as(x)], dim=2)
        tokens = self.enter(rearrange(both, "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=p))
        # Rotary positions say how far apart two tokens are; this says where each one is.
        tokens = tokens + self.where
        per_frame = self.level(sinusoids(level, self.width))
        if self.stride is not None:
            far = torch.zeros_like(level) if stride is None else stride
            per_frame = per_frame + self.stride(sinusoids(far, self.width))
        if condition is not None:
            per_frame = per_frame + condition.per_frame
            # Written into the tokens as well: attention then carries it from frame to frame.
            tokens = tokens + self.enter_condition(condition.per_frame)[:, :, None]
        return tokens, per_frame

    def _grid(self, latents: Latents) -> tuple[int, int]:
        return latents.shape[-2] // self.config.patch, latents.shape[-1] // self.config.patch

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
        seen = past[:, -1:]
        guided = condition is not None and sampling.guidance != 1
        sides = [(memory.condition, condition)]
        if guided:
            assert memory.condition is not None and condition is not None
            sides.append((memory.condition.absent(), condition.absent()))
        past_level = torch.full((b, memory.num_frames), 1 - sampling.past_noise, device=device)
        caches = [self.remember(past, past_level, before, seen) for before, _ in sides]

        # In any other number of steps, strides that were never learnt: then along the flow itself.
        learnt = sampling.num_steps in [2**halving for halving in range(HALVINGS)]
        strides = learnt and sampling.schedule == "linear"

        def denoise(x: Latents, tau: Tensor, then: Tensor) -> Mixed:
            level, far = (each.expand(b, length) for each in (tau, strides * (then - tau)))
            said = [
                self.forward(x, level, after, seen, cache=cache, stride=far)
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
