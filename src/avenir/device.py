"""Where computing happens and where randomness comes from."""

import hashlib

import torch


def best_device() -> torch.device:
    """Return the GPU when there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Name what `best_device` computes on: `cpu`, or the GPU's model."""
    device = best_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def seed_of(*parts: int | str) -> int:
    """Derive one 63-bit seed from several numbers and words, the same on every machine."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator seeded by `seed_of(parts)`."""
    return torch.Generator(device).manual_seed(seed_of(*parts))
