"""LeRobot data sets whose pictures lie inside their tables, as `use_videos=False` writes them."""

import io
import json
import struct
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.lerobot_sets import (
    INFO,
    TABLE,
    every,
    numbered,
    numbered_set,
    pictures_set,
    read,
    source,
)

from avenir import video
from avenir.data import Window
from avenir.errors import AvenirError


@pytest.mark.parametrize("group_rows", [7, 1000])
@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_pictures_in_tables_are_read(tmp_path, memory_gb, group_rows):
    pictures_set(tmp_path, [20, 50, 30], group_rows)
    data = source(tmp_path, memory_gb=memory_gb)
    assert data.skipped == []
    frames = numbered(100).frames
    for name, first, past in [("episode_000001", 20, 70), ("episode_000002", 70, 100)]:
        clip = read(data, name)
        assert torch.equal(clip.frames, frames[first:past])
        assert clip.signals["actions"][:, 0].tolist() == list(range(first, past))
    window = source(tmp_path, memory_gb=memory_gb, fps=5.0)
    clip = window.clip(Window(every(window)["episode_000001"], 0.5, 8))
    assert torch.equal(clip.frames, frames[30:62:4])


def test_pictures_of_jpeg_are_read(tmp_path):
    pictures_set(tmp_path, [20, 30], kind="JPEG")
    clip = read(source(tmp_path), "episode_000001")
    assert (clip.frames.float() - numbered(30, 20).frames).abs().mean() < 4


def test_a_damaged_picture_shows_its_neighbour(tmp_path):
    pictures_set(tmp_path, [20, 30])
    table = pq.read_table(tmp_path / TABLE).to_pylist()
    table[25]["observation.images.front"]["bytes"] = b"\x89PNG\r\n\x1a\n damaged"
    table[26]["observation.images.front"]["bytes"] = None
    pq.write_table(pa.Table.from_pylist(table), tmp_path / TABLE)
    data = source(tmp_path)
    with pytest.warns(video.VideoWarning, match="2 of the pictures .* row 25 .*neighbours"):
        clip = read(data, "episode_000001")
    expected = numbered(30, 20).frames
    assert torch.equal(clip.frames, expected[[0, 1, 2, 3, 4, 4, 4, *range(7, 30)]])


def test_pictures_that_cannot_be_pictures_are_refused(tmp_path):
    """Claimed to be huge; of 16 bits; of a format that draws by program."""
    pictures_set(tmp_path, [2, 2, 2, 2])
    table = pq.read_table(tmp_path / TABLE).to_pylist()
    head = b"IHDR" + struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    huge = io.BytesIO(b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 2000) + b"IDAT")
    deep = io.BytesIO()
    Image.new("I;16", (32, 24)).save(deep, "PNG")
    drawn = io.BytesIO()
    Image.new("RGB", (32, 24)).save(drawn, "EPS")
    for number, file in enumerate([huge, deep, drawn]):
        for row in (2 * number, 2 * number + 1):
            table[row]["observation.images.front"]["bytes"] = file.getvalue()
    pq.write_table(pa.Table.from_pylist(table), tmp_path / TABLE)
    data = source(tmp_path)
    assert [s.name for s in data.skipped] == [f"episode_00000{i}" for i in range(3)]
    for skipped, why in zip(data.skipped, ("9000x9000", "8 bits", "damaged"), strict=True):
        assert why in skipped.reason


def test_pictures_that_are_not_there_are_said(tmp_path):
    pictures_set(tmp_path, [4, 4])
    table = pq.read_table(tmp_path / TABLE).to_pylist()
    for row in table:
        row["observation.images.front"]["bytes"] = None
    pq.write_table(pa.Table.from_pylist(table), tmp_path / TABLE)
    with pytest.raises(AvenirError, match="4 of the pictures .* lies in another file"):
        source(tmp_path)


def test_an_episode_whose_first_picture_is_damaged_is_read(tmp_path):
    pictures_set(tmp_path, [20, 30])
    table = pq.read_table(tmp_path / TABLE).to_pylist()
    table[20]["observation.images.front"]["bytes"] = b""
    pq.write_table(pa.Table.from_pylist(table), tmp_path / TABLE)
    with pytest.warns(video.VideoWarning, match="1 of the pictures .* row 20"):
        data = source(tmp_path, memory_gb=0.0)
    with pytest.warns(video.VideoWarning, match="neighbours are shown"):
        clip = read(data, "episode_000001")
    assert torch.equal(clip.frames, numbered(30, 20).frames[[1, *range(1, 30)]])


def test_only_row_groups_that_are_shown_are_read(tmp_path, monkeypatch):
    pictures_set(tmp_path, [20, 50, 30], group_rows=10)
    data = source(tmp_path, memory_gb=0.0)
    asked: list[list[int]] = []
    read_batches = pq.ParquetFile.iter_batches

    def spied(file, size, groups, *rest, **named):
        asked.append(groups)
        return read_batches(file, size, groups, *rest, **named)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spied)
    data.clip(Window(every(data)["episode_000001"], 1.0, 15))
    assert asked == [[4], [5]]


def test_a_camera_in_a_video_goes_before_one_in_tables(tmp_path):
    pictures_set(tmp_path / "pictures", [20, 30])
    table = pq.read_table(tmp_path / "pictures" / TABLE)
    numbered_set(tmp_path / "both", [20, 30])
    info = json.loads((tmp_path / "both" / INFO).read_text())
    wrist = {"wrist": {"dtype": "image", "shape": [24, 32, 3]}}
    info["features"] = wrist | info["features"]
    (tmp_path / "both" / INFO).write_text(json.dumps(info))
    column = table["observation.images.front"]
    both = pq.read_table(tmp_path / "both" / TABLE).append_column("wrist", column)
    pq.write_table(both, tmp_path / "both" / TABLE)
    assert source(tmp_path / "both").camera == "observation.images.front"
    clip = read(source(tmp_path / "both", camera="wrist"), "episode_000001")
    assert torch.equal(clip.frames, numbered(30, 20).frames)
