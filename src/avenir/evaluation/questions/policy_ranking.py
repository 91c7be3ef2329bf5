"""Do policies rank in the world model as in the true simulator? If so, one may be chosen there.

As in WorldEval (2505.19017) and WorldGym (2506.00613): the same policies act in closed loop from
the same starts in both, and their returns are compared. A policy sees pictures only, through the
frozen reader of frames; its return is the share of steps at which its ego is on the road. Returns
read from the simulator's own frames are reported as well: they show the reader's own errors.
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from avenir.clip import to_video
from avenir.config import Config
from avenir.console import Report
from avenir.controls import Controls
from avenir.data import Source
from avenir.data.synthetic.things import Class
from avenir.device import generator, seed_of
from avenir.evaluation.initial_states import Start
from avenir.evaluation.metrics.bootstrap import LEVEL, Interval, interval, resampled_means
from avenir.evaluation.readers.readout import Readout
from avenir.rollout import RolloutState
from avenir.shapes import Video
from avenir.world import World

# In the simulator, from 48 starts, the best and the worst policy are 0.63 apart after 1.2 s, 0.77
# after 2.4 s and 0.86 after 4 s, at a cost that grows alike.
RANKED_SECONDS = 2.4
"""For so long policies act that are to be ranked."""

_PEDAL = 0.2
"""Holds the speed that recordings are driven at, nearly."""

_NEAR = 12
"""In pixels: rows so far before and behind the ego's middle say where the road is."""

_OF_ROAD = (Class.ROAD, Class.MARKS, Class.CAR, Class.TRUCK)
"""What a road shows: what drives on it hides it."""

_TOGETHER = 32
"""Starts imagined side by side."""


class Policy(NamedTuple):
    """Steers by where on the road it sees itself, in halves of the road's width from its middle."""

    gain: float = 0.0
    """Steering for each half that it is away from where it wants to be."""
    place: float = 0.0
    """Where it wants to be: -1 is the left edge, 0 the middle, 1 the right edge."""
    turn: float = 0.0
    """Steering that is always added."""
    noise: float = 0.0
    """Standard deviation of random steering that is added, anew at every step."""

    def act(self, place: Float[Tensor, " b"], noise: Float[Tensor, " b"]) -> Float[Tensor, "b 2"]:
        """Steer from where it is, by standard normal `noise`; straight on if it sees nothing."""
        steer = self.gain * (self.place - place) + self.turn + self.noise * noise
        steer = steer.nan_to_num(0.0).clamp(-1, 1)
        return torch.stack([steer, torch.full_like(steer, _PEDAL)], dim=1)


POLICIES = {
    "keeps to the middle": Policy(gain=2.0),
    "keeps to the left": Policy(gain=2.0, place=-0.8),
    "keeps to the middle, unsteadily": Policy(gain=0.5, noise=1.0),
    "goes straight on": Policy(),
    "steers at random": Policy(noise=1.0),
    "a little to the left": Policy(turn=-0.25),
    "rides the right edge": Policy(gain=2.0, place=1.0),
    "half to the right": Policy(turn=0.5),
    "hard to the right": Policy(turn=1.0),
    "hard to the left": Policy(turn=-1.0),
    "away from the middle": Policy(gain=-1.0),
}
"""From good to bad; few are alike, for what is alike ranks by noise."""


class PolicyReturn(Config):
    """How often one policy's ego is on the road, as a share of the steps."""

    true: Interval
    """In the simulator, as that knows."""
    read: Interval
    """In the simulator, as its frames are read; an ego that is not found is off the road."""
    imagined: Interval
    """In the world model's frames, read alike."""


class Kendall(Config):
    """Kendall's tau-b, and its 95 % interval: recordings are drawn again, policies stay."""

    tau: float | None
    """In [-1, 1]; none where one ranking finds all policies alike."""
    low: float | None = None
    """Lower bound; none when there are fewer than two recordings."""
    high: float | None = None
    """Upper bound."""
    p_value: float | None = None
    """Two-sided, of rankings of so many policies that have nothing to do with each other."""

    @property
    def interval(self) -> Interval:
        """Tau and its bounds."""
        return Interval(mean=self.tau, low=self.low, high=self.high)


class PolicyRanking(Config):
    """The same policies in the simulator and in the world model."""

    num_starts: int
    """From each of which every policy acts in both."""
    seconds: float
    """For so long."""
    policies: dict[str, PolicyReturn]
    """By policy."""
    imagined: Kendall
    """The ranking in the world model against the true one."""
    read: Kendall
    """The same of the simulator's frames, read: what reading alone gets wrong."""


def measure_policy_ranking(
    world: World,
    source: Source,
    starts: Sequence[Start],
    seconds: float,
    seed: int,
    report: Report,
) -> PolicyRanking | None:
    """Let every policy act from every start, in the simulator and in the world model.

    The same noise for all of them. None where no reader knows frames of that size.
    """
    readout = Readout.of(source.labelled(), world.encoder.latent_mean.device)
    if readout is None:
        return None
    f_t = world.encoder.compression.t
    num_steps = max(1, round(seconds * source.fps / f_t))
    true, read, imagined = returns = torch.empty(3, len(POLICIES), len(starts))
    for first in range(0, len(starts), _TOGETHER):
        report("policies", first, len(starts))
        rows = slice(first, first + _TOGETHER)
        here, number = starts[rows], seed_of("policies", seed, first)
        noise = torch.randn(num_steps, len(here), generator=generator("policies", seed, first))
        past = torch.cat([start.past.video for start in here])
        actions = torch.stack([start.past.signals["actions"] for start in here])
        state = world.start(past, {"actions": actions})
        for policy, of_policy in zip(POLICIES.values(), returns.unbind(1), strict=True):
            of_policy[:2, rows] = _in_simulator(policy, here, readout, noise, f_t)
            of_policy[2, rows] = _in_world(policy, world, state, readout, noise, number)
    report("policies", len(starts), len(starts))
    groups = [start.name for start in starts]
    policies = {
        name: PolicyReturn(
            true=interval(true[row], groups, seed),
            read=interval(read[row], groups, seed),
            imagined=interval(imagined[row], groups, seed),
        )
        for row, name in enumerate(POLICIES)
    }
    return PolicyRanking(
        num_starts=len(starts),
        seconds=num_steps * f_t / source.fps,
        policies=policies,
        imagined=kendall(imagined, true, groups, seed),
        read=kendall(read, true, groups, seed),
    )


