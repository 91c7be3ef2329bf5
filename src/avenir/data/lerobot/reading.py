"""The LeRobot format on disk: which episodes there are, and where their frames and rows lie.

Version 2 keeps one parquet and one mp4 per episode; version 3 puts several episodes in one file
and says from which timestamp to which. Format: https://github.com/huggingface/lerobot. Knows
nothing of splits, windows or rates.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avenir.errors import AvenirError

FEATURES = {"action": "actions", "observation.state": "state"}
"""Columns of the format, and the signals they are."""
KEYS = "keys.json"
"""Keyboard keys and the action each one stands for, by feature."""


@dataclass(frozen=True)
class Episode:
    """One recording: its rows in a table, and its stretch of a video file."""

    index: int
    num_frames: int
    table: Path
    video: Path
    start_seconds: float
    """Where the episode begins in the video file."""

    @property
    def name(self) -> str:
        """Name it as version 2 names its files."""
        return f"episode_{self.index:06d}"


@dataclass(frozen=True)
class Layout:
    """What meta/info.json says of a data set in `root`."""

    root: Path
    info: dict[str, Any]

    @classmethod
    def open(cls, root: Path) -> "Layout":
        """Read meta/info.json; a folder without one is an AvenirError."""
        path = root / "meta" / "info.json"
        try:
            info = json.loads(path.read_text())
            version = str(info["codebase_version"])
            _ = info["fps"], info["features"], info["data_path"], info["video_path"]
        except FileNotFoundError:
            raise AvenirError(
                f"{str(root)!r} is no LeRobot data set, there is no meta/info.json in it; "
                'a folder of videos is kind = "folder", or `avenir import` it'
            ) from None
        except (ValueError, KeyError) as error:
            raise AvenirError(f"{str(path)!r} is damaged or incomplete: {error!r}") from None
        if version.lstrip("v").split(".")[0] not in ("2", "3"):
            raise AvenirError(f"{str(root)!r} is of LeRobot {version}; versions 2 and 3 are read")
        return cls(root, info)

    @property
    def fps(self) -> float:
        """Recorded frames per second."""
        return float(self.info["fps"])

    def keys(self, feature: str) -> dict[str, tuple[float, ...]]:
        """Return the keyboard keys of a feature, where the data set came with some.

        They lie in a file of their own, which other tools do not know and pass over.
        """
        path = self.root / "meta" / KEYS
        return json.loads(path.read_text()).get(feature, {}) if path.is_file() else {}

    @property
    def cameras(self) -> list[str]:
        """Video features, depth maps last."""
        features = self.info["features"].items()
        videos = [(name, f) for name, f in features if f["dtype"] == "video"]
        return [name for name, _ in sorted(videos, key=lambda item: _is_depth(item[1]))]

    def camera(self, wanted: str | None) -> str:
        """Find a camera by its full or last name; None is the first."""
        for camera in self.cameras:
            if wanted is None or wanted in (camera, camera.rpartition(".")[2]):
                return camera
        there = ", ".join(self.cameras) or "no video feature"
        raise AvenirError(f"camera {wanted!r} was asked of {str(self.root)!r}; there is {there}")

    def names(self, feature: str) -> tuple[str, ...]:
        """Name the numbers of a feature, however deep the names are nested; () if unnamed."""
        return tuple(_flat(self.info["features"][feature].get("names")))

    def episodes(self, camera: str) -> list[Episode]:
        """List the episodes in order, with the files of one camera."""
        if (self.root / "meta" / "episodes").is_dir():
            found = self._episodes_of_version_3(camera)
        else:
            found = self._episodes_of_version_2(camera)
        return sorted(found, key=lambda episode: episode.index)

    def _episodes_of_version_2(self, camera: str) -> Iterator[Episode]:
        path = self.root / "meta" / "episodes.jsonl"
        if not path.is_file():
            raise AvenirError(f"{str(self.root)!r} has no list of episodes, {str(path)!r}")
        for line in path.read_text().splitlines():
            row = json.loads(line)
            index = int(row["episode_index"])
            where: dict[str, Any] = {
                "episode_chunk": index // self.info["chunks_size"],
                "episode_index": index,
                "video_key": camera,
            }
            table = self.root / self.info["data_path"].format(**where)
            video = self.root / self.info["video_path"].format(**where)
            yield Episode(index, int(row["length"]), table, video, 0.0)

    def _episodes_of_version_3(self, camera: str) -> Iterator[Episode]:
        video = f"videos/{camera}/"
        columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
        columns += [video + name for name in ("chunk_index", "file_index", "from_timestamp")]
        for path in sorted((self.root / "meta" / "episodes").glob("*/*.parquet")):
            for row in pq.read_table(path, columns=columns).to_pylist():
                table = self.info["data_path"].format(
                    chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
                )
                file = self.info["video_path"].format(
                    video_key=camera,
                    chunk_index=row[video + "chunk_index"],
                    file_index=row[video + "file_index"],
                )
                yield Episode(
                    int(row["episode_index"]),
                    int(row["length"]),
                    self.root / table,
                    self.root / file,
                    float(row[video + "from_timestamp"]),
                )


def rows(episodes: list[Episode], features: list[str]) -> dict[int, dict[str, np.ndarray]]:
    """Read float32 `N a` rows of each feature, by episode index; each table is read once."""
    found: dict[int, dict[str, np.ndarray]] = {}
    for path in dict.fromkeys(episode.table for episode in episodes):
        table = pq.read_table(path, columns=[*features, "episode_index"])
        of_row = table["episode_index"].to_numpy()
        for episode in (e for e in episodes if e.table == path):
            own = table.filter(pa.array(of_row == episode.index))
            found[episode.index] = {name: _matrix(own[name]) for name in features}
    return found


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers, or lists of numbers, as `N a`."""
    if not len(column):
        return np.zeros((0, 1), np.float32)
    flat = column.combine_chunks()
    while pa.types.is_nested(flat.type):
        flat = flat.flatten()
    return flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), -1)


def _is_depth(feature: dict[str, Any]) -> bool:
    info = feature.get("info") or feature.get("video_info") or {}
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def _flat(names: Any) -> Iterator[str]:
    if isinstance(names, dict):
        names = names.values()
    elif names is None or isinstance(names, str):
        names = () if names is None else (names,)
        yield from names
        return
    for name in names:
        yield from _flat(name) if not isinstance(name, int) else (str(name),)
