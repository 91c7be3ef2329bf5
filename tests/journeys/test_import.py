"""A folder of videos, some of them broken, is imported and trained from."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from avenir.cli import app
from avenir.clip import Clip
from avenir.data import Window
from avenir.data.lerobot import LeRobot, LeRobotConfig, write_dataset
from avenir.errors import AvenirError
from avenir.files import alone_in
from avenir.splits import SPLITS
from avenir.video import read, write
from tests import lerobot_sets
from tests.lerobot_sets import version_2, version_3


def film(path: Path, num_frames: int = 45, actions: bool = False) -> None:
    ramp = torch.arange(80) + torch.arange(60)[:, None]
    frames = torch.stack([ramp + 2 * i for i in range(num_frames)])[:, None].repeat(1, 3, 1, 1)
    write(path, Clip(frames.clamp(0, 255).to(torch.uint8), 30.0))
    if actions:
        rows = "\n".join(f"{i},{-i}" for i in range(num_frames))
        path.with_suffix(".csv").write_text(f"steer,pedal\n{rows}\n")


def run(*words: object):
    return CliRunner().invoke(app, ["import", *map(str, words)])


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for i in range(4):
        film(tmp_path / "videos" / f"day{i}.mp4", actions=True)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"not a video")
    (tmp_path / "videos" / "empty.mp4").touch()
    return tmp_path / "videos"


def test_good_files_are_imported_and_bad_ones_named(videos, tmp_path):
    to = tmp_path / "data" / "drive"
    result = run(videos, "--to", to, "--size", "32x40", "--fps", 10, "--test", "day2")
    assert result.exit_code == 0, result.output
    assert "4 recordings, 60 frames imported; 2 skipped" in " ".join(result.output.split())
    report = json.loads((to / "import_report.json").read_text())
    assert {row["name"] for row in report["skipped"]} == {"broken", "empty"}
    assert [row["name"] for row in report["imported"]] == ["day0", "day1", "day3", "day2"]
    assert [row["split"] for row in report["imported"]] == ["train"] * 3 + ["test"]
    info = json.loads((to / "meta" / "info.json").read_text())
    assert info["splits"] == {"train": "0:3", "test": "3:4"}

    data = LeRobot(LeRobotConfig(path=str(to), size=(32, 40)))
    assert data.fps == 10
    assert [r.name for r in data.recordings("test")] == ["episode_000003"]
    assert data.signals["actions"].names == ("steer", "pedal")
    clip = data.clip(data.spread("test", 15, 1)[0])
    assert clip.signals["actions"][:, 0].tolist() == [2.0 + 3 * k for k in range(15)]
    truth = read(videos / "day2.mp4", fps=10, size=(32, 40)).frames
    error = (clip.frames.float() - truth.float()).square().mean()
    assert 10 * torch.log10(255**2 / error) > 36


def test_importing_again_goes_on_where_it_stopped(videos, tmp_path):
    to = tmp_path / "drive"
    for suffix in (".mp4", ".csv"):
        (videos / f"day3{suffix}").rename(tmp_path / f"day3{suffix}")
    assert run(videos, "--to", to, "--test", "day0").exit_code == 0
    before = (to / "videos/observation.images.camera/chunk-000/file-000.mp4").stat().st_mtime_ns
    for suffix in (".mp4", ".csv"):
        (tmp_path / f"day3{suffix}").rename(videos / f"day3{suffix}")
    assert run(videos, "--to", to, "--test", "day0").exit_code == 0
    after = (to / "videos/observation.images.camera/chunk-000/file-000.mp4").stat().st_mtime_ns
    assert before == after
    info = json.loads((to / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 4
    assert info["splits"] == {"train": "0:2,3:4", "test": "2:3"}
    data = LeRobot(LeRobotConfig(path=str(to)))
    assert [r.name for r in data.recordings("test")] == ["episode_000002"]


def test_a_data_set_has_one_writer(videos, tmp_path):
    to = tmp_path / "to"
    assert run(videos, "--to", to).exit_code == 0
    before = {path: path.read_bytes() for path in to.rglob("*") if path.is_file()}
    (videos / "day0.csv").write_text("steer,pedal\n" + "1,1\n" * 45)
    with alone_in(to, "import"):
        result = run(videos, "--to", to)
        assert isinstance(result.exception, AvenirError)
        assert "another import is at work in" in str(result.exception)
        with pytest.raises(AvenirError, match="another import is at work in"):
            write_dataset(to, [Clip(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), 10.0)])
    assert before == {path: path.read_bytes() for path in to.rglob("*") if path.is_file()}
    assert run(videos, "--to", to).exit_code == 0


def test_a_data_set_can_be_imported_smaller(videos, tmp_path):
    assert run(videos, "--to", tmp_path / "large", "--size", "48x64").exit_code == 0
    result = run(tmp_path / "large", "--to", tmp_path / "small", "--size", "16x16", "--fps", 5)
    assert result.exit_code == 0, result.output
    data = LeRobot(LeRobotConfig(path=str(tmp_path / "small"), size=(16, 16)))
    assert data.fps == 5
    assert len(data.recordings("train")) == 3


def test_mistakes_end_in_a_sentence(videos, tmp_path):
    (tmp_path / "none").mkdir()
    film(tmp_path / "short" / "one.mp4", num_frames=2)
    for words, reason in [
        ((tmp_path / "nowhere", "--to", tmp_path / "out"), "no folder"),
        ((tmp_path / "none", "--to", tmp_path / "out"), "no video"),
        ((videos, "--to", tmp_path / "out", "--size", "64"), "height x width"),
        ((videos, "--to", tmp_path / "out", "--size", "63x64"), "even"),
        ((videos, "--to", tmp_path / "out", "--fps", "0"), "fps"),
        ((tmp_path / "short", "--to", tmp_path / "out"), "nothing in"),
        ((videos, "--to", videos), "into itself"),
    ]:
        result = run(*words)
        assert result.exit_code != 0
        assert reason in f"{result.output}{result.exception}", words


@pytest.mark.slow
def test_hostile_files_are_all_reported(real_data, tmp_path):
    result = run(real_data / "corrupt", "--to", tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "import_report.json").read_text())
    assert {row["name"][:2] for row in report["skipped"]} == {"02", "04", "05", "11", "12"}
    assert len(report["imported"]) == 7
    assert any("01_truncated" in note for note in report["notes"])


# Tables


@pytest.mark.parametrize(
    ("header", "cells", "suffix"),
    [
        ("timestamp,steer,acc", lambda k: (f"{1.7e9 + k / 30:.6f}", k, 1), ".csv"),
        ("timestamp,steer,acc", lambda k: (round(1.7e12 + k / 0.03), k, 1), ".csv"),
        ("timestamp,steer,acc", lambda k: (int(1.7e18) + round(k / 3e-8), k, 1), ".csv"),
        ("timestamp,steer,acc", lambda k: (f"{k / 0.03:.3f}", k, 1), ".csv"),
        ("Timestamp,steer,acc", lambda k: (f"{k / 30:.6f}", k, 1), ".csv"),
        ("frame_index,timestamp,steer,acc", lambda k: (k, f"{k / 30:.5f}", k, 1), ".csv"),
        (",steer,acc", lambda k: (k, k, 1), ".csv"),
        ("acc,steer", lambda k: (1, k), ".CSV"),
    ],
)
def test_every_row_is_of_its_frame(tmp_path, header, cells, suffix):
    for name in ("a", "b"):
        film(tmp_path / "videos" / f"{name}.mp4", num_frames=60)
        rows = "\n".join(",".join(map(str, cells(k))) for k in range(60))
        (tmp_path / "videos" / f"{name}{suffix}").write_text(f"{header}\n{rows}\n")
    assert run(tmp_path / "videos", "--to", tmp_path / "to", "--fps", 30).exit_code == 0
    info = json.loads((tmp_path / "to" / "meta" / "info.json").read_text())
    names = info["features"]["action"]["names"]
    assert sorted(names) == ["acc", "steer"]
    for path in (tmp_path / "to" / "data").rglob("*.parquet"):
        rows = dict(
            zip(names, zip(*pq.read_table(path)["action"].to_pylist(), strict=True), strict=True)
        )
        assert rows == {"steer": tuple(range(60)), "acc": (1,) * 60}


def test_tables_that_do_not_fit_are_named_with_the_cure(tmp_path):
    for name, num_rows in (("many", 300), ("few", 20), ("good", 45), ("fine", 45)):
        film(tmp_path / "videos" / f"{name}.mp4")
        rows = "\n".join(map(str, range(num_rows)))
        (tmp_path / "videos" / f"{name}.csv").write_text(f"speed\n{rows}\n")
    assert run(tmp_path / "videos", "--to", tmp_path / "to").exit_code == 0
    report = json.loads((tmp_path / "to" / "import_report.json").read_text())
    reasons = {row["name"]: row["reason"] for row in report["skipped"]}
    assert set(reasons) == {"many", "few"}
    assert "many.csv: it has 300 rows for 45 frames; give it one per frame" in reasons["many"]


# Again


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
    found.pop("import_report.json", None)
    return found


def notes_of(to: Path) -> str:
    return " ".join(json.loads((to / "import_report.json").read_text())["notes"])


def correct_the_csvs(videos: Path) -> None:
    for i in range(3):
        (videos / f"day{i}.csv").write_text("steer,pedal\n" + "7,7\n" * 45)


def replace_a_video(videos: Path) -> None:
    film(videos / "day1.mp4", num_frames=44)


def break_a_csv(videos: Path) -> None:
    (videos / "day1.csv").write_text("steer,pedal\n1,2\n")


def change_and_add(videos: Path) -> None:
    correct_the_csvs(videos)
    film(videos / "day00.mp4", num_frames=30, actions=True)


@pytest.mark.parametrize(
    ("change", "more"),
    [
        (correct_the_csvs, ()),
        (replace_a_video, ()),
        (break_a_csv, ()),
        (change_and_add, ()),
        (lambda videos: None, ("--test", "day2")),
        (lambda videos: None, ("--delta-actions",)),
    ],
)
def test_an_import_again_is_what_a_fresh_one_would_be(videos, tmp_path, change, more):
    to, words = tmp_path / "to", ("--size", "16x16", "--fps", 15)
    assert run(videos, "--to", to, *words, "--test", "day0").exit_code == 0
    change(videos)
    more = more if "--test" in more else (*more, "--test", "day0")
    result = run(videos, "--to", to, *words, *more)
    assert result.exit_code == 0, result.output
    assert run(videos, "--to", tmp_path / "fresh", *words, *more).exit_code == 0
    assert contents(to) == contents(tmp_path / "fresh")
    assert "changed since they were imported" in notes_of(to)
    before = {path: path.stat().st_mtime_ns for path in to.rglob("*.mp4")}
    assert run(videos, "--to", to, *words, *more).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in to.rglob("*.mp4")} == before
    assert "changed since they were imported" not in notes_of(to)


def test_a_data_set_that_does_not_know_what_it_is_made_from_is_written_anew(videos, tmp_path):
    to, words = tmp_path / "to", ("--size", "16x16", "--test", "day0")
    assert run(videos, "--to", to, *words).exit_code == 0
    wanted = contents(to)
    (to / "meta" / "avenir.json").unlink()
    for path in (to / "meta" / "episodes").rglob("*.parquet"):  # as they once were written
        pq.write_table(pq.read_table(path).drop_columns(["origin", "signals"]), path)
    assert run(videos, "--to", to, *words).exit_code == 0
    assert contents(to) == wanted


def test_names_that_are_not_utf_8_are_imported(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9"))
    try:
        for name in (b"caf\xe9", "10²5".encode()):
            film(folder / os.fsdecode(name + b".mp4"), actions=True)
    except OSError:
        pytest.skip("this file system has no names that are not UTF-8")
    result = run(folder, "--to", tmp_path / "to", "--test", "caf*")
    assert result.exit_code == 0, result.output
    data = LeRobot(LeRobotConfig(path=str(tmp_path / "to")))
    assert data.signals["actions"].names == ("steer", "pedal")
    report = json.loads((tmp_path / "to" / "import_report.json").read_text())
    assert {row["name"]: row["split"] for row in report["imported"]} == {
        "caf\\xe9": "test",
        "10²5": "train",
    }
    assert "not UTF-8" in str(run(folder, "--to", folder / "to").exception)


def test_what_was_imported_into_the_folder_itself_is_no_recording(videos):
    for _ in range(2):
        assert run(videos, "--to", videos / "out", "--test", "day0").exit_code == 0
        report = json.loads((videos / "out" / "import_report.json").read_text())
        assert [row["name"] for row in report["imported"]] == ["day1", "day2", "day3", "day0"]
    assert "out" in {row["name"] for row in report["skipped"]}


def test_what_is_not_there_any_more_is_kept_and_named(videos, tmp_path):
    to = tmp_path / "to"
    assert run(videos, "--to", to, "--test", "day0").exit_code == 0
    for path in videos.glob("day1.*"):
        path.unlink()
    assert run(videos, "--to", to, "--test", "day0").exit_code == 0
    assert "day1: not there any more; kept as they were imported" in notes_of(to)
    correct_the_csvs(videos)
    (videos / "day1.csv").unlink()
    assert run(videos, "--to", to, "--test", "day0").exit_code == 0
    report = json.loads((to / "import_report.json").read_text())
    assert [row["name"] for row in report["imported"]] == ["day2", "day3", "day0", "day1"]
    data = LeRobot(LeRobotConfig(path=str(to)))
    names = {f"episode_{row['episode']:06d}": row["name"] for row in report["imported"]}
    first = {
        names[recording.name]: float(data.clip(Window(recording, 0.0, 4)).signals["actions"][0, 0])
        for split in SPLITS
        for recording in data.recordings(split)
    }
    assert first == {"day2": 7, "day3": 2, "day1": 2, "day0": 7}


def test_a_data_set_remembers_that_its_actions_add_up(tmp_path):
    film(tmp_path / "videos" / "a.mp4", num_frames=90, actions=True)
    film(tmp_path / "videos" / "b.mp4", num_frames=90, actions=True)
    for path in (tmp_path / "videos").glob("*.csv"):
        path.write_text("dx\n" + "1\n2\n3\n" * 30)
    to = tmp_path / "to"
    assert run(tmp_path / "videos", "--to", to, "--fps", 30, "--delta-actions").exit_code == 0
    data = LeRobot(LeRobotConfig(path=str(to), fps=10))
    assert data.signals["actions"].change == "delta"
    clip = data.clip(data.spread("train", 30, 1)[0])
    assert clip.signals["actions"].unique().tolist() == [6]
    assert run(to, "--to", tmp_path / "slow", "--fps", 10).exit_code == 0
    slow = LeRobot(LeRobotConfig(path=str(tmp_path / "slow")))
    assert slow.signals["actions"].change == "delta"
    assert slow.clip(slow.spread("train", 30, 1)[0]).signals["actions"].unique().tolist() == [6]


@pytest.mark.parametrize("version", [version_2, version_3])
def test_what_is_done_in_an_episode_survives(tmp_path, version):
    said = ["pick up the bottle", "Flasche abräumen", "pick up the bottle"]
    version(tmp_path / "robot", [lerobot_sets.film(24, seed) for seed in range(3)], said)
    assert run(tmp_path / "robot", "--to", tmp_path / "to", "--fps", 20).exit_code == 0
    files = (tmp_path / "to" / "meta" / "episodes").rglob("*.parquet")
    rows = [pq.read_table(path).to_pylist()[0] for path in files]
    tasks = {row["source"]: row["tasks"] for row in rows}
    assert tasks == {f"episode_{i:06d}": [task] for i, task in enumerate(said)}
    listed = pq.read_table(tmp_path / "to" / "meta" / "tasks.parquet")["task"].to_pylist()
    assert set(listed) == set(said)
    version(tmp_path / "mute", [lerobot_sets.film(24, seed) for seed in range(3)])
    assert run(tmp_path / "mute", "--to", tmp_path / "to2", "--fps", 20).exit_code == 0
    listed = pq.read_table(tmp_path / "to2" / "meta" / "tasks.parquet")["task"].to_pylist()
    assert listed == ["video"]
