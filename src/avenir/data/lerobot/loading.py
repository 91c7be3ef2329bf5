"""The episodes that a data set lists become tracks: frames, rows, and which belongs to which.

What is wrong with one episode takes out that one, with the reason. Every file is opened once, or
twice where rows lie in another table than listed. Knows nothing of splits or windows.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from avenir import video
from avenir.data import Recording, Skipped
from avenir.data.lerobot import joining
from avenir.data.lerobot.footage import Album, Film
from avenir.data.lerobot.reading import DatasetLayout, Episode
from avenir.data.lerobot.tables import Rows, is_regular, read_rows
from avenir.errors import VideoError


@dataclass(frozen=True)
class Track:
    """An episode with what is needed to cut windows from it."""

    index: int
    recording: Recording
    footage: Film | Album
    start_seconds: float
    """Where the data set says that the episode begins in its file."""
    times: np.ndarray
    """Seconds of every row, from the first."""
    timed: bool
    """Whether they are from its timestamps, rather than taken for granted."""
    values: dict[str, np.ndarray]
    """Rows `N a` by column."""

    @property
    def identity(self) -> str:
        """Tell it from every other way to join the same rows to the same file."""
        words = f"{self.recording.name} {self.recording.seconds} {self.start_seconds}"
        if isinstance(self.footage, Album):
            return f"{words} {self.footage.column}"
        plain = self.start_seconds + self.times
        near = np.allclose(self.footage.seconds, plain, rtol=0, atol=5e-4)
        return words if near else f"{words} {sha256(self.footage.seconds.tobytes()).hexdigest()}"


def load(
    layout: DatasetLayout, camera: str, columns: list[str], size: tuple[int, int], room_bytes: float
) -> tuple[list[Track], list[Skipped]]:
    """Load every episode with its columns; frames are kept in memory while there is room.

    Returns the tracks in order, and what was left out with the reasons. Raises AvenirError where
    the data set as a whole says something that cannot be.
    """
    episodes, skipped = layout.episodes(camera)
    rows = _rows(layout, episodes, columns)
    used = _of_use(rows, columns)
    reels = _Reels(episodes, rows, layout.fps)
    tracks: list[Track] = []
    for episode in episodes:
        own, room = rows[episode.index], int(room_bytes / (3 * size[0] * size[1]))
        try:
            if isinstance(own, VideoError):
                raise own
            if own.num_repeated:
                raise VideoError(
                    f"{own.num_repeated} of its {len(own)} rows in {str(own.table)!r} have the "
                    "'frame_index' of another one; write each row once"
                )
            if episode.video is None:
                album = Album(own.table, size, camera, own.numbers, in_memory=len(own) <= room)
                album.probe()
                track = _track(episode, album, _fingerprint(own.table), own, used, layout.fps)
            else:
                reel = reels.of(episode.video)
                seconds = reel.seconds_of(episode, len(own), layout.fps)
                film = Film(reel.path, size, seconds, in_memory=len(seconds) <= room)
                track = _track(episode, film, reel.origin, own, used, layout.fps)
        except VideoError as error:
            skipped.append(Skipped(episode.name, str(error)))
            continue
        tracks.append(track)
        if track.footage.in_memory:
            room_bytes -= 3 * size[0] * size[1] * len(track.times)
    _warn_of(reels, tracks, layout.fps)
    return tracks, skipped


def _rows(
    layout: DatasetLayout, episodes: list[Episode], columns: list[str]
) -> dict[int, Rows | VideoError]:
    """Find the rows of episodes in the tables that they are listed in, or else in any other.

    Converters write a file's number one off, which the tools of LeRobot do not notice: they
    search all tables.
    """
    listed: dict[Path, list[int]] = {}
    for episode in episodes:
        if episode.table is not None:
            listed.setdefault(episode.table, []).append(episode.index)
    found: dict[int, Rows | VideoError] = {}
    damaged: dict[Path | None, VideoError] = {}
    for table, indices in listed.items():
        try:
            found |= read_rows(table, columns, indices)
        except VideoError as error:
            damaged[table] = error.with_traceback(None)  # which would keep what was read
    missing = {episode.index for episode in episodes} - found.keys()
    for table in layout.tables if missing else ():
        if table in damaged:
            continue
        try:
            elsewhere = read_rows(table, columns, missing)
        except VideoError:
            continue
        found |= elsewhere
        missing -= elsewhere.keys()
        if not missing:
            break
    nowhere = VideoError(f"no table of {str(layout.root)!r} holds a row of it; copy them again")
    for episode in episodes:
        found.setdefault(episode.index, damaged.get(episode.table, nowhere))
    return found


def _of_use(rows: dict[int, Rows | VideoError], columns: list[str]) -> list[str]:
    """Choose the columns that at least half of the episodes have; the others become errors."""
    read = {index: own for index, own in rows.items() if isinstance(own, Rows)}
    counts = Counter(name for own in read.values() for name in own.values)
    used = [name for name in columns if 2 * counts[name] >= len(read)]
    unused: dict[str, str] = {}
    for index, own in read.items():
        lacking = [why for name, why in own.unusable.items() if name in used]
        if lacking:
            rows[index] = VideoError(lacking[0])
        unused |= {name: why for name, why in own.unusable.items() if name not in used}
    for why in unused.values():
        _warn(f"{why}, as in most episodes; it is left out")
    return used


@dataclass(frozen=True)
class _Reel:
    """A video file, joined to the rows of its episodes."""

    path: Path
    origin: str
    stamps: np.ndarray
    """Seconds of every frame."""
    frames: dict[int, np.ndarray | None]
    """The frame of every row by episode, or of the first rows; None where they do not fit."""

    @property
    def fps(self) -> float:
        """Frames per second, on average."""
        length = float(self.stamps[-1] - self.stamps[0])
        return (len(self.stamps) - 1) / length if length else 0.0

    def seconds_of(self, episode: Episode, num_rows: int, fps: float) -> np.ndarray:
        """Return when the frame of every row is shown; VideoError where there is none, or any."""
        frames, start = self.frames[episode.index], episode.start_seconds
        if frames is None:
            raise VideoError(
                f"{str(self.path)!r} has {len(self.stamps)} frames at {self.fps:.5g} per second, "
                f"which do not fit the {num_rows} rows at {fps:.5g} per second that begin at "
                f"{start:.3f} s in it: convert it to {fps:.5g} frames per second, or write the "
                "rate it was recorded at into `fps` of meta/info.json"
            )
        if not len(frames):
            raise VideoError(
                f"{str(self.path)!r} ends at {self.stamps[-1]:.2f} s, before the episode begins at "
                f"{start:.2f} s, or shows another one from there on; copy it again"
            )
        if len(frames) < num_rows:
            _warn(
                f"{episode.name}: the table has {num_rows} rows and the video {len(frames)} "
                f"frames; the first {len(frames)} are used"
            )
        return self.stamps[frames]


class _Reels:
    """The video files of a data set, each of which is opened once."""

    def __init__(
        self, episodes: list[Episode], rows: dict[int, Rows | VideoError], fps: float
    ) -> None:
        self.rows = rows
        self.fps = fps
        self.episodes: dict[Path, list[Episode]] = {}
        for episode in sorted(episodes, key=lambda episode: episode.start_seconds):
            if episode.video is not None:
                self.episodes.setdefault(episode.video, []).append(episode)
        self.opened: dict[Path, _Reel | VideoError] = {}
        self.of_another_rate: list[_Reel] = []

    def of(self, path: Path) -> _Reel:
        """Open a video file, or remember what is wrong with it: a VideoError."""
        if path not in self.opened:
            try:
                self.opened[path] = self._open(path)
            except VideoError as error:
                self.opened[path] = error.with_traceback(None)
        reel = self.opened[path]
        if isinstance(reel, VideoError):
            raise reel
        return reel

    def _open(self, path: Path) -> _Reel:
        origin, stamps = _fingerprint(path), video.timestamps(path)
        if not len(stamps):
            raise VideoError(f"{str(path)!r} holds no frames; copy it again")
        episodes = self.episodes[path]
        by_number = joining.by_number(
            stamps,
            [episode.start_seconds for episode in episodes],
            [self._num_rows(episode) for episode in episodes],
        )
        if by_number is None:
            episodes = [e for e in episodes if isinstance(self.rows[e.index], Rows)]
            wanted = [self._wanted(episode, stamps) for episode in episodes]
            frames = joining.by_time(stamps, wanted, self.fps)
        else:
            frames = by_number
        indices = [episode.index for episode in episodes]
        reel = _Reel(path, origin, stamps, dict(zip(indices, frames, strict=True)))
        if by_number is not None and len(stamps) > 1 and abs(reel.fps / self.fps - 1) > 0.01:
            self.of_another_rate.append(reel)
        return reel

    def _num_rows(self, episode: Episode) -> int:
        own = self.rows[episode.index]
        return len(own) if isinstance(own, Rows) else episode.num_frames

    def _wanted(self, episode: Episode, stamps: np.ndarray) -> np.ndarray:
        """Return the seconds in the video at which the rows of an episode were recorded."""
        own = self.rows[episode.index]
        assert isinstance(own, Rows)
        seconds = joining.recorded(own.timestamps, own.frames, self.fps)
        if seconds is None:
            seconds = own.frames / self.fps
        if episode.start_seconds + seconds[0] > stamps[-1] + 0.5 / self.fps:
            seconds = seconds - seconds[0]  # some count from another zero, as clocks do
        return episode.start_seconds + seconds


def _track(
    episode: Episode, footage: Film | Album, origin: str, rows: Rows, used: list[str], fps: float
) -> Track:
    seconds = joining.recorded(rows.timestamps, rows.frames, fps)
    timed = seconds is not None
    grid = rows.frames / fps
    times = joining.timeline((seconds if timed else grid)[: footage.num_rows], fps)
    on_grid = times[-1] == (len(times) - 1) / fps
    end = len(times) / fps if on_grid else float(times[-1]) + 1 / fps
    values = {name: rows.values[name][: len(times)] for name in used}
    signals = sha256(f"{episode.start_seconds} {end} {sorted(values)}".encode())
    joined = [times, *([footage.seconds] if isinstance(footage, Film) else [])]
    for column in (*joined, *(values[name] for name in sorted(values))):
        signals.update(column.tobytes())
    recording = Recording(episode.name, end, origin, signals.hexdigest(), episode.task)
    start = episode.start_seconds
    return Track(episode.index, recording, footage, start, times, timed, values)


def _warn_of(reels: _Reels, tracks: list[Track], fps: float) -> None:
    """Say what was made of rates and timestamps that cannot be meant, once for all episodes."""
    odd = reels.of_another_rate
    if odd:
        _warn(
            f"{str(odd[0].path)!r}{_more(odd)} plays {odd[0].fps:.5g} frames per second, and its "
            f"rows are at {fps:.5g}; it has one frame for every row, so they are joined by number"
        )
    untimed = [track.recording.name for track in tracks if not track.timed]
    if untimed:
        _warn(
            f"{untimed[0]}{_more(untimed)}: the timestamps are no ascending seconds at about "
            f"{fps:g} rows per second; the rows are taken to follow one another at that rate"
        )


def _more(found: Sequence[object]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def _fingerprint(path: Path) -> str:
    if not is_regular(path):
        raise VideoError(f"there is no file {str(path)!r}, or it is a device or pipe")
    try:
        return video.fingerprint(path)
    except OSError as error:
        raise VideoError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def _warn(message: str) -> None:
    warnings.warn(message, video.VideoWarning, stacklevel=2)
