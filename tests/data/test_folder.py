"""A folder as a source: what is found, what is skipped, and which action belongs to which frame."""

import os
import time
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from avenir import video
from avenir.clip import Clip
from avenir.data import Window
from avenir.data.folder import Folder, FolderConfig
from avenir.data.folder.listing import listed
from avenir.errors import AvenirError
from avenir.splits import SPLITS
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
    every = [each for split in SPLITS for each in folder.recordings(split)]
    return next(r for r in every if r.name == name)


def test_recordings_are_found_in_every_folder_and_named_by_their_path(tmp_path):
    film(tmp_path / "town" / "one.mp4")
    film(tmp_path / "town" / "north" / "two.mkv")
    film(tmp_path / "three.mp4")
    film(tmp_path / ".hidden" / "four.mp4")
    for i in range(12):
        write(tmp_path / "stills" / f"frame{i}.png", Clip(numbered(i, 1), 1.0))
    (tmp_path / "notes.txt").write_text("no video")
    folder = source(tmp_path, test=("three",), validation_fraction=0)
    assert [r.name for r in folder.recordings("train")] == ["stills", "town/north/two", "town/one"]
    assert [r.name for r in folder.recordings("test")] == ["three"]
    assert folder.skipped == []
    assert recording(folder, "town/one").seconds == pytest.approx(2.0)


