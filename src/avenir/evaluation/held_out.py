"""What every question is asked on: held-out windows, what may be known of them, one future."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avenir.clip import Batch
from avenir.console import Report
from avenir.data import Source, Window
from avenir.device import generator
from avenir.encoders import Encoder
from avenir.evaluation.baselines import frames_of
from avenir.evaluation.metrics.bootstrap import Interval, interval
from avenir.shapes import Actions, Video
from avenir.signals import observed


@runtime_checkable
class Imagines(Protocol):
    """What is evaluated: a `World`, or anything that continues as one does."""

    encoder: Encoder

    def imagine(
        self,
        past: Video,
        signals: dict[str, Tensor],
        horizon: int,
        samples: int,
        generator: torch.Generator,
    ) -> Iterator[Video]:
        """Yield pieces `(b k) T C H W` of the `horizon` frames after `past`."""
        ...


class HeldOut(NamedTuple):
    """What to measure on: held-out windows of `past + horizon` frames."""

    source: Source
    windows: Sequence[Window]
    past: int
    horizon: int
    num_samples: int
    batch_size: int
    seed: int
    discover: Callable[[Video], Actions] | None = None
    """How a world reads actions of its own in video; none: it takes those that were recorded."""

    @property
    def groups(self) -> list[str]:
        """Name the recording of every window."""
        return [window.recording.name for window in self.windows]

    def batches(self, what: str, report: Report) -> Iterator[tuple[int, Batch]]:
        """Yield every batch with the index of its first clip, telling how far it is."""
        for start in range(0, len(self.windows), self.batch_size):
            report(what, start, len(self.windows))
            yield start, self.source.read(self.windows[start : start + self.batch_size])
        report(what, len(self.windows), len(self.windows))

    def steering(self, batch: Batch, past: int | None = None) -> dict[str, Tensor]:
        """Take the signals that may steer a world, of which `past` frames are observed."""
        if self.discover is not None:
            return {"actions": self.discover(frames_of(batch))}
        return observed(batch.signals, self.past if past is None else past, self.source.signals)

    def cut(self, most: int) -> "HeldOut":
        """Return the same pasts with a horizon of at most so many frames."""
        horizon = min(most, self.horizon)
        windows = [replace(w, num_frames=self.past + horizon) for w in self.windows]
        return self._replace(windows=windows, horizon=horizon)

    def mean(self, values: Float[Tensor, " b"], counts: Bool[Tensor, " b"]) -> Interval:
        """Take the mean over the windows that count; none where none does."""
        names = [name for name, kept in zip(self.groups, counts.tolist(), strict=True) if kept]
        return interval(values[counts], names, self.seed) if names else Interval(mean=None)

    def split(self, batch: Batch) -> tuple[Video, Video]:
        """Return what is observed of a batch, and what truly followed."""
        past, true = frames_of(batch).split((self.past, self.horizon), dim=1)
        return past, true


def of_another_recording(windows: Sequence[Window], index: int) -> int | None:
    """Return which of some windows, from `index` on and round, is the next of another recording."""
    own, count = windows[index].recording.name, len(windows)
    after = ((index + step) % count for step in range(1, count))
    return next((i for i in after if windows[i].recording.name != own), None)


@torch.no_grad()
def imagined(
    world: Imagines, past: Video, signals: dict[str, Tensor], horizon: int, *seed: int | str
) -> Video:
    """Return one whole future of every clip, in the range of pixels; `seed` names its chance."""
    rng = generator(*seed, device=world.encoder.latent_mean.device)
    pieces = world.imagine(past, signals, horizon, 1, rng)
    return torch.cat([piece.cpu() for piece in pieces], dim=1).clamp(-1, 1)
