"""A LeRobot data set (version 2 or 3) as a source: video with actions and robot state.

One camera's frames; `action` and `observation.state` as the signals `actions` and `state`.

    reading   what a data set says of itself, and which episodes it lists
    tables    rows of numbers, by episode
    joining   which frame belongs to which row
    footage   the frames of one episode
    loading   episodes become tracks, out of all of these
    writing   clips become a data set
    importing any source becomes a data set, which is gone on with or renewed
"""

import hashlib
import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from avenir import video
from avenir.clip import Clip
from avenir.config import Config
from avenir.data import Rate, Recording, Side, Skipped, Source, Window
from avenir.data.lerobot.loading import Track, load
from avenir.data.lerobot.reading import KEYS, Change, DatasetLayout
from avenir.data.lerobot.writing import LeRobotWriter, write_dataset
from avenir.errors import AvenirError
from avenir.signals import Signal, role_of
from avenir.splits import SPLITS, VALIDATION_FRACTION, Split, Splits, chosen_for_validation

__all__ = ["LeRobot", "LeRobotConfig", "LeRobotWriter", "write_dataset"]


_SAME_DATA = {"path", "memory_gb", "test", "validation", "validation_fraction"}
"""Settings that a fingerprint leaves out: it names the episodes that they choose."""

_VERBS: dict[Split, str] = {"train": "train", "validation": "validate", "test": "test"}


class LeRobotConfig(Config):
    """A data set in the LeRobot format, as `avenir import` writes and robots record."""

    kind: Literal["lerobot"] = "lerobot"
    path: str
    """The folder that holds meta/, data/ and videos/."""
    camera: str | None = None
    """Video or image feature to read, by its full or last name; None: the first, videos before
    images, depth maps last."""
    size: tuple[Side, Side] = (64, 64)
    """`(H, W)` that every frame is resized to cover."""
    fps: Rate | None = None
    """Frames per second of every window; None: the recorded rate."""
    test: tuple[str, ...] = ()
    """Episodes to test on, as ranges: `["52:61"]`. None given: what the data set's own splits call
    test, else every so many episodes, evenly over the set, so that both splits see all of it."""
    test_fraction: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Fraction of the episodes to test on when none are named."""
    validation: tuple[str, ...] = ()
    """Episodes to validate on, as ranges, among those that are not tested on. None given: what the
    data set's own splits call validation or val, else a fraction chosen by their names."""
    validation_fraction: Annotated[float, Field(ge=0, le=1)] = VALIDATION_FRACTION
    """About which fraction of those that are not tested on, when none are named: at least one of
    eight; 0: none, and choices are made on episodes that are trained on."""
    action_change: Literal["absolute", "delta"] | None = None
    """How actions resample: absolute ones keep the last, deltas add up; None: what the data set
    remembers, or else absolute."""
    memory_gb: float = 4.0
    """Decoded frames are kept in memory up to this; further episodes are decoded on demand."""


