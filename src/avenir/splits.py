"""What recordings are for: to train on, to validate on, to test on. Chosen by name or by contents.

What is chosen while somebody works is chosen on validation; what is claimed is measured on the
test. Knows names and hashes, no files.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal, Protocol

from avenir.errors import AvenirError

Split = Literal["train", "validation", "test"]
"""What recordings are for: to train on, to choose settings on, to measure what is published."""

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

VALIDATION_FRACTION = 0.05
"""Of the recordings that are not tested on: how many are kept to validate on where none are
named."""

FEWEST_TO_SPLIT = 8
"""Of fewer different recordings that are not tested on, all are needed to train on."""


def chosen_for_test(
    origins: Mapping[str, str], patterns: Sequence[str], fraction: float
) -> set[str]:
    """Choose the recordings to test on: those whose names match, or a fraction by their hash.

    `origins` maps names to the hash of their files: of copies of one, a fraction takes all or none.
    Raises AvenirError when patterns match none of them, or all.
    """
    names, chosen = list(origins), set[str]()
    if patterns:
        return _matching("test", names, patterns)
    num_test = max(1, round(fraction * len(names))) if len(names) > 1 else 0
    by_hash = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    copies: dict[str, set[str]] = {}
    for name, origin in origins.items():
        copies.setdefault(origin or name, set()).add(name)
    for name in by_hash:
        same = copies[origins[name] or name]
        if len(chosen) < num_test and len(chosen | same) < len(names):
            chosen |= same
    return chosen or set(by_hash[:num_test])  # where all are copies of one there is no other choice


def chosen_for_validation(
    origins: Mapping[str, str], patterns: Sequence[str], fraction: float
) -> set[str]:
    """Choose the recordings to validate on among those that are not tested on.

    Those whose names match, or about a fraction by their hash: each by itself, so that it stays
    where it is when others are added. Of `FEWEST_TO_SPLIT` there is one at least, of fewer none,
    and never more than half are taken. `origins` maps names to the hash of their files: copies of
    one go together. Raises AvenirError when patterns match none of them, or all.
    """
    if patterns:
        return _matching("validation", list(origins), patterns)
    places = {name: _place(origin or name) for name, origin in origins.items()}
    different = sorted(set(places.values()))
    if len(different) < FEWEST_TO_SPLIT or fraction == 0:
        return set()
    below = sum(place < fraction for place in different)
    last = different[min(max(1, below), len(different) // 2) - 1]
    return {name for name, place in places.items() if place <= last}


def _place(word: str) -> float:
    """Return where in 0 … 1 a word's hash lies; another one than what the test is chosen by."""
    digest = hashlib.sha256(f"validation {word}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def _matching(setting: str, names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    chosen = {name for name in names if any(fnmatch(name, pattern) for pattern in patterns)}
    if not chosen or len(chosen) == len(names):
        raise AvenirError(
            f"{setting} = {list(patterns)} matches {len(chosen)} of {len(names)} recordings; it "
            f"must leave some for each split: there is {', '.join(names[:8])}"
        )
    return chosen


class NamesSplits(Protocol):
    """Settings of a source of files that is split by name."""

    test: tuple[str, ...]
    test_fraction: float
    validation: tuple[str, ...]
    validation_fraction: float


@dataclass(frozen=True)
class Splits:
    """Which recordings of files are held out, by name; all others are trained on."""

    validation: frozenset[str]
    test: frozenset[str]
    by_hash: bool
    """Whether those to validate on were not named."""

    @classmethod
    def chosen(cls, origins: Mapping[str, str], config: "NamesSplits") -> "Splits":
        """Choose by patterns, or by hash; `origins` maps names to the hash of their files.

        Raises AvenirError when patterns match none, or leave none.
        """
        test = chosen_for_test(origins, config.test, config.test_fraction)
        others = {name: origin for name, origin in origins.items() if name not in test}
        fraction = config.validation_fraction
        validation = chosen_for_validation(others, config.validation, fraction)
        return cls(frozenset(validation), frozenset(test), not config.validation)

    def of(self, name: str) -> Split:
        """Return the split of a recording."""
        if name in self.test:
            return "test"
        return "validation" if name in self.validation else "train"

    @property
    def words(self) -> list[str]:
        """What a fingerprint names: as before where there is nothing to validate on."""
        kept = ["validation", *sorted(self.validation)] if self.validation else []
        return [*sorted(self.test), *kept]

    def notes(self, names: Collection[str]) -> list[str]:
        """Return what a user should know of the choice among all recordings."""
        count = len(names) - len(self.test)
        if not self.by_hash:
            return []
        if not self.validation:
            return [
                f"nothing is kept to validate on, of {count} to train on: settings are "
                "chosen on recordings that are trained on; name some with `validation`"
            ]
        return [
            f"{len(self.validation)} of {count} recordings that are not tested on are kept to "
            f"validate on: {some_of(sorted(self.validation))}"
        ]


def some_of(names: Sequence[str]) -> str:
    """List the first few of many names."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{', '.join(names[:8])}{more}"
