"""A running average of weights that is safe for short runs.

A decay of 0.9999 copied from long runs leaves a short one full of its random start. Here the decay
never exceeds 1 - 10/steps, and rises to it as (1 + step)/(10 + step).
"""
# pyright: reportPrivateImportUsage=false

import torch
from torch import Tensor, nn


class EMA:
    """The averaged parameters and buffers of a module."""

    def __init__(self, module: nn.Module, decay: float, steps: int) -> None:
        self.decay = min(decay, max(0.0, 1 - 10 / steps))
        self.average = {n: value.detach().clone() for n, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average toward the module's weights; counts and flags are copied."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = module.state_dict()
        moving = [name for name, value in now.items() if value.is_floating_point()]
        average = [self.average[name] for name in moving]
        torch._foreach_lerp_(average, [now[name] for name in moving], 1 - decay)
        for name in now.keys() - set(moving):
            self.average[name].copy_(now[name])

    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the average; calling it twice changes nothing."""
        current: dict[str, Tensor] = {n: v.clone() for n, v in module.state_dict().items()}
        module.load_state_dict(self.average)
        self.average = current
