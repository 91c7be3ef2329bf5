"""Bits that latents cost under a predictor of tokens."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from avenir.clip import Condition
from avenir.predictors import TokenPredictor
from avenir.shapes import Latents

_DRAWS = 16
"""Draws of what is hidden, per window, where the cost is a bound."""


@torch.no_grad()
def bits_per_frame(
    predictor: TokenPredictor,
    latents: Latents,
    condition: Condition | None,
    num_past: int,
    generator: torch.Generator,
) -> Float[Tensor, " b"]:
    """Say what latent frames after the first `num_past` cost, in the mean over them."""
    draws = [
        predictor.cost(latents, condition, num_past, generator)
        for _ in range(_DRAWS if predictor.bounds else 1)
    ]
    return torch.stack(draws).mean(0).mean(1) / math.log(2)
