"""Flow matching and Gaussian diffusion over latent video, one class.

A space-time transformer (nn/denoiser.py) sees every frame at its own level `tau` and says, per
token, what a path from noise to data needs: data, noise or velocity. Training from scratch, after a
past, around what is given of a frame, and diffusion forcing are settings of one degradation
(degradation.py); samplers are in samplers.py. Long steps can be learnt by a network that is told
how far they go (shortcut models, 2410.12557).
"""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from avenir.clip import Condition, Progress
from avenir.config import Config
from avenir.degradation import (
    Degradation,
    Inpainting,
    Mixed,
    Path,
    Target,
    Times,
    before_each,
    draw_known,
    draw_tau,
    hidden_error,
    hide_future,
    last_seen,
    shift_of,
)
from avenir.device import normal
from avenir.errors import AvenirError
from avenir.losses.shortcut import HALVINGS, draw_steps, in_one_and_in_two
from avenir.nn.denoiser import Denoiser
from avenir.nn.transformer import in_order
from avenir.predictors import (
    MOST_FRAMES,
    FeatureHook,
    LatentShape,
    Memory,
    Predictor,
    check_sinks,
    guided,
    remembered,
    through_grid,
)
from avenir.samplers import MOST_STEPS, Sampler, sample, schedule
from avenir.shapes import Latents, NoiseLevel

_FLOOR = 0.05
"""Least share of data or noise that is divided by: x-prediction's velocity near the data needs it
(JiT, 2511.13720), and noise prediction near the noise."""


class SamplingConfig(Config):
    """How a chunk is drawn."""

    sampler: Sampler = "euler"
    """Which loop of samplers.py."""
    num_steps: int = Field(10, ge=1, le=MOST_STEPS)
    """Steps from noise to data."""
    schedule: Literal["linear", "linear_quadratic"] = "linear"
    """How the steps are spread."""
    guidance: NonNegativeFloat | dict[str, NonNegativeFloat] = 1.0
    """How far to push from what nothing known predicts: 1 is off. By parts of a conditioner of kind
    `joint`, each is pushed from what all others predict without it."""
    past_noise: float = Field(0.0, ge=0, le=1)
    """Noise on the past while predicting, its level given to the model."""


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
    tau: Times = "logit_normal"
    """How flow times are drawn in training."""
    shift: float | None = Field(None, gt=0)
    """Shift of the flow times toward noise; none: from the latent's size."""
    past: int = Field(4, ge=1, le=MOST_FRAMES)
    """Latent frames remembered."""
    sinks: int = Field(0, ge=0, le=MOST_FRAMES)
    """How many of them are the first that were ever seen (attention sinks, 2309.17453)."""
    chunk: int = Field(4, ge=1, le=MOST_FRAMES)
    """Latent frames predicted by one call once the memory is full."""
    full_past_probability: float = Field(0.5, ge=0, le=1)
    """Chance that a training window shows the full past, rather than 1 to `past` frames of it."""
    unconditional_probability: float = Field(0.0, ge=0, le=1)
    """Chance that a training window shows no past at all: what is to be seen follows from the
    condition alone."""
    inpainting: float = Field(0.0, ge=0, le=1)
    """Chance that parts of its hidden frames are given: some of several views, or all of one but a
    rectangle."""
    diffusion_forcing_probability: float = Field(0.0, ge=0, le=1)
    """Chance that every frame of a window is noised by its own level. Above 0
    every frame is learnt, and predicted, from those before it alone."""
    past_noise: float = Field(0.1, ge=0, le=1)
    """Most noise put on the past in training, its level given to the model."""
    shortcut: float = Field(0.0, ge=0, le=1)
    """Share of every batch on which it also learns to go as far in one step as in two, and so to
    draw in 1, 2, 4 or 8; 0: it does not know how far a step goes."""
    self_forcing: float = Field(0.0, ge=0, le=1)
    """Share of every batch, in the second half of training, whose last frame of the past is what
    the predictor itself makes of those before it (self-forcing, 2506.08009)."""
    sampling: SamplingConfig = SamplingConfig.model_validate({})
    """How a chunk is drawn."""


