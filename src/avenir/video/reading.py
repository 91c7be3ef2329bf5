"""A video file becomes clips: probe it, read it whole or a window of it, stream it in pieces.

Turns decoded frames into pictures and chooses them by time; knows nothing of containers.
"""

import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import torch

from avenir.clip import Clip
from avenir.device import free_memory_bytes
from avenir.errors import AvenirError, VideoError, VideoWarning
from avenir.shapes import Frames
from avenir.video.decoding import Video
from avenir.video.painting import Painter, display_matrix, upright
from avenir.video.timing import SLACK_SECONDS

MAX_READ_BYTES = 2**34
"""A clip above 17 GB is refused: `stream` gives it in pieces."""
LITTLE_BYTES = 2**26
"""Up to this many, it is not asked how much memory is free."""
READ_SHARE = 1 / 4
"""Part of the free memory that a clip may take: as floats it is four times as large."""

MAX_STILL_SECONDS = 3600
"""A frame shown for longer is a damaged timestamp; past the declared end, one of a minute is."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file is, as far as its header and first frame tell."""

    path: Path
    width: int
    """Pixels, after rotation."""
    height: int
    fps: float
    """Average frames per second."""
    seconds: float
    """Declared duration; a truncated file has less (`timestamps` counts what is there)."""
    declared_frames: int | None
    """Number of frames in the header; None where the format does not say."""
    rotation: int
    """Degrees clockwise by which `read` turns the stored pictures."""
    codec: str
    pixel_format: str


def probe(path: str | Path) -> VideoInfo:
    """Describe a video, decoding its first frame only. Raises VideoError like `read`."""
    with Video(path) as video:
        _, frame = next(video.frames(0.0))
        matrix = display_matrix(frame)
        height, width = upright(np.empty((frame.height, frame.width, 0)), matrix).shape[:2]
        return VideoInfo(
            path=video.path,
            width=width,
            height=height,
            fps=video.fps,
            seconds=video.seconds,
            declared_frames=video.num_declared or None,
            rotation=round(math.degrees(math.atan2(matrix[1], matrix[0]))) % 360,
            codec=video.stream.codec_context.name,
            pixel_format=frame.format.name,
        )


def read(
    path: str | Path,
    seconds: float | None = None,
    start_seconds: float = 0.0,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
) -> Clip:
    """Read a video, or a window of it, as a clip of `T C H W` frames.

    Starts with the frame shown at `start_seconds` and goes on for `seconds` (None: to the end).
    `fps` resamples by timestamps: frame k is the one shown at `start_seconds + k / fps`; without
    it every frame is kept once, and where they come at no steady rate the clip's `edges` say when
    each is shown. `size` is `(H, W)`, filled by `avenir.clip.cover`. Rotation is
    applied, deeper colour becomes 8 bit, pixels are taken as square. In memory the channels of
    the frames lie last, as decoded.

    Raises VideoError when there is no frame to read; warns with VideoWarning when the file ends
    before the frames it declares, and keeps the good ones, and when its colours are of high
    dynamic range.
    """
    with Video(path) as video:
        frames, edges = next(_pieces(video, start_seconds, seconds, fps, size, num_frames=None))
        _warn_if_short(video)
        return _timed(video, frames, edges, fps)


def stream(
    path: str | Path,
    num_frames: int = 64,
    seconds: float | None = None,
    start_seconds: float = 0.0,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
) -> Iterator[Clip]:
    """Yield what `read` would give in pieces of `num_frames`, the last one shorter.

    Memory stays that of one piece, however long the video is.
    """
    with Video(path) as video:
        for frames, edges in _pieces(video, start_seconds, seconds, fps, size, num_frames):
            yield _timed(video, frames, edges, fps)
        _warn_if_short(video)


