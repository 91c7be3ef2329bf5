"""Avenir: world models on one bench. Encode video, condition on what steers it, predict the rest.

world = avenir.load("runs/drive")
clip  = avenir.read("clip.mp4", seconds=2)
more  = world.predict(clip, seconds=4)
avenir.write("future.mp4", more)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avenir.clip import Clip as Clip
    from avenir.errors import AvenirError as AvenirError
    from avenir.video import read as read
    from avenir.video import write as write
    from avenir.world import World as World
    from avenir.world import load as load

__version__ = "0.1.0"
__all__ = ["AvenirError", "Clip", "World", "load", "read", "write"]

_HOMES = {
    "AvenirError": "avenir.errors",
    "Clip": "avenir.clip",
    "World": "avenir.world",
    "load": "avenir.world",
    "read": "avenir.video",
    "write": "avenir.video",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import avenir` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'avenir' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
