"""What a world is made of and where it comes from, as written beside its weights in `card.json`."""

from typing import Any

from avenir.config import Config
from avenir.data import Signal

FORMAT = 1
"""Version of the folder: a reader that finds a higher one says so instead of guessing."""


class Card(Config):
    """What a world is made of and where it comes from."""

    format: int = FORMAT
    """Version of the folder."""
    name: str = "world"
    """The recipe's name."""
    fps: float
    """Frames per second it lives at."""
    size: tuple[int, int]
    """Height and width of its frames."""
    views: int = 1
    """Cameras whose pictures stand side by side in a frame."""
    signals: dict[str, Signal] = {}
    """What may steer it: names, bounds and keys."""
    tokenizer: str | None = None
    """Of a world of text in pieces, what its tokens stand for; none: bytes, or no text."""
    encoder: dict[str, Any]
    """Settings of the encoder, with its kind; in them those of its `teacher`, if it has one."""
    conditioner: dict[str, Any] | None = None
    """Settings of the conditioner."""
    predictor: dict[str, Any] | None = None
    """Settings of the predictor."""
    provenance: dict[str, Any] = {}
    """Key, data, seeds, steps and cost of the run that made it."""