class LeRobot(Source):
    """Episodes of a LeRobot data set; broken ones are listed in `skipped`, never fatal."""

    Config = LeRobotConfig

    def __init__(self, config: LeRobotConfig) -> None:
        self.config = config
        self.layout = DatasetLayout.open(Path(config.path))
        self.camera = self.layout.camera(config.camera)
        self.fps, self.size = config.fps or self.layout.fps, config.size
        self.action_change: Change = config.action_change or self.layout.action_change
        columns, left_out = self.layout.columns()
        for reason in left_out:
            _warn(f"{config.path!r}: {reason}; it is left out")
        every = [name for names in columns.values() for name in names]
        room = config.memory_gb * 1e9
        tracks, self.skipped = load(self.layout, self.camera, every, self.size, room)
        tracks = self._same_widths(tracks)
        self._tracks = {track.recording.name: track for track in tracks}
        self._splits = _splits(tracks, config, self.layout)
        self.notes = self._splits.notes(self._tracks)
        needed = {"train": True, "validation": bool(config.validation), "test": len(tracks) > 1}
        for split in SPLITS:
            if needed[split] and not self.recordings(split):
                raise AvenirError(
                    f"no readable episode of {config.path!r} is left to {_VERBS[split]} on: "
                    f"{len(tracks)} readable, {len(self.skipped)} skipped, "
                    f"{len(self._splits.test)} to test on, {len(self._splits.validation)} to "
                    "validate on; set `test` or `validation` to other episodes"
                    + "".join(f"\n  {s.name}: {s.reason}" for s in self.skipped[:5])
                )
        self._values: dict[str, dict[str, np.ndarray]] = {}
        self.signals = {}
        for name, listed in columns.items():
            parts = [part for part in listed if part in tracks[0].values]
            known = self._side_by_side(name, parts) if parts else np.zeros(0)
            if known.any():
                self.signals[name] = self._signal(name, parts, known)

    def recordings(self, split: Split) -> Sequence[Recording]:
        """List the episodes of a split, in order."""
        chosen = self._tracks.items()
        return [track.recording for name, track in chosen if self._splits.of(name) == split]

    def clip(self, window: Window) -> Clip:
        """Read one window with its `actions` and `state`."""
        track = self._tracks[window.recording.name]
        start, num_frames = window.start_seconds, window.num_frames
        rows = video.shown(track.times, start + np.arange(num_frames) / self.fps)
        signals = {
            name: torch.from_numpy(self._resampled(track, name, start, num_frames))
            for name in self.signals
        }
        return Clip(track.footage.take(rows), self.fps, signals, name=window.recording.name)

    @property
    def fingerprint(self) -> str:
        """Hash of the video files, the signals, the size, the rate and the split."""
        settings = self.config.model_dump(mode="json", exclude=_SAME_DATA)
        settings["action_change"] = self.action_change
        words = [str(settings), *self._splits.words]
        paths = dict.fromkeys(track.footage.path for track in self._tracks.values())
        words += [video.fingerprint(path) for path in paths]
        for name, track in self._tracks.items():
            words += [track.identity]
            values = [self._values[signal][name] for signal in self.signals]
            words += [hashlib.sha256(v.tobytes()).hexdigest() for v in values]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()

    def _same_widths(self, tracks: list[Track]) -> list[Track]:
        """Leave out episodes whose columns have not as many numbers as those of most."""
        widths = [{name: v.shape[1] for name, v in track.values.items()} for track in tracks]
        counts = Counter(str(width) for width in widths)
        wanted = counts.most_common(1)[0][0] if counts else ""
        for track, width in zip(tracks, widths, strict=True):
            if str(width) != wanted:
                reason = f"numbers per row are {width}; those of most episodes are {wanted}"
                self.skipped.append(Skipped(track.recording.name, reason))
        return [t for t, width in zip(tracks, widths, strict=True) if str(width) == wanted]

    def _side_by_side(self, signal: str, parts: list[str]) -> np.ndarray:
        """Make one signal of its columns; tell for each number whether it is ever known.

        Numbers that are never known outside the test are left out: one sensor that is not there
        would make every row unknown.
        """
        every = {
            name: np.hstack([track.values[p] for p in parts])
            if parts[1:]
            else track.values[parts[0]]
            for name, track in self._tracks.items()
        }
        seen = [every[name] for name in self._tracks if self._splits.of(name) != "test"]
        known = np.any([np.isfinite(rows).any(0) for rows in seen], 0)
        if not known.all():
            names = self._names(parts) or tuple(map(str, range(len(known))))
            unknown = ", ".join(names[i] for i in np.flatnonzero(~known))
            _warn(
                f"{self.config.path!r}: of {signal}, {unknown} is unknown (NaN) in every row to "
                f"train on and left out; {known.sum()} of {len(known)} numbers are read"
            )
            every = {name: rows[:, known] for name, rows in every.items()}
        self._values[signal] = every
        return known

    def _names(self, parts: list[str]) -> tuple[str, ...]:
        """Name the numbers of a signal: those of a split one `pose.x`, or `pose.0` if unnamed."""
        widths = next(iter(self._tracks.values())).values
        named: list[str] = []
        for part in parts:
            width, names = widths[part].shape[1], self.layout.names(part)
            last = part.removeprefix("observation.state.").removeprefix("action.")
            if len(names) != width:
                names = () if last == part else tuple(map(str, range(width)))
            named += names if last == part else [f"{last}.{name}" for name in names]
        return tuple(named)

    def _signal(self, name: str, parts: list[str], known: np.ndarray) -> Signal:
        every = np.concatenate(
            [
                self._resampled(t, name, 0, max(1, int(t.recording.seconds * self.fps)))
                for name_of, t in self._tracks.items()
                if self._splits.of(name_of) != "test"
            ]
        )
        there = np.isfinite(every)
        bounded = there.any(0).all()
        keys = self.layout.keys(parts[0]) if len(parts) == 1 else {}
        if any(len(row) != len(known) for row in keys.values()):
            raise AvenirError(
                f"{KEYS} in the folder meta of {self.config.path!r} gives its keys other than the "
                f"{len(known)} numbers of {parts[0]!r}; correct it or take it away"
            )
        return Signal(
            role=role_of(name),
            size=every.shape[1],
            names=tuple(compress(self._names(parts), known)),
            change=self.action_change if name == "actions" else "absolute",
            low=tuple(every.min(0, initial=np.inf, where=there).tolist()) if bounded else (),
            high=tuple(every.max(0, initial=-np.inf, where=there).tolist()) if bounded else (),
            keys={key: tuple(compress(row, known)) for key, row in keys.items()},
        )

    def _resampled(self, track: Track, name: str, start: float, num_frames: int) -> np.ndarray:
        values, end = self._values[name][track.recording.name], track.recording.seconds
        return video.resample(
            values,
            track.times,
            end,
            start,
            num_frames,
            self.fps,
            self.action_change if name == "actions" else "observed",
        )


