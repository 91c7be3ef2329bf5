"""What a world is made of and where it comes from, as written beside its weights in `card.json`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, field_validator

from avenir import renamed
from avenir.config import Config, read_json
from avenir.data import Rate, Side
from avenir.errors import AvenirError
from avenir.registry import check_trusted
from avenir.renamed import FORMAT
from avenir.signals import Signal, Signals

WEIGHTS = "model.safetensors"
"""The file of weights, beside the card."""

_MOST_NUMBERS = 2**20
"""Of a signal in one frame."""


class Provenance(Config, extra="allow"):
    """What is read of a card's provenance; the rest is only shown."""

    key: str | None = None
    data: str | None = None
    recordings: list[str] | None = None
    between: list[str] | None = None
    parents: dict[str, dict[str, Any]] = {}
    steps: int = Field(0, ge=0)
    steps_here: int = Field(0, ge=0)
    seconds_here: float | None = Field(None, ge=0)
    processor_seconds_here: float | None = Field(None, ge=0)
    memory_gib: float | None = Field(None, ge=0)
    device: str = "unknown"
    finished: bool = True


class Card(Config):
    """What a world is made of and where it comes from."""

    format: PositiveInt = FORMAT
    """Version of the folder: a reader that finds a higher one says so instead of guessing."""
    name: str = "world"
    """The recipe's name."""
    fps: Rate
    """Frames per second it lives at."""
    size: tuple[Side, Side]
    """Height and width of its frames."""
    views: int = Field(1, ge=1, le=64)
    """Cameras whose pictures stand side by side in a frame."""
    signals: Signals = {}
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

    @field_validator("signals")
    @classmethod
    def _described(cls, signals: dict[str, Signal]) -> dict[str, Signal]:
        """Check that what is said of a signal's numbers is said of as many as it has."""
        for name, signal in signals.items():
            lists = [signal.names, signal.low, signal.high, *signal.keys.values()]
            if not 1 <= signal.size <= _MOST_NUMBERS or any(
                len(each) not in (0, signal.size) for each in lists
            ):
                raise ValueError(f"signal {name!r} has names, bounds or keys of another size")
        return signals

    @field_validator("provenance")
    @classmethod
    def _readable(cls, provenance: dict[str, Any]) -> dict[str, Any]:
        Provenance.parse(provenance, "card.provenance")
        return provenance


def read_card(folder: str | Path, trust: Iterable[str] = ()) -> Card:
    """Read the card that `World.save` wrote; one of an earlier format, under today's names.

    Raises AvenirError for what is no world, and for one that would run code that is not ours, save
    what `trust` names.
    """
    path = Path(folder) / "card.json"
    try:
        table = read_json(path)
    except OSError as error:
        raise no_world(folder, f"card.json is missing ({error.strerror})") from None
    check_trusted(table, trust, path)
    number = table.get("format") if isinstance(table, dict) else None
    if isinstance(number, int) and number > FORMAT:
        raise AvenirError(
            f"{str(folder)!r} is of format {number}; this version reads up to {FORMAT}: "
            "upgrade avenir"
        )
    return parse_card(table)


def parse_card(table: Any) -> Card:
    """Check a card as it was written, in this format or an earlier one, which it goes on saying."""
    number = table.get("format") if isinstance(table, dict) else None
    if isinstance(number, int) and number < FORMAT:
        table = renamed.settings(table)
    return Card.parse(table, "card")


def no_world(folder: str | Path, why: str) -> AvenirError:
    """Say that a folder holds no world."""
    return AvenirError(
        f"{str(folder)!r} holds no world: {why}; give a run folder that `avenir train` wrote"
    )


def seconds_per_step(provenance: Mapping[str, Any]) -> float | None:
    """Return the seconds that a step of a run took, by its card; none where it does not hold them.

    Processor time where it ran on a CPU: others on the machine do not count. The clock's on a GPU.
    """
    on_cpu = provenance.get("device", "cpu") == "cpu"
    spent = provenance.get("processor_seconds_here" if on_cpu else "seconds_here")
    return None if spent is None else spent / max(1, provenance["steps_here"])
