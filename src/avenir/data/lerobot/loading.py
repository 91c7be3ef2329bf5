"""The episodes that a data set lists become tracks: frames, rows, and which belongs to which.

What is wrong with one episode takes out that one, with the reason. Every file is opened once, or
twice where rows lie in another table than listed. Knows nothing of splits or windows.
"""

import warnings
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from avenir import video
from avenir.data import Recording, Skipped
from avenir.data.lerobot import joining
from avenir.data.lerobot.footage import Album, Film
from avenir.data.lerobot.reading import Episode, Layout
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
    layout: Layout, camera: str, columns: list[str], size: tuple[int, int], room_bytes: float
) -> tuple[list[Track], list[Skipped]]:
    """Load every episode with its columns; frames are kept in memory while there is room.

    Returns the tracks in order, and what was left out with the reasons. Raises AvenirError where
    the data set as a whole says something that cannot be.
    """
    episodes, skipped = layout.episodes(camera)
    rows = _rows(layout, episodes, columns)
    films = _Films(episodes, rows, layout.fps)
    tracks: list[Track] = []
    for episode in episodes:
        try:
            own = rows[episode.index]
            if isinstance(own, VideoError):
                raise own
            room = int(room_bytes / (3 * size[0] * size[1]))
            if episode.video is None:
                track = _of_pictures(episode, own, camera, size, room, layout.fps)
            else:
                film = films.of(episode.video)
                track = _of_video(episode, own, film, size, room, layout.fps)
        except VideoError as error:
            skipped.append(Skipped(episode.name, str(error)))
            continue
        tracks.append(track)
        if track.footage.in_memory:
            room_bytes -= 3 * size[0] * size[1] * len(track.times)
    return tracks, skipped


