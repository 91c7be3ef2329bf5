"""Optimisers and the learning-rate schedule.

Muon (Jordan 2024) orthogonalises the momentum of every matrix, here in float32: bfloat16, as in
`torch.optim.Muon`, is unusable on a CPU. What is no matrix descends with AdamW.
"""

# pyright: reportPrivateImportUsage=false
# PyTorch lists its operations on many tensors at once among its functions, though their names begin
# with an underscore. A step of a small model on a GPU costs what it takes to launch operations.

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
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
    """Decoupled decay of matrices, at the rate of what moves them."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's averages."""
    warmup: float = Field(0.02, ge=0, le=1)
    """Fraction of the steps over which the rate rises from 0."""
    cooldown: float = Field(0.3, ge=0, le=1)
    """Fraction of the steps, at the end, over which it falls to 0."""
    decay: Literal["cosine"] | None = None
    """The rate falls along half a cosine from the first step to the last; none: it stays, and cools
    down along a line."""
    floor: float | None = Field(None, ge=0, lt=1)
    """Share of the rate that it falls to; none: 0."""
    clip: float | None = 1.0
    """Largest norm of the gradient of AdamW's parameters; none: not clipped."""

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is as it was before it could be chosen: runs and studies keep keys."""
        later = {name for name in ("decay", "floor") if getattr(self, name) is None}
        return {name: value for name, value in dump(self).items() if name not in later}


def rate(config: OptimConfig, step: int, steps: int) -> float:
    """Return the multiplier of the learning rate: a trapezoid, or a cosine after the warm-up."""
    warm = (step + 1) / max(1.0, config.warmup * steps)
    down = min(1.0, (steps - step) / max(1.0, config.cooldown * steps))
    if config.decay == "cosine":
        down = 0.5 * (1 + math.cos(math.pi * step / steps))
    floor = config.floor or 0.0
    return min(warm, floor + (1 - floor) * down)


def orthogonalise(matrices: Tensor, num_iterations: int = 5) -> Tensor:
    """Replace each matrix `… m n` by about the nearest one with orthonormal rows or columns.

    Every iteration multiplies from the short side by a polynomial of the Gram matrix, and what it
    does to that can be said without the matrix: only the first and the last product are wide.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.reshape(-1, *matrices.shape[-2:])
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram = torch.bmm(x, x.mT)
    product = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device).expand_as(gram)
    for number in range(num_iterations):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = torch.bmm(factor, product)
        if number < num_iterations - 1:
            gram = torch.bmm(torch.bmm(factor, gram), factor)
    x = torch.bmm(product, x)
    return (x.mT if tall else x).reshape(matrices.shape)


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
            moving = {p: p.grad for p in group["params"] if p.grad is not None}
            if moving:
                descend = self._muon if group["muon"] else self._adamw
                descend(list(moving), list(moving.values()), group["rate"])

    def _muon(self, parameters: list[Tensor], gradients: list[Tensor], factor: float) -> None:
        config, same_shape = self.config, defaultdict(list)
        momenta = [self._state(p, "momentum")["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 0.05)
        for parameter, update in zip(
            parameters, torch._foreach_lerp(gradients, momenta, 0.95), strict=True
        ):
            matrix = update.flatten(1)
            same_shape[matrix.shape].append((parameter, matrix))
        rate = factor * config.matrix_learning_rate
        torch._foreach_mul_(parameters, 1 - rate * config.weight_decay)
        for (rows, columns), members in same_shape.items():
            updates = orthogonalise(torch.stack([matrix for _, matrix in members]))
            scale = rate * max(1, rows / columns) ** 0.5
            moved = [parameter for parameter, _ in members]
            by = [update.view_as(p) for p, update in zip(moved, updates, strict=True)]
            torch._foreach_sub_(moved, by, alpha=scale)

    def _adamw(self, parameters: list[Tensor], gradients: list[Tensor], factor: float) -> None:
        config, (beta1, beta2) = self.config, self.config.betas
        if config.clip is not None:
            nn.utils.clip_grad_norm_(parameters, config.clip)
        states = [self._state(p, "mean", "square") for p in parameters]
        counts = [self._counted(state) for state in states]
        means, squares = ([state[name] for state in states] for name in ("mean", "square"))
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - beta2)
        roots = torch._foreach_div(squares, [1 - beta2**count for count in counts])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, 1e-8)
        rate = factor * config.learning_rate
        kept = [1 - rate * config.weight_decay if p.dim() > 1 else 1.0 for p in parameters]
        torch._foreach_mul_(parameters, kept)
        sizes = [-rate / (1 - beta1**count) for count in counts]
        torch._foreach_addcdiv_(parameters, means, roots, sizes)

    def _state(self, parameter: Tensor, *names: str) -> dict[str, Tensor]:
        state = self.state[parameter]
        for name in names:
            if name not in state:
                state[name] = torch.zeros_like(parameter)
        return state

    @staticmethod
    def _counted(state: dict[str, Tensor]) -> float:
        """Count a step; the count stays on the CPU, where reading it costs nothing."""
        count = float(state["count"]) + 1 if "count" in state else 1.0
        state["count"] = torch.tensor(count)
        return count


def _is_matrix(parameter: nn.Parameter) -> bool:
    return parameter.dim() >= 2 and min(parameter.flatten(1).shape) > 1


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """Return the norm of all gradients together."""
    squares = [p.grad.square().sum() for p in parameters if p.grad is not None]
    return math.sqrt(float(torch.stack(squares).sum())) if squares else 0.0
