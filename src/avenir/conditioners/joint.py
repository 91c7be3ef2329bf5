"""Several conditioners at once: each gives its vector, and a frame gets the sum.

What is absent of one kind changes nothing of the others: every kind drops its own signals in
training, and a share of windows loses all together (GAIA-2, 2503.20523: each variable, and all).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from avenir.clip import Condition
from avenir.conditioners import Conditioner, ConditionSpec, DiscoveringConditioner
from avenir.config import Config
from avenir.errors import AvenirError
from avenir.registry import find, parse
from avenir.shapes import Latents


class JointConfig(Config):
    """Several kinds together."""

    kind: str = "joint"
    parts: dict[str, dict[str, Any]] = Field(min_length=2)
    """The kinds, each with its own settings."""
    dropout: float = Field(0.05, ge=0, le=1)
    """Chance that everything about a window is absent, beside what each kind drops by itself."""

    @field_validator("parts")
    @classmethod
    def _filled(cls, parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Check the settings of every kind, and fill in those that are not said."""
        tables = {kind: {**table, "kind": kind} for kind, table in parts.items()}
        return {
            kind: parse("conditioners", table, f"conditioner.parts.{kind}").model_dump(mode="json")
            for kind, table in tables.items()
        }


class JointConditioner(Conditioner):
    """The sum of the vectors of several conditioners, `b t d`, which it receives built."""

    Config = JointConfig

    def __init__(
        self, config: JointConfig, spec: ConditionSpec, parts: Mapping[str, Conditioner]
    ) -> None:
        super().__init__()
        self.config = config
        self.parts = nn.ModuleDict()
        for kind, part in parts.items():
            if isinstance(part, DiscoveringConditioner):
                raise AvenirError(
                    f"conditioner.parts has {kind!r}, which finds actions of its own in video and "
                    "takes the place of those that were recorded: let it stand alone"
                )
            self.parts[kind] = part

    @classmethod
    def needs(cls, settings: JointConfig) -> tuple[str, ...]:
        """Name what any of the kinds reads."""
        kinds = _parsed(settings).items()
        return tuple(name for kind, s in kinds for name in find("conditioners", kind).needs(s))

    @classmethod
    def gives_context(cls, settings: JointConfig) -> bool:
        """Say whether any of the kinds does."""
        kinds = _parsed(settings).items()
        return any(find("conditioners", kind).gives_context(s) for kind, s in kinds)

    def forward(
        self,
        signals: dict[str, Tensor],
        num_frames: int,
        batch_size: int,
        generator: torch.Generator | None = None,
        latents: Latents | None = None,
    ) -> Condition:
        """Add up the conditions of every kind."""
        condition = Condition.together(
            {
                name: part(signals, num_frames, batch_size, generator, latents)
                for name, part in self.parts.items()
            }
        )
        if generator is None:
            return condition
        drawn = torch.rand(batch_size, 1, 1, generator=generator, device=condition.null.device)
        return condition.drop(drawn[:, 0, 0] < self.config.dropout)

    def fit(self, signals: Sequence[dict[str, Tensor]]) -> None:
        """Let every kind take its own."""
        for part in self._every:
            part.fit(signals)

    @property
    def _every(self) -> list[Conditioner]:
        return [part for part in self.parts.values() if isinstance(part, Conditioner)]


def _parsed(config: JointConfig) -> dict[str, Config]:
    return {kind: parse("conditioners", table) for kind, table in config.parts.items()}
