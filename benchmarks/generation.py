"""Tokens per second of autoregression beside `transformers`, and of its faster ways beside it.

    python benchmarks/generation.py [SIDE]

A Llama of the same width, depth, heads and vocabulary continues as many tokens, greedily, in turns
with ours in one process. Then 1 frame of SIDE×SIDE tokens (16) is drawn token by token, as one
block, and masked in 8 steps, at batch 1. Ratios are what to compare; times are of this machine.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from avenir.device import generator
from avenir.predictors import LatentShape, TokenPredictor
from avenir.registry import find

SIZE = {"width": 256, "depth": 6, "heads": 8}
VOCABULARY, NUM_NEW, ROUNDS = 1000, 128, 7


def made(kind: str, shape: LatentShape, **settings: object) -> TokenPredictor:
    """Make a predictor with codes of its own."""
    cls = find("predictors", kind)
    predictor = cls(cls.Config.parse({"kind": kind, **SIZE, **settings}), shape).eval()
    predictor.codes.normal_()
    return predictor


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def in_turns(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Time every call once in each round, after a first that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS + 1):
        for name, call in calls.items():
            spent = seconds(call)
            if number:
                taken[name].append(spent)
    return taken


def llama() -> Callable[[], object]:
    """Return what makes a Llama of `transformers` continue one token by `NUM_NEW`."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    width = SIZE["width"]
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=16 * round(width * 8 / 3 / 16),
        num_hidden_layers=SIZE["depth"],
        num_attention_heads=SIZE["heads"],
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).eval()
    settings = GenerationConfig(
        max_new_tokens=NUM_NEW,
        min_new_tokens=NUM_NEW,
        do_sample=False,
        use_cache=True,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=None,
    )
    start = torch.zeros(1, 1, dtype=torch.long)
    return lambda: model.generate(start, generation_config=settings)


def text() -> Callable[[], object]:
    """Return what makes our decoder do the same: tokens of one frame each."""
    sampling = {"temperature": 0.0}
    ours = made(
        "autoregressive",
        LatentShape(4, 1, 1, VOCABULARY),
        kv_heads=2,
        past=1,
        chunk=NUM_NEW,
        sampling=sampling,
    )
    memory = ours.start(ours.embed(torch.zeros(1, 1, 1, 1, dtype=torch.long)), None)
    return lambda: ours.predict(memory, None, NUM_NEW, generator("benchmark"))


def frame(side: int, kind: str, **settings: object) -> Callable[[], object]:
    """Return what draws one frame after three."""
    predictor = made(kind, LatentShape(4, side, side, VOCABULARY), past=3, chunk=1, **settings)
    past = torch.randint(VOCABULARY, (1, 3, side, side), generator=generator("past"))
    memory = predictor.start(predictor.embed(past), None)
    return lambda: predictor.predict(memory, None, 1, generator("benchmark"))


def table(title: str, taken: dict[str, list[float]], tokens: int) -> None:
    """Print tokens per second, and the median over rounds of how many times faster each is."""
    first = next(iter(taken.values()))
    print(f"\n{title}\n\n| | tokens per second | times as fast |\n|---|---|---|")
    for name, spent in taken.items():
        ratio = statistics.median(a / b for a, b in zip(first, spent, strict=True))
        print(f"| {name} | {tokens / statistics.median(spent):,.0f} | {ratio:.2f} |")


@torch.no_grad()
def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {SIZE}")
    table(
        f"{NUM_NEW} tokens, one after the other",
        in_turns({"transformers, Llama": llama(), "avenir, raster": text()}),
        NUM_NEW,
    )
    table(
        f"A frame of {side}×{side} tokens after three, batch 1",
        in_turns(
            {
                "raster": frame(side, "autoregressive", kv_heads=2),
                "block": frame(side, "autoregressive", kv_heads=2, order="block"),
                "masked, 8 steps": frame(side, "masked"),
            }
        ),
        side * side,
    )


if __name__ == "__main__":
    main()