def cut_by_an_edit_list(path: Path) -> None:
    """Show the last 30 of 90 frames: the file still holds all of them."""
    whole = film(path.with_name("whole.mp4"), num_frames=90)
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(whole)) as container, av.open(str(path), "w", options=options) as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for packet in (packet for packet in container.demux(video=0) if packet.size):
            shift = round(2 / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = stream
            output.mux(packet)
    whole.unlink()


@pytest.mark.parametrize("header", ["speed", "frame,speed", ",speed"])
@pytest.mark.parametrize("shorten", [cut_by_an_edit_list, lambda path: film(path, num_frames=30)])
def test_rows_for_frames_that_are_not_shown_are_refused(tmp_path, shorten, header):
    """A csv of the video as it was, beside one that shows less: which rows are left is unknown."""
    shorten(tmp_path / "d0.mp4")
    assert video.probe(tmp_path / "d0.mp4").declared_frames == 30
    table(tmp_path / "d0.csv", header, [[k] * (1 + header.count(",")) for k in range(90)])
    film(tmp_path / "d1.mp4")
    table(tmp_path / "d1.csv", "speed", [[k] for k in range(60)])
    (skipped,) = source(tmp_path).skipped
    assert skipped.name == "d0"
    assert skipped.reason.startswith("d0.csv: ")
    if header == "frame,speed":
        assert "column 'frame' count from 0 to 89, and there are 30 frames; count" in skipped.reason
    else:
        assert "it has 90 rows for 30 frames; give it one per frame, or" in skipped.reason


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
    every = [each for split in SPLITS for each in folder.recordings(split)]
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


def test_a_table_that_starts_late_or_ends_early_bounds_its_recording(tmp_path):
    film(tmp_path / "one.mp4")
    table(tmp_path / "one.csv", "timestamp,steer", [[i / 30, i] for i in range(45)])
    with pytest.warns(VideoWarning, match=r"one\.csv covers 1\.50 of 2\.00 s"):
        folder = source(tmp_path, fps=30)
    (only,) = folder.recordings("train")
    assert only.seconds == pytest.approx(1.5)
    table(tmp_path / "one.csv", "timestamp,steer", [[i / 30, i] for i in range(15, 60)])
    for memory_gb in (1.0, 0.0):
        with pytest.warns(VideoWarning, match=r"one\.csv covers 0\.50 to 2\.00 of 2\.00 s"):
            folder = source(tmp_path, fps=30, memory_gb=memory_gb)
        (only,) = folder.recordings("train")
        assert only.seconds == pytest.approx(1.5)
        clip = folder.clip(Window(only, 0.0, 45))
        assert numbers(clip.frames) == list(range(15, 60))
        assert clip.signals["actions"][:, 0].tolist() == list(range(15, 60))


def test_a_table_that_does_not_fit_takes_its_recording_out(tmp_path):
    for name, count in (("good", 60), ("many", 300), ("few", 30)):
        film(tmp_path / f"{name}.mp4")
        table(tmp_path / f"{name}.csv", "steer", [[float(i)] for i in range(count)])
    reasons = {s.name: s.reason for s in source(tmp_path).skipped}
    assert set(reasons) == {"many", "few"}
    assert "many.csv: it has 300 rows for 60 frames" in reasons["many"]


@pytest.mark.parametrize("name", ["one.CSV", "ONE.csv", "one.mp4.csv"])
def test_the_table_of_a_video_is_found_by_its_name(tmp_path, name):
    film(tmp_path / "one.mp4")
    table(tmp_path / name, "steer", [[float(i)] for i in range(60)])
    assert source(tmp_path).signals["actions"].names == ("steer",)


def test_a_table_of_no_recording_is_named(tmp_path):
    film(tmp_path / "drive_left.mp4")
    table(tmp_path / "drive.csv", "steer", [[float(i)] for i in range(60)])
    folder = source(tmp_path)
    assert folder.signals == {}
    assert any(note.startswith("drive.csv: ") for note in folder.notes)


def test_columns_are_matched_by_name(tmp_path):
    for name in "ef":
        film(tmp_path / f"{name}.mp4")
        table(tmp_path / f"{name}.csv", "speed", [[0]] * 60)
    for name, header in (("a", "steer,pedal"), ("b", "pedal,steer"), ("c", "steer,pedal")):
        film(tmp_path / f"{name}.mp4")
        pair = [1, 2] if header.startswith("steer") else [2, 1]
        table(tmp_path / f"{name}.csv", header, [pair] * 60)
    folder = source(tmp_path, test=("b",))
    assert {skipped.name for skipped in folder.skipped} == {"e", "f"}
    for split in ("train", "test"):
        batch = folder.read(folder.draw(split, 4, 2, 0))
        assert batch.signals["actions"].unique(dim=1).flatten(0, 1).tolist() == [[1, 2]] * 2


def test_notes_name_the_files_they_are_about(tmp_path):
    for name in "ab":
        film(tmp_path / f"{name}.mp4", 59 + len(name))
        rows = [[i, 1.7e9 + i / 30, i] for i in range(60)]
        table(tmp_path / f"{name}.csv", ",timestamp,steer", rows)
    notes = source(tmp_path).notes
    assert any(note.startswith("a.csv, b.csv: column 1") for note in notes)
    assert any("counts s from 1.7e+09" in note for note in notes)


def test_the_fingerprint_follows_the_actions_and_when_they_are(tmp_path):
    film(tmp_path / "one.mp4")
    found = set()
    for shift, factor in ((0, 1), (0, 2), (0.1, 1)):
        rows = [[i / 30 + shift, factor * i] for i in range(57)]
        table(tmp_path / "one.csv", "timestamp,steer", rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VideoWarning)
            found.add(source(tmp_path).fingerprint)
    assert len(found) == 3


# Pictures


def stills(folder: Path, names: list[str]) -> None:
    for i, name in enumerate(names):
        write(folder / name, Clip(numbered(i, 1), 1.0))


@pytest.mark.parametrize("place", ["shots.csv", "shots/shots.csv", "shots/log.csv"])
def test_pictures_have_actions_too(tmp_path, place):
    stills(tmp_path / "shots", [f"{i:03d}.png" for i in range(12)])
    table(tmp_path / place, "frame,steer", [[i, 10 * i] for i in range(4, 12)])
    with pytest.warns(VideoWarning, match=r"covers 0\.40 to 1\.20 of 1\.20 s"):
        folder = source(tmp_path)
    (only,) = folder.recordings("train")
    clip = folder.clip(Window(only, 0.0, 8))
    assert numbers(clip.frames) == list(range(4, 12))
    assert clip.signals["actions"][:, 0].tolist() == [10 * i for i in range(4, 12)]


@pytest.mark.parametrize("scale", [1, 1000])
def test_times_of_every_picture_say_when_it_was_taken(tmp_path, scale):
    when = [0.0, 0.1, 0.2, 0.3, 0.8, 0.9, 1.0, 1.1]
    stills(tmp_path / "shots", [f"{i:03d}.png" for i in range(8)])
    rows = [[(1.7e9 + at) * scale, i] for i, at in enumerate(when)]
    table(tmp_path / "shots.csv", "timestamp,steer", rows)
    folder = source(tmp_path, fps=5)
    (only,) = folder.recordings("train")
    assert only.seconds == pytest.approx(1.2)
    clip = folder.clip(Window(only, 0.0, 6))
    assert numbers(clip.frames) == [0, 2, 3, 3, 4, 6]
    assert clip.signals["actions"][:, 0].tolist() == [1, 2, 3, 3, 5, 7]
    assert any("pictures were taken in 1.1 s" in note for note in folder.notes)
    with pytest.raises(AvenirError, match="write seconds from its first frame"):
        source(tmp_path, fps=5, picture_fps=30)


def test_a_table_among_pictures_that_is_of_something_else_is_not_used(tmp_path):
    stills(tmp_path / "shots", [f"{i:03d}.png" for i in range(12)])
    table(tmp_path / "shots" / "labels.csv", "label", [[0.0], [1.0]])
    folder = source(tmp_path)
    assert folder.skipped == []
    assert folder.signals == {}
    assert any("labels.csv: it is not used for 'shots'" in note for note in folder.notes)


@pytest.mark.parametrize(
    "names", [("left_{}", "right_{}"), ("{}_left", "{}_right"), ("cam1_{}", "cam2_{}")]
)
def test_pictures_of_two_cameras_are_not_put_in_a_row(tmp_path, names):
    stills(tmp_path / "rig", [f"{name.format(k)}.png" for name in names for k in range(9, 12)])
    stills(tmp_path / "one", [f"take2_{k}.png" for k in range(9, 12)])
    folder = source(tmp_path, fps=10, picture_fps=10)
    assert {s.name for s in folder.skipped} == {"rig"}
    assert "give each camera a folder of its own" in folder.skipped[0].reason


def test_thumbnails_and_lone_pictures_are_no_recordings(tmp_path):
    for name in ("d0", "d1"):
        film(tmp_path / f"{name}.mp4")
    stills(tmp_path, ["d0.png", "d1_thumb.png", "folder.png"])
    stills(tmp_path / "alone", ["cover.png"])
    folder = source(tmp_path, test=("d1",))
    every = [each for split in SPLITS for each in folder.recordings(split)]
    assert [r.name for r in every] == ["d0", "d1"]
    assert {s.name for s in folder.skipped} == {"folder.png", "alone/cover.png"}
    assert "d0.png, d1_thumb.png: a picture beside a video is no recording" in folder.notes


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([f"{i:02x}.png" for i in range(32)], "hexadecimal"),
        ([f"frame_{i:x}.png" for i in range(8, 32)], "hexadecimal"),
        ([f"frame{i}.png" for i in range(-12, 4)], "signed"),
        ([f"{i}.png" for i in range(-12, -2)], "signed"),
        ([f"{1700000000 + i / 4}.png" for i in range(12)], "decimal"),
        ([f"shot-{i}.png" for i in range(8, 12)], ""),
        ([f"img{i}{side}.png" for i in range(8, 12) for side in "ab"], ""),
    ],
)
def test_pictures_are_in_order_of_the_value_of_their_numbers(tmp_path, names, said):
    stills(tmp_path / "shots", names)
    folder = source(tmp_path)
    (only,) = folder.recordings("train")
    shown = folder.clip(Window(only, 0.0, len(names))).frames
    assert numbers(shown) == list(range(len(names)))
    notes = [note for note in folder.notes if "validate" not in note]
    assert bool(notes) == bool(said)
    assert all(said in note for note in notes)


