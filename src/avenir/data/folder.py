"""Any folder of videos, or of pictures, as a source; actions from a csv beside each video.

A recording is one video file, or one folder of pictures in order. Knows files and csv tables;
knows nothing of codecs (avenir.video does) or models.
"""

import csv
import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt

from avenir import video
from avenir.clip import Clip
from avenir.config import Config
from avenir.data import Recording, Signal, Skipped, Source, Split, Window, chosen_for_test
from avenir.errors import AvenirError, VideoError

COMPANIONS = {
    ".csv",
    ".html",
    ".json",
    ".jsonl",
    ".md",
    ".parquet",
    ".srt",
    ".toml",
    ".txt",
    ".vtt",
}
"""Extensions of files that lie beside videos and are none."""
TIME_COLUMNS = ("timestamp", "time", "t")


class FolderConfig(Config):
    """A folder of videos or pictures."""

    kind: Literal["folder"] = "folder"
    path: str
    """The folder; every folder below it is searched too."""
    size: tuple[PositiveInt, PositiveInt] = (64, 64)
    """`(H, W)` that every frame is resized to cover."""
    fps: PositiveFloat = 10.0
    """Frames per second of every window."""
    picture_fps: PositiveFloat | None = None
    """Rate at which folders of pictures were taken; None: `fps`."""
    test: tuple[str, ...] = ()
    """Patterns (`town/*`) of the recordings to test on; none: a fraction chosen by name."""
    test_fraction: float = 0.1
    """Fraction of the recordings to test on when `test` is empty; at least one of two."""
    action_change: Literal["absolute", "delta"] = "absolute"
    """How actions resample: absolute ones keep the last, deltas add up."""
    memory_gb: float = 4.0
    """Decoded frames are kept in memory up to this; further recordings are decoded on demand."""


@dataclass(frozen=True)
class _Track:
    """A recording with what is needed to cut windows from it."""

    recording: Recording
    footage: video.Footage
    timestamps: np.ndarray
    """Seconds of every recorded frame, then of every row of `actions`."""
    actions: np.ndarray | None
    names: tuple[str, ...]


class Folder(Source):
    """Recordings found in a folder; broken ones are listed in `skipped`, never fatal."""

    Config = FolderConfig

    def __init__(self, config: FolderConfig) -> None:
        self.config = config
        self.fps, self.size = config.fps, config.size
        self.root = Path(config.path)
        self.skipped: list[Skipped] = []
        if not self.root.is_dir():
            raise AvenirError(f"there is no folder {config.path!r}; give one that holds videos")
        tracks = self._same_columns(list(self._tracks()))
        if not tracks:
            raise AvenirError(
                f"no video in {config.path!r} can be read; {len(self.skipped)} were skipped"
                + "".join(f"\n  {s.name}: {s.reason}" for s in self.skipped[:5])
            )
        self._tracks_by_name = {track.recording.name: track for track in tracks}
        self._test = chosen_for_test(list(self._tracks_by_name), config.test, config.test_fraction)
        self.signals = self._signals()

    def recordings(self, split: Split) -> Sequence[Recording]:
        """List the recordings of a split, by name."""
        chosen = self._tracks_by_name.items()
        return [t.recording for name, t in chosen if (name in self._test) == (split == "test")]

    def clip(self, window: Window) -> Clip:
        """Read one window; `actions` beside the frames when there are csv files."""
        track = self._tracks_by_name[window.recording.name]
        frames = track.footage.window(window.start_seconds, window.num_frames, self.fps)
        signals = {}
        if track.actions is not None:
            rows = self._resampled(track, window.start_seconds, window.num_frames)
            signals["actions"] = torch.from_numpy(rows)
        return Clip(frames, self.fps, signals, name=window.recording.name)

    @property
    def fingerprint(self) -> str:
        """Hash of every file, the size, the rate and the split."""
        settings = self.config.model_dump(mode="json", exclude={"path", "memory_gb", "test"})
        words = [str(settings), *sorted(self._test)]
        for name, track in self._tracks_by_name.items():
            footage = track.footage
            paths = footage.paths if isinstance(footage, video.Pictures) else [footage.path]
            words += [name, *(video.fingerprint(path) for path in paths)]
            words += (
                []
                if track.actions is None
                else [hashlib.sha256(track.actions.tobytes()).hexdigest()]
            )
        return hashlib.sha256("\n".join(words).encode()).hexdigest()

    def _tracks(self) -> Iterator[_Track]:
        room = self.config.memory_gb * 1e9
        frame_bytes = 3 * self.size[0] * self.size[1]
        for name, paths in _listing(self.root).items():
            try:
                track = self._track(name, paths, frame_bytes, room)
            except VideoError as error:
                self.skipped.append(Skipped(name, str(error)))
                continue
            room -= len(track.timestamps) * frame_bytes if track.footage.in_memory else 0
            yield track

    def _track(self, name: str, paths: list[Path], frame_bytes: int, room: float) -> _Track:
        info, origin = video.probe(paths[0]), video.fingerprint(paths[0])
        if video.is_picture(paths[0]):
            fps = self.config.picture_fps or self.fps
            in_memory = len(paths) * frame_bytes <= room
            pictures = video.Pictures(paths, fps, self.size, in_memory=in_memory)
            recording = Recording(name, len(paths) / fps, origin)
            return _Track(recording, pictures, pictures.timestamps, None, ())
        stamps = video.timestamps(paths[0])
        if np.diff(stamps, prepend=0).max() > video.MAX_STILL_SECONDS:
            raise VideoError("its timestamps are damaged, one frame lasts for hours; convert it")
        if len(stamps) < (info.declared_frames or 0):
            _warn(f"{name!r} has {len(stamps)} of {info.declared_frames} frames; these are used")
        in_memory = len(stamps) * frame_bytes <= room
        footage = video.Footage(paths[0], self.size, in_memory=in_memory)
        end = float(stamps[-1]) + _last_duration(stamps, info.fps)
        table = paths[0].with_suffix(".csv")
        if not table.is_file():
            return _Track(Recording(name, end, origin), footage, stamps, None, ())
        names, times, actions = _read_actions(table, stamps)
        covered = float(times[-1]) + _last_duration(times, info.fps)
        if covered < end - 1 / info.fps:
            _warn(f"{table.name} covers {covered:.2f} of {end:.2f} s; only these are used")
            end = covered
        return _Track(Recording(name, end, origin), footage, times, actions, names)

    def _same_columns(self, tracks: list[_Track]) -> list[_Track]:
        """Give all recordings the actions that most have: leave out the others, or all actions."""
        columns = [track.names for track in tracks]
        wanted = max(columns, key=lambda names: (columns.count(names), len(names)), default=())
        if not wanted:
            if any(columns):
                _warn(
                    f"{sum(map(bool, columns))} of {len(tracks)} recordings have actions; "
                    "none are used: give most of them a csv, or take the others out"
                )
            return [replace(track, actions=None, names=()) for track in tracks]
        for track in tracks:
            if track.names != wanted:
                given = f"actions {', '.join(track.names)}" if track.names else "no csv of actions"
                reason = f"has {given}; the others have {', '.join(wanted)}: give it the same"
                self.skipped.append(Skipped(track.recording.name, reason))
        return [track for track in tracks if track.names == wanted]

    def _signals(self) -> dict[str, Signal]:
        train = [self._tracks_by_name[recording.name] for recording in self.recordings("train")]
        names = train[0].names
        if not names:
            return {}
        rows = np.concatenate(
            [self._resampled(t, 0.0, max(1, int(t.recording.seconds * self.fps))) for t in train]
        )
        return {
            "actions": Signal(
                size=len(names),
                names=names,
                change=self.config.action_change,
                low=tuple(rows.min(0).tolist()),
                high=tuple(rows.max(0).tolist()),
            )
        }

    def _resampled(self, track: _Track, start: float, num_frames: int) -> np.ndarray:
        assert track.actions is not None
        end, how = track.recording.seconds, self.config.action_change
        return video.resample(
            track.actions, track.timestamps, end, start, num_frames, self.fps, how
        )


