"""Metadata: every latent frame gets further signals, as weather or speed, of its last frame.

GAIA-2 (2503.20523) embeds each such variable by itself, adds the vectors, and drops every one of
them in 80 % of its windows, so that any few of them can be given. A signal says which one is so
(one number for each, 1 for that one), or how much.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from pydantic import Field, field_validator
from torch import Tensor, nn

from avenir.clip import Condition
from avenir.conditioners import (
    Conditioner,
    ConditionSpec,
    embedding,
    is_known,
    kept_frames,
    normalised,
    of_latent_frames,
    set_mean_and_std,
)
from avenir.config import Config
from avenir.errors import AvenirError
from avenir.shapes import Latents, PerFrame

_READ_BETTER = {"actions": "actions", "caption": "text", "cameras": "cameras"}
"""Signals that a kind of their own reads."""


class MetadataConfig(Config):
    """Any signals of the data."""

    kind: str = "metadata"
    signals: tuple[str, ...] = Field(min_length=1)
    """Names of the signals."""
    dropout: float = Field(0.1, ge=0, le=1)
    """Chance that all of them are absent in a window, which guidance needs."""
    signal_dropout: float = Field(0.1, ge=0, le=1)
    """Chance, of each signal, that it is."""
    part_dropout: float = Field(0.2, ge=0, le=1)
    """Chance that all are absent up to some frame, as of a video of which nothing is known, or from
    some frame on, as when no more is given."""

    @field_validator("signals")
    @classmethod
    def _no_others(cls, signals: tuple[str, ...]) -> tuple[str, ...]:
        for name in signals:
            if name in _READ_BETTER:
                raise AvenirError(
                    f"conditioner.signals has {name!r}, which is read by a conditioner of kind "
                    f"{_READ_BETTER[name]!r}: take that one, together with others by kind 'joint'"
                )
        return tuple(dict.fromkeys(signals))


class MetadataConditioner(Conditioner):
    """Signals `b T s`, each by itself, to the sum of their vectors for every latent frame."""

    Config = MetadataConfig

    def __init__(self, config: MetadataConfig, spec: ConditionSpec) -> None:
        super().__init__()
        self.config, self.f_t = config, spec.f_t
        # By place and not by name: names of signals may have dots in them.
        self.variables = nn.ModuleList(
            _Variable(spec.sizes[name], spec.width) for name in config.signals
        )

    @classmethod
    def needs(cls, settings: MetadataConfig) -> tuple[str, ...]:
        """Read what the settings name."""
        return settings.signals

    def forward(
        self,
        signals: dict[str, Tensor],
        num_frames: int,
        batch_size: int,
        generator: torch.Generator | None = None,
        latents: Latents | None = None,
    ) -> Condition:
        """Embed what the last frame of every latent frame says; NaN means unknown."""
        variables = self._by_name
        kept = self._kept(batch_size, num_frames, generator).split(1, dim=-1)
        vectors = []
        for (name, variable), there in zip(variables.items(), kept, strict=True):
            shape = (batch_size, num_frames, len(variable.mean))
            rows = of_latent_frames(signals.get(name), shape, self.f_t, there.device)
            vectors.append(variable(rows.masked_fill(~there, torch.nan)))
        unknown = [variable(variable.unknown) for variable in variables.values()]
        return Condition(torch.stack(vectors).sum(0), torch.stack(unknown).sum(0))

    def fit(self, signals: Sequence[dict[str, Tensor]]) -> None:
        """Normalise by mean and standard deviation; what never changes stays as it is."""
        for name, variable in self._by_name.items():
            variable.fit(torch.cat([signal[name] for signal in signals]))

    @property
    def _by_name(self) -> "dict[str, _Variable]":
        variables = [each for each in self.variables if isinstance(each, _Variable)]
        return dict(zip(self.config.signals, variables, strict=True))

    def _kept(
        self, batch_size: int, num_frames: int, generator: torch.Generator | None
    ) -> Bool[Tensor, "b t n"]:
        """Draw where each signal stays known; everywhere, without a generator."""
        names, config = self.config.signals, self.config
        if generator is None:
            device = next(self.parameters()).device
            return torch.ones(batch_size, num_frames, len(names), dtype=torch.bool, device=device)
        kept = kept_frames(batch_size, num_frames, config.dropout, config.part_dropout, generator)
        drawn = torch.rand(batch_size, len(names), generator=generator, device=generator.device)
        return kept[..., None] & (drawn >= config.signal_dropout)[:, None]


class _Variable(nn.Module):
    """One signal, `b t s` to vectors `b t d`; rows with a NaN that would be heard are unknown."""

    mean: Tensor
    std: Tensor
    unknown: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("unknown", torch.full((1, 1, size), torch.nan), persistent=False)
        self.embed = embedding(size + 1, width)

    def forward(self, rows: Float[Tensor, "b t s"]) -> PerFrame:
        known = is_known(rows, self.std)
        values = torch.where(known, normalised(rows, self.mean, self.std), 0)
        return self.embed(torch.cat([values, known.float()], dim=-1))

    def fit(self, rows: Float[Tensor, "n s"]) -> None:
        set_mean_and_std(self, rows)
