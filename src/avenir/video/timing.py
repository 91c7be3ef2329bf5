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
    are counted. `coded`: AVI and ASF store frames in the order of decoding and no time of showing;
    where they are shown in another, FFmpeg's guess for the packet that released a frame is right
    and the frame's own is not. `restarts`: transport and program streams are joined or cut
    anywhere. Everything else is believed as long as it ascends.
    """

    def __init__(
        self, container: av.container.InputContainer, stream: av.video.VideoStream, fps: float
    ) -> None:
        flags, codec = container.format.flags, stream.codec_context
        self.counted = bool(flags & Flags.no_timestamps.value)
        self.restarts = bool(flags & Flags.ts_discont.value) and not self.counted
        self.in_slots = container.format.name == "avi"
        """Whether a tick is a place for a frame, taken or not, and says nothing of durations."""
        self.coded = container.format.name in ("avi", "asf") and codec.codec.reorder
        reordered = self.coded and bool(codec.has_b_frames)
        holes = self.in_slots and stream.frames != len(stream.index_entries)
        self.sequential = self.counted or reordered
        """Whether only decoding everything before tells when a frame is shown."""
        self.seekable = not (self.sequential or self.restarts or holes)
        """Whether a frame can be found by its time with the file's own index."""
        self.tick_seconds = float(stream.time_base or 1 / fps)
        self.frame_seconds = 1 / fps
        self.origin = None if self.restarts or reordered else (stream.start_time or 0)
        """Timestamp of the first frame, in ticks; None before it was decoded where no header
        tells."""
        self._moved = self._fallen = 0.0
        self._before: tuple[float, float] | None = None
        self.rewind()

    @property
    def restarted(self) -> bool:
        """Whether times were moved so far."""
        return self._moved != 0

    def rewind(self) -> None:
        """Forget the last frame: decoding goes on at another one."""
        self._last: float | None = None
        self._step = self.frame_seconds
        self._last_ticks: dict[str, int] = {}
        self._num_faulty = {"pts": 0, "dts": 0}

    def join(self, packet: av.Packet) -> None:
        """Move the times of a packet to where the last one ended, after a restart or a gap."""
        if not self.restarts or packet.dts is None:
            return
        tick = float(packet.time_base)
        dts = packet.dts * tick + self._moved
        if self._before:
            last, expected = self._before
            if abs(dts - expected) > AHEAD_SECONDS or dts + BACK_SECONDS < last:
                self._moved += expected - dts
                dts = expected
        duration = (packet.duration or 0) * tick or self.frame_seconds
        self._before = dts, dts + duration
        ticks = round(self._moved / tick)
        packet.dts += ticks
        if packet.pts is not None:
            packet.pts += ticks

    def at(self, ticks: int) -> float:
        """Convert a timestamp to seconds from the first frame."""
        return (ticks - (self.origin or 0)) * self.tick_seconds

    def duration(self, frame: av.VideoFrame) -> float:
        """Return for how many seconds a frame is shown when none follows."""
        duration = 0 if self.in_slots else frame.duration or 0
        return duration * self.tick_seconds or self.frame_seconds

    def seconds(self, frame: av.VideoFrame) -> float:
        """Return when a frame is shown; frames are given in the order in which they are."""
        ticks = None if self.counted else self._believed(frame.pts, frame.dts)
        if self.origin is None:
            self.origin = ticks
        following = 0.0 if self._last is None else self._last + self._step
        seconds = following if ticks is None else self._ascending(self.at(ticks), following)
        if self.in_slots or not frame.duration:
            self._step = self.duration(frame) if self._last is None else seconds - self._last
        else:
            self._step = self.duration(frame)
        self._last = seconds
        return seconds

    def _believed(self, pts: int | None, dts: int | None) -> int | None:
        """Choose the time that fell back less often so far, as FFmpeg does.

        `pts` is the frame's own; `dts` is what FFmpeg derived for the packet that released it.
        """
        for name, ticks in (("pts", pts), ("dts", dts)):
            if ticks is not None:
                self._num_faulty[name] += ticks <= self._last_ticks.get(name, ticks - 1)
                self._last_ticks[name] = ticks
        if self.coded or pts is None:
            return dts
        return pts if dts is None or self._num_faulty["pts"] <= self._num_faulty["dts"] else dts

    def _ascending(self, seconds: float, following: float) -> float:
        """Put a time that falls back to where the last frame ends, if times were restarted.

        One that falls back a little, or alone, becomes that of the last frame: what comes after it
        can be believed.
        """
        if self._last is None or seconds > self._last:
            return seconds
        if seconds + self._fallen > self._last:
            return seconds + self._fallen
        if self.restarts or self._last - seconds < BACK_SECONDS:
            return self._last
        self._fallen = following - seconds
        return following
