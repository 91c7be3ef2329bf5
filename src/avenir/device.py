"""Where computing happens, how much memory is left for it, and where randomness comes from."""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

UNKNOWN_MEMORY_BYTES = 2**33
"""What is taken to be free where the system does not say."""
LIMITS = {
    "memory.max": "memory.stat anon",
    "memory/memory.limit_in_bytes": "memory/memory.stat rss",
}
"""Where a container's limit is written, and what it uses of it: version 2, then 1."""


def best_device() -> torch.device:
    """Return the GPU when there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Name what `best_device` computes on: `cpu`, or the GPU's model."""
    device = best_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def free_memory_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how much main memory can still be had: of the machine, and of the container's limit.

    What the system holds only to be faster, as copies of files, counts as free.
    """
    free = [UNKNOWN_MEMORY_BYTES]
    with suppress(OSError, AttributeError, ValueError):
        free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError):
        free += [1024 * _number(proc / "meminfo", "MemAvailable:")]
    for limit, used in LIMITS.items():
        file, _, word = used.partition(" ")
        with suppress(OSError, ValueError):  # no such file, or no limit: "max"
            free += [int((cgroup / limit).read_text()) - _number(cgroup / file, word)]
    return max(0, min(free))


def _number(table: Path, name: str) -> int:
    """Return the number beside a name in one of the system's tables."""
    lines = (line.split() for line in table.read_text().splitlines())
    return next(int(line[1]) for line in lines if line and line[0] == name)


def seed_of(*parts: int | str) -> int:
    """Derive one 63-bit seed from several numbers and words, the same on every machine."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator seeded by `seed_of(parts)`."""
    return torch.Generator(device).manual_seed(seed_of(*parts))


class SharedGenerator(torch.Generator):
    """Common random numbers: what is drawn from it for a batch is the same for all its rows.

    Each row then meets the chance that it would meet alone, and rows differ by what they are given.
    `normal` and `uniform` know of it, PyTorch's own functions do not.
    """

    @classmethod
    def drawn_by(cls, generator: torch.Generator) -> Self:
        """Make one whose seed another generator draws."""
        made = cls(generator.device)
        made.manual_seed(
            int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
        )
        return made


def normal(
    shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw standard normal numbers for a batch of `shape`, its rows first."""
    return _drawn(torch.randn, shape, generator, dtype)


def uniform(
    shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw numbers between 0 and 1 for a batch of `shape`, its rows first."""
    return _drawn(torch.rand, shape, generator, dtype)


def _drawn(
    draw: Callable[..., Tensor],
    shape: Sequence[int],
    generator: torch.Generator,
    dtype: torch.dtype | None,
) -> Tensor:
    own = shape if not isinstance(generator, SharedGenerator) else (1, *shape[1:])
    numbers = draw(tuple(own), generator=generator, dtype=dtype, device=generator.device)
    return numbers.expand(tuple(shape))
