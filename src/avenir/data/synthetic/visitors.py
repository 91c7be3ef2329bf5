"""What flies over the picture for a while, and the caption that says so: events to prompt.

A visitor crosses from one side to the other, above everything else, at its own time: it belongs to
the picture and not to the road, so nothing that drives knows of it, and no label shows it. Some
pairs of kind and colour can be kept from training: a world that paints those from a caption has
understood its words one by one.
"""

from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avenir.data.synthetic.colours import PAINTS
from avenir.data.synthetic.ground import Bytes
from avenir.data.synthetic.layout import Array
from avenir.data.synthetic.sprites import DARK, GLASS, PHASES, Part, Sheet, draw_sheet
from avenir.data.synthetic.things import WIDTH


class Visitor(IntEnum):
    """What flies."""

    PLANE = 0
    BALLOON = 1
    HELICOPTER = 2


COLOURS = ("white", "blue", "yellow", "green", "black", "purple")
"""Words for `colours.PAINTS`, in its order."""

NOTHING = "nothing flies"
"""The caption of a frame that nothing is above."""

HELD_OUT = (
    (Visitor.PLANE, COLOURS.index("yellow")),
    (Visitor.BALLOON, COLOURS.index("blue")),
    (Visitor.HELICOPTER, COLOURS.index("purple")),
)
"""Pairs of kind and colour that can be kept from training."""

PAIRS = tuple((kind, colour) for kind in Visitor for colour in range(len(COLOURS)))

_REACH = 11.0
"""Half of the longest visitor, in units: it begins and ends this far outside the picture."""

_LIFT = 3.0
"""How high it flies, in cars: its shadow falls that much further."""

_DESIGNS = {
    Visitor.PLANE: (
        Part(0, 1.2, 20, 5.0, 1.4, 0.9),
        Part(0, -7.4, 9, 3.4, 1.2, 0.9),
        Part(0, 0, 4.8, 19, 2.4, 1.0),
        Part(0, 6.4, 3.0, 2.4, 1.1, 0, GLASS),
    ),
    Visitor.BALLOON: (
        Part(0, 0, 18, 18, 9, 0.86),
        Part(0, 0, 12, 17, 6, 1.0),
        Part(0, 0, 4.6, 17.6, 2.2, 0.8, (48, 48, 48)),
    ),
    Visitor.HELICOPTER: (
        Part(0, -6.5, 2.6, 9.0, 0.9, 0.9),
        Part(0, -9.8, 6.0, 1.6, 0.5, 0.9),
        Part(0, 2.5, 8.6, 12, 4.2, 1.0),
        Part(0, 6.4, 5.0, 2.8, 1.3, 0, GLASS),
        Part(0, 2.2, 21, 1.5, 0.6, 0, DARK),
        Part(0, 2.2, 1.5, 21, 0.6, 0, DARK),
    ),
}
"""Seen from above, nose up; they are turned to where they fly."""


class Visit(NamedTuple):
    """One crossing."""

    kind: Visitor
    colour: int
    """Which of `COLOURS`."""
    side: int
    """Where it comes from: -1 the left, 1 the right."""
    height: float
    """How far down the picture, as a share."""
    begins: float
    """In seconds."""
    lasts: float
    """Seconds from one side to the other."""

    @property
    def caption(self) -> str:
        """Say what comes."""
        side = "left" if self.side < 0 else "right"
        return f"a {COLOURS[self.colour]} {self.kind.name.lower()} flies in from the {side}"

    def above(self, seconds: float) -> bool:
        """Say whether it is there."""
        return self.begins <= seconds < self.begins + self.lasts

    def across(self, seconds: float) -> float:
        """Return where its middle is, in units from the left."""
        gone = (seconds - self.begins) / self.lasts * (WIDTH + 2 * _REACH) - _REACH
        return gone if self.side < 0 else WIDTH - gone

    def shows(self, seconds: float) -> float:
        """Return which share of its length is inside the picture."""
        if not self.above(seconds):
            return 0.0
        x = self.across(seconds)
        inside = min(x + _REACH, WIDTH) - max(x - _REACH, 0)
        return max(0.0, inside / (2 * _REACH))


