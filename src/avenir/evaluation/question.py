"""The contract of a question: what is measured of a world, and how the answer is put on the page.

A question is a file in `questions/`, found by its name as kinds are. To ask one of your own, name
its module by a dotted path. Knows no question, and nothing of how an answer is measured.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from avenir.config import Config
from avenir.console import Report
from avenir.errors import AvenirError
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.readers.readout import Readout, ReadoutScore
from avenir.evaluation.report.findings import Finding
from avenir.evaluation.settings import EvaluationConfig
from avenir.registry import imported, kinds
from avenir.world import World

_FOLDER = "evaluation.questions"
_LAST = 100


@dataclass(frozen=True)
class QuestionInputs:
    """What every question is asked with."""

    world: World
    held_out: HeldOut
    settings: EvaluationConfig
    report: Report
    readout: Readout | None
    """Reads positions of things in frames; none where no reader knows the data."""
    evaluator: World | None
    """Compares sets of clips; none: the one that ships for the data, if any."""


@dataclass(frozen=True)
class Measured:
    """What one question found."""

    answer: Config
    """Its numbers: they stand in `results.json`."""
    pictures: Any = None
    """What its section shows beside numbers."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Written beside the page, by their names."""


class About(NamedTuple):
    """What a section may say of the whole evaluation."""

    fps: float
    readout: ReadoutScore | None
    """How well positions are read from real frames."""
    nearest_decoder: int | None
    """Groups of training frames that stand in for pictures; none: the encoder decodes."""


class Question(ABC):
    """One question asked of a world."""

    Answer: ClassVar[type[Config]]
    """The type of its numbers."""
    order: ClassVar[int] = _LAST
    """Its place on the page; smaller comes first."""

    @property
    def name(self) -> str:
        """Its file's name; a dotted path for a file that is not ours."""
        module = type(self).__module__
        return module.removeprefix(f"avenir.{_FOLDER}.")

    def applies(self, asked: QuestionInputs) -> bool:
        """Say whether it makes sense for a world and its data."""
        return True

    @abstractmethod
    def measure(self, asked: QuestionInputs) -> Measured | None:
        """Measure it on held-out windows; none where these clips cannot answer it."""

    def findings(self, answer: Any, about: About) -> list[Finding]:
        """Return what stands at the top of the page."""
        return []

    @abstractmethod
    def section(self, measured: Measured, about: About) -> str:
        """Return its part of the page, as HTML; empty for one that only has findings."""

    def definitions(self, answer: Any) -> dict[str, str]:
        """Explain the numbers that only it has."""
        return {}


def find_questions(more: Iterable[str] = ()) -> list[Question]:
    """Return every question in its order: those in `questions/`, and modules of `more`.

    Raises AvenirError for a module that holds no question.
    """
    ours = [find_question(name) for name in kinds(_FOLDER)]
    theirs = [find_question(name) for name in more]
    for name, found in zip(more, theirs, strict=True):
        if found is None:
            raise AvenirError(f"{name} has no class that is a Question: it asks nothing")
    return sorted((each for each in [*ours, *theirs] if each), key=lambda each: each.order)


def find_question(name: str) -> Question | None:
    """Open the question of a file; none where the file holds no question of every world.

    What only one verb asks, such as `planning`, is measured by that verb.
    """
    is_ours = "." not in name
    module = importlib.import_module(f"avenir.{_FOLDER}.{name}") if is_ours else imported(name)
    for value in vars(module).values():
        is_class = isinstance(value, type) and value.__module__ == module.__name__
        if is_class and issubclass(value, Question):
            return value()
    return None
