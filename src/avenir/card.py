"""What a world is made of and where it comes from, as written beside its weights in `card.json`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from avenir.config import Config, read_json
from avenir.data import Signal
from avenir.errors import AvenirError
from avenir.registry import check_trusted

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


def read_folder(folder: str | Path, trust: Iterable[str] = ()) -> tuple[Card, dict[str, Tensor]]:
    """Read the card and the weights that `World.save` wrote.

    Raises AvenirError for what is no world, and for one that would run code that is not ours, save
    what `trust` names.
    """
    folder = Path(folder)
    try:
        table = read_json(folder / "card.json")
        check_trusted(table, trust, folder / "card.json")
        card = Card.parse(table, "card")
        weights = load_file(folder / "model.safetensors")
    except FileNotFoundError as error:
        raise AvenirError(
            f"{str(folder)!r} holds no world: {Path(error.filename).name} is missing; "
            "give a run folder that `avenir train` wrote"
        ) from None
    except SafetensorError as error:
        raise AvenirError(f"{str(folder)!r} holds a damaged world: {error}") from None
    if card.format > FORMAT:
        raise AvenirError(
            f"{str(folder)!r} is of format {card.format}; this version reads up to {FORMAT}: "
            "upgrade avenir"
        )
    return card, weights
