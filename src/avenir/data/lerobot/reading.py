"""The LeRobot format on disk: what a data set says of itself, and which episodes it lists.

Version 2 keeps one parquet and one mp4 per episode; version 3 puts several episodes in one file
and says from which timestamp to which. Format: https://github.com/huggingface/lerobot. A data set
may come from anybody: whatever it says is checked here before anything is opened or allocated.
Knows nothing of rows (`tables`), frames (`footage`), splits or windows.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    FiniteFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

from avenir.data import Skipped
from avenir.data.lerobot.tables import is_regular, read_table
from avenir.errors import AvenirError, VideoError

FEATURES = {"action": "actions", "observation.state": "state"}
"""Columns of the format, and the signals they are."""
KEYS = "keys.json"
"""Keyboard keys and the action each one stands for, by feature."""
MEMORY = "avenir.json"
"""What a data set remembers that the format has no place for."""
MAX_TEXT_BYTES = {"info.json": 2**24, "episodes.jsonl": 2**26, KEYS: 2**24, MEMORY: 2**16}
"""Files of text are refused above this size: hundreds of thousands of episodes are less."""
MAX_EPISODES = 2**18
"""Episodes in one table of version 3."""
CAMERA_TYPES = ("video", "image")
"""Types of features that are pictures: in an mp4, or inside the tables."""

Change = Literal["absolute", "delta"]
Index = Annotated[int, Field(ge=0, lt=2**53)]
"""A number of an episode or a file; a table keeps larger ones as others."""
_Model = TypeVar("_Model")
_FORMAT = re.compile(r"(0?\d{1,2}d)?")
"""How a number may be written into a path: `03d`. A width of two billion is no file name."""


class Feature(BaseModel):
    """What info.json says of a column, or of a camera."""

    dtype: str
    names: Any = None
    info: dict[str, Any] | None = None
    video_info: dict[str, Any] | None = None

    @property
    def is_depth(self) -> bool:
        """Whether it is a camera that sees distances."""
        info = self.info or self.video_info or {}
        return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


class Info(BaseModel):
    """What meta/info.json says; what is not read here may be anything."""

    codebase_version: str
    fps: float = Field(ge=1e-6, le=1000)
    features: dict[str, Feature]
    data_path: str
    video_path: str | None = None
    chunks_size: PositiveInt = 1000
    splits: dict[str, Any] | None = None


class Remembered(BaseModel):
    """What meta/avenir.json says."""

    action_change: Change | None = None


class _Listed(BaseModel):
    """An episode in the list of version 2."""

    episode_index: Index
    length: Annotated[Index, Field(gt=0)]
    tasks: Any = None

    @property
    def task(self) -> str:
        """What is done in it, in words; empty where it is not known."""
        tasks = [self.tasks] if isinstance(self.tasks, str) else self.tasks
        named = [task for task in tasks if isinstance(task, str)] if isinstance(tasks, list) else []
        return "; ".join(dict.fromkeys(named))


class _Placed(_Listed):
    """An episode in the list of version 3; `data` only hints where its rows are."""

    data_chunk: Index | None = None
    data_file: Index | None = None


class _Filmed(_Placed):
    """One whose frames are in a video file."""

    video_chunk: Index
    video_file: Index
    from_timestamp: FiniteFloat


@dataclass(frozen=True)
class Episode:
    """One recording: its rows in a table, and its stretch of a video file."""

    index: int
    num_frames: int
    """As the list says; what counts is how many rows there are."""
    table: Path | None
    """Where its rows should be, if the list says so."""
    video: Path | None
    """None where the pictures are in the table."""
    start_seconds: float
    """Where the episode begins in the video file."""
    task: str = ""
    """What is done in it, in words; empty where it is not known."""

    @property
    def name(self) -> str:
        """Name it as version 2 names its files."""
        return f"episode_{self.index:06d}"


@dataclass(frozen=True)
class DatasetLayout:
    """What meta/info.json says of a data set in `root`."""

    root: Path
    info: Info

    @classmethod
    def open(cls, root: Path) -> "DatasetLayout":
        """Read meta/info.json; a folder without one, or a damaged one, is an AvenirError."""
        if not (root / "meta" / "info.json").exists():
            raise AvenirError(
                f"{str(root)!r} is no LeRobot data set, there is no meta/info.json in it; "
                'a folder of videos is kind = "folder", or `avenir import` it'
            )
        info = _read_json(root, "info.json", Info)
        if info.codebase_version.lstrip("v").split(".")[0] not in ("2", "3"):
            raise AvenirError(
                f"{str(root)!r} is of LeRobot {info.codebase_version[:20]}; versions 2 and 3 are "
                "read: convert it with the tools of LeRobot"
            )
        return cls(root, info)

    @property
    def fps(self) -> float:
        """Recorded frames per second."""
        return self.info.fps

    @property
    def tables(self) -> list[Path]:
        """Every table of rows that there is, in order of name."""
        folder = self.info.data_path.partition("{")[0].rpartition("/")[0]
        try:
            return sorted(self.root.joinpath(_inside(folder)).rglob("*.parquet"))
        except (OSError, ValueError):  # no name of a folder
            return []

    @property
    def action_change(self) -> Change:
        """How the data set says that its actions resample."""
        there = (self.root / "meta" / MEMORY).exists()
        remembered = _read_json(self.root, MEMORY, Remembered).action_change if there else None
        return remembered or "absolute"

    def keys(self, feature: str) -> dict[str, tuple[float, ...]]:
        """Return the keyboard keys of a feature, where the data set came with some.

        They lie in a file of their own, which other tools do not know and pass over.
        """
        if not (self.root / "meta" / KEYS).exists():
            return {}
        return _read_json(self.root, KEYS, dict[str, dict[str, tuple[float, ...]]]).get(feature, {})

    @property
    def cameras(self) -> list[str]:
        """Features that are pictures, those in video files first, depth maps last."""
        found = {n: f for n, f in self.info.features.items() if f.dtype in CAMERA_TYPES}
        order = {n: (f.is_depth, CAMERA_TYPES.index(f.dtype)) for n, f in found.items()}
        return sorted(found, key=lambda name: order[name])

    def camera(self, wanted: str | None) -> str:
        """Find a camera by its full or last name; None is the first."""
        for camera in self.cameras:
            if wanted is None or wanted in (camera, camera.rpartition(".")[2]):
                return camera
        asked = "a camera" if wanted is None else f"camera {wanted!r}"
        there = (
            ", ".join(name[:80] for name in self.cameras[:20])
            or "no feature of dtype 'video' or 'image'"
        )
        raise AvenirError(f"{asked} was asked of {str(self.root)!r}; there is {there}")

    def columns(self) -> tuple[dict[str, list[str]], list[str]]:
        """Return the columns of numbers that make up each signal, and those left out, with why.

        A signal is one column, or, where it is split, all of `action.pose`, `action.button` and
        so on, in the order of info.json. Some write `actions` and `state`.
        """
        signals: dict[str, list[str]] = {}
        left_out: list[str] = []
        for whole, signal in FEATURES.items():
            parts = [name for name in self.info.features if name.startswith(f"{whole}.")]
            one = next((name for name in (whole, signal) if name in self.info.features), None)
            for name in parts if one is None else [one, *parts]:
                dtype = self.info.features[name].dtype
                if dtype in (*CAMERA_TYPES, "string", "language"):
                    left_out.append(f"{name!r} holds no numbers (dtype {dtype!r})")
                elif one not in (None, name):
                    left_out.append(f"{name!r} lies beside {one!r}, which is read")
                else:
                    signals.setdefault(signal, []).append(name)
        return signals, left_out

    def names(self, feature: str) -> tuple[str, ...]:
        """Name the numbers of a feature, however deep the names are nested; () if unnamed."""
        return tuple(_flat(self.info.features[feature].names))

    def episodes(self, camera: str) -> tuple[list[Episode], list[Skipped]]:
        """List the episodes in order, with the files of one camera, and what is unreadable."""
        if (self.root / "meta" / "episodes").is_dir():
            listed = self._episodes_of_version_3(camera)
        else:
            listed = self._episodes_of_version_2(camera)
        found: dict[int, Episode] = {}
        skipped: list[Skipped] = []
        for entry in listed:
            if isinstance(entry, Skipped):
                skipped.append(entry)
            elif entry.index in found:
                skipped.append(Skipped(entry.name, "it is listed twice; the first one is read"))
            else:
                found[entry.index] = entry
        return [found[index] for index in sorted(found)], skipped

    def _episodes_of_version_2(self, camera: str) -> Iterator[Episode | Skipped]:
        path = self.root / "meta" / "episodes.jsonl"
        if not path.exists():
            raise AvenirError(f"{str(self.root)!r} has no list of episodes, {str(path)!r}")
        for number, line in enumerate(_read_text(path).splitlines(), 1):
            if not line.strip():
                continue
            try:
                row = _Listed.model_validate(json.loads(line))
            except (ValueError, RecursionError) as error:
                yield Skipped(f"{path.name} line {number}", _reason(error))
                continue
            place: dict[str, Any] = {
                "episode_chunk": row.episode_index // self.info.chunks_size,
                "episode_index": row.episode_index,
            }
            table = self._path("data_path", place)
            video = self._video(camera, place)
            yield Episode(row.episode_index, row.length, table, video, 0.0, row.task)

    def _episodes_of_version_3(self, camera: str) -> Iterator[Episode | Skipped]:
        columns = {"episode_index": "episode_index", "length": "length", "tasks": "tasks"}
        columns |= {"data_chunk": "data/chunk_index", "data_file": "data/file_index"}
        kind: type[_Placed] = _Placed
        if self.info.features[camera].dtype == "video":
            kind, of_camera = _Filmed, f"videos/{camera}/"
            columns |= {f"video_{n}": f"{of_camera}{n}_index" for n in ("chunk", "file")}
            columns |= {"from_timestamp": f"{of_camera}from_timestamp"}
        for path in sorted((self.root / "meta" / "episodes").glob("*/*.parquet")):
            try:
                table = read_table(path, list(columns.values()), MAX_EPISODES).to_pylist()
            except VideoError as error:
                yield Skipped(path.relative_to(self.root).as_posix(), str(error))
                continue
            for entry in table:
                row = {name: entry.get(column) for name, column in columns.items()}
                try:
                    yield self._placed(camera, kind.model_validate(row))
                except ValidationError as error:
                    where = f"{path.name}, episode {str(row['episode_index'])[:20]}"
                    yield Skipped(where, _reason(error, columns))

    def _placed(self, camera: str, row: _Placed) -> Episode:
        table = None
        if row.data_chunk is not None and row.data_file is not None:
            place = {"chunk_index": row.data_chunk, "file_index": row.data_file}
            table = self._path("data_path", place)
        if not isinstance(row, _Filmed):
            return Episode(row.episode_index, row.length, table, None, 0.0, row.task)
        place = {"chunk_index": row.video_chunk, "file_index": row.video_file}
        video = self._video(camera, place)
        return Episode(row.episode_index, row.length, table, video, row.from_timestamp, row.task)

    def _video(self, camera: str, place: dict[str, Any]) -> Path | None:
        """Find the video file of an episode; None where a camera's pictures are in the table."""
        if self.info.features[camera].dtype != "video":
            return None
        return self._path("video_path", {"video_key": camera, **place})

    def _path(self, setting: Literal["data_path", "video_path"], place: dict[str, Any]) -> Path:
        """Fill in a path of info.json; AvenirError for one that is none inside the data set.

        Links are followed: the caches of model hubs are made of them, and whole data sets lie on
        other disks. What they lead to must be a regular file, which is asked when it is opened.
        """
        template = getattr(self.info, setting) or ""
        try:
            if not template:
                raise ValueError("nothing")
            for _, field, form, conversion in Formatter().parse(template):
                if field is not None and (
                    field not in place or conversion or not _FORMAT.fullmatch(form or "")
                ):
                    raise ValueError(f"{{{field}}} with the format {(form or '')[:20]!r}")
            return self.root / _inside(template.format(**place))
        except ValueError as error:
            fields = ", ".join(f"{{{name}}}" for name in place)
            raise AvenirError(
                f"{setting} in {str(self.root / 'meta' / 'info.json')!r} is {template[:80]!r} "
                f"({error}); it must be a path inside the data set, made of {fields} "
                "with at most two digits of width"
            ) from None


