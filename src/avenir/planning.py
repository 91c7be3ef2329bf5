"""Acting to reach a picture: imagine many futures, keep those that end nearest it, act, look again.

Plans are sought among actions by the cross-entropy method (Rubinstein 1999) or by MPPI (Williams et
al. 2017, 1509.01149); how near a future comes is the mean absolute difference of its last latents
from the goal's, as in V-JEPA 2-AC (2506.09985). Nothing is decoded and no state is read.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import torch
from einops import repeat
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from avenir.clip import Clip
from avenir.config import Config
from avenir.controls import Controls
from avenir.device import SharedGenerator, generator
from avenir.errors import AvenirError
from avenir.rollout import RolloutState
from avenir.shapes import Latents
from avenir.world import World

_LEAST_SPREAD = 0.05
"""Of the first spread: elites that agree too soon would end the search."""


class PlanningConfig(Config):
    """How plans are sought."""

    method: Literal["cem", "mppi"] = "cem"
    """The best futures alone, or all of them by how good they are."""
    num_steps: int = Field(6, ge=1)
    """Steps looked ahead, of one latent frame each."""
    hold: int = Field(1, ge=1)
    """Steps that an action is held; a plan of fewer numbers is found sooner."""
    num_candidates: int = Field(64, ge=2)
    """Futures imagined in a round."""
    num_elites: int = Field(8, ge=1)
    """How many of them the cross-entropy method keeps: fewer than all."""
    temperature: float = Field(0.5, gt=0)
    """Of MPPI, in standard deviations of the costs of a round: low trusts the best ones only."""
    num_rounds: int = Field(3, ge=1)
    """Rounds, each drawn around what the one before found."""
    sampler_steps: int | None = Field(None, ge=1)
    """In how many steps each latent frame is drawn while planning; none: as the world draws."""
    spread: float = Field(0.5, gt=0)
    """Standard deviation of the first round, as a share of half the range of the actions."""


class Plan(NamedTuple):
    """What to do, and how near it is thought to lead."""

    actions: Float[Tensor, "m a"]
    """Each held for `hold` steps."""
    cost: float
    """How far from the goal it is imagined to end, under randomness of its own."""
    lowest: tuple[float, ...]
    """The same of the best future of every round, whose candidates all met the same randomness."""


def plan(
    world: World,
    state: RolloutState,
    goal: Latents,
    config: PlanningConfig,
    generator: torch.Generator,
    start: Float[Tensor, "m a"] | None = None,
) -> Plan:
    """Seek actions from a state (of one future) on that end at the `goal` latents, `1 1 c h w`.

    The search begins around `start`, or around actions of 0. Raises AvenirError for a world whose
    actions have no bounds, and when all candidates would be kept.
    """
    if config.method == "cem" and config.num_elites >= config.num_candidates:
        raise AvenirError(
            f"{config.num_elites} of {config.num_candidates} candidates would be kept, so nothing "
            "would be chosen: imagine more futures, or keep fewer"
        )
    low, high = bounds_of(world)
    mean = torch.zeros(-(-config.num_steps // config.hold), len(low)) if start is None else start
    mean = mean.clamp(low, high)
    first_spread = config.spread * (high - low) / 2
    spread, f_t = first_spread.expand_as(mean), world.encoder.compression.t
    device, lowest = state.seen.device, []

    def imagined(candidates: Float[Tensor, "k m a"]) -> Float[Tensor, " k"]:
        held = repeat(candidates, "k m a -> k (m f) a", f=config.hold * f_t)
        held = held[:, : config.num_steps * f_t].to(device)
        # Under the same randomness: else a search among many finds the lucky ones.
        shared = SharedGenerator.drawn_by(generator)
        states = state.repeated(len(held))
        ends = world.foresee(states, Controls(held), shared)[:, -1:]
        return (ends - goal).abs().mean(dim=(1, 2, 3, 4)).cpu()

    with _drawn_in(world, config.sampler_steps):
        for _ in range(config.num_rounds):
            shape = (config.num_candidates, *mean.shape)
            noise = torch.randn(shape, generator=generator, device=generator.device).cpu()
            candidates = (mean + spread * noise).clamp(low, high)
            candidates[0] = mean
            cost = imagined(candidates)
            weight = _weights(cost, config)[:, None, None]
            mean = (weight * candidates).sum(0)
            spread = (weight * (candidates - mean).square()).sum(0).sqrt()
            spread = spread.maximum(_LEAST_SPREAD * first_spread)
            lowest.append(float(cost.min()))
        return Plan(mean, float(imagined(mean[None])), tuple(lowest))


def _drawn_in(world: World, num_steps: int | None) -> AbstractContextManager[None]:
    """Let a world draw in so many steps while it lasts; none: as it does."""
    if num_steps is None or world.predictor is None:
        return nullcontext()
    return world.predictor.in_steps(num_steps)


def _weights(cost: Float[Tensor, " k"], config: PlanningConfig) -> Float[Tensor, " k"]:
    """Say how much every candidate counts in the next mean; together 1."""
    if config.method == "mppi":
        scale = config.temperature * cost.std().clamp(min=1e-12)
        return (-(cost - cost.min()) / scale).softmax(0)
    elites = cost.topk(config.num_elites, largest=False).indices
    return torch.zeros_like(cost).index_fill(0, elites, 1 / len(elites))


class Agent:
    """Reaches for a picture: plans at every step, from what it sees then.

    `goal` is a clip of one frame, at the world's size. The same seed and the same frames give the
    same actions.
    """

    def __init__(self, world: World, goal: Clip, config: PlanningConfig, seed: int = 0) -> None:
        self.world, self.config, self.seed = world, config, seed
        self.goal, self.num_acts = latents_of(world, goal), 0
        self.plan: Plan | None = None

    def act(self, past: Clip) -> Float[Tensor, "f_t a"]:
        """Say what to do for the `f_t` frames after a clip at the world's size and rate.

        Its actions may be known or not. The plan before, a step on, is where the search begins; an
        action that is still to be held is.
        """
        f_t = self.world.encoder.compression.t
        self.num_acts += 1
        if self.plan is not None and (self.num_acts - 1) % self.config.hold:
            return self.plan.actions[:1].expand(f_t, -1)
        takes = self.world.takes
        signals = {name: s[None] for name, s in past.signals.items() if name in takes}
        state = self.world.start(past.video, signals)
        drawn = generator("plan", self.seed, self.num_acts, device=state.seen.device)
        start = None
        if self.plan is not None:
            start = torch.cat([self.plan.actions[1:], self.plan.actions[-1:]])
        self.plan = plan(self.world, state, self.goal, self.config, drawn, start)
        return self.plan.actions[:1].expand(f_t, -1)


@torch.no_grad()
def latents_of(world: World, picture: Clip) -> Latents:
    """Encode a picture, `1 1 c h w`: it is held for as many frames as a latent stands for."""
    fitted = picture.resized(*world.card.size).video[:, :1]
    held = fitted.expand(-1, world.encoder.compression.t, -1, -1, -1)
    return world.encoder.encode(held.to(world.encoder.latent_mean.device))


def bounds_of(world: World) -> tuple[Float[Tensor, " a"], Float[Tensor, " a"]]:
    """Return the least and the greatest actions of the data that a world learnt from."""
    signal = world.action_signal
    if signal is not None and not signal.low:
        signal = None
    if signal is None or not torch.tensor([*signal.low, *signal.high]).isfinite().all():
        raise AvenirError(
            f"{world.card.name!r} takes no actions, or none with bounds, so nothing can be "
            "planned: train it with conditioner.kind='actions' on data that has them"
        )
    return torch.tensor(signal.low), torch.tensor(signal.high)
