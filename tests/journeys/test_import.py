"""A folder of videos, some of them broken, is imported and trained from."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from avenir.cli import app
from avenir.clip import Clip
from avenir.data.lerobot import LeRobot, LeRobotConfig
from avenir.video import read, write


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
