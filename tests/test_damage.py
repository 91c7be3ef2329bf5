"""Thousands of damaged and hostile files: each is read, or refused in a sentence, soon and small.

Bytes are flipped, cut and doubled; tables get values that nobody expects, at every place.
"""

import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avenir import tables
from avenir.config import read_toml, to_toml
from avenir.data.cached import Cached, CachedConfig, write_cache
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.errors import AvenirError
from avenir.shapes import Compression
from avenir.study import read_row
from avenir.study.comparison import ArmRun
from avenir.training.log import Log
from avenir.training.recipe import data_of, load_recipe
from avenir.world import World
from tests.conftest import save_tiny_world
from tests.peak import peak_mb

COUNT = 2000
DEEP: Any = []
for _ in range(40):
    DEEP = [DEEP]
VALUES = [0, -1, 1, 10**9, 10**18, 10**40, -(10**30), 0.5, 1e-300, 1e308, True, None, "", "x"]
VALUES += ["a.b", "../../x", "/dev/zero", "\x00", "kl", "x" * 10_000, [], {}, [1, 2, 3], DEEP]
VALUES += [{"kind": "flow"}, {"kind": 3}, {"a": {"b": 1}}, [[1], [2]], "1e9", [10**9, 10**9]]
VALUES += [float("inf"), float("nan")]


def places(table: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value in a table."""
    pairs = table.items() if isinstance(table, dict) else enumerate(table)
    for key, value in pairs:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(table: Any, chance: random.Random) -> Any:
    """Return a table with one to three values lost, renamed or replaced."""
    table = deepcopy(table)
    for _ in range(chance.randint(1, 3)):
        ways = list(places(table))
        if not ways:
            return table
        *way, last = chance.choice(ways)
        inner = table
        for key in way:
            inner = inner[key]
        what = chance.random()
        if what < 0.1 and isinstance(inner, dict):
            inner[chance.choice(["kinds", "extends", "", "x" * 300])] = inner.pop(last)
        elif what < 0.2:
            del inner[last]
        else:
            inner[last] = deepcopy(chance.choice(VALUES))
    return table


def broken(content: bytes, chance: random.Random) -> bytes:
    """Return a file with some bytes flipped, cut out, doubled or put in."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        length = min(chance.choice([1, 1, 2, 8, 100]), len(data) - at)
        match chance.randrange(5):
            case 0 if length:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length] * chance.choice([1, 2, 2000])
            case 3:
                hostile = [b"\xff", b"\0", b"[" * 3000, b"{" * 50, b"9" * 5000, b"\\ud800", b"NaN"]
                data[at:at] = chance.choice(hostile)
            case _:
                del data[at:]
    return bytes(data)


def damaged(table: Any, written: Callable[[Any], str]) -> Iterator[bytes]:
    """Yield many a damaged form of a table: what it says, and how it is written."""
    content, chance = written(table).encode(), random.Random(0)
    for number in range(COUNT):
        if number % 2:
            yield broken(content, chance)
        else:
            yield written(changed(table, chance)).encode(errors="surrogatepass")


def endure(path: Path, forms: Iterable[bytes], read: Callable[[], Any]) -> int:
    """Read many a damaged form of a file, and then the file; return how many could be read."""
    content, read_well, slowest, before = path.read_bytes(), 0, 0.0, peak_mb()
    for number, data in enumerate(forms):
        path.write_bytes(data)
        begun = time.monotonic()
        try:
            read()
            read_well += 1
        except AvenirError as error:
            assert str(error)
        except Exception as error:
            raise AssertionError(f"{number}: {data[:3000]!r}") from error
        slowest = max(slowest, time.monotonic() - begun)
    path.write_bytes(content)
    read()
    assert slowest < 5
    assert peak_mb() - before < 1000
    return read_well


def endure_table(
    path: Path, table: Any, written: Callable[[Any], str], read: Callable[[], Any]
) -> int:
    """Read many a damaged form of a table; return how many could be read."""
    path.write_text(written(table))
    return endure(path, damaged(table, written), read)


@pytest.mark.slow
def test_cards(tmp_path):
    run = save_tiny_world(tmp_path / "run", (16, 16))
    card = json.loads((run / "card.json").read_text())
    card["provenance"] = {"key": "k", "steps": 3, "parents": {"encoder": {"fps": 1.0}}}
    assert endure_table(run / "card.json", card, json.dumps, lambda: World.load(run, "cpu")) > 50


