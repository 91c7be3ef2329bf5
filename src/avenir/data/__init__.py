"""The contract of a source: recordings, and windows cut from them by time.

A source knows nothing of models. One file in this folder is one kind of source. Every window is a
function of (seed, step, rank), so a restart repeats nothing and skips nothing.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Annotated, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import Field
from torch import Tensor

from avenir.clip import Batch, Clip, to_video
from avenir.config import Config
from avenir.device import seed_of
from avenir.errors import AvenirError
from avenir.signals import Signal

Split = Literal["train", "validation", "test"]
"""What recordings are for: to train on, to choose settings on, to measure what is published."""

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

VALIDATION_FRACTION = 0.05
"""Of the recordings that are not tested on: how many are kept to validate on where none are
named."""

FEWEST_TO_SPLIT = 8
"""Of fewer different recordings that are not tested on, all are needed to train on."""

Rate = Annotated[float, Field(gt=0, le=1e6)]
"""Frames per second."""

Side = Annotated[int, Field(ge=1, le=2**14)]
"""Pixels of a frame along one side; the largest that videos have is half of that."""

MOST_FRAMES = 10**7
"""Of one recording: four days at 30 a second."""


@dataclass(frozen=True)
class Recording:
    """One continuous stretch of video: the unit of every split. `seconds` is its duration."""

    name: str
    seconds: float
    origin: str = ""
    """Hash of the file it is in; empty where a world makes it."""
    signals: str = ""
    """Hash of what was recorded beside its frames; empty where nothing was."""
    task: str = ""
    """What is done in it, in words; empty where nobody said."""

    @property
    def identity(self) -> str:
        """Tell it from recordings of that name in other data, whatever the split and the size."""
        return f"{self.name}#{self.origin[:12]}" if self.origin else self.name


@dataclass(frozen=True)
class Window:
    """A stretch of one recording: `num_frames` frames at the source's fps from `start_seconds`."""

    recording: Recording
    start_seconds: float
    num_frames: int


@dataclass(frozen=True)
class Skipped:
    """A recording that could not be used, and why."""

    name: str
    reason: str


class Visited(NamedTuple):
    """Windows into which something comes, and the same without it."""

    coming: Batch
    quiet: Batch
    pairs: Float[Tensor, "b 2"]
    """Number of its kind and of its colour."""
    is_new: Bool[Tensor, " b"]
    """Whether training never shows that pair."""


class Steppable(Protocol):
    """What recordings were made in, at one instant of one of them; `copy.copy` branches its future.

    `b` worlds are stepped together.
    """

    def look(self) -> tuple[UInt8[np.ndarray, "b C H W"], Mapping[str, np.ndarray]]:
        """Return the frames of now, and labels by name, `b …` each."""
        ...

    def step(
        self, actions: Float[np.ndarray, "b a"]
    ) -> tuple[UInt8[np.ndarray, "b C H W"], Mapping[str, np.ndarray]]:
        """Take actions for one frame; return what is then seen."""
        ...

    @property
    def off_road(self) -> Bool[np.ndarray, " b"]:
        """Whether what is steered has left the road."""
        ...


