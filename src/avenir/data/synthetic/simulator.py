"""The simulator: many episodes side by side, reset from seeds and stepped with actions.

Also runs whole episodes at once, by a random driver or by given actions, and knows the truth of
every frame. Numpy only; knows no clip, no batch and no environment.

Labels of every frame, all arrays with a leading `b` (and `T` where frames are many):

    ego            2: x, y of its middle in pixels; (0, 0) is the middle of the top left pixel
    ego_visible    1: share of the ego that nothing hides, 0 … 1
    speed          1: of the ego, pixels per second across the picture; ahead they are foreshortened
    objects        slots 4: x, y, class, visible. Slot k is the same thing for the whole episode;
                   x, y go on being true where it is hidden or outside the picture. visible is the
                   share of it that is seen, 0 … 1. A slot that is empty has class 0.
    counts         4: how many cars, trucks, motorbikes, pedestrians show at least one pixel
    segmentation   H W, uint8: `things.Class` of every pixel
    depth_order    slots+1: draw rank of every slot and, last, of the ego; higher is above. Trees
                   and bridges are above them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avenir.data.synthetic.driver import Whims, choose
from avenir.data.synthetic.ground import Bytes
from avenir.data.synthetic.layout import Array, Index, Layout, draw_layout
from avenir.data.synthetic.motion import Ego, Traffic, drive, ego_at_start, off_road, traffic_at
from avenir.data.synthetic.picture import Picture, ScenePainter
from avenir.data.synthetic.things import (
    BODIES,
    CLASS_OF_CODE,
    DRAW_ORDER,
    FIRST_CODE,
    MOVING,
    NUM_SLOTS,
    SLOTS,
    WIDTH,
)
from avenir.errors import AvenirError

Labels = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Drive:
    """What happened in `b` episodes, before anything is drawn."""

    ego: Ego
    """Fields `b T`."""
    traffic: Traffic
    """Fields `b T slots`."""
    actions: Array
    """`b T 2`: the action at frame k leads to frame k+1."""


class Simulator:
    """`b` driving worlds that step and are drawn together, `size` is `(H, W)`.

    What it holds is never changed in place: `copy.copy(simulator)` branches the future.
    """

    def __init__(self, size: tuple[int, int] = (64, 64), fps: float = 10.0) -> None:
        self.size, self.fps = size, fps
        self.frame: int | None = None

    def reset(self, seeds: Sequence[int], split: str = "train") -> tuple[Bytes, Labels]:
        """Begin an episode per seed; return frames `b C H W` and labels."""
        self.layout = draw_layout(seeds, [split] * len(seeds))
        self.painter = ScenePainter(self.layout, self.size)
        self.ego, self.frame = ego_at_start(self.layout), 0
        return self.look()

    def step(self, actions: NDArray[np.floating]) -> tuple[Bytes, Labels]:
        """Take `actions` (`b 2`: steer, accelerate, in [-1, 1]); return frames and labels."""
        if self.frame is None:
            raise AvenirError("step was called before any episode began: call reset(seeds) first")
        if np.shape(actions) != (len(self.ego.x), 2):
            raise AvenirError(
                f"step was given actions {np.shape(actions)}; {len(self.ego.x)} worlds need "
                f"({len(self.ego.x)}, 2): steer and accelerate of each"
            )
        self.ego = drive(self.layout, self.ego, np.asarray(actions, np.float64), 1 / self.fps)
        self.frame += 1
        return self.look()

    @property
    def off_road(self) -> NDArray[np.bool_]:
        """Whether the ego is beside the road, `b`."""
        return off_road(self.layout, self.ego)

    def look(self) -> tuple[Bytes, Labels]:
        """Return the frames and labels of now."""
        assert self.frame is not None
        ego = Ego(*(getattr(self.ego, field.name)[:, None] for field in fields(Ego)))
        seconds = np.full((len(self.ego.x), 1), self.frame / self.fps)
        picture = self.painter.paint(ego, traffic_at(self.layout, seconds))
        labels = labels_of(self.layout, ego, picture)
        return picture.frames[:, 0], {name: label[:, 0] for name, label in labels.items()}


def drive_episodes(layout: Layout, driver: Whims | Array, num_frames: int, fps: float) -> Drive:
    """Drive `num_frames` frames, by a driver's whims or by actions `b T 2`."""
    count = len(layout.palette)
    seconds = np.broadcast_to(np.arange(num_frames) / fps, (count, num_frames))
    traffic = traffic_at(layout, seconds)
    ego = ego_at_start(layout)
    egos: list[Ego] = []
    actions = np.empty((count, num_frames, 2))
    for frame in range(num_frames):
        egos.append(ego)
        if isinstance(driver, Whims):
            around = Traffic(*(getattr(traffic, f.name)[:, frame] for f in fields(Traffic)))
            actions[:, frame] = choose(layout, ego, around, driver, frame)
        else:
            actions[:, frame] = driver[:, frame]
        ego = drive(layout, ego, actions[:, frame], 1 / fps)
    stacked = (np.stack([getattr(e, f.name) for e in egos], axis=1) for f in fields(Ego))
    return Drive(Ego(*stacked), traffic, actions)


def labels_of(layout: Layout, ego: Ego, picture: Picture) -> Labels:
    """Return the truth about painted frames, every array `b T …`."""
    bodies, (*lead, _, width) = picture.bodies, picture.codes.shape
    scale = width / WIDTH
    where = np.stack([bodies.x, bodies.y], axis=-1) - 0.5
    shown = _visible(picture)
    kinds = np.where(layout.present, np.array(SLOTS), 0)[:, None]
    objects = np.empty((*lead, NUM_SLOTS, 4))
    objects[..., :2] = where[..., :NUM_SLOTS, :]
    objects[..., 2] = kinds
    objects[..., 3] = shown[..., :NUM_SLOTS]
    seen = objects[..., 3] > 0
    ranks = np.argsort(np.array(DRAW_ORDER)).astype(np.float64)
    return {
        "ego": where[..., NUM_SLOTS, :],
        "ego_visible": shown[..., NUM_SLOTS:],
        "speed": (ego.speed * scale)[..., None],
        "objects": objects,
        "counts": np.stack([(seen & (kinds == kind)).sum(-1) for kind in MOVING], axis=-1),
        "segmentation": CLASS_OF_CODE[picture.codes],
        "depth_order": np.broadcast_to(ranks, (*lead, len(BODIES))),
    }


def _visible(picture: Picture) -> Array:
    """Return the share of every body that is seen, `b T bodies`."""
    *lead, height, width = picture.codes.shape
    num_codes = FIRST_CODE + len(BODIES)
    codes = picture.codes.reshape(-1, height * width)
    pixels: Index = np.stack([np.bincount(code, minlength=num_codes) for code in codes])
    seen = pixels[:, FIRST_CODE:].reshape(*lead, len(BODIES))
    return seen / np.maximum(picture.areas, 1)
