"""One optimiser step: losses, the gradient of each group, descent, the average of the weights.

Knows no file, no clock and no data set.
"""

import math

import torch
from torch import Tensor

from avenir.clip import Batch, Progress
from avenir.device import seed_of
from avenir.encoders import ParameterGroup
from avenir.errors import TrainingError
from avenir.training.ema import EMA
from avenir.training.objectives import Objective
from avenir.training.optim import Optimiser, rate
from avenir.training.recipe import Recipe


class TrainingStep:
    """What changes from step to step: weights, optimisers, average."""

    def __init__(self, recipe: Recipe, task: Objective) -> None:
        self.recipe, self.task = recipe, task
        self.groups = task.groups()
        self.optimisers = [Optimiser(g.parameters, recipe.train.optim) for g in self.groups]
        self.ema = EMA(task.trained, recipe.train.ema, recipe.train.steps)

    def run(self, batch: Batch, progress: Progress) -> dict[str, float]:
        """Take the step and return its losses."""
        torch.manual_seed(seed_of("step", self.recipe.seed, progress.step))
        losses = self.task.losses(batch, progress)
        values = {name: float(value.detach()) for name, value in losses.items()}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise TrainingError(
                f"step {progress.step}: {', '.join(broken)} is not finite on the batch "
                f"{', '.join(batch.names)}; look at these recordings, or lower the learning rate"
            )
        for number, group in enumerate(self.groups):
            self._descend(group, losses, number, progress)
        self.task.after_step(progress)
        self.ema.update(self.task.trained, progress.step)
        return values

    def _descend(
        self, group: ParameterGroup, losses: dict[str, Tensor], number: int, progress: Progress
    ) -> None:
        every = group.weights.get("*", 0.0)
        weights = {name: group.weights.get(name, every) for name in losses}
        terms = [weights[name] * value for name, value in losses.items() if weights[name]]
        keep = number < len(self.groups) - 1
        gradients = torch.autograd.grad(
            torch.stack(terms).sum(), group.parameters, retain_graph=keep, allow_unused=True
        )
        for parameter, gradient in zip(group.parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser = self.optimisers[number]
        for settings in optimiser.param_groups:
            settings["rate"] = rate(self.recipe.train.optim, progress.step, progress.steps)
        optimiser.step()
