"""A folder as a source: what is found, what is skipped, and which action belongs to which frame."""

from pathlib import Path

import numpy as np
import pytest
import torch

from avenir.clip import Clip
from avenir.data import Window
from avenir.data.folder import Folder, FolderConfig
from avenir.errors import AvenirError
from avenir.video import VideoWarning, write


def numbered(first: int, num_frames: int) -> torch.Tensor:
    """Frames whose number is written on them in eight black and white stripes."""
    bits = torch.arange(first, first + num_frames)[:, None] >> torch.arange(8) & 1
    stripes = bits.repeat_interleave(4, 1) * 255
    return stripes[:, None, None].expand(-1, 3, 32, -1).to(torch.uint8).contiguous()


def numbers(frames: torch.Tensor) -> list[int]:
    stripes = frames.float().mean((1, 2)).unflatten(1, (8, -1)).mean(2) > 128
    return (stripes.int() << torch.arange(8)).sum(1).tolist()


def film(path: Path, num_frames: int = 60, fps: float = 30.0) -> Path:
    return write(path, Clip(numbered(0, num_frames), fps))


def table(path: Path, header: str, rows: list[list[float]]) -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def source(path: Path, **settings) -> Folder:
    return Folder(FolderConfig.parse({"path": str(path), "size": (16, 16), **settings}))


def recording(folder: Folder, name: str):
    every = [*folder.recordings("train"), *folder.recordings("test")]
    return next(r for r in every if r.name == name)


def test_recordings_are_found_in_every_folder_and_named_by_their_path(tmp_path):
    film(tmp_path / "town" / "one.mp4")
    film(tmp_path / "town" / "north" / "two.mkv")
    film(tmp_path / "three.mp4")
    film(tmp_path / ".hidden" / "four.mp4")
    for i in range(12):
        write(tmp_path / "stills" / f"frame{i}.png", Clip(numbered(i, 1), 1.0))
    (tmp_path / "notes.txt").write_text("no video")
    folder = source(tmp_path, test=("three",))
    assert [r.name for r in folder.recordings("train")] == ["stills", "town/north/two", "town/one"]
    assert [r.name for r in folder.recordings("test")] == ["three"]
    assert folder.skipped == []
    assert recording(folder, "town/one").seconds == pytest.approx(2.0)


def test_pictures_of_a_folder_are_one_recording_in_order_of_their_numbers(tmp_path):
    for i in range(12):
        write(tmp_path / f"frame{i}.png", Clip(numbered(i, 1), 1.0))
    folder = source(tmp_path, fps=5, picture_fps=10)
    (only,) = folder.recordings("train")
    assert only.name == tmp_path.name
    assert only.seconds == pytest.approx(1.2)
    assert numbers(folder.clip(Window(only, 0.0, 6)).frames) == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_windows_use_every_phase_of_the_recording(tmp_path, memory_gb):
    film(tmp_path / "one.mp4")
    folder = source(tmp_path, fps=10, memory_gb=memory_gb)
    (only,) = folder.recordings("train")
    for start, first in [(0.0, 0), (1 / 30, 1), (0.06, 1), (0.5, 15)]:
        clip = folder.clip(Window(only, start, 5))
        assert numbers(clip.frames) == [first + 3 * k for k in range(5)]
        assert clip.fps == 10


def test_broken_files_are_skipped_by_name_and_reason(tmp_path):
    film(tmp_path / "good.mp4")
    film(tmp_path / "other.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello")
    folder = source(tmp_path)
    assert {s.name for s in folder.skipped} == {"empty", "text"}
    assert all("mp4" in s.reason for s in folder.skipped)
    every = [*folder.recordings("train"), *folder.recordings("test")]
    assert {r.name for r in every} == {"good", "other"}


def test_a_cut_file_is_used_as_far_as_it_goes(tmp_path):
    path = film(tmp_path / "cut.mp4", 200)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    with pytest.warns(VideoWarning, match="of 200 frames"):
        folder = source(tmp_path, fps=30)
    (only,) = folder.recordings("train")
    assert only.seconds < 200 / 30
    num_frames = round(only.seconds * 30)
    assert numbers(folder.clip(Window(only, 0.0, num_frames)).frames) == list(range(num_frames))


def test_a_folder_without_video_says_why(tmp_path):
    with pytest.raises(AvenirError, match="no folder"):
        source(tmp_path / "nowhere")
    with pytest.raises(AvenirError, match="no video"):
        source(tmp_path)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(AvenirError, match=r"empty \(0 bytes\)"):
        source(tmp_path)


# Splits


def test_the_split_is_by_recording_and_does_not_depend_on_order(tmp_path):
    for i in range(10):
        film(tmp_path / f"clip{i}.mp4", 4)
    folder = source(tmp_path, test_fraction=0.3)
    train = {r.name for r in folder.recordings("train")}
    test = {r.name for r in folder.recordings("test")}
    assert len(train) == 7
    assert len(test) == 3
    assert not train & test
    (tmp_path / f"{min(train)}.mp4").unlink()
    assert {r.name for r in source(tmp_path, test_fraction=0.3).recordings("test")} <= test


def test_patterns_choose_the_test_split(tmp_path):
    for name in ("town/a", "town/b", "forest/a"):
        film(tmp_path / f"{name}.mp4", 4)
    folder = source(tmp_path, test=("town/*",))
    assert [r.name for r in folder.recordings("test")] == ["town/a", "town/b"]
    with pytest.raises(AvenirError, match="forest/a"):
        source(tmp_path, test=("desert/*",))
    with pytest.raises(AvenirError, match="3 of 3"):
        source(tmp_path, test=("*",))


