"""LeRobot data sets: what is written is read, both versions, and real data against pyarrow."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.lerobot_sets import NAMES, film, version_2, version_3

from avenir import video
from avenir.data import Window
from avenir.data.lerobot import LeRobot, LeRobotConfig, LeRobotWriter, write_dataset
from avenir.data.lerobot.reading import MEMORY, DatasetLayout
from avenir.errors import AvenirError
from avenir.signals import Signal
from avenir.splits import SPLITS


def writer(path: Path, **settings) -> LeRobotWriter:
    signals = {
        "actions": Signal(role="action", size=2, names=NAMES),
        "state": Signal(role="state", size=3),
    }
    return LeRobotWriter(path, 20.0, (32, 48), signals, **settings)


def source(path: Path, **settings) -> LeRobot:
    return LeRobot(LeRobotConfig.parse({"path": str(path), "size": (32, 48), **settings}))


def every(data: LeRobot) -> dict:
    return {r.name: r for split in SPLITS for r in data.recordings(split)}


def test_what_is_written_is_read(tmp_path):
    clips = [film(24 + seed, seed) for seed in range(5)]
    out = writer(tmp_path)
    for i, clip in enumerate(clips):
        pieces = [clip[:10], clip[10:]]
        assert out.append(pieces, source=clip.name, split="train" if i < 3 else "test") == 24 + i
    data = source(tmp_path)
    assert data.fps == 20
    assert [r.name for r in data.recordings("test")] == ["episode_000003", "episode_000004"]
    assert data.signals["actions"].names == NAMES
    recordings = every(data)
    for i, clip in enumerate(clips):
        recording = recordings[f"episode_{i:06d}"]
        read = data.clip(Window(recording, 0.0, clip.num_frames))
        assert torch.equal(read.signals["actions"], clip.signals["actions"])
        assert torch.equal(read.signals["state"], clip.signals["state"])
        error = (read.frames.float() - clip.frames.float()).square().mean()
        assert 10 * torch.log10(255**2 / error) > 38


def test_an_episode_that_a_cut_kept_from_being_listed_is_listed_when_writing_goes_on(tmp_path):
    out = writer(tmp_path)
    out.append([film(24, 0)], source="film0")
    listed = {path: path.read_bytes() for path in (tmp_path / "meta").iterdir() if path.is_file()}
    out.append([film(24, 1)], source="film1", split="test", task="another")
    complete = {path: path.read_bytes() for path in listed}
    for path, before in listed.items():
        assert complete[path] != before or path.name == MEMORY
        path.write_bytes(before)
    orphans = out._files(2)
    for path in orphans:
        path.write_bytes(b"of an episode that was cut")
    assert len(writer(tmp_path).episodes) == 2
    assert {path: path.read_bytes() for path in listed} == complete
    assert not any(path.exists() for path in orphans)


def test_the_files_are_those_of_the_format(tmp_path):
    out = writer(tmp_path)
    for seed in range(2):
        out.append([film(24, seed)], source=f"film{seed}", task="move")
    info = json.loads((tmp_path / "meta" / "info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (2, 48, 20)
    assert info["splits"] == {"train": "0:2"}
    assert info["features"]["action"] == {"dtype": "float32", "shape": [2], "names": [*NAMES]}
    assert info["features"]["observation.images.camera"]["shape"] == [32, 48, 3]
    table = pq.read_table(tmp_path / info["data_path"].format(chunk_index=0, file_index=1))
    assert table["index"].to_pylist() == list(range(24, 48))
    assert table["frame_index"].to_pylist() == list(range(24))
    assert table.schema.field("action").type == pa.list_(pa.float32(), 2)
    np.testing.assert_allclose(table["timestamp"], np.arange(24) / 20, atol=1e-6)
    tasks = pq.read_table(tmp_path / "meta" / "tasks.parquet")
    assert tasks.to_pylist() == [{"task_index": 0, "task": "move"}]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    (row,) = pq.read_table(tmp_path / "meta/episodes/chunk-000/file-001.parquet").to_pylist()
    assert (row["length"], row["dataset_from_index"], row["dataset_to_index"]) == (24, 24, 48)
    camera = "videos/observation.images.camera/"
    assert row[camera + "from_timestamp"] == 0
    assert row[camera + "to_timestamp"] == pytest.approx(1.2)


def test_statistics_are_those_of_all_rows(tmp_path):
    clips = [film(24, 0), film(40, 1)]
    write_dataset(tmp_path, clips)
    found = json.loads((tmp_path / "meta" / "stats.json").read_text())["action"]
    rows = torch.cat([clip.signals["actions"] for clip in clips])
    assert found["count"] == [64]
    for key, value in {
        "min": rows.amin(0),
        "max": rows.amax(0),
        "mean": rows.mean(0),
        "std": rows.std(0, correction=0),
    }.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6)


def test_an_interrupted_data_set_is_continued(tmp_path):
    def broken():
        yield film(10)
        raise AvenirError("the disk of the camera came off")

    out = writer(tmp_path)
    out.append([film(24, 0)], source="film0")
    with pytest.raises(AvenirError, match="came off"):
        out.append(broken(), source="film1")
    assert len(every(source(tmp_path, test=("1:",), test_fraction=0.0))) == 1
    again = writer(tmp_path)
    assert [episode["source"] for episode in again.episodes] == ["film0"]
    again.append([film(24, 1)], source="film1")
    assert len(every(source(tmp_path))) == 2
    assert not list(tmp_path.rglob(".*"))
    with pytest.raises(AvenirError, match="other"):
        LeRobotWriter(tmp_path, 10.0, (32, 48), {})


def test_odd_sizes_are_refused(tmp_path):
    with pytest.raises(AvenirError, match="even"):
        LeRobotWriter(tmp_path, 10.0, (31, 48), {})


# Reading what others write


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
@pytest.mark.parametrize("make", [version_2, version_3])
def test_both_versions_are_read(tmp_path, make, memory_gb):
    clips = [film(20 + 5 * seed, seed) for seed in range(4)]
    make(tmp_path, clips)
    data = source(tmp_path, memory_gb=memory_gb)
    assert data.skipped == []
    recordings = every(data)
    assert sorted(recordings) == [f"episode_{i:06d}" for i in range(4)]
    for i, clip in enumerate(clips):
        recording = recordings[f"episode_{i:06d}"]
        assert recording.seconds == pytest.approx(clip.num_frames / 20)
        read = data.clip(Window(recording, 0.0, clip.num_frames))
        size = data.signals["actions"].size
        assert torch.equal(read.signals["actions"], clip.signals["actions"][:, :size])
        error = (read.frames.float() - clip.frames.float()).square().mean()
        assert 10 * torch.log10(255**2 / error) > 38


def test_cameras_and_names_are_found(tmp_path):
    version_2(tmp_path, [film(20, seed) for seed in range(2)])
    data = source(tmp_path, camera="cam_high")
    assert data.camera == source(tmp_path).camera == "observation.images.cam_high"
    assert data.signals["actions"].names == NAMES
    assert data.signals["state"].names == ("x", "y", "z")
    with pytest.raises(AvenirError, match="cam_high"):
        source(tmp_path, camera="cam_low")


def test_the_default_test_split_is_spread_over_the_set(tmp_path):
    version_3(tmp_path, [film(4, seed) for seed in range(14)])
    data = source(tmp_path)
    assert [r.name[-2:] for r in data.recordings("test")] == ["03", "10"]
    chosen = source(tmp_path, test=("1", "12:"))
    assert [r.name[-2:] for r in chosen.recordings("test")] == ["01", "12", "13"]
    assert not set(chosen.recordings("test")) & set(chosen.recordings("train"))
    with pytest.raises(AvenirError, match="ranges"):
        source(tmp_path, test=("a:b",))
    with pytest.raises(AvenirError, match="to train on"):
        source(tmp_path, test=("0:14",))


def test_missing_frames_shorten_an_episode_aloud(tmp_path):
    version_2(tmp_path, [film(30, seed) for seed in range(3)])
    path = tmp_path / "videos/chunk-000/observation.images.cam_high/episode_1.mp4"
    video.write(path, film(25, 1))
    with pytest.warns(video.VideoWarning, match="episode_000001.*30 rows.*25 frames"):
        data = source(tmp_path)
    assert every(data)["episode_000001"].seconds == pytest.approx(25 / 20)


def test_broken_episodes_are_skipped(tmp_path):
    version_2(tmp_path, [film(20, seed) for seed in range(4)])
    (tmp_path / "videos/chunk-000/observation.images.cam_high/episode_1.mp4").write_bytes(b"")
    (tmp_path / "data/chunk-001/episode_000002.parquet").unlink()
    data = source(tmp_path)
    assert [s.name for s in data.skipped] == ["episode_000001", "episode_000002"]
    assert len(every(data)) == 2


def test_a_folder_that_is_no_data_set_says_so(tmp_path):
    with pytest.raises(AvenirError, match="folder"):
        source(tmp_path)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"codebase_version": "v1.6"}')
    with pytest.raises(AvenirError, match="damaged or incomplete"):
        source(tmp_path)


def test_state_belongs_to_the_frame_and_actions_lead_on_from_it(tmp_path):
    version_2(tmp_path, [film(24, seed) for seed in range(2)])
    clip = film(24, 0)
    data = source(tmp_path, fps=5.0, test=("1",))
    read = data.clip(Window(data.recordings("train")[0], 0.05, 5))
    assert torch.equal(read.signals["state"], clip.signals["state"][1:18:4])
    assert torch.equal(read.signals["actions"], clip.signals["actions"][4:21:4])
    summed = source(tmp_path, fps=5.0, test=("1",), action_change="delta")
    read = summed.clip(Window(summed.recordings("train")[0], 0.05, 5))
    blocks = clip.signals["actions"][1:21].unflatten(0, (5, 4)).sum(1)
    torch.testing.assert_close(read.signals["actions"], blocks)


def test_real_episodes_are_those_that_pyarrow_reads(real_data):
    root = real_data / "robot_g1"
    data = source(root, memory_gb=0.0)
    assert data.skipped == []
    assert len(data.recordings("test")) == 9
    assert sum(round(r.seconds * 30) for r in every(data).values()) == 21259
    episodes, _ = DatasetLayout.open(root).episodes(data.camera)
    episode = episodes[7]
    table = pq.read_table(episode.table)
    recording = every(data)[episode.name]
    assert round(recording.seconds * 30) == len(table)
    clip = data.clip(Window(recording, 40 / 30, 20))
    for name, column in {"actions": "action", "state": "observation.state"}.items():
        assert clip.signals[name].tolist() == table[column].to_pylist()[40:60]
    frames = video.read(episode.video, size=(32, 48)).frames
    assert torch.equal(clip.frames, frames[40:60])
    assert data.signals["actions"].names[0] == "kLeftShoulderPitch"
