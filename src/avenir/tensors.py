"""Tensors in a file, with words about them and a checksum: what is read is what was written.

Knows nothing of what the tensors are.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from avenir.errors import DamagedError
from avenir.files import check_regular, write_whole

ABOUT, CHECKSUM = "about", "checksum"


def save_tensors(path: Path, tensors: dict[str, Tensor], about: Mapping[str, str]) -> None:
    """Write tensors in safetensors format, `about` and a checksum beside them.

    They are one entry: several come in another order every time, and equal tensors are equal files.
    """
    metadata = json.dumps({**about, CHECKSUM: _checksum(tensors, about)}, sort_keys=True)
    write_whole(path, save(tensors, {ABOUT: metadata}))


class Header(NamedTuple):
    """What a file says of one tensor."""

    shape: tuple[int, ...]
    is_float: bool


def headers_of(path: Path) -> dict[str, Header]:
    """Say which tensors a file holds, reading none of them.

    Raises DamagedError for what is not there or no file of tensors, AvenirError for a pipe or a
    device.
    """
    check_regular(path)
    headers = {}
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                entry = file.get_slice(name)
                dtype = entry.get_dtype()
                headers[name] = Header(tuple(entry.get_shape()), dtype[0] == "F" or dtype == "BF16")
    except FileNotFoundError:
        raise DamagedError(f"{str(path)!r} is missing") from None
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"{str(path)!r} is damaged: {error}") from None
    return headers


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and what was said about them.

    Raises DamagedError when they are not those that were written, or not there, AvenirError for a
    pipe or a device. Files of earlier versions, which have no checksum, are read as they are.
    """
    check_regular(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = dict(json.loads(metadata[ABOUT])) if ABOUT in metadata else metadata
    except FileNotFoundError:
        raise DamagedError(f"{str(path)!r} is missing") from None
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise DamagedError(f"{str(path)!r} is damaged: {error}") from None
    if ABOUT in metadata and about.pop(CHECKSUM, None) != _checksum(tensors, about):
        raise DamagedError(f"{str(path)!r} is damaged: its checksum is another")
    return tensors, about


def _checksum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """Return the CRC-32 of what is said, and of all names, kinds, shapes and numbers."""
    crc = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), crc)
        crc = zlib.crc32(value.contiguous().flatten().view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
