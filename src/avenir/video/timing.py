"""When frames are shown: the times in a file, which may restart or be guessed, become ascending.

Follows what FFmpeg's own tool does, so that frames and times are those it gives. Knows packets and
frames of one open file; decodes nothing.
"""

import av
import av.container
import av.video
from av.format import Flags

SLACK_SECONDS = 5.1e-4
"""Timestamps this close are equal: Matroska rounds them to whole milliseconds."""
BACK_SECONDS = 0.1
"""Times that fall back further than this were restarted: files were joined, or a clock was set."""
AHEAD_SECONDS = 10.0
"""A transport stream that jumps further than this has paused: its times go on without the gap."""


class Clock:
    """Gives every decoded frame its time in seconds, ascending, 0 for the first frame.

    Files differ in what can be believed. `counted`: there are no times (raw streams), so frames
    are counted. `guessed`: an AVI stores frames in the order of decoding and no time of showing;
    with B-frames, what FFmpeg derives for the packet that released a frame is right, and the
    frame's own is not. `restarts`: transport and program streams are joined or cut anywhere.
    Everything else is believed as long as it ascends.
    """

    def __init__(
        self, container: av.container.InputContainer, stream: av.video.VideoStream, fps: float
    ) -> None:
        flags = container.format.flags
        self.counted = bool(flags & Flags.no_timestamps.value)
        self.restarts = bool(flags & Flags.ts_discont.value) and not self.counted
        self.guessed = container.format.name == "avi" and bool(stream.codec_context.has_b_frames)
        self.tick_seconds = float(stream.time_base or 1 / fps)
        self.frame_seconds = 1 / fps
        self.origin = None if self.restarts or self.guessed else (stream.start_time or 0)
        """Timestamp of the first frame, in ticks; None before it was decoded where no header
        tells."""
        self._moved = 0.0
        self._ends: dict[int, tuple[float, float]] = {}
        self.rewind()

    @property
    def seekable(self) -> bool:
        """Whether a place in the file can be found by its time."""
        return not (self.counted or self.guessed or self.restarts)

    @property
    def restarted(self) -> bool:
        """Whether times were moved so far."""
        return self._moved != 0

    def rewind(self) -> None:
        """Forget the last frame: decoding goes on at another one."""
        self._last: float | None = None
        self._last_duration = self.frame_seconds

    def join(self, packet: av.Packet) -> None:
        """Move a packet's times to where those of its stream went on, after a restart or gap."""
        if not self.restarts or packet.dts is None:
            return
        tick = float(packet.time_base)
        dts = packet.dts * tick + self._moved
        if packet.stream_index in self._ends:
            last, expected = self._ends[packet.stream_index]
            if abs(dts - expected) > AHEAD_SECONDS or dts + BACK_SECONDS < last:
                self._moved += expected - dts
                dts = expected
        self._ends[packet.stream_index] = dts, dts + (packet.duration or 0) * tick
        ticks = round(self._moved / tick)
        packet.dts += ticks
        if packet.pts is not None:
            packet.pts += ticks

    def at(self, ticks: int) -> float:
        """Convert a timestamp to seconds from the first frame."""
        return (ticks - (self.origin or 0)) * self.tick_seconds

    def seconds(self, frame: av.VideoFrame) -> float:
        """Return when a frame is shown; frames are given in the order in which they are."""
        ticks = frame.dts if self.guessed else frame.pts
        if self.origin is None:
            self.origin = ticks
        following = 0.0 if self._last is None else self._last + self._last_duration
        if ticks is None or self.counted:
            seconds = following
        else:
            seconds = self.at(ticks) + (0.0 if self.restarts else self._moved)
            if self._last is not None and seconds <= self._last:
                if seconds + BACK_SECONDS < self._last:
                    self._moved += following - seconds
                seconds = following
        self._last = seconds
        self._last_duration = (frame.duration or 0) * self.tick_seconds or self.frame_seconds
        return seconds
