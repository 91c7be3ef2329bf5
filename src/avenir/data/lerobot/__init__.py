"""A LeRobot data set (version 2 or 3) as a source: video with actions and robot state.

One camera's frames; `action` and `observation.state` as the signals `actions` and `state`. Files
and tables are found in `reading`, written in `writing`.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt

from avenir import video
from avenir.clip import Clip
from avenir.config import Config
from avenir.data import Recording, Signal, Skipped, Source, Split, Window
from avenir.data.lerobot.reading import FEATURES, Episode, Layout, rows
from avenir.data.lerobot.writing import LeRobotWriter, write_dataset
from avenir.errors import AvenirError, VideoError

__all__ = ["LeRobot", "LeRobotConfig", "LeRobotWriter", "write_dataset"]


class LeRobotConfig(Config):
    """A data set in the LeRobot format, as `avenir import` writes and robots record."""

    kind: Literal["lerobot"] = "lerobot"
    path: str
    """The folder that holds meta/, data/ and videos/."""
    camera: str | None = None
    """Video feature to read, by its full or last name; None: the first that is no depth map."""
    size: tuple[PositiveInt, PositiveInt] = (64, 64)
    """`(H, W)` that every frame is resized to cover."""
    fps: PositiveFloat | None = None
    """Frames per second of every window; None: the recorded rate."""
    test: tuple[str, ...] = ()
    """Episodes to test on, as ranges: `["52:61"]`. None given: what the data set's own splits call
    test, else every so many episodes, evenly over the set, so that both splits see all of it."""
    test_fraction: float = 0.15
    """Fraction of the episodes to test on when nobody says which."""
    action_change: Literal["absolute", "delta"] = "absolute"
    """How actions resample: absolute ones keep the last, deltas add up."""
    memory_gb: float = 4.0
    """Decoded frames are kept in memory up to this; further episodes are decoded on demand."""


@dataclass(frozen=True)
class _Track:
    """An episode with what is needed to cut windows from it."""

    recording: Recording
    footage: video.Footage
    signals: dict[str, np.ndarray]
    """Rows `N a`, one per recorded frame."""


class LeRobot(Source):
    """Episodes of a LeRobot data set; broken ones are listed in `skipped`, never fatal."""

    Config = LeRobotConfig

    def __init__(self, config: LeRobotConfig) -> None:
        self.config = config
        self.layout = Layout.open(Path(config.path))
        self.camera = self.layout.camera(config.camera)
        self.fps, self.size = config.fps or self.layout.fps, config.size
        self.skipped: list[Skipped] = []
        self._features = [name for name in FEATURES if name in self.layout.info["features"]]
        episodes = self.layout.episodes(self.camera)
        self._tracks = self._load(episodes)
        readable = [episode for episode in episodes if episode.name in self._tracks]
        test = _test_indices([episode.index for episode in readable], config, self.layout)
        self._test = {episode.name for episode in readable if episode.index in test}
        for split in ("train", "test"):
            if not self.recordings(split) and (split == "train" or len(self._tracks) > 1):
                raise AvenirError(
                    f"no readable episode of {config.path!r} is left to {split} on: {len(episodes)}"
                    f" episodes, {len(self.skipped)} skipped, {len(self._test)} to test on; "
                    "set `test` to other episodes"
                )
        self.signals = {FEATURES[name]: self._signal(name) for name in self._features}

    def recordings(self, split: Split) -> Sequence[Recording]:
        """List the episodes of a split, in order."""
        chosen = self._tracks.items()
        return [t.recording for name, t in chosen if (name in self._test) == (split == "test")]

    def clip(self, window: Window) -> Clip:
        """Read one window with its `actions` and `state`."""
        track = self._tracks[window.recording.name]
        start, num_frames = window.start_seconds, window.num_frames
        frames = track.footage.window(start, num_frames, self.fps)
        signals = {
            name: torch.from_numpy(self._resampled(track, name, start, num_frames))
            for name in track.signals
        }
        return Clip(frames, self.fps, signals, name=window.recording.name)

    @property
    def fingerprint(self) -> str:
        """Hash of the video files, the signals, the size, the rate and the split."""
        settings = self.config.model_dump(mode="json", exclude={"path", "memory_gb", "test"})
        words = [str(settings), *sorted(self._test)]
        paths = dict.fromkeys(track.footage.path for track in self._tracks.values())
        words += [video.fingerprint(path) for path in paths]
        for name, track in self._tracks.items():
            words += [f"{name} {track.recording.seconds} {track.footage.start_seconds}"]
            words += [hashlib.sha256(v.tobytes()).hexdigest() for v in track.signals.values()]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()

    def _load(self, episodes: list[Episode]) -> dict[str, _Track]:
        table_rows, stamps, origins = {}, {}, {}
        tracks: dict[str, _Track] = {}
        room = self.config.memory_gb * 1e9
        for episode in episodes:
            try:
                if episode.table not in table_rows:
                    own = [e for e in episodes if e.table == episode.table]
                    table_rows[episode.table] = rows(own, self._features)
                if episode.video not in stamps:
                    origins[episode.video] = video.fingerprint(episode.video)
                    stamps[episode.video] = video.timestamps(episode.video)
                values = table_rows[episode.table][episode.index]
                origin = origins[episode.video]
                track = self._track(episode, origin, stamps[episode.video], values, room)
            except (VideoError, OSError, KeyError, ValueError) as error:
                self.skipped.append(Skipped(episode.name, str(error)))
                continue
            tracks[episode.name] = track
            if track.footage.in_memory:
                room -= self._num_bytes(track.recording.seconds)
        return tracks

    def _track(
        self,
        episode: Episode,
        origin: str,
        stamps: np.ndarray,
        values: dict[str, np.ndarray],
        room: float,
    ) -> _Track:
        lengths = [episode.num_frames, *(len(v) for v in values.values())]
        end = episode.start_seconds + episode.num_frames / self.layout.fps
        there = (stamps > episode.start_seconds - 0.5 / self.layout.fps) & (
            stamps < end - 0.5 / self.layout.fps
        )
        num_frames = min(int(there.sum()), *lengths)
        if not num_frames:
            raise VideoError(f"{str(episode.video)!r} holds none of its frames; copy it again")
        if num_frames < max(lengths):
            warnings.warn(
                f"{episode.name}: the table has {max(lengths)} rows and the "
                f"video {int(there.sum())} frames; the first {num_frames} are used",
                video.VideoWarning,
                stacklevel=2,
            )
        seconds = num_frames / self.layout.fps
        footage = video.Footage(
            episode.video,
            self.size,
            in_memory=self._num_bytes(seconds) <= room,
            start_seconds=episode.start_seconds,
            seconds=seconds,
        )
        signals = {FEATURES[name]: v[:num_frames] for name, v in values.items()}
        return _Track(Recording(episode.name, seconds, origin), footage, signals)

    def _num_bytes(self, seconds: float) -> float:
        return 3 * self.size[0] * self.size[1] * seconds * self.layout.fps

    def _signal(self, feature: str) -> Signal:
        name, names = FEATURES[feature], self.layout.names(feature)
        train = [self._tracks[recording.name] for recording in self.recordings("train")]
        every = np.concatenate(
            [
                self._resampled(t, name, 0, max(1, int(t.recording.seconds * self.fps)))
                for t in train
            ]
        )
        known = every[np.isfinite(every).all(1)]
        return Signal(
            size=every.shape[1],
            names=names if len(names) == every.shape[1] else (),
            change=self.config.action_change if name == "actions" else "absolute",
            low=tuple(known.min(0).tolist()) if len(known) else (),
            high=tuple(known.max(0).tolist()) if len(known) else (),
            keys=self.layout.keys(feature),
        )

    def _resampled(self, track: _Track, name: str, start: float, num_frames: int) -> np.ndarray:
        values, end = track.signals[name], track.recording.seconds
        how = self.config.action_change if name == "actions" else "observed"
        stamps = np.arange(len(values)) / self.layout.fps
        return video.resample(values, stamps, end, start, num_frames, self.fps, how)


def _test_indices(indices: list[int], config: LeRobotConfig, layout: Layout) -> set[int]:
    splits = layout.info.get("splits") or {}
    ranges = config.test or ((splits["test"],) if "test" in splits else ())
    if ranges:
        parts = [part for words in ranges for part in str(words).split(",")]
        return {i for part in parts for i in _range(part, max(indices, default=0) + 1)}
    num_test = max(1, round(config.test_fraction * len(indices))) if len(indices) > 1 else 0
    return {indices[int((i + 0.5) * len(indices) / num_test)] for i in range(num_test)}


def _range(words: str, end: int) -> range:
    first, colon, past = words.partition(":")
    try:
        start = int(first) if first else 0
        return range(start, (int(past) if past else end) if colon else start + 1)
    except ValueError:
        raise AvenirError(
            f'test was given {words!r}; write ranges of episodes: test = ["52:61"]'
        ) from None
