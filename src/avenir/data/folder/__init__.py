"""Any folder of videos, or of pictures, as a source; actions from a csv beside each video.

A recording is one video file, or one folder of pictures in order; which there are is found in
`listing`. Knows nothing of codecs (avenir.video does), of tables (avenir.tables does) or models.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from avenir import tables, video
from avenir.clip import Clip
from avenir.config import Config
from avenir.data import Rate, Recording, Side, Skipped, Source, Window
from avenir.data.folder.listing import FoundRecording, listed
from avenir.errors import AvenirError, VideoError
from avenir.signals import Signal
from avenir.splits import VALIDATION_FRACTION, Split, Splits, some_of

_SAME_DATA = {"path", "memory_gb", "test", "validation", "validation_fraction"}
"""Settings that a fingerprint leaves out: it names the recordings that they choose."""


class FolderConfig(Config):
    """A folder of videos or pictures."""

    kind: Literal["folder"] = "folder"
    path: str
    """The folder; every folder below it is searched too."""
    size: tuple[Side, Side] = (64, 64)
    """`(H, W)` that every frame is resized to cover."""
    fps: Rate = 10.0
    """Frames per second of every window."""
    picture_fps: Rate | None = None
    """Rate at which folders of pictures were taken; None: `fps`."""
    test: tuple[str, ...] = ()
    """Patterns (`town/*`) of the recordings to test on; none: a fraction chosen by name."""
    test_fraction: float = 0.1
    """Fraction of the recordings to test on when `test` is empty; at least one of two."""
    validation: tuple[str, ...] = ()
    """Patterns of the recordings to validate on, among those that are not tested on; none: a
    fraction chosen by contents."""
    validation_fraction: Annotated[float, Field(ge=0, le=1)] = VALIDATION_FRACTION
    """About which fraction when `validation` is empty: at least one of eight; 0: none, and choices
    are made on recordings that are trained on."""
    action_change: Literal["absolute", "delta"] = "absolute"
    """How actions resample: absolute ones keep the last, deltas add up."""
    memory_gb: float = 4.0
    """Decoded frames are kept in memory up to this; further recordings are decoded on demand."""


@dataclass(frozen=True)
class _Track:
    """A recording with what is needed to cut windows from it."""

    recording: Recording
    footage: video.Footage
    frames: np.ndarray
    """Seconds of every recorded frame."""
    actions: tables.Joined | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Name the numbers of its actions."""
        return self.actions.names if self.actions is not None else ()

    def reordered(self, names: tuple[str, ...]) -> "_Track":
        """Put its actions into the order of these names, which are its own."""
        if self.actions is None or names == self.names:
            return self
        rows = self.actions.rows[:, [self.names.index(name) for name in names]]
        return replace(self, actions=replace(self.actions, names=names, rows=rows))