def _inside(path: str) -> str:
    """Return a relative path that does not climb out; ValueError otherwise."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\0" in path:
        raise ValueError("it leads out of the data set")
    if len(path) > 1000:
        raise ValueError("it is too long")
    return path


def _read_text(path: Path) -> str:
    """Read a text file of the format; AvenirError for what is none, or too long to be one."""
    if not is_regular(path):
        raise AvenirError(f"{str(path)!r} is no regular file; copy the data set again")
    try:
        num_bytes = path.stat().st_size
        if num_bytes > MAX_TEXT_BYTES[path.name]:
            raise AvenirError(
                f"{str(path)!r} is {num_bytes / 1e6:.0f} MB long, which no data set needs; "
                "copy it again"
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise AvenirError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise AvenirError(f"{str(path)!r} is damaged, it is no text; copy it again") from None


def _read_json(root: Path, name: str, kind: type[_Model]) -> _Model:
    path = root / "meta" / name
    text = _read_text(path)
    try:
        return TypeAdapter(kind).validate_python(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise AvenirError(f"{str(path)!r} is damaged or incomplete: {_reason(error)}") from None


def _reason(error: Exception, columns: dict[str, str] | None = None) -> str:
    """Say in one line what is wrong with a table; `columns` gives its keys their other names."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if not isinstance(error, ValidationError):
        return str(error)[:200]
    problem = error.errors(include_url=False)[0]
    first, *others = [str(part) for part in problem["loc"]] or ["it"]
    key = ".".join([(columns or {}).get(first, first), *others])
    given = "" if problem["type"] == "missing" else f" (given {repr(problem['input'])[:60]})"
    return f"{key[:80]}: {problem['msg'].lower()}{given}"


def _flat(names: Any, depth: int = 4) -> Iterator[str]:
    """Yield the names in lists and tables of names; what lies deeper than any names do is none."""
    if isinstance(names, dict):
        names = list(names.values())
    if not isinstance(names, list):
        yield from () if names is None else (str(names).encode(errors="replace").decode(),)
    elif depth:
        for name in names:
            yield from _flat(name, depth - 1)
