"""The axis legend: the only place where the letters of every shape are written.

Capitals are pixels, small letters are latents; a latent is a small video.

    b        batch
    T C H W  frames, channels and pixels of a video
    t c h w  the same axes after compression: T = f_t·t, H = f_h·h, W = f_w·w
    n        tokens of a flattened sequence
    d        width of a model
    k        heads, or samples of one future
    a        size of an action
    v        size of a vocabulary
    views    cameras whose pictures stand side by side; W and w are of all of them
    m        what there is to look at beside: boxes, words

`t` is video time. `tau` is flow time: 0 is noise, 1 is data.
"""

from typing import NamedTuple

from jaxtyping import Float, Int, UInt8
from torch import Tensor

Frames = UInt8[Tensor, "*k T C H W"]
"""Frames as they are stored and shown, in 0 … 255; a leading axis holds several samples."""

Video = Float[Tensor, "b T C H W"]
"""Frames as models see them, in [-1, 1]."""

Latents = Float[Tensor, "b t c h w"]
"""Unit variance per channel, by the statistics of the training latents."""

Tokens = Int[Tensor, "b t h w"]
"""Codes in the place of latents, each below the size of the vocabulary."""

Actions = Float[Tensor, "b T a"]
"""One per frame: the action taken at that frame, leading to the next."""

NoiseLevel = Float[Tensor, "b t"]
"""`tau` of every latent frame: 0 is noise, 1 is data."""

PerFrame = Float[Tensor, "b t d"]
"""One vector for every latent frame."""


CAMERA_NUMBERS = 16
"""Numbers of one camera: fx, fy, cx, cy, and the rows of [R|t], from the world to the camera."""

BOX_NUMBERS = 6
"""Numbers of one box: x and y of its middle, its width and its height, in widths and heights of the
frame, all views of it; its depth, and its category. Category 0 is no box."""


class Compression(NamedTuple):
    """Frames and pixels per latent, `(f_t, f_h, f_w)`, on the group-local time grid.

    Latent `i` stands for frames `f_t·i … f_t·i + f_t - 1` and for no other.
    """

    t: int
    h: int
    w: int

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return `(t, h, w)` of a video, partial groups and blocks counted as whole ones."""
        return -(-num_frames // self.t), -(-height // self.h), -(-width // self.w)