class Folder(Source):
    """Recordings found in a folder; broken ones are listed in `skipped`, never fatal."""

    Config = FolderConfig

    def __init__(self, config: FolderConfig) -> None:
        self.config = config
        self.fps, self.size = config.fps, config.size
        self.root = Path(config.path)
        if not self.root.is_dir():
            raise AvenirError(f"there is no folder {config.path!r}; give one that holds videos")
        listing = listed(self.root)
        self.skipped: list[Skipped] = listing.skipped
        self._notes = listing.notes
        tracks = self._same_columns(list(self._tracks(listing.found)))
        if not tracks:
            raise AvenirError(
                f"no video in {config.path!r} can be read; {len(self.skipped)} were skipped"
                + "".join(f"\n  {s.name}: {s.reason}" for s in self.skipped[:5])
            )
        self._tracks_by_name = {track.recording.name: track for track in tracks}
        origins = {name: track.recording.origin for name, track in self._tracks_by_name.items()}
        self._splits = Splits.chosen(origins, config)
        self.notes = [_note(note, names) for note, names in self._notes.items()]
        self.notes += [*self._copies(origins), *self._splits.notes(origins)]
        self.signals = self._signals()

    def recordings(self, split: Split) -> Sequence[Recording]:
        """List the recordings of a split, by name."""
        chosen = self._tracks_by_name.items()
        return [track.recording for name, track in chosen if self._splits.of(name) == split]

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
        settings = self.config.model_dump(mode="json", exclude=_SAME_DATA)
        words = [str(settings), *self._splits.words]
        for name, track in self._tracks_by_name.items():
            footage = track.footage
            paths = footage.paths if isinstance(footage, video.Pictures) else [footage.path]
            words += [name, *(video.fingerprint(path) for path in paths)]
            if track.actions is not None:
                rows, seconds = track.actions.rows, track.actions.seconds
                words.append(_hash(rows.tobytes()))
                # The key of a run is to stay what it was where rows are of the frames in order.
                in_order = np.array_equal(seconds, track.frames[: len(seconds)])
                words += [] if in_order else [_hash(seconds.tobytes())]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()

    def _tracks(self, found: list[FoundRecording]) -> Iterator[_Track]:
        room = self.config.memory_gb * 1e9
        frame_bytes = 3 * self.size[0] * self.size[1]
        for files in found:
            try:
                track = self._track(files, frame_bytes, room)
            except AvenirError as error:
                self.skipped.append(Skipped(files.name, str(error)))
                continue
            except OSError as error:
                reason = f"it cannot be read ({error.strerror}); check its permissions"
                self.skipped.append(Skipped(files.name, reason))
                continue
            room -= len(track.frames) * frame_bytes if track.footage.in_memory else 0
            yield track

    def _track(self, files: FoundRecording, frame_bytes: int, room: float) -> _Track:
        """Probe a recording's files, and join its csv to its frames."""
        path = files.paths[0]
        info, table = video.probe(path), self._table(files)
        is_pictures = video.is_picture(path)
        if is_pictures:
            origin, fps = _hash(*map(video.fingerprint, files.paths)), self.config.picture_fps
            stamps = np.arange(len(files.paths)) / (fps or self.fps)
            taken = tables.recorded(table, len(stamps)) if table and fps is None else None
            if taken is not None:
                self._note(files, f"pictures were taken in {taken[-1]:.4g} s, by its times")
                stamps = taken
        else:
            origin, stamps = video.fingerprint(path), self._stamps(files.name, path, info)
        end = float(stamps[-1]) + _last_duration(stamps, self.fps if is_pictures else info.fps)
        actions = self._joined(files, table, stamps, end, info.declared_frames or 0)
        first, until = 0, end
        if actions is not None:
            first, until = self._covered(files, stamps, end, actions.seconds)
            actions = replace(actions, seconds=actions.seconds - stamps[first])
        begin = float(stamps[first])
        in_memory = len(stamps) * frame_bytes <= room
        if is_pictures:
            paths, times = files.paths[first:], stamps[first:] - begin
            footage = video.Pictures(
                paths, self.fps, self.size, in_memory=in_memory, timestamps=times
            )
        else:
            footage = video.Footage(path, self.size, in_memory=in_memory, start_seconds=begin)
        recording = Recording(files.name, until - begin, origin, _hash_of(actions, begin))
        return _Track(recording, footage, stamps, actions)

    def _stamps(self, name: str, path: Path, info: video.VideoInfo) -> np.ndarray:
        """Return when every frame of a video is shown; VideoError where that is damaged."""
        stamps = video.timestamps(path)
        if np.diff(stamps, prepend=0).max() > video.MAX_STILL_SECONDS:
            raise VideoError("its timestamps are damaged, one frame lasts for hours; convert it")
        if len(stamps) < (info.declared_frames or 0):
            _warn(f"{name!r} has {len(stamps)} of {info.declared_frames} frames; these are used")
        return stamps

    def _table(self, files: FoundRecording) -> tables.Table | None:
        """Read the csv beside a recording, if there is one."""
        if files.table is None:
            return None
        try:
            return tables.read(files.table)
        except AvenirError as error:
            if files.is_named_so:
                raise
            self._note(files, f"it is not used for {files.name!r}: {error}")
            return None

    def _joined(
        self,
        files: FoundRecording,
        table: tables.Table | None,
        stamps: np.ndarray,
        end: float,
        num_declared: int,
    ) -> tables.Joined | None:
        """Join the rows of the csv beside a recording to its frames, if there is one."""
        if table is None:
            return None
        pictures = [path.name for path in files.paths]
        try:
            joined = tables.join(table, stamps, end, num_declared=num_declared, files=pictures)
        except AvenirError as error:
            if files.is_named_so:
                raise
            self._note(files, f"it is not used for {files.name!r}: {error}")
            return None
        for note in joined.notes:
            self._note(files, note)
        return joined

    def _note(self, files: FoundRecording, note: str) -> None:
        """Say something of a recording's csv."""
        self._notes.setdefault(note, []).append(self._table_name(files))

    def _table_name(self, files: FoundRecording) -> str:
        assert files.table is not None
        return tables.printable(files.table.relative_to(self.root).as_posix())

    def _covered(
        self, files: FoundRecording, stamps: np.ndarray, end: float, seconds: np.ndarray
    ) -> tuple[int, float]:
        """Return the first frame that has a row, and until when there are rows."""
        step = _last_duration(stamps, self.fps)
        late = seconds[0] > stamps[0] + step / 2
        first = int(np.searchsorted(stamps, seconds[0] - 1e-6)) if late else 0
        first = min(first, len(stamps) - 1)
        until = float(seconds[-1]) + max(step, _last_duration(seconds, self.fps))
        until = end if until >= end - 1.001 * step else until
        if first or until < end:
            since = f"{stamps[first]:.2f} to " if first else ""
            name = self._table_name(files)
            _warn(f"{name} covers {since}{until:.2f} of {end:.2f} s; only these are used")
        return first, until

    def _copies(self, origins: dict[str, str]) -> Iterator[str]:
        """Say which recordings are copies of one video."""
        copies: dict[str, list[str]] = {}
        for name, origin in origins.items():
            copies.setdefault(origin, []).append(name)
        for names in (names for names in copies.values() if len(names) > 1):
            splits = {self._splits.of(name) for name in names}
            verbs = {"train": "to train", "validation": "to validate", "test": "to test"}
            found = " and ".join(verb for split, verb in verbs.items() if split in splits)
            if len(splits) == 1:
                yield _note(f"they are one video, all {found} on", names)
            else:
                advice = "name all of them for one split"
                yield _note(f"they are one video, {found} on; {advice}", names)

    def _same_columns(self, tracks: list[_Track]) -> list[_Track]:
        """Give all recordings the actions that most have: leave out the others, or all actions."""
        columns = Counter(frozenset(track.names) for track in tracks)
        most = max(columns, key=lambda names: (columns[names], len(names)), default=frozenset())
        if not most:
            with_actions = sum(bool(track.names) for track in tracks)
            if with_actions:
                _warn(
                    f"{with_actions} of {len(tracks)} recordings have actions; "
                    "none are used: give most of them a csv, or take the others out"
                )
            return [replace(track, actions=None) for track in tracks]
        wanted = next(track.names for track in tracks if most == set(track.names))
        for track in tracks:
            if set(track.names) != most:
                given = f"actions {', '.join(track.names)}" if track.names else "no csv of actions"
                reason = f"has {given}; the others have {', '.join(wanted)}: give it the same"
                self.skipped.append(Skipped(track.recording.name, reason))
        return [track.reordered(wanted) for track in tracks if set(track.names) == most]

    def _signals(self) -> dict[str, Signal]:
        tracks = self._tracks_by_name.items()
        seen = [track for name, track in tracks if self._splits.of(name) != "test"]
        names = seen[0].names
        if not names:
            return {}
        rows = np.concatenate(
            [self._resampled(t, 0.0, max(1, int(t.recording.seconds * self.fps))) for t in seen]
        )
        return {
            "actions": Signal(
                role="action",
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
        rows, seconds = track.actions.rows, track.actions.seconds
        return video.resample(rows, seconds, end, start, num_frames, self.fps, how)


def _last_duration(stamps: np.ndarray, fps: float) -> float:
    return float(np.median(np.diff(stamps))) if len(stamps) > 1 else 1 / fps


def _hash_of(actions: tables.Joined | None, begin: float) -> str:
    """Hash what is recorded beside the frames, and where it begins; empty where nothing is."""
    if actions is None:
        return ""
    about = f"{actions.names} {begin}"
    return _hash(about, actions.rows.tobytes(), actions.seconds.tobytes())


def _hash(*parts: str | bytes) -> str:
    joined = b"\n".join(part.encode() if isinstance(part, str) else part for part in parts)
    return hashlib.sha256(joined).hexdigest()


def _note(note: str, names: list[str]) -> str:
    return f"{some_of(names)}: {note}"


def _warn(message: str) -> None:
    warnings.warn(message, video.VideoWarning, stacklevel=2)
