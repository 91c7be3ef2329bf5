"""How much faster a world's exported step is than PyTorch's, in turns in one process.

    python benchmarks/export.py RUN

RUN has been exported (`avenir export RUN`). Both go on from the same past under the same action,
one clip at a time, with OMP_NUM_THREADS threads (1). The ratio is what to compare; times are of
this machine.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from avenir.controls import Controls
from avenir.export import OnnxWorld
from avenir.training.objectives import make_source
from avenir.training.recipe import data_of
from avenir.world import load

ROUNDS, STEPS = 7, 40


def milliseconds(imagine_step: Callable[..., Any], state: Any, controls: Controls) -> float:
    """Return the median time of a step."""
    times = []
    for number in range(STEPS):
        began = time.perf_counter()
        state = imagine_step(state, controls, number)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def main() -> None:
    run, threads = Path(sys.argv[1]), int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    world, exported = load(run, "cpu"), OnnxWorld(run / "onnx", threads)
    source = make_source(data_of(run, []))
    past = world.fitted(source.clip(source.spread("test", exported.about.num_frames, 1)[0]))
    known = {name: rows[None] for name, rows in past.signals.items() if name in world.takes}
    signal = world.action_signal
    controls = Controls(None if signal is None else torch.zeros(signal.size))
    assert world.predictor is not None
    begun = world.start(past.video, known), exported.start(past.video, known)
    ratios = []
    for _ in range(ROUNDS):
        with world.predictor.in_steps(exported.about.num_steps):
            slow = milliseconds(world.imagine_step, begun[0], controls)
        fast = milliseconds(exported.imagine_step, begun[1], controls)
        ratios.append(slow / fast)
        print(f"PyTorch {slow:.2f} ms, exported {fast:.2f} ms: {ratios[-1]:.2f} times as fast")
    print(f"median of {ROUNDS} rounds: {statistics.median(ratios):.2f} times as fast")


if __name__ == "__main__":
    main()
