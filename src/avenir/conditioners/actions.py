"""Actions: every latent frame gets the actions that lead into its frames.

The action at frame k leads to frame k+1, so latent i gets the `f_t` actions of frames
`f_t·i-1 … f_t·i+f_t-2`, side by side and never averaged. Each comes with a flag that says whether
it is known: the action before a window, the actions of a silent user and dropped ones are absent.
A number that training never knew is not heard, and takes nothing from the others.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor

from avenir.clip import Condition
from avenir.conditioners import (
    Conditioner,
    ConditionSpec,
    embedding,
    is_known,
    normalised,
    set_mean_and_std,
)
from avenir.config import Config
from avenir.errors import AvenirError
from avenir.shapes import Actions, Latents, PerFrame


class ActionsConfig(Config):
    """Per-frame actions."""

    kind: str = "actions"
    dropout: float = Field(0.1, ge=0, le=1)
    """Chance that all actions of a window are absent, which guidance needs."""
    future_dropout: float = Field(0.1, ge=0, le=1)
    """Chance that actions are absent from some frame on, as when a user stops acting."""


class ActionsConditioner(Conditioner):
    """Actions `b T a` to one vector per latent frame, `b t d`."""

    Config = ActionsConfig
    mean: Tensor
    std: Tensor
    null: Tensor

    def __init__(self, config: ActionsConfig, spec: ConditionSpec) -> None:
        super().__init__()
        self.config, self.f_t = config, spec.f_t
        self.action_size = action_size = spec.sizes["actions"]
        self.register_buffer("mean", torch.zeros(action_size))
        self.register_buffer("std", torch.ones(action_size))
        incoming = spec.f_t * (action_size + 1)
        self.register_buffer("null", torch.zeros(1, 1, incoming), persistent=False)
        self.embed = embedding(incoming, spec.width)

    @classmethod
    def needs(cls, settings: ActionsConfig) -> tuple[str, ...]:
        """Read actions."""
        return ("actions",)

    def forward(
        self,
        signals: dict[str, Tensor],
        num_frames: int,
        batch_size: int,
        generator: torch.Generator | None = None,
        latents: Latents | None = None,
    ) -> Condition:
        """Embed the incoming actions of every latent frame; NaN means unknown."""
        actions = signals.get("actions")
        shape = (batch_size, num_frames * self.f_t, self.action_size)
        known = torch.zeros(shape[:2], device=self.mean.device)
        values = torch.zeros(shape, device=self.mean.device)
        if actions is not None:
            self._check(actions)
            given = min(actions.shape[1], shape[1])
            known[:, :given] = is_known(actions[:, :given], self.std)[..., 0].float()
            values[:, :given] = normalised(actions[:, :given], self.mean, self.std)
        if generator is not None:
            known = known * self._kept(known, generator)
        return Condition(self.embed(self._incoming(values, known)), self.embed(self.null))

    def fit(self, signals: Sequence[dict[str, Tensor]]) -> None:
        """Normalise by mean and standard deviation; what never changes stays as it is."""
        actions = torch.cat([signal["actions"] for signal in signals])
        set_mean_and_std(self, actions)

    def _incoming(self, values: Actions, known: Tensor) -> PerFrame:
        flagged = torch.cat([values * known[..., None], known[..., None]], dim=-1)
        before = torch.zeros_like(flagged[:, :1])
        incoming = torch.cat([before, flagged[:, :-1]], dim=1)
        return rearrange(incoming, "b (t f) a -> b t (f a)", f=self.f_t)

    def _kept(self, known: Tensor, generator: torch.Generator) -> Tensor:
        b, num_frames = known.shape
        draw = torch.rand(b, 3, generator=generator, device=known.device)
        cut = torch.where(draw[:, 0] < self.config.future_dropout, draw[:, 1] * num_frames, 1e9)
        kept = torch.arange(num_frames, device=known.device) < cut[:, None]
        return kept.float() * (draw[:, 2:] >= self.config.dropout)

    def _check(self, actions: Actions) -> None:
        if actions.shape[-1] != self.action_size:
            raise AvenirError(
                f"actions have {actions.shape[-1]} numbers per frame; this world was trained with "
                f"{self.action_size}: give `b T {self.action_size}`"
            )
