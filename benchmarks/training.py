"""Steps of the quickstart's two recipes: time each, and the share spent waiting for data.

    python benchmarks/training.py [STEPS]

Times are of this machine; the share and the ratios are what to compare.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

from avenir.clip import Progress
from avenir.console import PrintedReport
from avenir.data import batches
from avenir.device import generator
from avenir.training.loop import make_objective
from avenir.training.objectives import Objective, make_source
from avenir.training.recipe import Recipe, load_recipe
from avenir.training.step import TrainingStep


def measure(recipe: Recipe, task: Objective, num_steps: int) -> tuple[float, float, float]:
    """Return seconds per step, the share of them spent waiting, and the share of the optimiser."""
    step, waited, descended = TrainingStep(recipe, task), 0.0, 0.0
    feed = batches(
        task.source,
        num_frames=task.num_frames,
        batch_size=recipe.train.batch_size,
        seed=0,
        first_step=0,
        last_step=num_steps + 3,
    )
    for optimiser in step.optimisers:
        original = optimiser.step

        def timed(original=original):
            nonlocal descended
            began = time.perf_counter()
            original()
            descended += time.perf_counter() - began

        optimiser.step = timed
    for number in range(num_steps + 3):
        if number == 3:
            started, waited, descended = time.perf_counter(), 0.0, 0.0
        asked = time.perf_counter()
        batch = next(feed)
        waited += time.perf_counter() - asked
        step.run(batch, Progress(number, num_steps + 3, generator(number)))
    total = time.perf_counter() - started
    return total / num_steps, waited / total, descended / total


def main() -> None:
    num_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {num_steps} steps each")
    print("| recipe | ms per step | waiting for data | optimiser |\n|---|---|---|---|")
    recipe = load_recipe("recipes/quickstart.toml", ["train.cache_recordings=60"])
    parent = recipe.parents["tokenizer"]
    assert isinstance(parent, Recipe)
    data = make_source(recipe.data)
    with tempfile.TemporaryDirectory() as folder:
        encoder = make_objective(parent, data, {})
        row(parent.name, measure(parent, encoder, num_steps))
        predictor = make_objective(recipe, data, {"tokenizer": encoder.world})
        predictor.prepare(Path(folder), PrintedReport())
        row(recipe.name, measure(recipe, predictor, num_steps))


def row(name: str, measured: tuple[float, float, float]) -> None:
    seconds, waiting, optimiser = measured
    print(f"| {name} | {1000 * seconds:.0f} | {100 * waiting:.1f} % | {100 * optimiser:.1f} % |")


if __name__ == "__main__":
    main()
