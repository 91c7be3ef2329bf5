"""Optimisers and the learning-rate schedule.

Muon (Jordan 2024) orthogonalises the momentum of every matrix, here in float32: bfloat16, as in
`torch.optim.Muon`, is unusable on a CPU. What is no matrix descends with AdamW.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from avenir.config import Config

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic whose iteration pushes singular values to about 1."""


class OptimConfig(Config):
    """How weights descend."""

    kind: Literal["muon", "adamw"] = "muon"
    """Muon for matrices with AdamW for the rest, or AdamW for all."""
    learning_rate: float = Field(2e-3, gt=0)
    """AdamW's rate."""
    matrix_learning_rate: float = Field(0.02, gt=0)
    """Muon's rate."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled decay of matrices."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's averages."""
    warmup: float = Field(0.02, ge=0, le=1)
    """Fraction of the steps over which the rate rises from 0."""
    cooldown: float = Field(0.3, ge=0, le=1)
    """Fraction of the steps, at the end, over which it falls to 0."""
    clip: float | None = 1.0
    """Largest norm of the gradient of AdamW's parameters; none: not clipped."""


def rate(config: OptimConfig, step: int, steps: int) -> float:
    """Return the multiplier of the learning rate: a trapezoid."""
    warm = (step + 1) / max(1.0, config.warmup * steps)
    cool = (steps - step) / max(1.0, config.cooldown * steps)
    return min(1.0, warm, cool)


def orthogonalise(matrices: Tensor, num_iterations: int = 5) -> Tensor:
    """Replace each matrix `… m n` by about the nearest one with orthonormal rows or columns.

    Every iteration multiplies from the short side by a polynomial of the Gram matrix, and what it
    does to that can be said without the matrix: only the first and the last product are wide.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram = x @ x.mT
    product = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    for number in range(num_iterations):
        factor = b * gram + c * gram @ gram
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor @ product
        if number < num_iterations - 1:
            gram = factor @ gram @ factor
    x = product @ x
    return x.mT if tall else x


class Optimiser(torch.optim.Optimizer):
    """Muon for tensors of two axes or more (convolutions flattened), AdamW for the rest."""

    def __init__(self, parameters: Iterable[nn.Parameter], config: OptimConfig) -> None:
        self.config = config
        every = list(parameters)
        is_matrix = [config.kind == "muon" and _is_matrix(p) for p in every]
        muon = [p for p, matrix in zip(every, is_matrix, strict=True) if matrix]
        adamw = [p for p, matrix in zip(every, is_matrix, strict=True) if not matrix]
        groups = [{"params": muon, "muon": True}, {"params": adamw, "muon": False}]
        super().__init__([g for g in groups if g["params"]], {"rate": 1.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Descend once."""
        for group in self.param_groups:
            (self._muon if group["muon"] else self._adamw)(group)

    def _muon(self, group: dict[str, Any]) -> None:
        config, same_shape = self.config, defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            momentum = state.setdefault("momentum", torch.zeros_like(parameter))
            momentum.lerp_(parameter.grad, 0.05)
            update = parameter.grad.lerp(momentum, 0.95).flatten(1)
            same_shape[update.shape].append((parameter, update))
        for (rows, columns), members in same_shape.items():
            updates = orthogonalise(torch.stack([update for _, update in members]))
            scale = group["rate"] * config.matrix_learning_rate * max(1, rows / columns) ** 0.5
            for (parameter, _), update in zip(members, updates, strict=True):
                parameter.mul_(1 - group["rate"] * config.learning_rate * config.weight_decay)
                parameter.sub_(update.view_as(parameter), alpha=scale)

    def _adamw(self, group: dict[str, Any]) -> None:
        config, (beta1, beta2) = self.config, self.config.betas
        parameters = [p for p in group["params"] if p.grad is not None]
        if config.clip is not None:
            nn.utils.clip_grad_norm_(parameters, config.clip)
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if not state:
                state["count"] = torch.zeros(())
                state["mean"] = torch.zeros_like(parameter)
                state["square"] = torch.zeros_like(parameter)
            state["count"] += 1
            state["mean"].lerp_(parameter.grad, 1 - beta1)
            state["square"].lerp_(parameter.grad.square(), 1 - beta2)
            count = float(state["count"])
            size = group["rate"] * config.learning_rate / (1 - beta1**count)
            root = (state["square"] / (1 - beta2**count)).sqrt().add_(1e-8)
            if parameter.dim() > 1:
                parameter.mul_(1 - group["rate"] * config.learning_rate * config.weight_decay)
            parameter.addcdiv_(state["mean"], root, value=-size)


def _is_matrix(parameter: nn.Parameter) -> bool:
    return parameter.dim() >= 2 and min(parameter.flatten(1).shape) > 1


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """Return the norm of all gradients together."""
    squares = [p.grad.square().sum() for p in parameters if p.grad is not None]
    return math.sqrt(float(torch.stack(squares).sum())) if squares else 0.0