@pytest.mark.slow
def test_weights(tmp_path):
    run = save_tiny_world(tmp_path / "run", (16, 16))
    path, chance = run / "model.safetensors", random.Random(0)
    content = path.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    forms = (
        broken(content[:length], chance) + content[length:]
        if number % 2
        else broken(content, chance)
        for number in range(COUNT)
    )
    endure(path, forms, lambda: World.load(run, "cpu"))


@pytest.mark.slow
def test_recipes(tmp_path):
    path = tmp_path / "recipe.toml"
    brought = Path(__file__).parents[1] / "recipes" / "quickstart.toml"
    table = read_toml(brought) | {"tokenizer": str(brought.with_name("quickstart_tokenizer.toml"))}

    def read() -> None:
        recipe = load_recipe(path)
        recipe.key("data", dict.fromkeys(recipe.parents, "parent"))
        recipe.toml()

    assert endure_table(path, table, to_toml, read) > 50
    alone = load_recipe(table["tokenizer"]).model_dump(mode="json", exclude_none=True)
    assert endure_table(path, alone, to_toml, read) > 50
    full = load_recipe(brought).model_dump(mode="json", exclude_none=True)
    assert endure_table(path, full, to_toml, lambda: data_of(tmp_path, [])) > 50


@pytest.mark.slow
def test_rows(tmp_path):
    row = ArmRun(
        protocol="p",
        arm="a",
        seed=1,
        choice=0,
        steps=(1, 2),
        marks={"psnr": (1.0, 2.0)},
        codec={"psnr": 3.0},
        held={},
        seconds={"per_step": 0.1},
        commit="c",
    )
    path = tmp_path / "row.json"
    table = row.model_dump(mode="json")
    assert endure_table(path, table, json.dumps, lambda: read_row(path, "p")) > 50


def lines(rows: Any) -> str:
    """Write rows as `metrics.jsonl` has them."""
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.slow
def test_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # nothing is cut here
    rows = [{"step": 10 * i, "loss": 0.5, "waiting": 0.1} for i in range(5)]
    path = tmp_path / "metrics.jsonl"
    read = lambda: Log(tmp_path, "run", 20, 50)  # noqa: E731
    assert endure_table(path, rows, lines, read) > COUNT / 2


@pytest.mark.slow
def test_latents(tmp_path):
    config = {"size": (16, 16), "train_recordings": 2, "test_recordings": 1, "episode_frames": 8}
    source = Synthetic(SyntheticConfig.model_validate(config))
    chosen = {"train": source.recordings("train"), "test": source.recordings("test")}
    compression = Compression(2, 8, 8)

    def encode(video: torch.Tensor) -> tuple[torch.Tensor, None]:
        return video[:, ::2, :1, ::8, ::8].clone(), None

    for _ in write_cache(source, chosen, tmp_path, encode, compression, "e", 1):
        pass

    def read() -> None:
        cache = Cached(CachedConfig(path=str(tmp_path)))
        cache.read(cache.draw("train", 2, 3, 0))

    index = json.loads((tmp_path / "index.json").read_text())
    assert endure_table(tmp_path / "index.json", index, json.dumps, read) > 50
    shard, chance = tmp_path / "train-000000-0.safetensors", random.Random(0)
    content = shard.read_bytes()
    forms = (
        broken(content[:400], chance) + content[400:] * (number % 2) for number in range(COUNT)
    )
    endure(shard, forms, read)


def csv_of(rows: list[Any]) -> str:
    """Write a csv; a row that is none becomes a line of its own."""
    cells = [row if isinstance(row, list) else [row] for row in rows]
    return "".join(",".join(map(str, row)) + "\n" for row in cells)


@pytest.mark.slow
@pytest.mark.parametrize("header", ["timestamp,steer,pedal", "frame_index,steer,pedal"])
def test_tables(tmp_path, header):
    path, seconds = tmp_path / "drive.csv", np.arange(30) / 30
    when = seconds if header.startswith("timestamp") else range(30)
    cells = [header.split(","), *([at, 0.5, -1] for at in when)]
    read_well = endure_table(
        path, cells, csv_of, lambda: tables.join(tables.read(path), seconds, 1.0)
    )
    assert read_well > 50
