"""LeRobot data sets that mean harm, or are damaged anyhow: a sentence, and nothing is done."""

import json
import os
import random
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.lerobot_sets import (
    INFO,
    LIST,
    TABLE,
    film,
    numbered_set,
    pictures_set,
    source,
    version_2,
)
from tests.peak import peak_mb

from avenir.data import Window
from avenir.errors import AvenirError

VIDEO = "videos/observation.images.front/chunk-000/file-000.mp4"
TABLE_2 = "data/chunk-000/episode_000000.parquet"
CAMERA = "videos/observation.images.front/"


def change(path: Path, **settings) -> None:
    (path / INFO).write_text(json.dumps(json.loads((path / INFO).read_text()) | settings))


@pytest.mark.parametrize("setting", ["data_path", "video_path"])
@pytest.mark.parametrize(
    "template",
    [
        "/dev/zero",
        "../outside.mp4",
        "videos/../../outside.mp4",
        "videos/{chunk_index:02000000000d}.mp4",
        "videos/{chunk_index:100d}.mp4",
        "videos/{chunk_index:{file_index}}.mp4",
        "videos/{chunk_index.__class__}.mp4",
        "videos/{chunk_index!r:>9}.mp4",
        "videos/{chunk_index:c}.mp4",
        "videos/{}.mp4",
        "videos/{0}.mp4",
        "videos/{unknown}.mp4",
        "videos/{chunk_index",
        "videos/\0.mp4",
        "",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(tmp_path, setting, template):
    numbered_set(tmp_path / "set", [4, 4])
    (tmp_path / "outside.mp4").write_bytes((tmp_path / "set" / VIDEO).read_bytes())
    change(tmp_path / "set", **{setting: template})
    with pytest.raises(AvenirError, match=f"{setting} .*info.json.*must be a path inside"):
        source(tmp_path / "set")


@pytest.mark.parametrize("folder", ["..", "/", "x" * 300, "\ud800", "\0"])
def test_where_tables_are_not_is_not_searched(tmp_path, folder):
    """Neither where the list does not say in which table the rows of an episode are."""
    numbered_set(tmp_path / "set", [4, 4])
    listed = pq.read_table(tmp_path / "set" / LIST)
    listed = listed.drop_columns(["data/chunk_index", "data/file_index"])
    pq.write_table(listed, tmp_path / "set" / LIST)
    assert source(tmp_path / "set").skipped == []
    (tmp_path / "outside.parquet").write_bytes((tmp_path / "set" / TABLE).read_bytes())
    change(tmp_path / "set", data_path=f"{folder}/{{file_index}}.parquet")
    with pytest.raises(AvenirError, match="no table|damaged or incomplete"):
        source(tmp_path / "set")


def test_a_camera_whose_name_climbs_out_is_refused(tmp_path):
    numbered_set(tmp_path, [4, 4])
    change(tmp_path, features={"../../etc": {"dtype": "video"}})
    rows = pq.read_table(tmp_path / LIST).to_pylist()
    renamed = [{k.replace(CAMERA, "videos/../../etc/"): v for k, v in r.items()} for r in rows]
    pq.write_table(pa.Table.from_pylist(renamed), tmp_path / LIST)
    with pytest.raises(AvenirError, match="leads out"):
        source(tmp_path)


@pytest.mark.parametrize("name", [VIDEO, TABLE, LIST, INFO, "meta/avenir.json", "meta/keys.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_opened(tmp_path, name, kind):
    """A pipe would wait for ever, a device never end."""
    numbered_set(tmp_path, [4, 4])
    path = tmp_path / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(AvenirError, match="regular file|device or pipe"):
        source(tmp_path)


def test_links_to_regular_files_are_followed(tmp_path):
    """As in the cache of a model hub, whose files all lie elsewhere under the names of hashes."""
    numbered_set(tmp_path / "snapshot", [4, 5])
    (tmp_path / "blobs").mkdir()
    for number, name in enumerate((VIDEO, TABLE, LIST, INFO)):
        path = tmp_path / "snapshot" / name
        path.rename(tmp_path / "blobs" / str(number))
        path.symlink_to(os.path.relpath(tmp_path / "blobs" / str(number), path.parent))
    (tmp_path / "set").symlink_to("snapshot", target_is_directory=True)
    data = source(tmp_path / "set")
    assert data.skipped == []
    assert len(data.recordings("train")) == len(data.recordings("test")) == 1


def test_a_loop_of_links_ends(tmp_path):
    numbered_set(tmp_path, [4, 4])
    (tmp_path / TABLE).unlink()
    (tmp_path / TABLE).symlink_to("file-000.parquet")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data", target_is_directory=True)
    with pytest.raises(AvenirError, match="no table"):
        source(tmp_path)


@pytest.mark.parametrize("said", ["1:100000000000", "1:100000000000," * 20_000, f"1:{10**400}"])
def test_splits_of_any_length_cost_nothing(tmp_path, said):
    numbered_set(tmp_path, [4] * 6)
    change(tmp_path, splits={"test": said.strip(",")})
    began = time.monotonic()
    assert [r.name[-1] for r in source(tmp_path).recordings("test")] == list("12345")
    assert source(tmp_path, test=("-5:2", "5:3", "4")).recordings("test")[-1].name[-1] == "4"
    assert time.monotonic() - began < 5


def test_numbers_of_any_size_are_refused(tmp_path):
    version_2(tmp_path, [film(20, seed) for seed in range(2)])
    path = tmp_path / "meta" / "episodes.jsonl"
    odd = [10**18, -1, 1e300, True, None, "x", [0], 10**30, float("nan")]
    for value in odd:
        for name in ("episode_index", "length"):
            row = {"episode_index": 5, "length": 20, name: value}
            path.write_text(path.read_text() + json.dumps(row) + "\n")
    data = source(tmp_path)
    assert len(data.recordings("train")) == len(data.recordings("test")) == 1
    assert len(data.skipped) >= 2 * len(odd) - 2


def test_a_table_of_too_many_rows_is_refused(tmp_path):
    """Millions of equal rows are a few kilobytes of parquet."""
    numbered_set(tmp_path, [4, 4])
    zeros = pa.table({"action": np.zeros(2**20)})
    with pq.ParquetWriter(tmp_path / TABLE, zeros.schema) as out:
        for _ in range(9):
            out.write_table(zeros)
    assert (tmp_path / TABLE).stat().st_size < 1e5
    with pytest.raises(AvenirError, match="9,437,184 rows; at most 8,388,608"):
        source(tmp_path)


@pytest.mark.parametrize("width", [2**12, 2**20])
def test_a_table_that_would_fill_the_memory_is_refused(tmp_path, width):
    """Most of a gigabyte of lists are a few kilobytes of parquet, the longest in one row each."""
    numbered_set(tmp_path, [4, 4])
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2**20)), width)
    with pq.ParquetWriter(tmp_path / TABLE, pa.schema({"action": lists.type})) as out:
        for _ in range(65):
            out.write_table(pa.table({"action": lists}))
    assert (tmp_path / TABLE).stat().st_size < 1e5
    before = peak_mb()
    with pytest.raises(AvenirError, match="more than 67,108,864 numbers"):
        source(tmp_path)
    assert peak_mb() - before < 100


# How long it takes


def lines_run(action: Callable[[], object]) -> int:
    """Count the lines of Avenir that run: a measure of time that repeats."""
    count = 0

    def line(frame: Any, event: str, _: object) -> Any:
        nonlocal count
        count += event == "line"
        return line

    def call(frame: Any, event: str, _: object) -> Any:
        return line if "avenir/data" in frame.f_code.co_filename else None

    sys.settrace(call)
    try:
        action()
    finally:
        sys.settrace(None)
    return count


@pytest.mark.parametrize("version", [2, 3])
def test_loading_is_linear_in_episodes(tmp_path, version):
    counts = []
    for num_episodes in (20, 40):
        path = tmp_path / str(num_episodes)
        if version == 2:
            clip = film(4)
            version_2(path, [clip] * num_episodes)
        else:
            numbered_set(path, [4] * num_episodes)
        counts.append(lines_run(lambda path=path: source(path)))
    assert counts[1] < 2.05 * counts[0]


# Anything else

ODD: list[Any] = [
    None, True, -1, 0, 0.5, 1e308, -1e308, float("nan"), float("inf"), 10**18, 2**63, 10**40, "",
    "x", "é\ud800", "\0", "../..", "/dev/zero", "0:99999999999", "{x}", "{episode_index:9999999d}",
    [], [[]], [None], {}, {"a": {}}, {"dtype": "video"}, {"dtype": "image"}, [1, "x"], "v3.0",
    "image", "string", "9" * 5000,
]  # fmt: skip


def mutated(value: Any, rng: random.Random) -> Any:
    """Replace, remove or repeat something, anywhere in a table or list."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        if rng.random() < 0.05:
            return value | {rng.choice(["", "x", "action.x", "../x"]): rng.choice(ODD)}
        return value | {key: mutated(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], mutated(value[place], rng), *value[place + 1 :]]
    return rng.choice(ODD)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Change, cut out or repeat some bytes."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(len(data) + 1)
        how, length = rng.random(), rng.choice([1, 4, 64])
        if how < 0.6 and place < len(data):
            data[place] = rng.randrange(256)
        elif how < 0.75:
            del data[place : place + length]
        elif how < 0.9:
            data[place:place] = rng.randbytes(length)
        else:
            del data[place:]
    return bytes(data)


def mutate(path: Path, rng: random.Random) -> None:
    """Damage one file of a data set: its bytes, or what it says."""
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
        if rng.random() < 0.6:
            path.write_bytes(damaged(path.read_bytes(), rng))
            return
        name, value = rng.choice(list(rows[0])), rng.choice(ODD)
        place = rng.randrange(len(rows)) if rng.random() < 0.5 else None
        for number, row in enumerate(rows):
            if place in (None, number):
                row[name] = value
        whole = path.read_bytes()
        try:
            pq.write_table(pa.Table.from_pylist(rows), path)
        except (pa.ArrowException, OverflowError, ValueError, TypeError):  # parquet cannot say it
            path.write_bytes(damaged(whole, rng))
    elif rng.random() < 0.3:
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif path.suffix == ".jsonl":
        lines = [json.dumps(mutated(json.loads(x), rng)) for x in path.read_text().splitlines()]
        path.write_text("\n".join(lines))
    else:
        path.write_text(json.dumps(mutated(json.loads(path.read_text()), rng)))


@pytest.mark.slow
def test_whatever_is_damaged_there_is_a_sentence(tmp_path):
    """2,000 times a damaged info.json, 2,000 times a table or a list of episodes: said, or read."""
    numbered_set(tmp_path / "3", [4, 5, 4])
    version_2(tmp_path / "2", [film(4, seed) for seed in range(3)])
    change(tmp_path / "3", splits={"train": "0:2", "test": "2:3"})
    pictures_set(tmp_path / "pictures", [4, 5, 4])
    files = [tmp_path / "3" / name for name in (INFO, LIST, INFO, TABLE)]
    files += [tmp_path / "2" / name for name in (INFO, "meta/episodes.jsonl", INFO, TABLE_2)]
    files += [tmp_path / "pictures" / name for name in (INFO, TABLE)]
    whole = {path: path.read_bytes() for path in files}
    before = peak_mb()
    outcomes = {"read": 0, "refused": 0}
    for seed in range(4000):
        rng = random.Random(seed)
        path = files[seed % len(files)]
        mutate(path, rng)
        began = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = source(path.parents[len(path.relative_to(tmp_path).parts) - 2])
                recording = data.recordings("train")[0]
                data.clip(Window(recording, 0.0, 4))
            outcomes["read"] += 1
        except AvenirError as error:
            assert len(str(error)) < 3000
            outcomes["refused"] += 1
        except BaseException as error:
            error.add_note(f"seed {seed}, {path}")
            raise
        assert time.monotonic() - began < 5, seed
        path.write_bytes(whole[path])
    assert min(outcomes.values()) > 200
    assert peak_mb() - before < 1000
