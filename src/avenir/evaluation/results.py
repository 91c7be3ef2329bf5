"""What an evaluation found, as one table: `results.json`.

Knows how to hold answers, not how to take or show them.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import field_validator, model_validator

from avenir.config import Config
from avenir.evaluation.question import find_question
from avenir.evaluation.readers.readout import ReadoutScore
from avenir.evaluation.settings import EvaluationConfig
from avenir.registry import kinds

FORMAT = 2
"""Version of `results.json`."""

_SECTIONS = {
    "continuation": "prediction",
    "generation": "generation",
    "likelihood": "likelihood",
    "agreement": "latent_actions",
    "obedience": "text_control",
    "boxes": "box_control",
    "imagined_views": "novel_views",
    "reconstruction": "reconstruction",
}
"""Where the fields of format 1 are now."""

_FIELDS = {
    "told": "given",
    "untold": "absent",
    "moved_untold": "moved_absent",
    "more_than_untold": "more_than_absent",
    "more_than_moved_untold": "more_than_moved_absent",
    "overlap_untold": "overlap_absent",
    "unsaid": "absent",
    "more_than_unsaid": "more_than_absent",
    "marks": "scores",
}
"""What fields of these are called now."""


class Evaluation(Config):
    """Everything measured of one world: what `results.json` holds."""

    format: int = FORMAT
    """Version of this table."""
    world: str
    """The world's name."""
    key: str | None
    """The key of the run that made it."""
    source: str
    """Kind of source its test recordings come from."""
    fingerprint: str
    """Of that data."""
    fps: float
    """Frames per second."""
    size: tuple[int, int]
    """Height and width of frames."""
    settings: EvaluationConfig
    """What was asked for, seed included."""
    command: str
    """What was typed."""
    seconds: float
    """How long it took."""
    readout: ReadoutScore | None = None
    """How well the segmenter reads real frames; none when there is no key to the truth."""
    nearest_decoder: int | None = None
    """How many groups of training frames stand in for pictures; none: the encoder decodes."""
    results: dict[str, Any] = {}
    """The answer to every question that applies, by its name; in Python of the question's type."""

    @model_validator(mode="before")
    @classmethod
    def _of_format_1(cls, table: Any) -> Any:
        """Read what was written before questions had sections of their own."""
        if not isinstance(table, Mapping) or table.get("format") != 1:
            return table
        old = dict(table)
        left_out = old.pop("left_out", None)
        found = {new: old.pop(name, None) for name, new in _SECTIONS.items()}
        results: dict[str, Any] = {
            name: {_FIELDS.get(field, field): value for field, value in answer.items()}
            for name, answer in found.items()
            if answer is not None
        }
        if left_out is not None:
            results["generation"] = {"left_out": left_out}
        control = {
            "shuffled": old.pop("control", None),
            "steered": old.pop("counterfactuals", None),
        }
        if any(control.values()):
            results["action_control"] = control
        return old | {
            "format": FORMAT,
            "nearest_decoder": old.pop("album", None),
            "results": results,
        }

    @field_validator("results", mode="after")
    @classmethod
    def _typed(cls, results: dict[str, Any]) -> dict[str, Any]:
        """Give answers to our own questions their types; those to others stay tables."""
        return {name: _answer(name, answer) for name, answer in results.items()}


def _answer(name: str, answer: Any) -> Any:
    if not isinstance(answer, Mapping) or name not in kinds("evaluation.questions"):
        return answer
    question = find_question(name)
    return answer if question is None else question.Answer.model_validate(answer)