def decode(
    path: str | Path,
    size: tuple[int, int] | None = None,
    start_seconds: float = 0.0,
    seconds: float | None = None,
    fps: float | None = None,
) -> tuple[Frames, np.ndarray]:
    """Read as `read` does, and tell (`T C H W`, when each frame was recorded, in seconds).

    No warning is given of frames that are missing.
    """
    with Video(path) as video:
        frames, edges = next(_pieces(video, start_seconds, seconds, fps, size, num_frames=None))
        return frames, np.array(edges[:-1])


def timestamps(path: str | Path) -> np.ndarray:
    """List when each frame that is really in the file is shown, in seconds from the first.

    One float64 per frame, ascending. Only a file that is cut off, or has no timestamps, is decoded.
    """
    with Video(path) as video:
        stamps = _packet_times(video)
        if stamps is not None:
            return stamps
    with Video(path) as video:
        return np.array([seconds for seconds, _ in video.frames(0.0)])


def _is_shown(packet: av.Packet) -> bool:
    """Tell whether a packet has a time at which it is shown.

    VP8 has pictures that only others refer to (RFC 6386, 9.1: `show_frame` in the first byte).
    """
    if packet.pts is None or packet.stream.codec_context.name not in ("vp8", "libvpx"):
        return packet.pts is not None
    return packet.size > 0 and bool(memoryview(packet)[0] & 0x10)  # type: ignore[arg-type]  # a buffer


def _timed(video: Video, frames: Frames, edges: list[float], fps: float | None) -> Clip:
    """Make a clip that says when its frames are shown: at a steady rate, or one by one."""
    clip = Clip(frames, float(fps or video.fps), name=video.path.stem)
    risen = np.maximum.accumulate(np.array(edges)) - edges[0]
    off = np.abs(risen[:-1] * clip.fps - np.arange(clip.num_frames)).max()
    if fps or off <= 0.5:  # of a frame
        return clip
    mean = clip.num_frames / float(risen[-1])
    return replace(clip, fps=mean, edges=torch.from_numpy(risen))


def _packet_times(video: Video) -> np.ndarray | None:
    """List the times of the frames without decoding them, None where that cannot be known.

    Pictures before the first key frame, or that refer to what came before it, are not shown.
    """
    seen = [(p.pts or 0, p.is_keyframe, p.is_discard) for p in video.packets() if _is_shown(p)]
    ticks = np.sort(np.array([pts for pts, _, discarded in seen if not discarded], np.int64))
    clock = video.clock
    if clock.counted or clock.coded or clock.restarted:
        return None
    keys = [pts for pts, is_key, discarded in seen if is_key and not discarded]
    if (np.diff(keys) <= 0).any():
        return None  # key frames are stored as they are shown: files were joined
    if len(ticks) < max(1, video.num_declared) or not seen[0][1] or min(seen)[0] < seen[0][0]:
        return None
    origin = ticks[0] if clock.origin is None else clock.origin
    return (ticks - origin) * video.tick_seconds


def _warn_if_short(video: Video) -> None:
    if video.missing_frames:
        warnings.warn(
            f"{str(video.path)!r} lacks {video.missing_frames} of the {video.num_expected} frames "
            "it should have: it is cut off or damaged; the good ones were kept",
            VideoWarning,
            stacklevel=3,
        )


