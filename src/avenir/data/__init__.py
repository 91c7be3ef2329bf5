"""The contract of a source: recordings, and windows cut from them by time.

A source knows nothing of models. One file in this folder is one kind of source. Every window is a
function of (seed, step, rank), so a restart repeats nothing and skips nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple, Protocol

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
from avenir.splits import Split

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
    """What is done in it, in words; empty where it is not known."""

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
