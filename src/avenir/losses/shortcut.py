"""Long steps of a flow, learnt from two of half their length (shortcut models, 2410.12557)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avenir.degradation import shifted
from avenir.shapes import Latents

HALVINGS = 4
"""Long steps are learnt from the whole way to an eighth of it."""

PerRow = Float[Tensor, "b 1"]


class LongSteps(NamedTuple):
    """One long step for each row of a batch, in flow time."""

    start: PerRow
    middle: PerRow
    end: PerRow
    halved: Bool[Tensor, "b 1"]
    """Whether its halves are long steps as well; those of the shortest follow the flow itself."""


def draw_steps(count: int, shift: float, generator: torch.Generator) -> LongSteps:
    """Draw steps of schedules of 1, 2, 4 … of them, shifted as the flow's times are."""
    device = generator.device
    halving = torch.randint(HALVINGS, (count,), generator=generator, device=device)
    steps = 2**halving
    number = (torch.rand(count, generator=generator, device=device) * steps).floor()
    start, middle, end = (shifted((number + part) / steps, shift)[:, None] for part in (0, 0.5, 1))
    return LongSteps(start, middle, end, (halving < HALVINGS - 1)[:, None])


def in_one_and_in_two(
    velocity: Callable[[Latents, PerRow, PerRow], Latents],
    x: Latents,
    steps: LongSteps,
    moves: Float[Tensor, "b t"],
) -> tuple[Latents, Latents]:
    """Return the velocity of one long step from `x`, and what two of half its length amount to.

    `velocity` says it at a time, for a step so far; `moves` is 1 for the frames that are taken
    along. The second is what the first should be (eq. 5), and has no gradient.
    """
    start, middle, end, halved = steps
    with torch.no_grad():
        first = velocity(x, start, halved * (middle - start))
        there = (moves * (middle - start))[:, :, None, None, None]
        second = velocity(x + there * first, middle, halved * (end - middle))
        share = ((middle - start) / (end - start))[:, :, None, None, None]
        both = share * first + (1 - share) * second
    return velocity(x, start, end - start), both
