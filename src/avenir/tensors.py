"""Tensors in a file, with words about them and a checksum: what is read is what was written.

Knows nothing of what the tensors are.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from avenir.errors import DamagedError
from avenir.files import write_whole

ABOUT, CHECKSUM = "about", "checksum"


def save_tensors(path: Path, tensors: dict[str, Tensor], about: Mapping[str, str]) -> None:
    """Write tensors in safetensors format, `about` and a checksum beside them.

    They are one entry: several come in another order every time, and equal tensors are equal files.
    """
    said = json.dumps({**about, CHECKSUM: _checksum(tensors)}, sort_keys=True)
    write_whole(path, save(tensors, {ABOUT: said}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and what was said about them.

    Raises DamagedError when they are not those that were written, or not there. Files that have no
    checksum, of earlier versions, are read as they are.
    """
    about = read_about(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if about.get(CHECKSUM) not in (None, _checksum(tensors)):
        raise DamagedError(f"{str(path)!r} is damaged: its checksum is another")
    return tensors, about


def read_about(path: Path) -> dict[str, str]:
    """Read what was said about tensors, and not them; DamagedError when that cannot be."""
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
        return json.loads(said[ABOUT]) if ABOUT in said else said
    except FileNotFoundError:
        raise DamagedError(f"{str(path)!r} is missing") from None
    except (SafetensorError, ValueError) as error:
        raise DamagedError(f"{str(path)!r} is damaged: {error}") from None


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of all names, kinds, shapes and numbers."""
    crc = 0
    for name, value in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), crc)
        crc = zlib.crc32(value.contiguous().flatten().view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