def _listing(root: Path) -> dict[str, list[Path]]:
    """Map recording names to their files: one video, or the pictures of one folder in order."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*"), key=_by_number):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if hidden or path.suffix.lower() in COMPANIONS or not path.is_file():
            continue
        if video.is_picture(path):
            folder = path.parent.relative_to(root).as_posix()
            found.setdefault(root.name if folder == "." else folder, []).append(path)
        else:
            name = path.relative_to(root).with_suffix("").as_posix()
            if name in found:  # two files that differ in their extension only
                name = path.relative_to(root).as_posix()
            found[name] = [path]
    return found


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    """Order frame 2 before frame 10."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _read_actions(
    table: Path, stamps: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Read (column names, timestamp of each row, rows `N a`) of the csv beside a video."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    header = [word.strip() for word in lines[0]] if lines else []
    try:
        rows = np.array([[float(word) for word in line] for line in lines[1:]], np.float64)
    except ValueError as error:
        raise VideoError(f"{table.name} beside it is no table of numbers: {error}") from None
    times = [header.index(name) for name in TIME_COLUMNS if name in header]
    columns = [i for i, name in enumerate(header) if i not in times and name != "frame"]
    named = header and not any(re.fullmatch(r"[-+.\d]+", name) for name in header)
    if not named or rows.ndim != 2 or not columns or not np.isfinite(rows).all():
        raise VideoError(
            f"{table.name} beside it needs a header with the names of the actions, and one row of "
            "finite numbers per frame"
        )
    if "frame" in header:
        frames = rows[:, header.index("frame")].astype(int)
        rows, frames = rows[frames < len(stamps)], frames[frames < len(stamps)]
        when = stamps[frames]
    elif times:
        when = rows[:, times[0]]
    else:
        rows = rows[: len(stamps)]
        when = stamps[: len(rows)]
    if not len(rows) or (np.diff(when) < 0).any():
        raise VideoError(f"{table.name} beside it has no row in order of time; sort it")
    return tuple(header[i] for i in columns), when, rows[:, columns].astype(np.float32)


def _last_duration(stamps: np.ndarray, fps: float) -> float:
    return float(np.median(np.diff(stamps))) if len(stamps) > 1 else 1 / fps


def _warn(message: str) -> None:
    warnings.warn(message, video.VideoWarning, stacklevel=2)
