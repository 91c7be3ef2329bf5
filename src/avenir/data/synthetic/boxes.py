"""Boxes around what moves, the ego aside, as every camera sees them (GAIA-2, 2503.20523).

A thing lies flat on the ground: the corners of what is drawn of it are projected into each view,
and its box is what holds them there, cut off at the edge of the view. What hides it does not count.
"""

from functools import cache

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from avenir.data.synthetic.layout import Array
from avenir.data.synthetic.picture import Picture
from avenir.data.synthetic.rig import overhead, project
from avenir.data.synthetic.sprites import sheet_of
from avenir.data.synthetic.things import MOVING, NUM_SLOTS, SLOTS, WIDTH, Class
from avenir.shapes import BOX_NUMBERS

NUMBERS = ("x", "y", "width", "height", "depth", "category")
"""Names of the numbers of a box. Categories are those of `counts`, from 1 on."""


def boxes_of(
    picture: Picture, rigs: Float[Tensor, "b views 16"] | None = None
) -> Float[Tensor, "b T boxes*numbers"]:
    """Return a box for every slot in every view, one view after the other; zeros where none is.

    Without a rig they are of the picture from straight above, which is a depth of 1 away.
    """
    height, width = picture.codes.shape[-2:]
    corners = torch.from_numpy(_corners(picture) / np.array([width, height]))
    b, num_frames = corners.shape[:2]
    above = overhead(height / width)
    cameras = above.expand(b, 1, -1) if rigs is None else rigs
    points = rearrange(corners, "b T slots four xy -> b 1 (T slots four) xy")
    where, depth = project(points, above, cameras)
    where = where.unflatten(2, (num_frames, NUM_SLOTS, 4))
    depth = depth.unflatten(2, (num_frames, NUM_SLOTS, 4))
    least, most = (edge.clamp(0, 1) for edge in (where.amin(-2), where.amax(-2)))
    middle, size = (least + most) / 2, most - least
    views = cameras.shape[1]
    # Views stand side by side in the frame.
    middle[..., 0] = (middle[..., 0] + torch.arange(views)[:, None, None]) / views
    size[..., 0] /= views
    category = torch.tensor([1.0 + MOVING.index(kind) for kind in SLOTS], dtype=torch.float64)
    category = category.expand(size.shape[:-1])
    boxes = torch.cat([middle, size, depth.mean(-1)[..., None], category[..., None]], dim=-1)
    present = torch.tensor(picture.bodies.present[..., :NUM_SLOTS])[:, None]
    there = present & (depth > 0).all(-1) & (size > 0).all(-1)
    boxes = boxes * there[..., None]
    assert boxes.shape[-1] == BOX_NUMBERS
    return rearrange(boxes, "b views T slots n -> b T (views slots n)")


def _corners(picture: Picture) -> Array:
    """Return the corners of what is drawn of every slot, `b T slots 4 2`, in pixels."""
    bodies, scale = picture.bodies, picture.codes.shape[-1] / WIDTH
    corners = np.empty((*bodies.x.shape[:2], NUM_SLOTS, 4, 2))
    for slot, kind in enumerate(SLOTS):
        edges = _edges(kind, scale)[bodies.pose[..., slot]]
        for corner, (side, end) in enumerate(((0, 1), (0, 3), (2, 1), (2, 3))):
            corners[..., slot, corner, 0] = bodies.x[..., slot] + edges[..., side]
            corners[..., slot, corner, 1] = bodies.y[..., slot] + edges[..., end]
    return corners


@cache
def _edges(kind: Class, scale: float) -> Array:
    """Return left, top, right, bottom of every drawing of a class, in pixels from its middle."""
    sheet = sheet_of(kind, scale)
    # Of drawings the last channel says where the thing itself is, without its shadow.
    solid = (sheet.gain[:, 0, :, 3] > 0).reshape(-1, 2 * sheet.reach, 2 * sheet.reach)
    edges = np.empty((len(solid), 4))
    for pose, drawing in enumerate(solid):
        rows, columns = np.nonzero(drawing)
        edges[pose] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return edges - sheet.reach
