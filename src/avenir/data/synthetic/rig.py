"""Cameras that hang above the flat world and look down at it: what each sees of a painted picture.

A pinhole that looks at a plane sees it through a homography. The world's axes: x to the right, y up
the picture, z towards the viewer; the origin is the middle of the picture, the unit its width. A
camera's axes: x to the right, y down, z ahead. Sixteen numbers tell of a camera: fx, fy, cx and cy,
in widths and heights of its own view, then [R|t], world to camera, row by row. Knows nothing of
what is painted.
"""

import math

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from avenir.data.synthetic.ground import Bytes
from avenir.data.synthetic.layout import Array, Index
from avenir.data.synthetic.things import WIDTH

NUMBERS = ("fx", "fy", "cx", "cy") + tuple(
    f"{name}{row}" for row in range(3) for name in ("r0", "r1", "r2", "t")
)
"""Names of the numbers of a camera."""

PLACES = {
    2: ((-0.3, 0.0), (0.3, 0.0)),
    3: ((-0.47, 0.12), (0.0, -0.12), (0.47, 0.12)),
}
"""How far right and down of the middle of its rig each camera looks, in footprints: the middle one
of three looks ahead of the others."""

SPAN = {2: 34.0, 3: 29.0}
"""The longer side of a footprint in units, before its camera is raised or lowered."""

BOTTOM = 60.0
"""How far down the picture a rig sees, in units and about: to behind the ego."""

ROLL, PITCH = math.radians(10), math.radians(12)
"""The most that a camera is turned about its axis, and tilted ahead or back."""

OVERLAP = 0.25, 0.5
"""Share of a view that its neighbour sees as well: the least and the most."""

_TOGETHER = 4
"""Rigs drawn at a time, until one fits."""

_STEPS = 256
"""Steps from one pixel to the next, in whole numbers: no vector unit rounds a view differently."""


def camera(
    aim: Float[Tensor, "*b 2"],
    distance: Float[Tensor, "*b"],
    roll: Float[Tensor, "*b"],
    pitch: Float[Tensor, "*b"],
    focal: Float[Tensor, "*b"],
    aspect: float = 1.0,
) -> Float[Tensor, "*b 16"]:
    """Hang cameras `distance` away from the places on the ground that they look at.

    Without roll and pitch one looks straight down, its top up the picture; a pitch above 0 looks
    ahead. `focal` is in widths of the view, `aspect` its height in widths.
    """
    sin, cos, rise, fall = roll.sin(), roll.cos(), pitch.sin(), pitch.cos()
    right = torch.stack([cos, -sin * fall, -sin * rise], dim=-1)
    down = torch.stack([-sin, -cos * fall, -cos * rise], dim=-1)
    ahead = torch.stack([torch.zeros_like(roll), rise, -fall], dim=-1)
    rotation = torch.stack([right, down, ahead], dim=-2)
    shift = -(rotation[..., :2] * aim[..., None, :]).sum(-1)
    shift[..., 2] += distance
    middle = torch.full_like(focal, 0.5)
    intrinsics = torch.stack([focal, focal / aspect, middle, middle], dim=-1)
    extrinsics = torch.cat([rotation, shift[..., None]], dim=-1)
    return torch.cat([intrinsics, extrinsics.flatten(-2)], dim=-1)


def overhead(aspect: float = 1.0) -> Float[Tensor, " 16"]:
    """Return the camera that sees the painted picture as it is, `aspect` its height in widths."""
    zero, one = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return camera(torch.stack([zero, zero]), one, zero, zero, one, aspect)


def draw_rig(seed: int, count: int, aspect: float = 1.0) -> Float[Tensor, "views 16"]:
    """Draw the cameras of a recording, from left to right; a square picture has all they see.

    `aspect` is the height of a view in widths.
    """
    rng = np.random.default_rng((seed, 6))
    corners = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
    left, right = list(range(count - 1)), list(range(1, count))
    while True:
        rigs = _propose(rng, count, aspect)
        inside = _inside(*project(corners, rigs, overhead())).flatten(1).all(1)
        _, shared = correspondence(rigs[:, left + right], rigs[:, right + left], (16, 16))
        share = shared.double().mean((-2, -1))
        fits = inside & ((share >= OVERLAP[0]) & (share <= OVERLAP[1])).all(1)
        if fits.any():
            return rigs[fits.int().argmax()]


