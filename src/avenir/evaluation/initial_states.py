"""Where policies start: the ends of held-out pasts, and a simulator that goes on from there."""

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from avenir.clip import Clip
from avenir.console import Report
from avenir.data import Source, Steppable, Window
from avenir.device import seed_of
from avenir.errors import AvenirError

AWAY = 6.0
"""In pixels across: goals are farther from where the ego starts."""

_SHOWS = 0.5
"""Share of the ego that must show in a goal."""
_TRIES = 4
"""Windows looked at for every start that is kept."""


class Start(NamedTuple):
    """Where a policy starts, and the goal it is to reach."""

    name: str
    """Of the recording."""
    past: Clip
    simulator: Steppable
    goal: Clip
    """One frame."""
    where: float
    """Where the goal's ego is across, in pixels."""


def starts_of(
    source: Source, num_starts: int, past: int, horizon: int, seed: int, report: Report
) -> list[Start]:
    """Find starts whose goals are to be seen and away from where the ego is."""
    starts: list[Start] = []
    windows = source.spread("test", past + horizon, _TRIES * num_starts)
    for number, window in enumerate(windows):
        if len(starts) == num_starts:
            break
        report("starts", len(starts), num_starts)
        start = _start(source, replace(window, num_frames=past), horizon, seed, number)
        if start is not None:
            starts.append(start)
    if len(starts) < num_starts:
        raise AvenirError(
            f"{num_starts} starts were asked for; {len(starts)} were found among "
            f"{len(windows)} windows: ask for fewer, or give more test recordings"
        )
    return starts


def _start(source: Source, window: Window, horizon: int, seed: int, number: int) -> Start | None:
    rng = np.random.default_rng(seed_of("goal", seed, number))
    steer = rng.choice([-1, 1]) * rng.uniform(0.2, 1)
    action = np.array([[steer, rng.uniform(-0.3, 0.5)]])
    simulator = source.simulator_at(window)
    there = copy.copy(simulator)
    frames, labels = there.look()
    for _ in range(horizon):
        frames, labels = there.step(action)
    moved = labels["ego"][0, 0] - across(simulator)
    if abs(moved) <= AWAY or labels["ego_visible"][0, 0] < _SHOWS:
        return None
    goal = Clip(torch.from_numpy(frames.copy()), source.fps, name="goal")
    name, seen = window.recording.name, source.clip(window)
    # A planner sees pictures and knows past actions, nothing else of the simulator.
    past = replace(seen, signals={"actions": seen.signals["actions"]})
    return Start(name, past, simulator, goal, float(labels["ego"][0, 0]))


def across(simulator: Steppable) -> float:
    """Return where the ego is across, without a step."""
    _, labels = simulator.look()
    return float(labels["ego"][0, 0])