def _rows(
    layout: Layout, episodes: list[Episode], columns: list[str]
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
            damaged[table] = error
    missing = {episode.index for episode in episodes} - found.keys()
    for table in layout.tables if missing else ():
        try:
            elsewhere = read_rows(table, columns, missing)
        except VideoError as error:
            damaged.setdefault(table, error)
            continue
        found |= elsewhere
        missing -= elsewhere.keys()
        if not missing:
            break
    nowhere = VideoError(
        f"no table of {str(layout.root)!r} holds a row of it; copy its tables again"
    )
    for episode in episodes:
        found.setdefault(episode.index, damaged.get(episode.table, nowhere))
    return found


@dataclass(frozen=True)
class _Film:
    """A video file, and where in it its episodes begin."""

    path: Path
    origin: str
    stamps: np.ndarray
    """Seconds of every frame."""
    starts: np.ndarray
    """Seconds at which episodes begin, ascending."""
    firsts: dict[int, int] | None
    """The first frame of each episode, where the file has one frame for every row."""

    @property
    def fps(self) -> float:
        """Frames per second, on average."""
        length = float(self.stamps[-1] - self.stamps[0])
        return (len(self.stamps) - 1) / length if length else 0.0

    def shown(self, episode: Episode, seconds: np.ndarray, fps: float) -> np.ndarray:
        """Return the frame of every row, or of the first ones when the video ends early."""
        if self.firsts is not None:
            return self.firsts[episode.index] + np.arange(len(seconds))
        later = self.starts[self.starts.searchsorted(episode.start_seconds, side="right") :]
        until = float(later[0]) if len(later) else np.inf
        for first in dict.fromkeys((0.0, float(seconds[0]))):  # some count from another zero
            wanted = episode.start_seconds + seconds - first
            frames = joining.by_time(self.stamps, wanted, until, fps)
            if frames is not None and len(frames):
                return frames
        if episode.start_seconds > self.stamps[-1] + 0.5 / fps:
            raise VideoError(
                f"{str(self.path)!r} ends at {self.stamps[-1]:.2f} s, before the episode begins at "
                f"{episode.start_seconds:.2f} s; copy it again"
            )
        raise VideoError(
            f"{str(self.path)!r} has {len(self.stamps)} frames at {self.fps:.5g} per second, which "
            f"do not fit the {len(seconds)} rows at {fps:.5g} per second that begin at "
            f"{episode.start_seconds:.3f} s in it: convert it to {fps:.5g} frames per second, or "
            "write the rate it was recorded at into `fps` of meta/info.json"
        )


class _Films:
    """Joins rows to the frames of video files, each of which is opened once."""

    def __init__(
        self, episodes: list[Episode], rows: dict[int, Rows | VideoError], fps: float
    ) -> None:
        self.fps = fps
        self.num_rows = {e.index: e.num_frames for e in episodes}
        self.num_rows |= {i: len(own) for i, own in rows.items() if isinstance(own, Rows)}
        self.episodes: dict[Path, list[Episode]] = {}
        for episode in episodes:
            if episode.video is not None:
                self.episodes.setdefault(episode.video, []).append(episode)
        self.opened: dict[Path, _Film | VideoError] = {}

    def of(self, path: Path) -> _Film:
        """Open a video file, or remember what is wrong with it."""
        if path not in self.opened:
            try:
                self.opened[path] = self._open(path)
            except VideoError as error:
                self.opened[path] = error
        film = self.opened[path]
        if isinstance(film, VideoError):
            raise film
        return film

    def _open(self, path: Path) -> _Film:
        origin, stamps = _fingerprint(path), video.timestamps(path)
        if not len(stamps):
            raise VideoError(f"{str(path)!r} holds no frames; copy it again")
        episodes = self.episodes[path]
        starts = [episode.start_seconds for episode in episodes]
        num_rows = [self.num_rows[episode.index] for episode in episodes]
        found = joining.by_number(stamps, starts, num_rows)
        indices = [episode.index for episode in episodes]
        firsts = None if found is None else dict(zip(indices, found, strict=True))
        film = _Film(path, origin, stamps, np.unique(starts), firsts)
        if firsts is not None and abs(film.fps / self.fps - 1) > 0.01 and len(stamps) > 1:
            _warn(
                f"{str(path)!r} plays {film.fps:.5g} frames per second, and its rows are at "
                f"{self.fps:.5g}; it has one frame for every row, so they are joined by number"
            )
        return film


def _of_video(
    episode: Episode, rows: Rows, film: _Film, size: tuple[int, int], room: int, fps: float
) -> Track:
    seconds = _seconds(episode, rows, fps)
    shown = film.shown(episode, seconds, fps)
    if len(shown) < len(rows):
        _warn(
            f"{episode.name}: the table has {len(rows)} rows and the video {len(shown)} frames; "
            f"the first {len(shown)} are used"
        )
    footage = Film(film.path, size, film.stamps[shown], in_memory=len(shown) <= room)
    return _track(episode, footage, film.origin, seconds[: len(shown)], rows, fps)


def _of_pictures(
    episode: Episode, rows: Rows, camera: str, size: tuple[int, int], room: int, fps: float
) -> Track:
    footage = Album(rows.table, size, camera, rows.numbers, in_memory=len(rows) <= room)
    footage.decode(np.arange(1))
    seconds = _seconds(episode, rows, fps)
    return _track(episode, footage, _fingerprint(rows.table), seconds, rows, fps)


def _seconds(episode: Episode, rows: Rows, fps: float) -> np.ndarray:
    seconds = joining.recorded(rows.timestamps, len(rows), fps)
    if seconds is None:
        _warn(
            f"{episode.name}: its timestamps are no ascending seconds at about {fps:g} rows per "
            "second; its rows are taken to follow one another at that rate"
        )
        return np.arange(len(rows)) / fps
    return seconds


def _track(
    episode: Episode,
    footage: Film | Album,
    origin: str,
    seconds: np.ndarray,
    rows: Rows,
    fps: float,
) -> Track:
    times = joining.timeline(seconds, fps)
    on_grid = times[-1] == (len(times) - 1) / fps
    end = len(times) / fps if on_grid else float(times[-1]) + 1 / fps
    values = {name: value[: len(times)] for name, value in rows.values.items()}
    recording = Recording(episode.name, end, origin)
    return Track(episode.index, recording, footage, episode.start_seconds, times, values)


def _fingerprint(path: Path) -> str:
    if not is_regular(path):
        raise VideoError(f"there is no file {str(path)!r}, or it is a device or pipe")
    try:
        return video.fingerprint(path)
    except OSError as error:
        raise VideoError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def _warn(message: str) -> None:
    warnings.warn(message, video.VideoWarning, stacklevel=2)
