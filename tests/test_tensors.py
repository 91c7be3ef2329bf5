"""Tensors in files: what is read is what was written, or said not to be."""

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avenir.errors import DamagedError
from avenir.tensors import load_tensors, save_tensors

TENSORS = {
    "numbers": torch.tensor([[1.5, -2.0, torch.nan]]),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "one": torch.tensor(7),
    "none": torch.zeros(0, 2),
}
ABOUT = {"key": "0123", "step": "4"}


def content(path: Path) -> list[object]:
    tensors, about = load_tensors(path)
    kinds = [(name, value.dtype, value.shape) for name, value in sorted(tensors.items())]
    numbers = [value.flatten().view(torch.uint8).tolist() for _, value in sorted(tensors.items())]
    return [kinds, numbers, about]


def test_what_is_written_is_read_and_equal_tensors_are_equal_files(tmp_path):
    files = [tmp_path / str(number) for number in range(8)]
    for path in files:
        save_tensors(path, TENSORS, ABOUT)
        tensors, about = load_tensors(path)
        assert about == ABOUT
        assert tensors.keys() == TENSORS.keys()
        for name, value in TENSORS.items():
            assert tensors[name].dtype == value.dtype
            torch.testing.assert_close(tensors[name], value, rtol=0, atol=0, equal_nan=True)
    assert len({path.read_bytes() for path in files}) == 1


def test_no_damage_is_read_as_something_else(tmp_path):
    path = tmp_path / "file"
    save_tensors(path, TENSORS, ABOUT)
    whole, right = path.read_bytes(), content(path)
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        with pytest.raises(DamagedError, match="is damaged"):
            load_tensors(path)
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            with suppress(DamagedError):  # without a key, which whoever reads it asks for
                assert content(path) == right or "key" not in load_tensors(path)[1], (at, bit)
    path.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        load_tensors(path)


def test_files_of_earlier_versions_are_read_without_a_checksum(tmp_path):
    save_file(TENSORS, tmp_path / "file", {"key": "0123"})
    tensors, about = load_tensors(tmp_path / "file")
    assert about == {"key": "0123"}
    assert tensors.keys() == TENSORS.keys()
