"""What a run will cost, measured before it starts on a few steps of a copy; and what one took."""

import copy
import resource
import statistics
import sys
import time
from dataclasses import dataclass

import torch

from avenir.clip import Batch, Progress
from avenir.device import generator
from avenir.training.objectives import Objective
from avenir.training.recipe import Recipe
from avenir.training.step import TrainingStep


@dataclass(frozen=True)
class Cost:
    """Numbers of weights, seconds per step and in all, bytes at the peak."""

    num_parameters: int
    num_trained: int
    step_seconds: float
    seconds: float
    memory_bytes: int

    def __str__(self) -> str:
        minutes = f"{self.seconds / 60:.1f} min" if self.seconds >= 90 else f"{self.seconds:.0f} s"
        return (
            f"{self.num_parameters / 1e6:.2f} M parameters, {self.num_trained / 1e6:.2f} M of them "
            f"trained; about {minutes} ({1000 * self.step_seconds:.0f} ms per step) and "
            f"{self.memory_bytes / 2**30:.1f} GiB of memory"
        )


def estimate(recipe: Recipe, task: Objective, batch: Batch) -> Cost:
    """Time steps of a copy of the task on one batch; the task itself is not touched.

    Three are as at the beginning of training, of which the first is not counted, and two as at the
    end: what begins half-way is paid for in one half.
    """
    # All that trains is copied, the data are not.
    twin = copy.deepcopy(task, {id(data): data for data in (task.data, task.source)})
    step = TrainingStep(recipe, twin)
    seconds, last = [], max(0, recipe.train.steps - 2)
    for number in (0, 1, 2, max(0, last - 1), last):
        started = time.perf_counter()
        step.run(batch, Progress(number, recipe.train.steps, _chance(batch)))
        seconds.append(time.perf_counter() - started)
    step_seconds = (statistics.median(seconds[1:3]) + statistics.median(seconds[3:])) / 2
    return Cost(
        num_parameters=sum(p.numel() for p in task.world.parameters()),
        num_trained=sum(p.numel() for p in task.trained.parameters() if p.requires_grad),
        step_seconds=step_seconds,
        seconds=step_seconds * recipe.train.steps,
        memory_bytes=peak_bytes(),
    )


def _chance(batch: Batch) -> torch.Generator:
    tensor = batch.video if batch.video is not None else batch.latents
    assert tensor is not None
    return generator("estimate", device=tensor.device)


def peak_bytes() -> int:
    """Return the most memory this process has held."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