def _pieces(
    video: Video,
    start: float,
    seconds: float | None,
    fps: float | None,
    size: tuple[int, int] | None,
    num_frames: int | None,
) -> Iterator[tuple[Frames, list[float]]]:
    """Yield (frames `T C H W`, seconds at which each begins, and the last ends).

    They come `num_frames` at a time, or all at once.
    """
    for name, value in {"seconds": seconds, "fps": fps, "num_frames": num_frames}.items():
        if value is not None and value <= 0:
            raise AvenirError(f"{name}={value!r} was given; it must be above 0")
    if start < 0:
        raise AvenirError(f"start_seconds={start!r} was given; a video starts at 0")
    capacity = min(_expected(video, seconds, fps), num_frames or sys.maxsize)
    if size is None:
        _fitting(video, capacity, 3 * video.frame_pixels)
    paint, buffer, times, end = Painter(video.path, size), None, [], 0.0
    for shown, end, frame, repeats in _chosen(video, start, seconds, fps):
        picture = paint(frame)
        for left in range(repeats, 0, -1):
            if buffer is None or len(times) == len(buffer):
                needed = len(times) + (1 if num_frames else left)
                room = capacity if buffer is None else 2 * len(buffer)
                buffer = _room(video, needed, room, picture.shape, buffer)
            buffer[len(times)] = picture
            times.append(shown)
            if len(times) == num_frames:
                yield _channels_second(buffer), [*times, end]
                buffer, times = None, []
    if buffer is not None:
        yield _channels_second(buffer[: len(times)]), [*times, end]


def _expected(video: Video, seconds: float | None, fps: float | None) -> int:
    """Guess how many frames a read gives; no header is believed beyond 8 bytes per frame."""
    most = video.path.stat().st_size / 8 * max(1, (fps or 0) / video.fps)
    expected = (video.seconds if seconds is None else seconds) * (fps or video.fps)
    return math.ceil(max(0, min(expected, most))) + 1


def _chosen(
    video: Video, start: float, seconds: float | None, fps: float | None
) -> Iterator[tuple[float, float, av.VideoFrame, int]]:
    """Yield (from, until, frame, how often) on the grid of `fps`, or every frame once."""
    num_given, first = 0, None
    limit = None if seconds is None or fps is None else max(1, round(seconds * fps))
    for shown, until, frame in video.spans(start):
        first = shown if first is None else first
        if fps is None:
            if seconds is not None and shown > max(first, first + seconds - SLACK_SECONDS):
                return
            yield shown, until if seconds is None else min(until, first + seconds), frame, 1
            continue
        if until - shown > (MAX_STILL_SECONDS if until < video.seconds + 60 else 60):
            raise VideoError(
                f"{str(video.path)!r} shows one frame from {shown:.0f} to {until:.0f} s: its "
                "timestamps are damaged; read it without fps, or convert it to mp4"
            )
        reached = math.ceil((until - SLACK_SECONDS - start) * fps)
        reached = reached if limit is None else min(limit, reached)
        if reached > num_given:
            yield shown, until, frame, reached - num_given
            num_given = reached
        if num_given == limit:
            return


def _channels_second(pictures: np.ndarray) -> Frames:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def _room(
    video: Video, needed: int, useful: int, shape: tuple[int, ...], held: np.ndarray | None
) -> np.ndarray:
    """Make room for frames, after those held already; pages that are not touched cost nothing.

    At first `useful` many are expected, and are refused when there is no memory for them. It comes
    from torch: numpy asks for huge pages, which the system may take seconds to find.
    """
    frame_bytes = math.prod(shape)
    most_bytes = _fitting(video, needed if held is not None else max(needed, useful), frame_bytes)
    num_frames = max(needed, min(useful, int(most_bytes // frame_bytes)))
    room = torch.empty((num_frames, *shape), dtype=torch.uint8).numpy()
    if held is not None:
        room[: len(held)] = held
    return room


def _fitting(video: Video, num_frames: int, frame_bytes: int) -> float:
    """Return how many bytes a clip may take; refuse one that takes more."""
    most_bytes = float(MAX_READ_BYTES)
    if num_frames * frame_bytes > LITTLE_BYTES:
        most_bytes = min(most_bytes, READ_SHARE * free_memory_bytes())
    if num_frames * frame_bytes > most_bytes:
        raise VideoError(
            f"{num_frames} frames of {str(video.path)!r} take {num_frames * frame_bytes / 1e9:.1f} "
            f"GB; a clip may take {most_bytes / 1e9:.1f} GB here: give `seconds`, a smaller `size` "
            "or `fps`, or use avenir.video.stream with a small `num_frames`"
        )
    return most_bytes
