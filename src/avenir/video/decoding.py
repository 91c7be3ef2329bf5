"""An open video file: what it declares, and its frames one after the other by time.

Knows containers, codecs and damaged files; knows nothing of clips or tensors. Files are known by
their content, never by their extension; a still image is a video of one frame. Nothing a header
claims is believed before a frame was decoded.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import av
import av.container
import av.error
import av.stream
import av.video

from avenir.errors import VideoError

SLACK_SECONDS = 5.1e-4
"""Timestamps this close are equal: Matroska rounds them to whole milliseconds."""
MAX_PIXELS = 2**26
"""Pictures above 8192 x 8192 are refused before anything is allocated for them."""
PLAYLISTS = {"concat", "hls", "dash", "sdp", "tty"}
"""Formats of text files that name or imitate videos: opening one would read other files."""


class Video:
    """An open video file: what it declares, and its frames by time."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.missing_frames = 0
        """Frames declared but not found, known once the end was reached."""
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.container.close()

    def _open(self) -> None:
        """Open the file (again), at its first frame."""
        self.container = _open(self.path)
        self.stream = _video_stream(self.container, self.path)
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}

    @property
    def fps(self) -> float:
        """Average frames per second; 25 where nothing is said, as for a still image."""
        return float(self.stream.average_rate or self.stream.guessed_rate or 25)

    @property
    def tick_seconds(self) -> float:
        """Seconds of one unit of timestamp."""
        return float(self.stream.time_base or 1 / self.fps)

    @property
    def origin(self) -> int:
        """Timestamp of the first frame, in ticks."""
        return self.stream.start_time or 0

    @property
    def seconds(self) -> float:
        """Declared duration."""
        if self.stream.duration is not None:
            return self.stream.duration * self.tick_seconds
        if self.container.duration is not None:
            return self.container.duration / av.time_base
        return (self.stream.frames or 1) / self.fps

    @property
    def num_declared(self) -> int:
        """Frames the header promises to show, 0 where the format does not say."""
        if not self.stream.frames:
            return 0
        return self.stream.frames - sum(entry.is_discard for entry in self.stream.index_entries)

    def packets(self) -> Iterator[av.Packet]:
        """Yield compressed frames until the end, or until the file is unreadable."""
        try:
            yield from self.container.demux(self.stream)
        except av.error.FFmpegError:
            return  # the frames that are missing now are counted by whoever asked for them

    def frames(self, start: float) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yield (seconds, frame) from the key frame before `start` to the end of the file."""
        if start > SLACK_SECONDS:
            sought = self._sought(start)
            first = next(sought, None)
            if first is not None and first[0] <= start + SLACK_SECONDS:
                yield first
                yield from sought
                return
            self.container.close()  # the index leads nowhere: walk from the first frame
            self._open()
        yield from self._decoded(from_start=True)

    def _sought(self, start: float) -> Iterator[tuple[float, av.VideoFrame]]:
        try:
            self.container.seek(self.origin + int(start / self.tick_seconds), stream=self.stream)
        except av.error.FFmpegError:
            return
        yield from self._decoded(from_start=False)

    def _decoded(self, from_start: bool) -> Iterator[tuple[float, av.VideoFrame]]:
        num_decoded, seconds, refused = 0, -1 / self.fps, None
        for packet in self.packets():
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, MemoryError) as error:
                refused = error
                continue
            for frame in frames:
                if frame.pts is None:
                    seconds += 1 / self.fps
                else:
                    seconds = (frame.pts - self.origin) * self.tick_seconds
                num_decoded += 1
                yield seconds, frame
        if from_start and not num_decoded:
            raise VideoError(
                f"{str(self.path)!r} has no frame that can be decoded ({refused or 'no data'}); "
                f"pictures above {MAX_PIXELS / 1e6:.0f} million pixels are refused: "
                "record or copy it again, or scale it down first"
            )
        self.missing_frames = self._missing(num_decoded if from_start else None, seconds)

    def _missing(self, num_decoded: int | None, last_seconds: float) -> int:
        if num_decoded is not None and self.num_declared:
            return max(0, self.num_declared - num_decoded)
        return max(0, round((self.seconds - last_seconds) * self.fps) - 1)

    def spans(self, start: float) -> Iterator[tuple[float, float, av.VideoFrame]]:
        """Yield (from, until, frame): when each frame is shown, first the one shown at `start`."""
        frames = self.frames(start)
        seconds, frame = next(frames)
        for next_seconds, next_frame in frames:
            if next_seconds > start + SLACK_SECONDS:
                yield seconds, next_seconds, frame
            seconds, frame = next_seconds, next_frame
        until = seconds + ((frame.duration or 0) * self.tick_seconds or 1 / self.fps)
        if until <= start + SLACK_SECONDS:
            raise VideoError(
                f"{str(self.path)!r} was asked for start_seconds={start:g} and ends at "
                f"{until:.3f} s: start earlier"
            )
        yield seconds, until, frame


def _open(path: Path) -> av.container.InputContainer:
    """Open a local regular file by content, or say why not and what to do."""
    name = repr(str(path))
    if path.is_dir():
        raise VideoError(f"{name} is a folder; give one video file of it")
    if not path.exists():
        raise VideoError(f"there is no file {name}; check the path")
    if not path.is_file():
        raise VideoError(f"{name} is a device or pipe; give a video file")
    if path.stat().st_size == 0:
        raise VideoError(f"{name} is empty (0 bytes); copy or record it again")
    options = {
        "max_pixels": str(MAX_PIXELS),
        "pattern_type": "none",  # a percent sign in a name is no pattern
        "protocol_whitelist": "file",
    }
    try:
        container = av.open(f"file:{path.absolute()}", mode="r", options=options)
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"{name} is no readable video: {_reason(path, error)}") from None
    if container.format.name.split(",")[0] in PLAYLISTS:
        container.close()
        raise VideoError(f"{name} is a text file or playlist; give a video file")
    return container


def _video_stream(container: av.container.InputContainer, path: Path) -> av.video.VideoStream:
    found = container.streams.best("video")
    pictures = isinstance(found, av.video.VideoStream)
    if not pictures or found.disposition & av.stream.Disposition.attached_pic:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        container.close()
        raise VideoError(
            f"{str(path)!r} has no video stream, only {kinds}; give a file with pictures"
        )
    if found.codec_context is None:  # PyAV's types do not know that there may be no decoder
        container.close()
        raise VideoError(f"{str(path)!r} is of a codec that is not known here; convert it to h264")
    return found


def _reason(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as problem:
        return f"{problem.strerror}; check the permissions of the file"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "its index (moov) is missing or damaged; it was cut off: record or copy it again"
    if head.isascii() and b"\0" not in head:
        return "it holds text; give a video file"
    return f"{getattr(error, 'strerror', error)}; record or copy it again, or convert it to mp4"