def _splits(tracks: list[Track], config: LeRobotConfig, layout: DatasetLayout) -> Splits:
    """Choose the episodes that are held out: first those to test on, then some of the others."""
    names = {track.index: track.recording.name for track in tracks}
    indices, own = list(names), layout.info.splits or {}
    ranges = config.test or _ranges(own, "test")
    if ranges:
        test = _within(indices, "test", ranges)
    else:
        num_test = max(1, round(config.test_fraction * len(indices))) if len(indices) > 1 else 0
        test = {indices[int((i + 0.5) * len(indices) / num_test)] for i in range(num_test)}
    ranges = config.validation or _ranges(own, "validation", "val")
    validation = {names[i] for i in _within(indices, "validation", ranges) - test}
    by_hash = not validation and not config.validation
    if by_hash:
        others = {name: "" for index, name in names.items() if index not in test}
        validation = chosen_for_validation(others, (), config.validation_fraction)
    return Splits(frozenset(validation), frozenset(names[index] for index in test), by_hash)


def _ranges(splits: dict[str, Any], *called: str) -> tuple[str, ...]:
    """Return what a data set says of a split, under the first of its names that there is."""
    return tuple(str(splits[name]) for name in called if splits.get(name) not in (None, ""))[:1]


def _within(indices: list[int], split: Split, ranges: Sequence[str]) -> set[int]:
    """Return which episodes, in order, lie in ranges.

    Ranges are compared, never counted through: they may be of any length.
    """
    begun = np.zeros(len(indices) + 1, int)
    """How many ranges begin at each place less how many end."""
    for part in (part for words in ranges for part in words.split(",")):
        first, past = (bisect_left(indices, edge) for edge in _range(part, split))
        begun[first] += 1
        begun[max(first, past)] -= 1
    return set(compress(indices, begun.cumsum() > 0))


def _range(words: str, split: Split) -> tuple[int, float]:
    """Read `5`, `5:9` or `5:` as the first and the one past the last."""
    first, colon, past = words.partition(":")
    try:
        if not colon:
            return int(first), int(first) + 1
        return int(first or 0), int(past) if past else float("inf")
    except ValueError:
        raise AvenirError(
            f"the episodes to {_VERBS[split]} on were given as {words[:60]!r}; write ranges of "
            f'episodes: {split} = ["52:61"]'
        ) from None


def _warn(message: str) -> None:
    warnings.warn(message, video.VideoWarning, stacklevel=2)
