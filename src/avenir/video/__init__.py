"""Video files: probe, read, stream and write them. The only place that touches a codec library.

    timing    when frames are shown: times that restart or were guessed become ascending
    decoding  an open file: frames one after the other, by time, from anywhere
    painting  a frame becomes a picture: rgb, upright, at one size
    reading   a file becomes clips: whole, a window of it, or in pieces
    writing   clips become an mp4, gif or png
    footage   one recording's frames and signals by time, in memory or decoded when asked

Knows nothing of data sets, splits or models. Time is in seconds from a file's first frame; the
frame *shown* at a time is the last one whose timestamp is not later.
"""

from avenir.errors import VideoWarning
from avenir.video.footage import (
    Footage,
    Pictures,
    fingerprint,
    is_picture,
    resample,
    shown,
)
from avenir.video.reading import (
    MAX_STILL_SECONDS,
    VideoInfo,
    decode,
    probe,
    read,
    stream,
    timestamps,
)
from avenir.video.writing import Writer, write

__all__ = [
    "MAX_STILL_SECONDS",
    "Footage",
    "Pictures",
    "VideoInfo",
    "VideoWarning",
    "Writer",
    "decode",
    "fingerprint",
    "is_picture",
    "probe",
    "read",
    "resample",
    "shown",
    "stream",
    "timestamps",
    "write",
]
