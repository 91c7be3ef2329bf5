"""From what is where to what is seen: frames, and the code of the thing at every pixel.

Paints every frame of every episode at once, layer by layer. Knows no physics and no actions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avenir.data.synthetic.canopy import paint_canopy
from avenir.data.synthetic.colours import EGO_PAINT
from avenir.data.synthetic.ground import Bytes, paint_ground
from avenir.data.synthetic.layout import Array, Index, Layout
from avenir.data.synthetic.motion import TOP_SPEED, Ego, Traffic
from avenir.data.synthetic.sprites import PHASES, Sheet, sheet_of
from avenir.data.synthetic.things import BODIES, DRAW_ORDER, FIRST_CODE, LOOP, WIDTH


@dataclass(frozen=True)
class Bodies:
    """Where the moving things are in the picture, fields `b T bodies`, the ego last."""

    x: Array
    """Pixels from the left edge."""
    y: Array
    """Pixels from the top edge."""
    pose: Index
    present: NDArray[np.bool_]


@dataclass(frozen=True)
class Picture:
    """What is seen of some frames."""

    frames: Bytes
    """`b T C H W`"""
    codes: Bytes
    """`b T H W`: what each pixel shows, by `things.CLASS_OF_CODE`."""
    areas: Index
    """`b T bodies`: pixels a body would fill if nothing were above it."""
    bodies: Bodies


class ScenePainter:
    """Paints the scenery of some episodes once, then any frames of them."""

    def __init__(self, layout: Layout, size: tuple[int, int]) -> None:
        self.size, self.scale = size, size[1] / WIDTH
        self.present = np.pad(layout.present, ((0, 0), (0, 1)), constant_values=True)
        ego = np.broadcast_to(np.array(EGO_PAINT, np.uint8), (len(layout.paint), 1, 3))
        self.paints = np.concatenate([layout.paint, ego], axis=1)
        self.ground = paint_ground(layout, size[1])
        self.canopy = paint_canopy(layout, size[1])
        self.sheets = [sheet_of(kind, self.scale) for kind in BODIES]
        self.margin = 2 * max(sheet.reach for sheet in self.sheets)

    def paint(self, ego: Ego, traffic: Traffic) -> Picture:
        """Paint frames of `ego` (fields `b T`) among `traffic` (fields `b T slots`)."""
        camera, bodies = self._place(ego, traffic)
        canvas = self._unroll(camera)
        areas = np.zeros(bodies.x.shape, np.int64)
        for body in DRAW_ORDER:
            self._draw(canvas, areas, bodies, body)
        frames, codes = self._cover(canvas, camera)
        return Picture(frames, codes, areas, bodies)

    def _place(self, ego: Ego, traffic: Traffic) -> tuple[Index, Bodies]:
        """Return the row of the loop at the top of the picture, `b T`, and the bodies in it."""
        scale, loop = self.scale, round(LOOP * self.scale)
        # The camera looks further ahead the faster the ego drives, and moves by whole pixels.
        height = self.size[0] * (0.7 + 0.12 * ego.speed / TOP_SPEED)
        camera = np.floor(ego.y * scale - height + 0.5).astype(np.int64)
        x = np.concatenate([traffic.x, ego.x[..., None]], axis=-1) * scale
        y = np.concatenate([traffic.y, ego.y[..., None]], axis=-1) * scale
        y = (y - camera[..., None] + self.margin) % loop - self.margin
        pose = np.concatenate([traffic.pose, ego.pose[..., None]], axis=-1)
        return camera % loop, Bodies(x, y, pose, np.broadcast_to(self.present[:, None], x.shape))

    def _unroll(self, camera: Index) -> Bytes:
        """Return canvases `b T rows columns 4` with the ground, and a margin to draw over."""
        height, width = self.size
        margin, (count, num_frames) = self.margin, camera.shape
        canvas = np.zeros((count, num_frames, height + 2 * margin, width + 2 * margin, 4), np.uint8)
        inside = canvas[:, :, margin : margin + height, margin : margin + width]
        rows = np.arange(height)
        for episode, tops in enumerate(camera):
            for frame, top in enumerate(tops):
                stretch = (top + rows) % self.ground.shape[1]
                inside[episode, frame] = self.ground[episode, stretch]
        return canvas

    def _draw(self, canvas: Bytes, areas: Index, bodies: Bodies, body: int) -> None:
        """Draw one body in every frame where it is near enough to be seen."""
        sheet, (height, width) = self.sheets[body], self.size
        half_x = np.floor(bodies.x[..., body] * PHASES + 0.5).astype(np.int64)
        half_y = np.floor(bodies.y[..., body] * PHASES + 0.5).astype(np.int64)
        column, row = half_x // PHASES, half_y // PHASES
        near = (row > -sheet.reach) & (row < height + sheet.reach)
        near &= (column > -sheet.reach) & (column < width + sheet.reach)
        where = np.nonzero(near & bodies.present[..., body])
        if not len(where[0]):
            return
        drawing = (
            bodies.pose[..., body][where],
            half_y[where] % PHASES * PHASES + half_x[where] % PHASES,
        )
        areas[(*where, body)] = sheet.area[drawing]
        paint = np.full((len(where[0]), 4), FIRST_CODE + body, np.uint16)
        paint[:, :3] = self.paints[where[0], body]
        frame = where[0] * canvas.shape[1] + where[1]
        corner = self.margin - sheet.reach
        first = frame * canvas.shape[2] + row[where] + corner
        first = first * canvas.shape[3] + column[where] + corner
        _lay(canvas, first, sheet, drawing, paint)

    def _cover(self, canvas: Bytes, camera: Index) -> tuple[Bytes, Bytes]:
        """Lay the canopy over every frame and take the picture out of its margin."""
        height, width = self.size
        frames = np.empty((*camera.shape, 3, height, width), np.uint8)
        codes = np.empty((*camera.shape, height, width), np.uint8)
        inside = slice(self.margin, self.margin + height), slice(self.margin, self.margin + width)
        rows = np.arange(height)
        for episode, tops in enumerate(camera):
            keep, add = self.canopy.keep[episode], self.canopy.add[episode]
            for frame, top in enumerate(tops):
                stretch = (top + rows) % len(keep)
                seen = canvas[episode, frame][inside] * keep[stretch]
                seen = (seen + add[stretch]) >> 8
                frames[episode, frame] = seen[..., :3].transpose(2, 0, 1)
                codes[episode, frame] = seen[..., 3]
        return frames, codes


def _lay(
    canvas: Bytes, first: Index, sheet: Sheet, drawing: tuple[Index, Index], paint: NDArray
) -> None:
    """Lay one drawing into each of some frames; `first` is the flat pixel of its corner."""
    side = np.arange(2 * sheet.reach)
    offsets = (side[:, None] * canvas.shape[3] + side).reshape(-1)
    pixels = canvas.reshape(-1, 4).view(np.uint32)[:, 0]
    where = first[:, None] + offsets
    under = pixels[where].view(np.uint8).reshape(*where.shape, 4)
    seen = under * sheet.keep[drawing]
    seen += paint[:, None] * sheet.gain[drawing]
    seen += sheet.fixed[drawing]
    seen >>= 8
    pixels[where] = seen.astype(np.uint8).view(np.uint32)[..., 0]