def _in_simulator(
    policy: Policy,
    starts: Sequence[Start],
    readout: Readout,
    noise: Float[Tensor, "n b"],
    f_t: int,
) -> Float[Tensor, "2 b"]:
    """Act in copies of the simulators; return how often it is truly on the road, and is read so."""
    simulators = [copy.copy(start.simulator) for start in starts]
    on_road: list[Tensor] = []

    def step(actions: Tensor) -> Video:
        frames = [
            [simulator.step(action[None])[0] for _ in range(f_t)][-1]
            for simulator, action in zip(simulators, actions.numpy(), strict=True)
        ]
        on_road.append(torch.tensor([not simulator.off_road[0] for simulator in simulators]))
        return to_video(torch.from_numpy(np.concatenate(frames)))

    first = to_video(torch.stack([start.past.frames[-1] for start in starts]))
    read = _closed_loop(policy, first, step, readout, noise)
    return torch.stack([torch.stack(on_road).float().mean(0), read])


def _in_world(
    policy: Policy,
    world: World,
    state: RolloutState,
    readout: Readout,
    noise: Float[Tensor, "n b"],
    seed: int,
) -> Float[Tensor, " b"]:
    """Act in imagined frames; return how often it is read to be on the road."""

    def step(actions: Tensor) -> Video:
        nonlocal state
        state = world.imagine_step(state, Controls(actions[:, None]), seed)
        return state.video[None, :, -1].clamp(-1, 1)

    return _closed_loop(policy, state.video[None, :, -1].clamp(-1, 1), step, readout, noise)


def _closed_loop(
    policy: Policy,
    first: Video,
    step: Callable[[Tensor], Video],
    readout: Readout,
    noise: Float[Tensor, "n b"],
) -> Float[Tensor, " b"]:
    """Close the loop, by the last frame of every step, `1 b C H W`: the starts are side by side.

    Returns the share of steps after which it is read to be on the road.
    """
    (place, _), on_road = located(readout, first), list[Tensor]()
    for now in noise:
        place, on = located(readout, step(policy.act(place, now)))
        on_road.append(on)
    return torch.stack(on_road).float().mean(0)


def located(
    readout: Readout, frames: Float[Tensor, "1 b C H W"]
) -> tuple[Float[Tensor, " b"], Bool[Tensor, " b"]]:
    """Read where the ego is, of the road just ahead in halves of its width, and if it is on it.

    Nowhere (NaN) where the ego, or the road ahead of it, is not seen. The road is read from the
    rows before and behind the ego, which hides its own; whether it is on it, from all of them.
    """
    reading = readout.read(frames)
    (x, y), classes = reading.ego[0].unbind(-1), reading.classes[0]
    _, height, width = classes.shape
    road, columns = torch.isin(classes, torch.tensor(_OF_ROAD)), torch.arange(width).float()
    edges = torch.stack(
        [
            torch.where(road, columns, torch.inf).amin(-1) - 0.5,
            torch.where(road, columns, -torch.inf).amax(-1) + 0.5,
        ]
    )
    behind = torch.arange(height) - y[:, None]
    clear = road.any(-1) & ~(classes == Class.EGO).any(-1) & (behind.abs() <= _NEAR)
    ahead, after = (
        torch.where(clear & side, edges, torch.nan).nanmedian(-1).values
        for side in (behind < 0, behind > 0)
    )
    left, right = ahead
    place = 2 * (x - left) / (right - left) - 1
    left, right = torch.stack([ahead, after]).nanmean(0)
    return place, (left <= x) & (x <= right)


def kendall(
    these: Float[Tensor, "p n"], those: Float[Tensor, "p n"], groups: Sequence[str], seed: int
) -> Kendall:
    """Rank `p` policies by their mean returns from `n` starts, twice; `groups` names recordings.

    Both rankings are made of the same recordings at every draw.
    """
    x, y = these.double().mean(1).numpy(), those.double().mean(1).numpy()
    tau = _tau(x[None], y[None])[0]
    if np.isnan(tau):
        return Kendall(tau=None)
    p_value = float(np.asarray(stats.kendalltau(x.round(6), y.round(6)))[1])
    if len(set(groups)) < 2:
        return Kendall(tau=float(tau), p_value=p_value)
    means = resampled_means(torch.cat([these, those]).T, groups, seed)
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(_tau(*np.split(means, 2, axis=1)), (tail, 1 - tail))
    return Kendall(tau=float(tau), low=float(low), high=float(high), p_value=p_value)


def _tau(x: Float[np.ndarray, "k p"], y: Float[np.ndarray, "k p"]) -> Float[np.ndarray, " k"]:
    """Return Kendall's tau-b of every row; NaN where one is constant.

    Equal means count as equal whatever the order that they were added up in.
    """
    x, y = (np.sign((v[:, :, None] - v[:, None]).round(6)) for v in (x, y))
    scale = np.sqrt((x**2).sum((1, 2)) * (y**2).sum((1, 2)))
    return np.divide((x * y).sum((1, 2)), scale, out=np.full(len(x), np.nan), where=scale > 0)