def draw_visits(seed: int, seconds: float, every_pair: bool) -> tuple[Visit, ...]:
    """Draw the visits of an episode, one after the other, some time between them."""
    rng = np.random.default_rng((seed, 4))
    pairs = [pair for pair in PAIRS if every_pair or pair not in HELD_OUT]
    visits: list[Visit] = []
    begins = rng.uniform(-1.0, 2.0)
    while begins < seconds:
        kind, colour = pairs[rng.integers(len(pairs))]
        visits.append(_visit(rng, kind, colour, begins))
        begins += visits[-1].lasts + rng.uniform(0.4, 1.8)
    return tuple(visits)


def visit_of(seed: int, number: int, begins: float) -> Visit:
    """Draw a visit of pair `number`, counted round through `PAIRS`."""
    return _visit(np.random.default_rng((seed, 5, number)), *PAIRS[number % len(PAIRS)], begins)


def _visit(rng: np.random.Generator, kind: Visitor, colour: int, begins: float) -> Visit:
    side = int(rng.choice([-1, 1]))
    return Visit(kind, colour, side, rng.uniform(0.25, 0.55), begins, rng.uniform(1.6, 2.4))


def there(visits: Sequence[Visit], seconds: float) -> Visit | None:
    """Return who is there, if anybody; they come one at a time."""
    return next((visit for visit in visits if visit.above(seconds)), None)


def caption_at(visits: Sequence[Visit], seconds: float) -> str:
    """Say what flies."""
    visit = there(visits, seconds)
    return NOTHING if visit is None else visit.caption


def seen(visits: Sequence[Visit], seconds: float) -> Array:
    """Return how much shows of every kind, then of every colour: 0 … 1, of one each if any."""
    shown = np.zeros(len(Visitor) + len(COLOURS))
    visit = there(visits, seconds)
    if visit is not None:
        shown[[visit.kind, len(Visitor) + visit.colour]] = visit.shows(seconds)
    return shown


def fly_over(frames: Bytes, visits: Sequence[Sequence[Visit]], seconds: Array) -> None:
    """Paint visitors over frames `b T C H W` of times `b T`, in place."""
    scale = frames.shape[-1] / WIDTH
    for pictures, theirs, times in zip(frames, visits, seconds, strict=True):
        for picture, time in zip(pictures, times, strict=True):
            visit = there(theirs, time)
            if visit is not None:
                _lay(picture, visit, visit.across(time) * scale, scale)


def _lay(picture: Bytes, visit: Visit, x: float, scale: float) -> None:
    """Lay its drawing over a picture `C H W`, as far as it is inside."""
    sheet, (height, width) = _sheet(visit.kind, scale), picture.shape[1:]
    half = np.floor(np.array([visit.height * height, x]) * PHASES + 0.5).astype(int)
    (row, column), (down, right) = half // PHASES - sheet.reach, half % PHASES
    side = 2 * sheet.reach
    rows = slice(max(0, row), min(height, row + side))
    columns = slice(max(0, column), min(width, column + side))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    pose, phase = int(visit.side > 0), down * PHASES + right

    def inside(words: NDArray[np.uint16]) -> NDArray[np.uint16]:
        square = words[pose, phase].reshape(side, side, 4)[..., :3]
        cut = square[rows.start - row : rows.stop - row, columns.start - column :]
        return cut[:, : columns.stop - columns.start].transpose(2, 0, 1)

    paint = PAINTS[visit.colour].astype(np.uint16)[:, None, None]
    under = picture[:, rows, columns] * inside(sheet.keep)
    picture[:, rows, columns] = (under + paint * inside(sheet.gain) + inside(sheet.fixed)) >> 8


@cache
def _sheet(kind: Visitor, scale: float) -> Sheet:
    """Draw a visitor flying to the right, then to the left."""
    return draw_sheet([(_DESIGNS[kind], [np.pi / 2, -np.pi / 2])], scale, _LIFT)
