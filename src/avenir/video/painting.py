"""A decoded frame becomes a picture: rgb, upright, at the size that was asked for.

Knows pixels, colours and what lies beside a frame; knows nothing of time.
"""

import warnings
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error
import numpy as np
import torch
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter

from avenir.clip import cover
from avenir.errors import VideoError, VideoWarning

NUM_UNKNOWN_KINDS = 16
"""Kinds of data beside a frame that FFmpeg may know and PyAV not."""
HDR_CURVES = {16: "PQ", 18: "HLG"}
"""Brightness curves of high dynamic range, by their numbers in ITU-T H.273."""
THREADED_PIXELS = 2**20
"""From this size on, several threads convert colour; below, waking them takes longer."""


class Painter:
    """Turns decoded frames into `H W C` pictures of one size: rgb, upright, covered."""

    def __init__(self, path: Path, size: tuple[int, int] | None) -> None:
        self.path = path
        self.size = size
        self.reformatter = VideoReformatter()
        self.stored: tuple[int, int] | None = None
        self.matrix = (1, 0, 0, 1)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return a frame as `H W C`, uint8; all have the shape of the first."""
        if self.stored is None:
            self.stored, self.matrix = (frame.width, frame.height), display_matrix(frame)
            self._warn_if_hdr(frame)
        width, height = self.stored  # a stream may change its size; a clip cannot
        threads = 0 if width * height >= THREADED_PIXELS else 1  # 0: as many as are useful
        try:
            rgb = self.reformatter.reformat(frame, width, height, "rgb24", threads=threads)
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(
                f"{str(self.path)!r} has pictures of {frame.format.name} whose colours cannot be "
                f"converted ({error}); record or copy it again, or convert it to mp4"
            ) from None
        plane = rgb.planes[0]
        rows = memoryview(plane)  # type: ignore[arg-type]  # PyAV's buffers are buffers
        strides = (plane.line_size, 3, 1)
        picture = np.ndarray((height, width, 3), np.uint8, buffer=rows, strides=strides)
        picture = upright(picture, self.matrix)
        if self.size is None:
            return picture
        image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        return cover(image, *self.size).permute(1, 2, 0).numpy()

    def _warn_if_hdr(self, frame: av.VideoFrame) -> None:
        curve = HDR_CURVES.get(frame.color_trc)
        if curve:
            warnings.warn(
                f"{str(self.path)!r} has high dynamic range ({curve}); its colours are read as "
                "they are stored, which looks pale and dark: tone-map it to BT.709 first",
                VideoWarning,
                stacklevel=2,
            )


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Signs of the display matrix `a b / c d`: stored (x, y) is shown at (ax + cy, bx + dy)."""
    data = _known_side_data(frame).get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    values = np.frombuffer(bytes(data), np.int32)[[0, 1, 3, 4]]
    a, b, c, d = (int(v) for v in np.sign(values * (abs(values) > 2**15)))
    return (a, b, c, d) if a * d or b * c else (1, 0, 0, 1)


def _known_side_data(frame: av.VideoFrame) -> Mapping[str, Any]:
    """Return what lies beside a frame, without what PyAV has no name for.

    It refuses to list anything when FFmpeg attached data that is newer than its own list, such as
    the EXIF block of a photo; FFmpeg's filter takes that away by its number.
    """
    try:
        return frame.side_data
    except ValueError:
        newest = max(kind.value for kind in Type)
    graph = Graph()
    size = frame.width, frame.height
    source = graph.add_buffer(None, *size, frame.format, None, Fraction(1, 1000))
    unknown = range(newest + 1, newest + 1 + NUM_UNKNOWN_KINDS)
    takes = [graph.add("sidedata", f"mode=delete:type={number}") for number in unknown]
    graph.link_nodes(source, *takes, graph.add("buffersink")).configure()
    graph.push(frame)
    return cast(av.VideoFrame, graph.pull()).side_data


def upright(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Turn and mirror `H W C` as a display matrix says, without copying."""
    a, b, c, d = matrix
    if a == 0:
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return picture[::d, ::a]
