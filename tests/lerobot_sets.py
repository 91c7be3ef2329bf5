"""Small LeRobot data sets as other tools write them: both versions, whole or a little off."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from avenir import video
from avenir.clip import Clip
from avenir.data import Recording, Window
from avenir.data.lerobot import LeRobot, LeRobotConfig

NAMES = ("steer", "pedal")
INFO, LIST = "meta/info.json", "meta/episodes/chunk-000/file-000.parquet"
TABLE = "data/chunk-000/file-000.parquet"


def film(num_frames: int = 24, seed: int = 0) -> Clip:
    """A smooth moving ramp with two actions and three numbers of state per frame."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.arange(48) + torch.arange(32)[:, None]
    frames = torch.stack([(ramp + 2 * i + 10 * seed).clamp(0, 255) for i in range(num_frames)])
    signals = {
        "actions": torch.randn(num_frames, 2, generator=generator),
        "state": torch.randn(num_frames, 3, generator=generator),
    }
    frames = frames[:, None].repeat(1, 3, 1, 1).to(torch.uint8)
    return Clip(frames, 20.0, signals, name=f"film{seed}")


def source(path: Path, **settings: Any) -> LeRobot:
    """Open a data set at the size of `numbered`."""
    return LeRobot(LeRobotConfig.parse({"path": str(path), "size": (24, 32), **settings}))


def every(data: LeRobot) -> dict[str, Recording]:
    """List the recordings of both splits by name."""
    return {r.name: r for r in (*data.recordings("train"), *data.recordings("test"))}


def read(data: LeRobot, name: str) -> Clip:
    """Read one episode whole."""
    recording = every(data)[name]
    return data.clip(Window(recording, 0.0, round(recording.seconds * data.fps)))


def numbered(num_frames: int, first: int = 0, fps: float = 20.0) -> Clip:
    """Frames that show their own number, as black and white squares that every codec keeps."""
    numbers = torch.arange(first, first + num_frames)
    bits = (numbers[:, None] >> torch.arange(12)) & 1
    squares = (bits * 255).view(-1, 1, 3, 4).to(torch.uint8)
    frames = squares.repeat_interleave(8, 2).repeat_interleave(8, 3).expand(-1, 3, -1, -1)
    return Clip(frames.contiguous(), fps)


def numbers_of(frames: torch.Tensor) -> list[int]:
    """Read the numbers off frames `T C 24 32`."""
    bits = frames[:, 0, 4::8, 4::8].flatten(1) > 127
    return (bits * 2 ** torch.arange(12)).sum(1).tolist()


def numbered_set(
    root: Path,
    lengths: list[int],
    *,
    fps: float = 20.0,
    video_fps: float | None = None,
    starts: list[float] | None = None,
    num_frames: int | None = None,
    **columns: Any,
) -> None:
    """A data set of version 3 in one mp4, whose frames and `action` count from 0 through all of it.

    `columns` are further ones of the table, or other values of those there are.
    """
    camera, total = "observation.images.front", sum(lengths)
    ends = np.cumsum(lengths)
    info = {
        "codebase_version": "v3.0",
        "fps": fps,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            camera: {"dtype": "video", "shape": [24, 32, 3]},
            "action": {"dtype": "float32", "shape": [1], "names": None},
        },
    }
    for name in (INFO, LIST, TABLE):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / INFO).write_text(json.dumps(info))
    with video.Writer(root / "videos" / camera / "chunk-000/file-000.mp4", video_fps or fps) as out:
        out.append(numbered(num_frames or total, 0, video_fps or fps))
    zeros = [0] * len(lengths)
    listed = {
        "episode_index": list(range(len(lengths))),
        "length": lengths,
        "data/chunk_index": zeros,
        "data/file_index": zeros,
        f"videos/{camera}/chunk_index": zeros,
        f"videos/{camera}/file_index": zeros,
        f"videos/{camera}/from_timestamp": starts or ((ends - lengths) / fps).tolist(),
    }
    pq.write_table(pa.table(listed), root / LIST)
    of_episode = np.concatenate([np.arange(length) for length in lengths])
    rows = {
        "action": np.arange(total, dtype=np.float32),
        "timestamp": (of_episode / fps).astype(np.float32),
        "frame_index": of_episode,
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
    }
    rows = {name: column for name, column in (rows | columns).items() if column is not None}
    pq.write_table(pa.table(rows), root / TABLE)


