"""The nuisance of the world: palettes, ground textures and paints.

Palettes and textures are never shared between the training and the test split; the paints of
vehicles are, for they belong to the things and not to the scenery.
"""

from typing import NamedTuple

import numpy as np

Colour = tuple[int, int, int]


class Palette(NamedTuple):
    """The colours of one landscape."""

    ground: Colour
    """Darker tone of the ground texture."""
    ground_light: Colour
    road: Colour
    marks: Colour
    verge: Colour
    """The pavement on both sides of the road."""
    tree: Colour
    bridge: Colour


class Texture(NamedTuple):
    """Ground texture: a sum of plane waves, cut to two tones."""

    waves: tuple[tuple[int, float], ...]
    """Cycles per loop of the road, cycles per picture width."""
    contrast: float
    """Low is soft blobs, high is crisp stripes and checks."""


def _palette(colours: str) -> Palette:
    """Read one landscape from hexadecimal colours in the order of `Palette`."""
    red_green_blue = (bytes.fromhex(colour) for colour in colours.split())
    return Palette(*((red, green, blue) for red, green, blue in red_green_blue))


PALETTES: dict[str, tuple[Palette, ...]] = {
    "train": (
        _palette("689e52 7aae5e 545862 f4f2ea bebaa8 3a7c42 b0a08a"),  # meadow
        _palette("c4a058 d0b06a 5c565a f4f2ea a89278 ce702c 968c8e"),  # autumn
        _palette("e2c492 ead0a4 70686a f4f2ea c49c70 708a4e a86c54"),  # desert
        _palette("dee7f0 d0dcea 626a7a fae296 b4bece 568080 969eae"),  # snow
        _palette("70749e 7e82ac 3e3e54 fae296 8e88aa 485c86 a696b0"),  # dusk
        _palette("2e4254 364d60 222430 fae296 4c5464 24625c 686c7c"),  # night
        _palette("9eb24a aec05c 605e5c f4f2ea cebe96 5e8230 bc8e68"),  # farmland
        _palette("569c8e 66ac9c 4e5660 f4f2ea acc2b8 246c68 ccbea0"),  # coast
    ),
    "test": (
        _palette("92708c a07e98 4c4654 fae296 b09ea8 644270 8c8078"),  # moor
        _palette("c08064 cc9072 5a5458 f4f2ea ceb296 7c803e 767c88"),  # brick
        _palette("9cceb6 acd8c2 6a7078 f4f2ea ded6c0 4a9674 c4a892"),  # mint
        _palette("d4c468 ded07c 645e56 f4f2ea b0a884 849434 9e7858"),  # savanna
    ),
}

TEXTURES: dict[str, tuple[Texture, ...]] = {
    "train": (
        Texture(((7, 1.3), (-11, 1.9), (4, -2.3)), 0.7),  # blobs
        Texture(((16, 2.5),), 4.0),  # diagonal stripes
        Texture(((18, 3.5), (18, -3.5)), 4.0),  # checks
        Texture(((10, 0.0), (3, 1.0)), 3.0),  # broad bands across
    ),
    "test": (
        Texture(((13, 2.7), (-5, 3.1), (9, -0.8)), 0.9),  # smaller blobs
        Texture(((0, 4.0), (6, 1.0)), 3.0),  # furrows along the road
        Texture(((24, 2.0), (-10, 4.5)), 3.0),  # patches
    ),
}

PAINTS = np.array(
    [
        (238, 238, 232),
        (54, 110, 214),
        (246, 196, 44),
        (34, 160, 146),
        (66, 70, 84),
        (150, 92, 190),
    ],
    np.uint8,
)
"""Six paints of vehicles and clothes. Red is the ego's alone."""

EGO_PAINT: Colour = (226, 38, 50)