def test_the_fingerprint_follows_the_data_and_the_settings(tmp_path):
    film(tmp_path / "one.mp4")
    film(tmp_path / "two.mp4")
    first = source(tmp_path).fingerprint
    assert source(tmp_path).fingerprint == first
    assert source(tmp_path, memory_gb=0).fingerprint == first
    others = {source(tmp_path, fps=5).fingerprint, source(tmp_path, size=(8, 8)).fingerprint}
    film(tmp_path / "two.mp4", 61)
    others.add(source(tmp_path).fingerprint)
    assert len(others | {first}) == 4


# Actions


def test_actions_belong_to_the_frames_they_lead_on_from(tmp_path):
    film(tmp_path / "one.mp4")
    table(tmp_path / "one.csv", "steer,pedal", [[i, 10 * i] for i in range(60)])
    folder = source(tmp_path, fps=10)
    (only,) = folder.recordings("train")
    signal = folder.signals["actions"]
    assert (signal.size, signal.names, signal.change) == (2, ("steer", "pedal"), "absolute")
    assert (signal.low, signal.high) == ((2, 20), (59, 590))
    clip = folder.clip(Window(only, 1 / 30, 4))
    assert numbers(clip.frames) == [1, 4, 7, 10]
    assert clip.signals["actions"].tolist() == [[i, 10 * i] for i in (3, 6, 9, 12)]
    summed = source(tmp_path, fps=10, action_change="delta").clip(Window(only, 1 / 30, 4))
    assert summed.signals["actions"][:, 0].tolist() == [1 + 2 + 3, 4 + 5 + 6, 7 + 8 + 9, 33]


@pytest.mark.parametrize("header", ["frame,steer", "timestamp,steer", "t,steer"])
def test_rows_may_say_which_frame_they_are_of(tmp_path, header):
    film(tmp_path / "one.mp4")
    when = [i if header.startswith("frame") else i / 30 for i in range(0, 60, 2)]
    table(tmp_path / "one.csv", header, [[w, i] for i, w in enumerate(when)])
    folder = source(tmp_path, fps=15)
    (only,) = folder.recordings("train")
    assert folder.signals["actions"].names == ("steer",)
    assert folder.clip(Window(only, 0.0, 5)).signals["actions"][:, 0].tolist() == [0, 1, 2, 3, 4]


def test_recordings_need_the_same_actions(tmp_path):
    for name in "abcd":
        film(tmp_path / f"{name}.mp4")
    table(tmp_path / "a.csv", "steer", [[0.0]] * 60)
    table(tmp_path / "b.csv", "steer", [[1.0]] * 60)
    table(tmp_path / "c.csv", "pedal", [[1.0]] * 60)
    folder = source(tmp_path, test=("b",))
    reasons = {s.name: s.reason for s in folder.skipped}
    assert set(reasons) == {"c", "d"}
    assert "pedal" in reasons["c"]
    assert "no csv" in reasons["d"]


def test_actions_of_a_minority_are_left_out_aloud(tmp_path):
    for name in "abc":
        film(tmp_path / f"{name}.mp4")
    table(tmp_path / "a.csv", "steer", [[0.0]] * 60)
    with pytest.warns(VideoWarning, match="1 of 3 recordings have actions"):
        folder = source(tmp_path)
    assert folder.signals == {}
    assert folder.skipped == []


@pytest.mark.parametrize(
    "text",
    ["0.1\n0.2\n", "steer\nleft\n", "", "steer\n", "steer\nnan\n", "frame,steer\n3,1\n1,1\n"],
)
def test_a_bad_table_skips_its_recording(tmp_path, text):
    film(tmp_path / "good.mp4")
    film(tmp_path / "bad.mp4")
    (tmp_path / "bad.csv").write_text(text)
    folder = source(tmp_path)
    assert [s.name for s in folder.skipped] == ["bad"]
    assert "bad.csv" in folder.skipped[0].reason


def test_a_short_table_ends_its_recording(tmp_path):
    film(tmp_path / "one.mp4")
    table(tmp_path / "one.csv", "steer", [[float(i)] for i in range(45)])
    with pytest.warns(VideoWarning, match=r"one\.csv covers 1\.50 of 2\.00 s"):
        folder = source(tmp_path, fps=30)
    (only,) = folder.recordings("train")
    assert only.seconds == pytest.approx(1.5)


def test_real_driving_reads_its_steering(real_data, tmp_path):
    for name in ("sullychen_carpark.mp4", "sullychen_carpark.csv"):
        (tmp_path / name).symlink_to(real_data / "driving" / name)
    folder = source(tmp_path, fps=30)
    (only,) = folder.recordings("train")
    lines = np.loadtxt(tmp_path / "sullychen_carpark.csv", delimiter=",", skiprows=1)
    clip = folder.clip(Window(only, 0.0, 101))
    np.testing.assert_allclose(clip.signals["actions"][:, 0], lines[:, 2], atol=1e-5)


def test_hostile_files_do_not_stop_a_source(real_data):
    with pytest.warns(VideoWarning, match="01_truncated"):
        folder = source(real_data / "corrupt")
    assert {s.name[:2] for s in folder.skipped} == {"02", "04", "11", "12"}
    batch = folder.read(folder.draw("train", 8, 6, 0))
    assert batch.video is not None
    assert batch.video.shape == (6, 8, 3, 16, 16)