class Source(ABC):
    """A data set seen as windows of frames at one size and rate."""

    Config: ClassVar[type[Config]]
    fps: float
    size: tuple[int, int]
    """`(H, W)` of every frame it gives."""
    views: int = 1
    """Cameras whose pictures stand side by side in a frame."""
    signals: dict[str, Signal]
    skipped: list[Skipped]
    notes: Sequence[str] = ()
    """What was assumed of the data, and what in it is not used."""
    readers: Mapping[str, str] = {}
    """Frozen readers that ship for its frames, by what they read."""
    has_labels: bool = False
    """Whether its batches say what is where, as `labelled` asks for."""
    knows_counterfactuals: bool = False
    """Whether it can show what would have followed other actions."""
    takes_visitors: bool = False
    """Whether something described by a caption can come into view at any time."""
    knows_geometry: bool = False
    """Whether it knows where each of its cameras sees what another sees."""
    has_simulator: bool = False
    """Whether recordings can be gone on with under any action, as `simulator_at` does."""
    tokenizer: str | None = None
    """Of text in pieces, what its tokens stand for: a file of the package `tokenizers`."""

    @abstractmethod
    def recordings(self, split: Split) -> Sequence[Recording]:
        """List the recordings of a split; no recording is in two.

        There may be none to validate on.
        """

    @abstractmethod
    def clip(self, window: Window) -> Clip:
        """Read one window, signals included."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash that changes when the data, the size, the rate or the split change."""

    def read(self, windows: Sequence[Window]) -> Batch:
        """Read windows of equal length side by side."""
        clips = [self.clip(window) for window in windows]
        return Batch(
            video=to_video(torch.stack([clip.frames for clip in clips])),
            signals={
                name: torch.stack([clip.signals[name] for clip in clips])
                for name in clips[0].signals
            },
            names=tuple(f"{w.recording.name}@{w.start_seconds:.2f}s" for w in windows),
        )

    def labelled(self) -> "Source":
        """Return the same source with the labels it can give; itself where it has none to add."""
        return self

    def counterfactual(self, windows: Sequence[Window], actions: Float[Tensor, "b F a"]) -> Batch:
        """Read windows as they would have been under other actions before their last `F` frames.

        Row i of `actions` leads to the i-th of them. Only where `knows_counterfactuals`.
        """
        raise NotImplementedError

    def simulated(self) -> "Source":
        """Return the same source without what its simulator does not show; itself where all is."""
        return self

    def simulator_at(self, window: Window) -> Steppable:
        """Return what a recording was made in, as it is at the last frame of a window.

        Only where it `has_simulator`.
        """
        raise NotImplementedError

    def with_visitors(
        self, windows: Sequence[Window], begins: float, seed: int, first: int
    ) -> Visited:
        """Read windows into which something comes `begins` seconds after their start, and quiet.

        The windows are those from number `first` on; only where it `takes_visitors`.
        """
        raise NotImplementedError

    def correspondence(
        self, here: Float[Tensor, "b n"], there: Float[Tensor, "b n"], size: tuple[int, int]
    ) -> tuple[Float[Tensor, "b H W 2"], Bool[Tensor, "b H W"]]:
        """Say where camera `there` sees what is at every pixel of camera `here`, and whether.

        In widths and heights of its view. Only where it `knows_geometry`.
        """
        raise NotImplementedError

    def draw(self, split: Split, num_frames: int, count: int, seed: int) -> list[Window]:
        """Draw windows at random, every possible start of every recording equally likely."""
        rng = np.random.default_rng(seed)
        usable = self._long_enough(split, num_frames)
        room = np.array([r.seconds - num_frames / self.fps for r in usable])
        weight = room + 1 / self.fps
        chosen = rng.choice(len(usable), size=count, p=weight / weight.sum())
        starts = rng.uniform(size=count) * room[chosen]
        return [
            Window(usable[i], float(s), num_frames) for i, s in zip(chosen, starts, strict=True)
        ]

    def spread(self, split: Split, num_frames: int, count: int) -> list[Window]:
        """Choose at most `count` windows, spread evenly over recordings, for evaluation."""
        usable = self._long_enough(split, num_frames)
        per_recording = -(-count // len(usable))
        windows = []
        for recording in usable:
            room = recording.seconds - num_frames / self.fps
            for start in np.linspace(0, room, min(per_recording, 1 + int(room * self.fps))):
                windows.append(Window(recording, float(start), num_frames))
        keep = np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(int)
        return [windows[i] for i in keep]

    def selection_split(self, num_frames: int) -> Split:
        """Return the split to choose settings on, by windows of so many frames: never the test.

        It is that to train on where no recording to validate on is long enough.
        """
        kept = self.recordings("validation")
        usable = any(self._is_long_enough(each, num_frames) for each in kept)
        return "validation" if usable else "train"

    def _is_long_enough(self, recording: Recording, num_frames: int) -> bool:
        return recording.seconds * self.fps >= num_frames - 1e-6

    def _long_enough(self, split: Split, num_frames: int) -> list[Recording]:
        every = self.recordings(split)
        usable = [each for each in every if self._is_long_enough(each, num_frames)]
        if not usable:
            longest = max((r.seconds for r in every), default=0.0)
            raise AvenirError(
                f"{len(every)} {split} recordings, the longest {longest:.2f} s; a window of "
                f"{num_frames} frames at {self.fps:g} fps needs {num_frames / self.fps:.2f} s: "
                "ask for fewer frames, or give longer video"
            )
        return usable


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


def batches(
    source: Source,
    *,
    num_frames: int,
    batch_size: int,
    seed: int,
    first_step: int,
    last_step: int,
    rank: int = 0,
) -> Iterator[Batch]:
    """Yield the training batch of every step from `first_step` up to `last_step` excluded.

    Each is a function of (seed, step, rank) alone; the next one is read while the caller works.
    """

    def load(step: int) -> Batch:
        step_seed = seed_of("data", seed, step, rank)
        return source.read(source.draw("train", num_frames, batch_size, step_seed))

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        ahead = [
            pool.submit(load, step) for step in range(first_step, min(first_step + 2, last_step))
        ]
        for step in range(first_step, last_step):
            batch = ahead.pop(0).result()
            if step + 2 < last_step:
                ahead.append(pool.submit(load, step + 2))
            yield batch
