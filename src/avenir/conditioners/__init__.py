"""The contract of a conditioner: from signals of a batch to one vector per latent frame.

One file in this folder is one kind. A conditioner knows the time grid of the latents and nothing
of encoders, predictors or files.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from avenir.clip import Condition
from avenir.config import Config
from avenir.shapes import Actions, Latents


class ConditionSpec(NamedTuple):
    """What a conditioner is built for: as `LatentShape` is for a predictor."""

    sizes: Mapping[str, int]
    """Numbers per frame of every signal of the data, by name."""
    f_t: int
    """Frames per latent frame."""
    width: int
    """Of the vectors that the predictor takes."""
    channels: int
    """Of the latents."""


class Conditioner(nn.Module, ABC):
    """Signals `b T s` to a condition `b t d`, and the vector of a frame of which nothing is known.

    It is built as `(config, spec)`. A kind with a setting `parts`, tables of settings by kind, gets
    these conditioners, built, as the third argument.
    """

    Config: ClassVar[type[Config]]

    @classmethod
    def needs(cls, settings: Any) -> tuple[str, ...]:
        """Name the signals it reads; they are checked against the data before the first step."""
        return ()

    @classmethod
    def gives_context(cls, settings: Any) -> bool:
        """Say whether it gives predictors something to look at beside a vector per frame."""
        return False

    @abstractmethod
    def forward(
        self,
        signals: dict[str, Tensor],
        num_frames: int,
        batch_size: int,
        generator: torch.Generator | None = None,
        latents: Latents | None = None,
    ) -> Condition:
        """Condition `num_frames` latent frames; missing signals are absent, not zero.

        With a generator, signals are dropped at random, as training for guidance needs. A kind
        that discovers actions is shown the `latents` in training, and reads them from these.
        """

    def losses(self, latents: Latents) -> dict[str, Tensor]:
        """Return every term of its own training by its plain name; most kinds have none."""
        return {}

    @abstractmethod
    def fit(self, signals: Sequence[dict[str, Tensor]]) -> None:
        """Take normalisation statistics from signals of the training split, `T s` each."""


class DiscoveringConditioner(Conditioner):
    """Finds actions of its own in video, instead of reading those that were taken."""

    @classmethod
    @abstractmethod
    def count(cls, settings: Any) -> int:
        """Say how many actions a conditioner of these settings knows."""

    @abstractmethod
    def discover(self, latents: Latents) -> Actions:
        """Say which actions led from frame to frame, `b t·f_t a`, one of them 1; NaN at the end.

        As everywhere, row k leads to frame k + 1.
        """


def of_latent_frames(
    signal: Tensor | None, shape: tuple[int, int, int], f_t: int, device: torch.device
) -> Float[Tensor, "b t s"]:
    """Take what the last frame of every latent frame says, `b t s = shape`; NaN where none does."""
    return groups_of(signal, shape, f_t, device)[:, :, -1]


def groups_of(
    signal: Tensor | None, shape: tuple[int, int, int], f_t: int, device: torch.device
) -> Float[Tensor, "b t f s"]:
    """Take what all frames of every latent frame say, `b t s = shape`; NaN where none does."""
    b, t, size = shape
    rows = torch.full((b, t, f_t, size), torch.nan, device=device)
    if signal is not None:
        # Frames that fill no group any more end in their own last one.
        short = -signal.shape[1] % f_t
        whole = torch.cat([signal, signal[:, -1:].expand(-1, short, -1)], dim=1)
        given = whole.unflatten(1, (-1, f_t))[:, :t]
        rows[:, : given.shape[1]] = given
    return rows


def kept_frames(
    num_windows: int, num_frames: int, dropout: float, part: float, generator: torch.Generator
) -> Bool[Tensor, "b t"]:
    """Draw which latent frames stay known: of a share `dropout` of windows none.

    Of a share `part` those from some frame on, or those up to it.
    """
    device = generator.device
    drawn = torch.rand(num_windows, 4, 1, generator=generator, device=device).unbind(1)
    before = torch.arange(num_frames, device=device) < drawn[0] * num_frames
    kept = torch.where(drawn[1] < 0.5, before, ~before) | (drawn[2] >= part)
    return kept & (drawn[3] >= dropout)


def set_mean_and_std(module: Any, rows: Float[Tensor, "n s"]) -> None:
    """Set the buffers `mean` and `std`, which normalise each number; 1 of what never changes.

    A number that is never known, as of a sensor that is not there, has a `std` of 0: nothing is
    heard of it. Rows in which another is unknown do not count; of fewer than two nothing is learnt.
    """
    ever = rows.isfinite().any(0)
    rows = rows[(rows.isfinite() | ~ever).all(-1)]
    if len(rows) < 2 or not ever.any():
        return
    std = rows.std(dim=0)
    std = torch.where(std > 1e-6, std, torch.ones_like(std))
    module.mean.copy_(torch.where(ever, rows.mean(dim=0), 0))
    module.std.copy_(torch.where(ever, std, 0))


def is_known(rows: Float[Tensor, "*b s"], std: Float[Tensor, " s"]) -> Bool[Tensor, "*b 1"]:
    """Say which rows are known: all numbers of which anything is heard."""
    return (rows.isfinite() | (std == 0)).all(-1, keepdim=True)


def normalised(
    rows: Float[Tensor, "*b s"], mean: Float[Tensor, " s"], std: Float[Tensor, " s"]
) -> Float[Tensor, "*b s"]:
    """Normalise each number; 0 of what is unknown, or never heard."""
    return torch.where(std > 0, (rows - mean) / std, 0).nan_to_num()


def embedding(num_inputs: int, width: int) -> nn.Sequential:
    """Build what makes a vector of a few numbers: a network of one hidden layer."""
    return nn.Sequential(nn.Linear(num_inputs, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