def pictures_set(path: Path, lengths: list[int], group_rows: int = 7, kind: str = "PNG") -> None:
    """A data set as `use_videos=False` writes it: the pictures of a camera in the table."""
    numbered_set(path, lengths)
    pictures = []
    for frame in numbered(sum(lengths)).frames:
        file = io.BytesIO()
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(file, kind)
        pictures.append({"bytes": file.getvalue(), "path": f"frame-{len(pictures):06d}.png"})
    info = json.loads((path / INFO).read_text())
    info["features"] = {
        "observation.images.front": {"dtype": "image", "shape": [24, 32, 3]},
        "action": info["features"]["action"],
    }
    info["video_path"] = None
    (path / INFO).write_text(json.dumps(info))
    listed = pq.read_table(path / LIST)
    pq.write_table(listed.select([n for n in listed.column_names if "video" not in n]), path / LIST)
    table = pq.read_table(path / TABLE).append_column("observation.images.front", [pictures])
    pq.write_table(table, path / TABLE, row_group_size=group_rows)
    for video_file in path.rglob("*.mp4"):
        video_file.unlink()


def version_2(root: Path, clips: list[Clip], tasks: list[str] | None = None) -> None:
    """One parquet and one mp4 per episode; the names of the numbers nested, as robots write."""
    camera = "observation.images.cam_high"
    info = {
        "codebase_version": "v2.1",
        "fps": 20,
        "chunks_size": 2,
        "splits": {"train": f"0:{len(clips)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index}.mp4",
        "features": {
            "observation.images.depth": {"dtype": "video", "info": {"video.is_depth_map": True}},
            camera: {"dtype": "video", "shape": [32, 48, 3]},
            "action": {"dtype": "float32", "shape": [2], "names": [[*NAMES]]},
            "observation.state": {
                "dtype": "float32",
                "shape": [3],
                "names": {"motors": ["x", "y", "z"]},
            },
        },
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    lines = []
    for i, clip in enumerate(clips):
        where = {"episode_chunk": i // 2, "episode_index": i, "video_key": camera}
        video.write(root / info["video_path"].format(**where), clip)
        path = root / info["data_path"].format(**where)
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {
            "action": pa.array(clip.signals["actions"].tolist()),
            "observation.state": pa.array(clip.signals["state"].tolist()),
            "episode_index": pa.array([i] * clip.num_frames),
        }
        pq.write_table(pa.table(columns), path)
        about = {} if tasks is None else {"tasks": [tasks[i]]}
        lines.append(json.dumps({"episode_index": i, "length": clip.num_frames} | about))
    (root / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")


def version_3(root: Path, clips: list[Clip], tasks: list[str] | None = None) -> None:
    """All episodes one after the other in one parquet and one mp4."""
    camera = "observation.images.front"
    info = {
        "codebase_version": "v3.0",
        "fps": 20,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            camera: {"dtype": "video", "shape": [32, 48, 3]},
            "action": {"dtype": "float32", "shape": [1], "names": None},
        },
    }
    file = "chunk-000/file-000.parquet"
    for folder in ("meta/episodes", "data"):
        (root / folder / "chunk-000").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    with video.Writer(root / "videos" / camera / "chunk-000/file-000.mp4", 20.0) as out:
        for clip in clips:
            out.append(clip)
    lengths = [clip.num_frames for clip in clips]
    ends = np.cumsum(lengths)
    episodes = {
        "episode_index": list(range(len(clips))),
        "length": lengths,
        "data/chunk_index": [0] * len(clips),
        "data/file_index": [0] * len(clips),
        f"videos/{camera}/chunk_index": [0] * len(clips),
        f"videos/{camera}/file_index": [0] * len(clips),
        f"videos/{camera}/from_timestamp": ((ends - lengths) / 20).tolist(),
        f"videos/{camera}/to_timestamp": (ends / 20).tolist(),
    }
    episodes |= {} if tasks is None else {"tasks": [[task] for task in tasks]}
    pq.write_table(pa.table(episodes), root / "meta" / "episodes" / file)
    columns = {
        "action": np.concatenate([clip.signals["actions"][:, 0].numpy() for clip in clips]),
        "episode_index": np.repeat(np.arange(len(clips)), lengths),
    }
    pq.write_table(pa.table(columns), root / "data" / file)
