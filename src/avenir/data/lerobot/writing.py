"""Writes a LeRobot data set (version 3), one episode at a time.

Every episode has files of its own, which the format allows: an episode is there whole or not at
all, and an interrupted data set is continued by opening it again. Knows nothing of sources.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from avenir.clip import Clip
from avenir.data.lerobot.reading import FEATURES, KEYS, MEMORY
from avenir.data.lerobot.tables import matrix
from avenir.errors import AvenirError
from avenir.files import alone_in, link, remove, whole, write_whole
from avenir.signals import Signal, role_of
from avenir.video import Writer

CHUNK = "chunk-{chunk_index:03d}/file-{file_index:03d}"
FILES_PER_CHUNK = 1000
INDICES = ("frame_index", "episode_index", "index", "task_index")


def write_dataset(
    root: Path, clips: Iterable[Clip], signals: dict[str, Signal] | None = None
) -> None:
    """Write every clip as one episode; `signals` names the numbers of `actions` and `state`.

    Raises AvenirError while another process writes there.
    """
    writer = None
    with alone_in(root, "import"):
        for clip in clips:
            if writer is None:
                sizes = {
                    name: Signal(role=role_of(name), size=rows.shape[1])
                    for name, rows in clip.signals.items()
                }
                writer = LeRobotWriter(root, clip.fps, clip.size, signals or sizes)
            writer.append([clip], source=clip.name)


class LeRobotWriter:
    """Appends episodes to the data set in `root`; one that is already there is continued.

    `signals` says which of a clip's `actions` and `state` are written, and under which names.
    """

    def __init__(
        self,
        root: Path,
        fps: float,
        size: tuple[int, int],
        signals: dict[str, Signal],
        camera: str = "observation.images.camera",
    ) -> None:
        if size[0] % 2 or size[1] % 2:
            raise AvenirError(f"size {size[0]}x{size[1]} was given; mp4 needs even sides")
        self.root, self.fps, self.size, self.camera = root, fps, size, camera
        self.signals = signals
        self.columns = {name: signal for name, signal in FEATURES.items() if signal in signals}
        self.features = self._features(signals)
        self.action_change = signals["actions"].change if "actions" in signals else None
        self.keys = {n: signals[s].keys for n, s in self.columns.items() if signals[s].keys}
        self.episodes = self._written()
        for path in self._files(len(self.episodes)):  # of an interrupted episode
            remove(path)
        if self.episodes:  # the last one may have been interrupted before it was listed
            self._write_meta()

    def append(
        self,
        clips: Iterable[Clip],
        *,
        source: str,
        split: str = "train",
        task: str = "video",
        origin: str = "",
        signals: str = "",
    ) -> int:
        """Write the pieces of one recording as the next episode; return how many frames it has.

        `origin` and `signals` are hashes of what it is made from, by which it is known again.
        """
        index = len(self.episodes)
        totals = _Totals()
        rows: dict[str, list[np.ndarray]] = {name: [] for name in self.columns}
        with Writer(self._files(index)[0], self.fps) as video:
            for clip in clips:
                video.append(clip)
                totals.add(self.camera, clip.frames[::8].double().flatten(2) / 255)
                for name, signal in self.columns.items():
                    rows[name].append(clip.signals[signal].numpy().astype(np.float32))
        values = {name: np.concatenate(parts) for name, parts in rows.items()}
        for name, value in values.items():
            totals.add(name, torch.from_numpy(value).double()[:, :, None])
        about = {"source": source, "split": split, "origin": origin, "signals": signals}
        self._list(index, video.num_frames, task, about, values, totals.columns())
        return video.num_frames

    def adopt(
        self, other: "LeRobotWriter", episode: dict[str, Any], *, split: str, task: str
    ) -> None:
        """Take an episode of another data set of the same settings as the next one of this."""
        index = len(self.episodes)
        (video, table), (new_video, _) = other._files(episode["episode_index"]), self._files(index)
        link(video, new_video)
        rows = pq.read_table(table, columns=list(self.columns))
        values = {name: matrix(rows[name]) for name in self.columns}
        about = {key: episode.get(key) or "" for key in ("source", "split", "origin", "signals")}
        statistics = {key: value for key, value in episode.items() if key.startswith("stats/")}
        self._list(index, episode["length"], task, about | {"split": split}, values, statistics)

    def _list(
        self,
        index: int,
        num_frames: int,
        task: str,
        about: dict[str, str],
        values: dict[str, np.ndarray],
        statistics: dict[str, Any],
    ) -> None:
        """Write an episode's rows, and put it on the list: from then on it exists."""
        if self.action_change is not None:
            memory = {"action_change": self.action_change}
            write_whole(self.root / "meta" / MEMORY, json.dumps(memory, indent=2))
        episode = self._episode(index, num_frames, task, about)
        _write_table(self._files(index)[1], self._table(episode, values))
        _write_table(
            self._path("meta/episodes", index), pa.Table.from_pylist([episode | statistics])
        )
        self.episodes.append(episode | statistics)
        self._write_meta()

    def _files(self, index: int) -> tuple[Path, Path]:
        """Name an episode's video and table."""
        return self._path(f"videos/{self.camera}", index, ".mp4"), self._path("data", index)

    def _path(self, folder: str, index: int, suffix: str = ".parquet") -> Path:
        chunk, file = divmod(index, FILES_PER_CHUNK)
        return self.root / folder / (CHUNK.format(chunk_index=chunk, file_index=file) + suffix)

    def _features(self, signals: dict[str, Signal]) -> dict[str, Any]:
        height, width = self.size
        about = {"height": height, "width": width, "codec": "h264", "pix_fmt": "yuv420p"}
        about |= {"is_depth_map": False, "fps": _whole(self.fps), "channels": 3}
        features: dict[str, Any] = {
            self.camera: {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": {f"video.{k}": v for k, v in about.items()} | {"has_audio": False},
            }
        }
        for name, signal in self.columns.items():
            size, names = signals[signal].size, list(signals[signal].names)
            features[name] = {"dtype": "float32", "shape": [size], "names": names or None}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        return features | {
            name: {"dtype": "int64", "shape": [1], "names": None} for name in INDICES
        }

    def _written(self) -> list[dict[str, Any]]:
        path = self.root / "meta" / "info.json"
        if not path.is_file():
            return []
        info = json.loads(path.read_text())
        if info["fps"] != self.fps or info["features"] != self.features:
            raise AvenirError(
                f"{str(self.root)!r} already holds a data set at another rate, size or with other "
                "signals; give another folder, or the same settings to continue it"
            )
        files = sorted((self.root / "meta" / "episodes").glob("*/*.parquet"))
        return [pq.read_table(file).to_pylist()[0] for file in files]

    def _episode(
        self, index: int, num_frames: int, task: str, about: dict[str, str]
    ) -> dict[str, Any]:
        chunk, file = divmod(index, FILES_PER_CHUNK)
        first = self.episodes[-1]["dataset_to_index"] if self.episodes else 0
        place = {"chunk_index": chunk, "file_index": file}
        stretch = place | {"from_timestamp": 0.0, "to_timestamp": num_frames / self.fps}
        return {
            "episode_index": index,
            "tasks": [task],
            "length": num_frames,
            "dataset_from_index": first,
            "dataset_to_index": first + num_frames,
            **about,
            **{f"{kind}/{k}": v for kind in ("data", "meta/episodes") for k, v in place.items()},
            **{f"videos/{self.camera}/{k}": v for k, v in stretch.items()},
        }

    def _table(self, episode: dict[str, Any], values: dict[str, np.ndarray]) -> pa.Table:
        count = np.arange(episode["length"])
        indices = {
            "timestamp": (count / self.fps).astype(np.float32),
            "frame_index": count,
            "episode_index": np.full_like(count, episode["episode_index"]),
            "index": count + episode["dataset_from_index"],
            "task_index": np.full_like(count, self._tasks(episode).index(episode["tasks"][0])),
        }
        arrays = {name: pa.array(column) for name, column in indices.items()}
        for name, rows in values.items():
            flat, width = pa.array(rows.reshape(-1)), rows.shape[1]
            arrays[name] = flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
        return pa.table(arrays)

    def _tasks(self, *more: dict[str, Any]) -> list[str]:
        return list(dict.fromkeys(e["tasks"][0] for e in (*self.episodes, *more)))

    def _write_meta(self) -> None:
        """List all episodes; the last file says that there is a data set."""
        tasks = self._tasks()
        table = pa.table({"task_index": range(len(tasks)), "task": tasks})
        table = table.replace_schema_metadata({"pandas": json.dumps(_TASKS_AS_PANDAS)})
        _write_table(self.root / "meta" / "tasks.parquet", table)
        statistics = {name: _merged(self.episodes, name) for name in (self.camera, *self.columns)}
        write_whole(self.root / "meta" / "stats.json", json.dumps(statistics, indent=2))
        splits: dict[str, list[int]] = {}
        for episode in self.episodes:
            splits.setdefault(episode["split"], []).append(episode["episode_index"])
        info = {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": len(self.episodes),
            "total_frames": self.episodes[-1]["dataset_to_index"],
            "total_tasks": len(tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 500,
            "fps": _whole(self.fps),
            "splits": {name: _as_ranges(indices) for name, indices in splits.items()},
            "data_path": f"data/{CHUNK}.parquet",
            "video_path": f"videos/{{video_key}}/{CHUNK}.mp4",
            "features": self.features,
        }
        if self.keys:
            write_whole(self.root / "meta" / KEYS, json.dumps(self.keys, indent=2))
        write_whole(self.root / "meta" / "info.json", json.dumps(info, indent=2))


class _Totals:
    """Statistics of one episode's features, as the format wants them."""

    def __init__(self) -> None:
        self.parts: dict[str, list[torch.Tensor]] = {}

    def add(self, name: str, values: torch.Tensor) -> None:
        """Add values `n channels pixels`; those of one pixel may be unknown, NaN."""
        known = values.isfinite()
        count = known.all(2).sum(0, dtype=torch.double)
        low = some = high = values
        if not known.all():
            low, some, high = (values.where(known, other) for other in (torch.inf, 0, -torch.inf))
        sums = (some.mean(2).sum(0), some.square().mean(2).sum(0))
        part = (count, *sums, low.amin((0, 2)), high.amax((0, 2)))
        self.parts.setdefault(name, []).append(torch.stack(part))

    def columns(self) -> dict[str, list[Any]]:
        """Return `stats/feature/min` and so on."""
        columns: dict[str, list[Any]] = {}
        for name, parts in self.parts.items():
            stacked = torch.stack(parts)
            count, first, second = stacked[:, :3].sum(0)
            mean = first / count.clamp(min=1)
            statistics = {
                "min": stacked[:, 3].amin(0).where(count > 0, 0),
                "max": stacked[:, 4].amax(0).where(count > 0, 0),
                "mean": mean,
                "std": (second / count.clamp(min=1) - mean**2).clamp(min=0).sqrt(),
            }
            shape = (-1, 1, 1) if "images" in name else (-1,)
            for key, value in statistics.items():
                columns[f"stats/{name}/{key}"] = value.reshape(shape).tolist()
            columns[f"stats/{name}/count"] = [int(count.max())]
        return columns


def _merged(episodes: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Merge the statistics of episodes."""
    columns = {
        key: np.array([episode[f"stats/{name}/{key}"] for episode in episodes], np.float64)
        for key in ("min", "max", "mean", "std")
    }
    count = np.array([episode[f"stats/{name}/count"][0] for episode in episodes])
    weight = np.maximum(count, 1e-9)  # where nothing is known, of nothing
    mean = np.average(columns["mean"], 0, weight)
    square = np.average(columns["std"] ** 2 + columns["mean"] ** 2, 0, weight)
    return {
        "min": columns["min"].min(0).tolist(),
        "max": columns["max"].max(0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(np.maximum(square - mean**2, 0)).tolist(),
        "count": [int(count.sum())],
    }


def _as_ranges(indices: list[int]) -> str:
    """Write 0, 1, 2, 5 as `0:3,5:6`."""
    there = set(indices)
    starts = [i for i in indices if i - 1 not in there]
    ends = [i + 1 for i in indices if i + 1 not in there]
    return ",".join(f"{start}:{end}" for start, end in zip(starts, ends, strict=True))


def _whole(number: float) -> float | int:
    return int(number) if float(number).is_integer() else number


def _write_table(path: Path, table: pa.Table) -> None:
    with whole(path) as part:
        pq.write_table(table, part)


def _pandas_column(name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
    names = {"name": name, "field_name": name}
    return names | {"pandas_type": kind, "numpy_type": numpy_kind, "metadata": None}


_TASKS_AS_PANDAS = {
    "index_columns": ["task"],
    "column_indexes": [],
    "columns": [
        _pandas_column("task_index", "int64", "int64"),
        _pandas_column("task", "unicode", "object"),
    ],
    "pandas_version": "2.0.0",
}
"""Other tools look tasks up by name in the table's pandas index."""
