"""Every source keeps the contract, on data written for it here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from avenir.clip import Clip
from avenir.data import Source
from avenir.registry import find, kinds
from avenir.video import write


def clip(number: int, num_frames: int = 30) -> Clip:
    ramp = torch.arange(num_frames, dtype=torch.uint8).view(-1, 1, 1, 1) * 4 + number
    return Clip(ramp.expand(-1, 3, 32, 48).contiguous(), fps=20.0, name=f"clip{number}")


def folder(path: Path) -> dict[str, Any]:
    for number in range(4):
        write(path / f"clip{number}.mp4", clip(number))
    return {"path": str(path), "size": (16, 24), "fps": 10}


def cached(path: Path) -> dict[str, Any]:
    from avenir.data.cached import write_cache

    source = make("synthetic", {"size": (16, 16), "episode_frames": 12})
    grid = (2, 8, 8)
    kept = {split: list(source.recordings(split)[:3]) for split in ("train", "test")}

    def encode(video):
        return video[:, ::2, :1, ::8, ::8], None

    compression = find("encoders", "kl")(
        find("encoders", "kl").Config(compression=grid)
    ).compression
    list(write_cache(source, kept, path, encode, compression, "0123456789", 1))
    return {"path": str(path)}


def game(path: Path) -> dict[str, Any]:
    pytest.importorskip("Box2D")
    table = {"environment": "LunarLander-v3", "size": (16, 16), "fps": 10, "episode_frames": 12}
    return table | {"train_recordings": 3, "test_recordings": 2}


def lerobot(path: Path) -> dict[str, Any]:
    from avenir.data.lerobot import write_dataset

    write_dataset(path, [clip(number) for number in range(4)])
    return {"path": str(path), "size": (16, 24), "fps": 10}


def text(path: Path) -> dict[str, Any]:
    for number in range(4):
        (path / f"file{number}.txt").write_text(f"text {number}: ein Füllhorn\n" * 3)
    return {"path": str(path)}


MAKERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "cached": cached,
    "folder": folder,
    "gymnasium": game,
    "lerobot": lerobot,
    "text": text,
    "synthetic": lambda path: {"size": (16, 16), "episode_frames": 20},
}


def make(kind: str, table: dict[str, Any]) -> Source:
    cls = find("data", kind)
    return cls(cls.Config.parse({"kind": kind, **table}))


@pytest.fixture(params=kinds("data"))
def source(request, tmp_path) -> Source:
    assert request.param in MAKERS, f"say here how to make data for the new kind {request.param!r}"
    return make(request.param, MAKERS[request.param](tmp_path))


def test_no_recording_is_in_both_splits(source):
    train = {r.name for r in source.recordings("train")[:100]}
    test = {r.name for r in source.recordings("test")[:100]}
    assert train
    assert test
    assert not train & test


def test_a_draw_is_a_function_of_its_seed(source):
    one, same, other = (source.draw("train", 6, 5, seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_a_batch_has_the_windows_asked_for(source):
    windows = source.draw("train", 6, 3, 0)
    batch = source.read(windows)
    assert len(batch.names) == 3
    if batch.video is not None:
        assert batch.video.shape == (3, 6, 3, *source.size)
        assert batch.video.abs().max() <= 1
    else:
        assert batch.latents is not None
        assert batch.latents.shape[:2] == (3, 3)
    for name, signal in source.signals.items():
        assert batch.signals[name].shape == (3, 6, signal.size)


def test_reading_again_gives_the_same(source):
    windows = source.draw("train", 6, 3, 0)
    one, again = source.read(windows), source.read(windows)
    first = one.video if one.video is not None else one.latents
    second = again.video if again.video is not None else again.latents
    assert torch.equal(first, second)


def test_a_row_does_not_depend_on_its_neighbours(source):
    windows = source.draw("train", 6, 3, 0)
    together, alone = source.read(windows), source.read(windows[1:2])
    first = together.video if together.video is not None else together.latents
    second = alone.video if alone.video is not None else alone.latents
    assert torch.equal(first[1:2], second)


def test_evaluation_windows_are_held_out_and_repeat(source):
    windows = source.spread("test", 6, 4)
    assert windows == source.spread("test", 6, 4)
    assert 1 <= len(windows) <= 4
    names = {r.name for r in source.recordings("test")[:100]}
    assert all(window.recording.name in names for window in windows)


def test_the_fingerprint_is_stable(source):
    assert source.fingerprint == source.fingerprint
    assert len(source.fingerprint) >= 8
