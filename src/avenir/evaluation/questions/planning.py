"""Does planning by imagined futures reach its goal? Judged in the true simulator.

Each start is the end of a held-out past. One action is held from there on in the simulator; the
picture it then shows is the goal, and planners, which see pictures only, are scored by how far from
the goal's ego theirs ends. Baselines: a random action that is held, no action, and a script that
reads the simulator.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from avenir.clip import Clip
from avenir.config import Config
from avenir.console import Report
from avenir.data import Source, Steppable
from avenir.device import seed_of
from avenir.evaluation.initial_states import Start, across
from avenir.evaluation.metrics.bootstrap import Interval, interval
from avenir.planning import Agent, PlanningConfig, bounds_of
from avenir.world import World

REACHED = 2.0
"""In pixels across: an ego this near to the goal's has reached it."""

Act = Callable[[Clip, Steppable], Tensor]
"""From what was seen last, and the simulator, to actions `f_t a`; only a script asks the latter."""


class PolicyOutcome(Config):
    """How one policy did."""

    reached: Interval
    """Share of starts from which it ended within `REACHED` of the goal."""
    distance: Interval
    """How far from the goal the ego ended, across, in pixels."""
    above_random: Interval
    """Share reached, minus that of random actions."""
    above_nothing: Interval
    """Share reached, minus that of doing nothing."""


class PlanningResult(Config):
    """What was reached from the same starts."""

    num_starts: int
    """Starts, none of them solved already."""
    seconds: float
    """Time to reach the goal, and how far ahead it lies."""
    planning: PlanningConfig
    """How plans were sought."""
    policies: dict[str, PolicyOutcome]
    """By policy: planned, scripted, random, nothing."""


def measure_planning(
    world: World,
    source: Source,
    starts: Sequence[Start],
    num_steps: int,
    planning: PlanningConfig,
    seed: int,
    report: Report,
) -> PlanningResult:
    """Let every policy act from every start for `num_steps` latent frames in the simulator."""
    f_t = world.encoder.compression.t
    low, high = (bound.numpy() for bound in bounds_of(world))
    ends: dict[str, list[float]] = {"planned": [], "scripted": [], "random": [], "nothing": []}
    for number, start in enumerate(starts):
        report("planning", number, len(starts))
        rng = np.random.default_rng(seed_of("acting", seed, number))
        # Near the end there is less to look ahead to.
        agents = [
            planning.model_copy(update={"num_steps": min(planning.num_steps, left)})
            for left in range(num_steps, 0, -1)
        ]
        acts: dict[str, Act] = {
            "planned": _planned(world, start, agents, seed_of("plan", seed, number)),
            "scripted": lambda _, simulator, start=start: _scripted(simulator, start, f_t),
            # Held to the end, as the goal's was: new ones at every step would cancel out.
            "random": lambda *_, action=rng.uniform(low, high): _held(action, f_t),
            "nothing": lambda *_: _held(np.zeros(len(low)), f_t),
        }
        for name, act in acts.items():
            ends[name].append(_end(start, act, num_steps, f_t) - start.where)
    report("planning", len(starts), len(starts))
    groups = [start.name for start in starts]
    off = {name: torch.tensor(values).abs() for name, values in ends.items()}
    hit = {name: (distance <= REACHED).float() for name, distance in off.items()}
    policies = {
        name: PolicyOutcome(
            reached=interval(hit[name], groups, seed),
            distance=interval(off[name], groups, seed),
            above_random=interval(hit[name] - hit["random"], groups, seed),
            above_nothing=interval(hit[name] - hit["nothing"], groups, seed),
        )
        for name in ends
    }
    return PlanningResult(
        num_starts=len(starts),
        seconds=num_steps * f_t / source.fps,
        planning=planning,
        policies=policies,
    )


def _end(start: Start, act: Act, num_steps: int, f_t: int) -> float:
    """Act to the end and say where the ego is then, across."""
    simulator, seen, where = copy.copy(start.simulator), start.past, 0.0
    for _ in range(num_steps):
        actions = act(seen, simulator)
        frames = []
        for action in actions.double().numpy():
            frame, labels = simulator.step(action[None])
            frames.append(torch.from_numpy(frame[0].copy()))
            where = float(labels["ego"][0, 0])
        seen = _then(seen, torch.stack(frames), actions)
    return where


def _then(seen: Clip, frames: Tensor, actions: Tensor) -> Clip:
    """Slide on: forget as many frames as were seen since.

    The action at a frame leads to the next, so the first of them was taken at the last frame seen.
    """
    count, known = len(frames), seen.signals["actions"]
    known = torch.cat([known[:-1], actions, known.new_full((1, known.shape[1]), torch.nan)])
    return replace(
        seen,
        frames=torch.cat([seen.frames[count:], frames]),
        signals={"actions": known[count:]},
    )


def _planned(world: World, start: Start, configs: Sequence[PlanningConfig], seed: int) -> Act:
    agent = Agent(world, start.goal, configs[0], seed)

    def act(seen: Clip, _: Steppable) -> Tensor:
        agent.config = configs[agent.num_acts]
        return agent.act(seen)

    return act


def _scripted(simulator: Steppable, start: Start, f_t: int) -> Tensor:
    """Steer to where the goal is, by where the ego truly is."""
    steer = np.clip((start.where - across(simulator)) / 6, -1, 1)
    return _held(np.array([steer, 0.0]), f_t)


def _held(action: np.ndarray, f_t: int) -> Tensor:
    return torch.from_numpy(action).float().expand(f_t, -1)
