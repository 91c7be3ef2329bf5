"""Attention backends on the shapes that the predictors meet, as ratios to PyTorch's own choice.

    python benchmarks/attention.py

`math` writes the formula out; `flash` never holds the whole matrix of scores; `choice` is what
`scaled_dot_product_attention` takes by itself. A mask is what the past's blindness to the future
costs. Forward and backward.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

SHAPES = {"quickstart": (16, 4, 48, 24), "robot": (16, 4, 240, 48), "long": (2, 4, 2048, 64)}
BACKENDS = {"choice": None, "math": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION}


def seconds(run: Callable[[], None], repeats: int = 15) -> float:
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def case(shape: tuple[int, ...], masked: bool, backend: SDPBackend | None) -> Callable[[], None]:
    query, key, value = (torch.randn(shape, requires_grad=True) for _ in range(3))
    mask = torch.ones(shape[0], 1, shape[2], shape[2], dtype=torch.bool).tril() if masked else None

    def run() -> None:
        with sdpa_kernel(backend) if backend is not None else nullcontext():
            scaled_dot_product_attention(query, key, value, attn_mask=mask).sum().backward()

    return run


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, CPU")
    print("| shape (b k n e) | mask | choice | math | flash |\n|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        for masked in (False, True):
            times = {n: seconds(case(shape, masked, b)) for n, b in BACKENDS.items()}
            ratios = " | ".join(f"{times[n] / times['choice']:.2f}" for n in BACKENDS)
            print(f"| {name} {shape} | {'yes' if masked else 'no'} | {ratios} |")


if __name__ == "__main__":
    main()
