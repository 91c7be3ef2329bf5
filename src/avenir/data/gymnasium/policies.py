"""Who acts while an environment is recorded: at random, by a script, or as somebody else says.

A policy is a function of the environment, just reset, and of chance; it returns what takes an
observation to an action.
"""

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from avenir.errors import AvenirError
from avenir.registry import imported

Act = Callable[[Any], Any]
Policy = Callable[[gymnasium.Env[Any, Any], np.random.Generator], Act]


def random(environment: gymnasium.Env[Any, Any], rng: np.random.Generator) -> Act:
    """Choose an action as the space gives it and keep to it for a while, 8 frames on average.

    One choice per frame would cancel out, and nothing would be seen to move.
    """
    space = environment.action_space
    space.seed(int(rng.integers(1 << 31)))
    held = space.sample()

    def act(_: Any) -> Any:
        nonlocal held
        if rng.random() < 1 / 8:
            held = space.sample()
        return held

    return act


def racing(environment: gymnasium.Env[Any, Any], rng: np.random.Generator) -> Act:
    """Drive CarRacing along its track, faster and slower, from side to side, and at times astray.

    Reads where car and track are, which the picture need not say.
    """
    inner: Any = environment.unwrapped
    track = np.array([(x, y) for _, _, x, y in inner.track])
    wishes = {"speed": 45.0, "aside": 0.0, "nudge": 0.0}

    def act(_: Any) -> np.ndarray:
        if rng.random() < 1 / 12:
            wishes["speed"] = rng.uniform(15.0, 70.0)
            wishes["aside"] = rng.uniform(-4.0, 4.0)
            wishes["nudge"] = rng.choice([0.0, 0.0, -0.7, 0.7]) * rng.random()
        hull = inner.car.hull
        here = np.array(hull.position)
        nearest = int(np.linalg.norm(track - here, axis=1).argmin())
        ahead, beyond = track[(nearest + 4) % len(track)], track[(nearest + 5) % len(track)]
        along = (beyond - ahead) / np.linalg.norm(beyond - ahead)
        target = ahead + wishes["aside"] * np.array([along[1], -along[0]]) - here
        # The hull's own forward is its y axis; angles grow to the left, steering to the right.
        off = math.atan2(target[0], target[1]) + hull.angle
        off = (off + math.pi) % (2 * math.pi) - math.pi
        speed = float(np.linalg.norm(hull.linearVelocity))
        gas = np.clip((wishes["speed"] * (1 - 0.6 * min(1.0, abs(off))) - speed) / 15, -1, 1)
        steer = np.clip(1.2 * off + wishes["nudge"], -1, 1)
        return np.array([steer, max(0.0, gas) * 0.8, max(0.0, -gas) * 0.6], np.float32)

    return act


SCRIPTED: dict[str, Policy] = {"CarRacing-v3": racing}
"""Environments that we know how to act in."""


def policy_named(name: str, environment: str) -> Policy:
    """Find a policy that needs no person: random, scripted, or `module:function`.

    Raises AvenirError for one that is not there, and for an environment we have no script for.
    """
    if name == "random":
        return random
    if name == "scripted":
        if environment not in SCRIPTED:
            raise AvenirError(
                f"policy 'scripted' was asked for; we know how to act in {', '.join(SCRIPTED)} and "
                f"not in {environment!r}: use 'random', or a policy of your own, module:function"
            )
        return SCRIPTED[environment]
    module, _, function = name.partition(":")
    try:
        if not function:
            raise ValueError("it names no function")
        return getattr(imported(module), function)
    except (ImportError, AttributeError, ValueError, AvenirError) as error:
        raise AvenirError(
            f"policy {name!r} was asked for, and there is none: {error}; say random, scripted, "
            "human, or module:function, of a module that can be imported or lies in this folder"
        ) from None