def test_numbers_of_an_unclear_base_are_named(tmp_path):
    stills(tmp_path, ["f1.png", "f1a.png", "f2.png", "f7.png"])
    assert any("unclear; f1.png is the first" in note for note in source(tmp_path).notes)


# Odd files


def test_odd_names_are_imported_under_printable_ones(tmp_path):
    film(tmp_path / "10²5.mp4")
    film(tmp_path / "٣.mp4")
    odd = film(tmp_path / "odd.mp4")
    try:
        odd.rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    except OSError:
        pytest.skip("this file system has no names that are not UTF-8")
    folder = source(tmp_path, test=("10*",))
    every = [each for split in SPLITS for each in folder.recordings(split)]
    assert {r.name for r in every} == {"caf\\xe9", "٣", "10²5"}
    assert len(folder.read(folder.draw("train", 4, 4, 0)).names) == 4


def test_only_regular_files_are_opened(tmp_path):
    film(tmp_path / "good.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "good.csv")
    (tmp_path / "zeros.mp4").symlink_to("/dev/zero")
    (tmp_path / "round.mp4").symlink_to(tmp_path / "round.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "above").symlink_to(tmp_path)
    folder = source(tmp_path)
    assert [r.name for r in folder.recordings("train")] == ["good"]
    odd = {"pipe.mp4", "good.csv", "zeros.mp4", "round.mp4", "gone.mp4", "above"}
    assert {s.name for s in folder.skipped} == odd


@pytest.mark.parametrize("reads", ["is_picture", "fingerprint", "timestamps"])
def test_a_file_that_cannot_be_read_is_skipped_by_name(tmp_path, monkeypatch, reads):
    film(tmp_path / "good.mp4")
    film(tmp_path / "locked.mp4")
    real = getattr(video, reads)

    def read(path):
        if path.stem == "locked":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(video, reads, read)
    folder = source(tmp_path)
    assert [r.name for r in folder.recordings("train")] == ["good"]
    (skipped,) = folder.skipped
    assert skipped.name.startswith("locked")
    assert "Permission denied" in skipped.reason


def test_copies_of_one_video_fall_in_one_split(tmp_path):
    for i in range(8):
        film(tmp_path / f"clip{i}.mp4", 4 + i // 2)
    for fraction in (0.1, 0.3, 0.6, 0.9):
        folder = source(tmp_path, test_fraction=fraction)
        test = {r.name for r in folder.recordings("test")}
        assert test
        for i in range(0, 8, 2):
            assert (f"clip{i}" in test) == (f"clip{i + 1}" in test)
        said = "test" if "clip0" in test else "train"
        assert f"clip0, clip1: they are one video, all to {said} on" in folder.notes
    chosen = source(tmp_path, test=("clip0",))
    assert [r.name for r in chosen.recordings("test")] == ["clip0"]
    assert any("clip0, clip1: they are one video, to train and to" in n for n in chosen.notes)


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


def test_listing_ten_thousand_files_takes_a_moment(tmp_path, monkeypatch):
    names = [f"clip_{i:05d}" for i in range(3000)]
    for name in names:
        for end in (".mp4", ".CSV", "_thumb.png"):
            (tmp_path / f"{name}{end}").touch()
    for name in names[:1000]:
        (tmp_path / f"{name}.x.csv").touch()
    monkeypatch.setattr(video, "is_picture", lambda path: path.suffix == ".png")
    before = time.process_time()
    listing = listed(tmp_path)
    assert time.process_time() - before < 5
    assert [found.name for found in listing.found] == names
    assert all(found.table == found.paths[0].with_suffix(".CSV") for found in listing.found)
    assert sorted(map(len, listing.notes.values())) == [1000, 3000]