def _propose(rng: np.random.Generator, count: int, aspect: float) -> Float[Tensor, "n views 16"]:
    """Draw rigs that may see too much or too little of the same."""

    def uniform(reach: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(-reach, reach, (_TOGETHER, *shape)))

    longer = max(1.0, aspect)
    footprint = SPAN[count] * torch.tensor([1 / longer, aspect / longer], dtype=torch.float64)
    places = torch.tensor(PLACES[count], dtype=torch.float64)
    middle = torch.tensor([WIDTH / 2, BOTTOM], dtype=torch.float64)
    middle[1] -= footprint[1] * (0.5 + places[:, 1].amax())
    seen = middle + footprint * places + uniform(3.0, 1, 2) + uniform(1.5, count, 2)
    aim = (seen - WIDTH / 2) / WIDTH * torch.tensor([1.0, -1.0], dtype=torch.float64)
    focal = 1 + uniform(0.1, count)
    distance = footprint[0] / WIDTH * focal * (1 + uniform(0.15, count))
    return camera(aim, distance, uniform(ROLL, count), uniform(PITCH, count), focal, aspect)


def project(
    points: Float[Tensor, "*#b n 2"], here: Float[Tensor, "*#b 16"], there: Float[Tensor, "*#b 16"]
) -> tuple[Float[Tensor, "*b n 2"], Float[Tensor, "*b n"]]:
    """Say where `there` sees what is at points of the view of `here`, and how far away, in depth.

    Points are x, y in widths and heights of a view: (0, 0) is its top left corner, (1, 1) the
    opposite one. What is behind one of the cameras has a depth below 0.
    """
    ground = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    ground = ground @ torch.linalg.inv(_homography(here)).mT
    behind = ground[..., 2] <= 0
    seen = (ground / ground[..., 2:]) @ _homography(there).mT
    return seen[..., :2] / seen[..., 2:], seen[..., 2].masked_fill(behind, -1.0)


def correspondence(
    here: Float[Tensor, "*#b 16"], there: Float[Tensor, "*#b 16"], size: tuple[int, int]
) -> tuple[Float[Tensor, "*b H W 2"], Bool[Tensor, "*b H W"]]:
    """Say where `there` sees what is at every pixel of the view of `here`, and whether it does.

    Where is x, y in widths and heights of the view of `there`, for the middle of every pixel of
    `size`. `grid_sample(view, 2 * where - 1, align_corners=False)` brings that view here.
    """
    rows, columns = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in size)
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1)
    where, depth = project(pixels.to(here.device), here.double(), there.double())
    return where.unflatten(-2, size), _inside(where, depth).unflatten(-1, size)


def _inside(where: Float[Tensor, "*b 2"], depth: Float[Tensor, "*b"]) -> Bool[Tensor, "*b"]:
    return ((where >= 0) & (where <= 1)).all(-1) & (depth > 0)


def _homography(cameras: Float[Tensor, "*b 16"]) -> Float[Tensor, "*b 3 3"]:
    """Return what takes a place x, y, 1 on the ground to one in the view, times its depth."""
    extrinsics = cameras[..., 4:].unflatten(-1, (3, 4))
    focal, middle = cameras[..., :2, None], cameras[..., 2:4, None]
    seen = extrinsics[..., [0, 1, 3]]
    return torch.cat([focal * seen[..., :2, :] + middle * seen[..., 2:, :], seen[..., 2:, :]], -2)


def take_views(frames: Bytes, rigs: Float[Tensor, "b views 16"], size: tuple[int, int]) -> Bytes:
    """Look at frames `b T C H W` through cameras whose views, side by side, have `size` each.

    What is outside the picture looks like its edge.
    """
    count, num_frames, channels, height, width = frames.shape
    where, _ = correspondence(rigs, overhead(height / width), size)
    across, along = rearrange(where, "b views h w xy -> xy b (h views w)").numpy()
    pixels = frames.reshape(count, num_frames * channels, height * width)
    views = np.empty((count, num_frames * channels, across.shape[1]), np.uint8)
    for episode, view in enumerate(views):
        seen = np.full(view.shape, _STEPS**2 // 2, np.uint32)
        for row, part in _neighbours(along[episode], height):
            for column, share in _neighbours(across[episode], width):
                seen += pixels[episode].take(row * width + column, axis=1) * (part * share)
        view[:] = seen // _STEPS**2
    return views.reshape(count, num_frames, channels, size[0], -1)


def _neighbours(places: Array, length: int) -> list[tuple[Index, NDArray[np.uint32]]]:
    """Return the two pixels of an axis that places, 0 … 1, lie between, and the steps of each."""
    steps = np.floor((places * length - 0.5) * _STEPS + 0.5).astype(np.int64)
    steps = np.clip(steps, 0, (length - 1) * _STEPS)
    first, past = steps // _STEPS, (steps % _STEPS).astype(np.uint32)
    return [(first, _STEPS - past), (np.minimum(first + 1, length - 1), past)]
