"""Clips become files: h264 mp4 that browsers play, gif and png for pages.

Key frames come at least every 12 frames, so that random access stays cheap. A file appears under
its name only when it is whole. Knows nothing of models or data sets.
"""

import warnings
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.container
import av.error
import av.video
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from avenir.clip import Clip
from avenir.errors import AvenirError, VideoWarning
from avenir.files import whole

KEY_FRAME_INTERVAL = 12
GIF_SHORTEST, GIF_LONGEST = 2, 65535
"""Hundredths of a second for which a gif can show a frame."""
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}


def write(path: str | Path, clip: Clip, quality: float = 18) -> Path:
    """Write a clip as `.mp4` (`.mov`, `.mkv`), `.gif` (looping), or `.png` (one frame).

    `quality` is x264's constant rate factor: 0 keeps most, 18 looks lossless, 51 is worst. Odd
    heights and widths gain a repeated row or column in videos. Frames that come at no steady rate
    are shown at their mean, by time. A gif shows frames for whole hundredths of a second, which add
    up to the speed; above 50 fps it is written at 50, with a VideoWarning. Raises AvenirError for
    several samples, or an unknown extension.
    """
    path = Path(path)
    _one_sample(clip)
    clip = clip.resampled(clip.fps)
    if path.suffix in (".gif", ".png"):
        _write_pictures(path, clip)
        return path
    with Writer(path, clip.fps, quality) as writer:
        writer.append(clip)
    return path


class Writer:
    """Appends clips to one video file, in the memory of one clip. Use it in a `with` statement.

    All clips have the size of the first. The file appears when the statement ends without error.
    """

    def __init__(self, path: str | Path, fps: float, quality: float = 18) -> None:
        self.path = Path(path)
        self.fps = fps
        self.quality = quality
        self.num_frames = 0
        self.size: tuple[int, int] | None = None
        if self.path.suffix not in CONTAINERS:
            raise AvenirError(
                f"{str(path)!r} was given to write a video; use one of "
                f"{', '.join(CONTAINERS)} (or .gif, .png with avenir.write)"
            )
        self._reformatter = VideoReformatter()
        self._file = ExitStack()
        self._container: av.container.OutputContainer | None = None

    def __enter__(self) -> Self:
        return self

    def append(self, clip: Clip) -> None:
        """Append the frames of a clip of one sample, `T C H W`; uneven ones at the file's rate."""
        _one_sample(clip)
        clip = clip if clip.edges is None else clip.resampled(self.fps)
        if self._container is None:
            self.size = clip.size
            self._open()
        if clip.size != self.size or abs(clip.fps - self.fps) > 1e-3:
            raise AvenirError(
                f"{clip!r} was appended to a video of size {self.size} at {self.fps:g} fps; "
                "use clip.resized, and one rate"
            )
        for picture in clip.frames.permute(0, 2, 3, 1).cpu().numpy():
            frame = av.VideoFrame.from_ndarray(_even(picture), "rgb24")
            frame = self._reformatter.reformat(
                frame, format="yuv420p", dst_colorspace=Colorspace.ITU709, threads=1
            )
            frame.pts, frame.time_base = self.num_frames, 1 / self._stream.codec_context.framerate
            self._mux(frame)
            self.num_frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            if self._container is not None:
                with suppress(av.error.FFmpegError):  # what went wrong first is what is told
                    self._container.close()
            self._file.__exit__(kind, error, trace)
            return
        if self._container is None:
            raise AvenirError(f"{str(self.path)!r} was given no frame; append a clip first")
        with self._file:
            self._mux(None)
            self._container.close()

    def _open(self) -> None:
        part = self._file.enter_context(whole(self.path))
        self._container = av.open(
            part,
            mode="w",
            format=CONTAINERS[self.path.suffix],
            options={} if self.path.suffix == ".mkv" else {"movflags": "+faststart"},
        )
        rate = Fraction(self.fps).limit_denominator(1001)
        # x264's macroblock tree reads memory it never wrote when pictures are 64 or narrower:
        # the same frames would become other bytes every time
        options = {"crf": str(self.quality), "preset": "medium", "mbtree": "0"}
        self._stream = self._container.add_stream("libx264", rate=rate, options=options)
        height, width = self.size or (0, 0)
        context = self._stream.codec_context
        context.width, context.height = width + width % 2, height + height % 2
        context.pix_fmt = "yuv420p"
        context.gop_size = KEY_FRAME_INTERVAL
        context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
        context.color_range = ColorRange.MPEG

    def _mux(self, frame: av.VideoFrame | None) -> None:
        assert self._container is not None
        self._container.mux(self._stream.encode(frame))


def _one_sample(clip: Clip) -> None:
    if clip.frames.dim() == 5:
        raise AvenirError(
            f"{clip!r} holds {len(clip.frames)} samples, a file holds one: write clip.sample(0)"
        )


def _even(picture: np.ndarray) -> np.ndarray:
    """Repeat the last row or column of `H W C` where a side is odd: 4:2:0 colour needs even."""
    height, width, _ = picture.shape
    if height % 2 or width % 2:
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(picture)


def _write_pictures(path: Path, clip: Clip) -> None:
    from PIL import Image

    if path.suffix == ".png" and clip.num_frames != 1:
        raise AvenirError(
            f"{str(path)!r} was given {clip.num_frames} frames, a png holds one: "
            "write clip[i : i + 1], or a .gif"
        )
    pictures = [Image.fromarray(p) for p in clip.frames.permute(0, 2, 3, 1).cpu().numpy()]
    more = {}
    if path.suffix == ".gif":
        delays = _gif_delays(path, clip)
        more = {"save_all": True, "append_images": pictures[1:], "duration": delays, "loop": 0}
    with whole(path) as part:
        pictures[0].save(part, path.suffix[1:], **more)


def _gif_delays(path: Path, clip: Clip) -> list[int]:
    """Milliseconds to show each frame: whole hundredths of a second that add up to the speed.

    Every frame ends at the hundredth nearest to its end. One hundredth or none is no delay to
    browsers, which show such frames for ten: what is faster than two is written at two, and said.
    """
    if 100 / clip.fps > GIF_LONGEST:
        raise AvenirError(
            f"a gif shows a frame for up to {GIF_LONGEST / 100:g} s; {clip.fps:g} fps was given "
            f"for {str(path)!r}: write an .mp4"
        )
    hundredths = max(GIF_SHORTEST, 100 / clip.fps)
    if hundredths * clip.fps > 100 * (1 + 1e-6):
        warnings.warn(
            f"{str(path)!r} is written at {100 / GIF_SHORTEST:g} fps, the fastest that browsers "
            f"show a gif, not at {clip.fps:g}: write an .mp4, or fewer frames per second",
            VideoWarning,
            stacklevel=4,
        )
    ends = np.round(np.arange(clip.num_frames + 1) * hundredths + 1e-9)
    return (10 * np.diff(ends)).astype(int).tolist()