class Flow(Denoiser, Predictor):
    """Latents `b t c h w` and a condition `b t d` to the latents that come next."""

    Config = FlowConfig
    tells_views_apart = looks_at_context = True

    def __init__(self, config: FlowConfig, shape: LatentShape) -> None:
        check_sinks(config.sinks, config.past)
        if config.self_forcing and config.past < 2:
            raise AvenirError(
                f"predictor.self_forcing is {config.self_forcing} and past {config.past}; the last "
                "frame of the past is made of those before it: remember 2 or more"
            )
        straight = config.path == "flow" and config.sampling.sampler == "euler"
        if config.shortcut and not straight:
            raise AvenirError(
                f"predictor.shortcut is {config.shortcut}, its path {config.path!r} and its "
                f"sampler {config.sampling.sampler!r}; long steps are along a straight path: "
                "use path 'flow' and sampler 'euler'"
            )
        super().__init__(
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            attention=config.attention,
            channels=shape.channels,
            patch=config.patch,
            grid=shape.grid(config.patch),
            views=shape.views,
            strides=config.shortcut > 0,
            inpaints=config.inpainting > 0,
            looks=shape.context,
        )
        self.config, self.path = config, Path(config.path)
        # Forced frames are learnt each from those before it: so is what is predicted and kept.
        self.causal = config.diffusion_forcing_probability > 0
        # Completing begins where there is no past, which must have been met in training.
        from_nothing = config.unconditional_probability > 0 or self.causal
        self.inpaints = config.inpainting > 0 and from_nothing
        self.num_train_frames = config.past + config.chunk
        self.shift = config.shift or shift_of(
            self.num_train_frames * shape.channels * shape.h * shape.w
        )

    # Training ---------------------------------------------------------------------------------

    def losses(
        self,
        latents: Latents,
        condition: Condition | None,
        progress: Progress,
        hook: FeatureHook | None = None,
    ) -> dict[str, Tensor]:
        """Degrade, predict, compare: one weighted mean over the hidden frames."""
        true_latents, own = latents, 0
        if self.config.self_forcing and progress.fraction >= 0.5:
            own = max(1, round(self.config.self_forcing * len(latents)))
            latents = self._with_own_past(latents, condition, own, progress.generator)
        degradation = self.degrade(latents, progress.generator, full=own)
        tau = degradation.level[:, :, None, None, None]
        true, x, last = self._mixed(latents, degradation, progress.generator)
        known = degradation.known
        inpainting = None if known is None else Inpainting(latents, known)
        h, _ = self.grid(x)
        after = hook and {hook.layer: through_grid(hook, degradation.weight, h)}
        mask, level = degradation.attention_mask, degradation.level
        seen = self._frame_shown(x, level, last)
        output = self.forward(x, level, condition, seen, mask, after=after, inpainting=inpainting)

        def measured(value: Latents) -> Latents:
            ends = self.path.ends(self.config.predicts, value, x, tau, floor=_FLOOR)
            return self.path.target(self.config.loss, ends, tau)

        error = measured(output) - measured(self.path.target(self.config.predicts, true, tau))
        losses = {"flow": hidden_error(error, degradation, inpainting)}
        if self.stride is not None:
            rows = max(1, round(self.config.shortcut * len(latents)))
            steer = None if condition is None else condition.rows(rows)
            losses["shortcut"] = self._shortcut(true_latents[:rows], steer, progress.generator)
        return losses

    def _shortcut(
        self, latents: Latents, condition: Condition | None, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Compare one long step with two of half its length."""
        steps = draw_steps(len(latents), self.shift, generator)
        degradation = self.degrade(latents, generator, steps.start[:, 0])
        hidden = degradation.weight
        _, x, last = self._mixed(latents, degradation, generator)

        def velocity(x: Latents, tau: Tensor, stride: Tensor) -> Latents:
            level = torch.where(hidden > 0, tau, degradation.level)
            far, seen = stride * hidden, self._frame_shown(x, level, last)
            mask = degradation.attention_mask
            output = self.forward(x, level, condition, seen, mask, stride=far)
            tau = tau[:, :, None, None, None]
            return self.path.velocity(
                self.path.ends(self.config.predicts, output, x, tau, floor=_FLOOR), tau
            )

        tau = steps.start[:, :, None, None, None]
        one, two = (
            self.path.target(self.config.loss, self.path.ends("velocity", v, x, tau), tau)
            for v in in_one_and_in_two(velocity, x, steps, hidden)
        )
        return hidden_error(one - two, degradation)

    def _mixed(
        self, latents: Latents, degradation: Degradation, generator: torch.Generator
    ) -> tuple[Mixed, Latents, Float[Tensor, "b 1 c h w"]]:
        """Mix every frame with noise at its level: both ends, the mixture, the last frame seen."""
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        level = degradation.level[:, :, None, None, None]
        x = self.path.mix(latents, noise, level)
        return Mixed(latents, noise), x, last_seen(x, degradation)

    def _frame_shown(
        self, x: Latents, level: NoiseLevel, last: Float[Tensor, "b 1 c h w"]
    ) -> Float[Tensor, "b #t c h w"]:
        """Say what every frame is shown: the last of the past or, in order, the one before it."""
        return before_each(self.path, x, level) if self.causal else last

    def _with_own_past(
        self, latents: Latents, condition: Condition | None, rows: int, generator: torch.Generator
    ) -> Latents:
        """Put what it makes itself in the place of the last past frame of the first rows.

        While it predicts it is fed with what it made: here it learns to go back to the truth from
        there, as in self-forcing (2506.08009), by the true next frames instead of a critic.
        """
        last = min(self.config.past, latents.shape[1] - 1) - 1
        steer = None if condition is None else condition.rows(rows)
        before, after = (None, None) if steer is None else (steer[:last], steer[last : last + 1])
        made, _ = self.predict(self.start(latents[:rows, :last], before), after, 1, generator)
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

        def happens(probability: float) -> Tensor:
            return torch.rand(b, generator=generator, device=device) < probability

        if tau is None:
            own = draw_tau((b, t), config.tau, self.shift, generator)
            forced = happens(config.diffusion_forcing_probability)
            every = torch.where(forced[:, None], own, own[:, :1])
        else:
            every, forced = tau[:, None].expand(b, t), happens(0.0)
        most = min(config.past, t - 1)
        some = torch.randint(1, most + 1, (b,), generator=generator, device=device)
        num_past = torch.where(happens(config.full_past_probability), most, some).masked_fill(
            forced, 0
        )
        if config.unconditional_probability > 0:
            num_past = num_past.masked_fill(happens(config.unconditional_probability), 0)
        num_past[:full] = most
        noise = torch.rand(b, generator=generator, device=device) * config.past_noise
        hidden = hide_future(every, num_past, 1 - noise)
        hidden = hidden.in_order() if self.causal else hidden
        if tau is not None or not config.inpainting:
            return hidden
        size = (b, t, *self.grid(latents))
        tokens = draw_known(size, self.views, config.inpainting, generator)
        known = tokens.repeat_interleave(self.patch, dim=2).repeat_interleave(self.patch, dim=3)
        return replace(hidden, known=known & (hidden.weight > 0)[:, :, None, None])

    # Prediction -------------------------------------------------------------------------------

    def start(self, past: Latents, condition: Condition | None) -> Memory:
        """Remember the first `sinks` latent frames and the last ones, `past` in all."""
        return remembered(past, condition, self.config.past, self.config.sinks)

    @torch.no_grad()
    def predict(
        self, memory: Memory, condition: Condition | None, length: int, generator: torch.Generator
    ) -> tuple[Latents, Memory]:
        """Draw one chunk; the past is computed once and kept while the sampler steps."""
        return self._drawn(memory, condition, length, generator)

    @torch.no_grad()
    def inpaint(
        self,
        memory: Memory,
        condition: Condition | None,
        inpainting: Inpainting,
        generator: torch.Generator,
    ) -> tuple[Latents, Memory]:
        """Draw one chunk around what is given of it."""
        if not self.inpaints:
            return super().inpaint(memory, condition, inpainting, generator)
        tokens = self.per_token(inpainting.known)
        if not torch.equal(tokens.sum(-1) * self.config.patch**2, inpainting.known.sum((-2, -1))):
            raise AvenirError(
                f"what is given of frames to complete cuts through tokens of {self.config.patch} "
                "rows and columns of latents: give whole ones"
            )
        return self._drawn(memory, condition, inpainting.latents.shape[1], generator, inpainting)

    def _drawn(
        self,
        memory: Memory,
        condition: Condition | None,
        length: int,
        generator: torch.Generator,
        inpainting: Inpainting | None = None,
    ) -> tuple[Latents, Memory]:
        known = memory.latents
        past = self._noised_past(known, generator)
        noise = normal((len(known), length, *known.shape[2:]), generator)
        chunk = self.from_noise(noise, past, memory.condition, condition, generator, inpainting)
        return chunk, self.start(torch.cat([known, chunk], dim=1), memory.led_by(condition))

    def from_noise(
        self,
        noise: Latents,
        past: Float[Tensor, "b _p c h w"],
        before: Condition | None,
        after: Condition | None,
        generator: torch.Generator | None = None,
        inpainting: Inpainting | None = None,
    ) -> Latents:
        """Take noise to latents after a past; only the sampler of diffusion needs more chance."""
        sampling, (b, length), num_past = self.config.sampling, noise.shape[:2], past.shape[1]
        last = past[:, -1:] if num_past else torch.zeros_like(noise[:, :1])
        sides = guided(before, after, sampling.guidance)
        past_level = torch.full((b, num_past), 1 - sampling.past_noise, device=noise.device)
        mask = in_order(b, num_past + length, noise.device) if self.causal else None
        shown = self._frame_shown(past, past_level, last)
        caches = [
            self.remember(past, past_level, led, shown, mask) if num_past else None
            for _, led, _ in sides
        ]

        # In any other number of steps, strides that were never learnt: then along the flow itself.
        learnt = sampling.num_steps in [2**halving for halving in range(HALVINGS)]
        strides = learnt and sampling.schedule == "linear"

        def denoise(x: Latents, tau: Tensor, then: Tensor) -> Mixed:
            level, far = (each.expand(b, length) for each in (tau, strides * (then - tau)))
            best = torch.zeros_like(x)
            window, levels = torch.cat([past, x], dim=1), torch.cat([past_level, level], dim=1)
            seen = self._frame_shown(window, levels, last)[:, -length:]
            for (share, _, led), cache in zip(sides, caches, strict=True):
                best = best + share * self.forward(
                    x, level, led, seen, mask, cache, stride=far, inpainting=inpainting
                )
            return self.path.ends(self.config.predicts, best, x, tau, floor=_FLOOR)

        taus = schedule(sampling.num_steps, sampling.schedule, self.shift)
        chunk = sample(sampling.sampler, denoise, self.path, noise, taus, generator)
        return chunk if inpainting is None else inpainting.over(chunk)

    def _noised_past(self, latents: Latents, generator: torch.Generator) -> Latents:
        share = self.config.sampling.past_noise
        if not share:
            return latents
        noise = normal(latents.shape, generator)
        return self.path.mix(latents, noise, torch.tensor(1 - share, device=latents.device))
