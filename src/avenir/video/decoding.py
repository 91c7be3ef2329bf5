"""An open video file: what it declares, and its frames one after the other by time.

Knows containers, codecs and damaged files; knows nothing of clips or tensors. Files are known by
their content, never by their extension; a still image is a video of one frame. Nothing a header
claims is believed before a frame was decoded.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Self, cast

import av
import av.container
import av.error
import av.stream
import av.video
from av.format import Flags

from avenir.device import free_memory_bytes
from avenir.errors import VideoError
from avenir.video.timing import SLACK_SECONDS, Clock

MAX_PIXELS = 2**26
"""Pictures above 8192 x 8192 are refused before anything is allocated for them."""
PIXEL_BYTES = 32
"""What a pixel takes on its way through decoder, colours and resizing: fewer are allowed where
less memory is free."""
DURATION_TOLERANCE = 0.01
"""Headers round their duration, or say what was planned: a file may be shorter by this share."""
PLAYLISTS = {"concat", "hls", "dash", "sdp", "tty"}
"""Formats of text files that name or imitate videos: opening one would read other files."""


class Video:
    """An open video file: what it declares, and its frames by time."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.max_pixels = min(MAX_PIXELS, free_memory_bytes() // PIXEL_BYTES)
        self.missing_frames = 0
        """Frames that should be there and were not found, known once the end was reached."""
        self.num_expected = 0
        """Frames that should be there, known once the end was reached."""
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.container.close()

    def _open(self) -> None:
        """Open the file (again), at its first frame."""
        self.container = _open(self.path, self.max_pixels)
        self.stream = _video_stream(self.container, self.path)
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.options = {"max_pixels": str(self.max_pixels)}
        self.clock = Clock(self.container, self.stream, self.fps)
        index = self.stream.index_entries  # it may grow while an incomplete one is read
        self._num_indexed = len(index)
        self._indexed_until = index[-1].timestamp if len(index) else -1
        self._last_dts: int | None = None
        self._end_seconds = 0.0
        self._refused: Exception | None = None
        self._num_refused = self._num_packets = 0
        self._interlaced = False

    @property
    def fps(self) -> float:
        """Average frames per second; 25 where nothing is said, as for a still image."""
        average, guessed = self.stream.average_rate, self.stream.guessed_rate
        if self.container.format.flags & Flags.no_timestamps.value:
            average = guessed  # a raw stream has no times to average, its frames may say a rate
        elif self.container.format.name == "avi" and average and guessed:
            average = min(average, guessed)  # it counts places for frames, taken or not
        return float(average or guessed or 25)

    @property
    def tick_seconds(self) -> float:
        """Seconds of one unit of timestamp."""
        return self.clock.tick_seconds

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
        """Frames the file promises to show, 0 where the format does not say.

        An index is believed before the header: it knows what an edit list leaves out and which
        frames were never stored. An AVI that was cut off has lost it, but for one entry.
        """
        if not self.stream.frames or self._num_indexed < 2:
            return self.stream.frames
        return sum(not entry.is_discard for entry in self.stream.index_entries)

    @property
    def frame_pixels(self) -> int:
        """Pixels of a frame, 0 where the header cannot be believed about it.

        In pictures and gifs there is no other place that says it.
        """
        name = self.container.format.name
        believed = name in ("gif", "apng") or name.endswith("_pipe")
        return self.stream.width * self.stream.height if believed else 0

    def packets(self) -> Iterator[av.Packet]:
        """Yield compressed frames until the end, or until the file is unreadable."""
        try:
            for packet in self.container.demux():
                if packet.pts is not None:
                    end = (packet.pts + (packet.duration or 0)) * float(packet.time_base)
                    self._end_seconds = max(self._end_seconds, end)
                if packet.stream is not self.stream:  # the last ones have no `stream_index`
                    continue
                self.clock.join(packet)
                self._num_packets += packet.size > 0
                if packet.dts is not None:
                    self._last_dts = max(packet.dts, self._last_dts or packet.dts)
                yield packet
        except av.error.FFmpegError:
            return  # the frames that are missing now are counted by the caller

    def frames(self, start: float) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yield (seconds, frame) from a key frame before `start` to the end of the file."""
        if start > SLACK_SECONDS and not self.clock.sequential:
            near = self._decoded((self._sought if self.clock.seekable else self._walked)(start))
            first = next(near, None)
            if first is not None and first[0] <= start + SLACK_SECONDS:
                yield first
                yield from near
                return
            self.container.close()  # this led nowhere: walk from the first frame
            self._open()
        yield from self._decoded(self.packets(), whole=True)

    def _sought(self, start: float) -> Iterator[av.Packet]:
        """Yield packets from where the file's index says that `start` is."""
        origin = self.stream.start_time or 0
        try:
            self.container.seek(origin + int(start / self.tick_seconds), stream=self.stream)
        except av.error.FFmpegError:
            return
        yield from self.packets()

    def _walked(self, start: float) -> Iterator[av.Packet]:
        """Yield packets from the last key frame before `start`, found by reading up to there.

        Where times may restart, a place cannot be sought. Only the first frame is decoded on the
        way, to know when the file starts.
        """
        held: list[av.Packet] = []
        packets = self.packets()
        for packet in packets:
            for frame in self._decode(packet) if self.clock.origin is None else ():
                self.clock.seconds(frame)
                break
            if packet.dts is None or self.clock.origin is None:
                held.append(packet)
                continue
            shown = packet.dts if packet.pts is None else packet.pts
            if packet.is_keyframe and self.clock.at(shown) <= start:
                held.clear()
            held.append(packet)
            if self.clock.at(packet.dts) > start + SLACK_SECONDS:
                break
        self.stream.codec_context.flush_buffers()
        self.clock.rewind()
        yield from held
        yield from packets

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        """Decode a packet; one that cannot be is counted and left out."""
        try:
            return cast(list[av.VideoFrame], packet.decode())
        except (av.error.FFmpegError, MemoryError) as error:
            self._refused, self._num_refused = error, self._num_refused + 1
            return []

    def _decoded(
        self, packets: Iterator[av.Packet], whole: bool = False
    ) -> Iterator[tuple[float, av.VideoFrame]]:
        num_decoded = 0
        for packet in packets:
            for frame in self._decode(packet):
                num_decoded += 1
                self._interlaced |= frame.interlaced_frame
                yield self.clock.seconds(frame), frame
        if whole and not num_decoded:
            raise VideoError(
                f"{str(self.path)!r} has no frame that can be decoded "
                f"({self._refused or 'no data'}); "
                f"pictures above {self.max_pixels / 1e6:.0f} million pixels are refused: "
                "record or copy it again, or scale it down first"
            )
        if num_decoded:
            self.missing_frames = missing = self._missing(num_decoded if whole else None)
            measured = num_decoded + missing if whole else round(self.seconds * self.fps)
            self.num_expected = self.num_declared or max(measured, missing)

    def _missing(self, num_decoded: int | None) -> int:
        """Count frames that were promised and did not come, now that the end was reached.

        `num_decoded` counts those that came, None if reading began in the middle. An index is
        believed where the format has one of all frames, else the header's duration, which is held
        against the end of the last packet of any stream: sound may be longer.
        """
        if self.clock.restarts or self.clock.counted:
            # These declare nothing: what they say was measured. A packet is a frame, or a field.
            if num_decoded is None or self._interlaced:
                return self._num_refused
            return max(self._num_refused, self._num_packets - num_decoded)
        last = self._last_dts or 0
        if self.stream.frames and last <= self._indexed_until and num_decoded is not None:
            return max(0, self.num_declared - num_decoded)
        if last < self._indexed_until:
            index = self.stream.index_entries
            left = sum(entry.timestamp > last and not entry.is_discard for entry in index)
            return self._num_refused + left
        if self.stream.frames and last == self._indexed_until:
            return self._num_refused
        declared, tolerance = self.stream.frames / self.fps, 0.5 / self.fps
        if not declared:
            declared = (self.container.duration or 0) / av.time_base
            tolerance = max(3.5 / self.fps, DURATION_TOLERANCE * declared)
        lacking = declared - self._end_seconds
        return self._num_refused + (round(lacking * self.fps) if lacking > tolerance else 0)

    def spans(self, start: float) -> Iterator[tuple[float, float, av.VideoFrame]]:
        """Yield (from, until, frame): when each frame is shown, first the one shown at `start`."""
        frames = self.frames(start)
        seconds, frame = next(frames)
        for next_seconds, next_frame in frames:
            if next_seconds > start + SLACK_SECONDS:
                yield seconds, next_seconds, frame
            seconds, frame = next_seconds, next_frame
        until = seconds + self.clock.duration(frame)
        if until <= start + SLACK_SECONDS:
            raise VideoError(
                f"{str(self.path)!r} was asked for start_seconds={start:g} and ends at "
                f"{until:.3f} s: start earlier"
            )
        yield seconds, until, frame


def _open(path: Path, max_pixels: int) -> av.container.InputContainer:
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
        "max_pixels": str(max_pixels),
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
