"""Cameras: every view gets where its camera is, which way it looks, and how much it sees.

GAIA-2 (2503.20523) embeds intrinsics and extrinsics of each camera and adds them to the tokens of
its view. A camera of which nothing is known adds nothing.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from avenir.clip import Condition
from avenir.conditioners import (
    Conditioner,
    ConditionSpec,
    embedding,
    is_known,
    normalised,
    of_latent_frames,
    set_mean_and_std,
)
from avenir.config import Config
from avenir.shapes import CAMERA_NUMBERS, Latents


class CamerasConfig(Config):
    """Intrinsics and extrinsics of every view."""

    kind: str = "cameras"
    dropout: float = Field(0.1, ge=0, le=1)
    """Chance that all cameras of a window are unknown."""
    camera_dropout: float = Field(0.1, ge=0, le=1)
    """Chance, of each camera, that it is."""


class CamerasConditioner(Conditioner):
    """Cameras `b T (views 16)`, one after the other, to a vector per view, `b t views d`."""

    Config = CamerasConfig
    mean: Tensor
    std: Tensor
    null: Tensor

    def __init__(self, config: CamerasConfig, spec: ConditionSpec) -> None:
        super().__init__()
        self.config, self.f_t = config, spec.f_t
        self.size = spec.sizes["cameras"]
        self.register_buffer("mean", torch.zeros(CAMERA_NUMBERS))
        self.register_buffer("std", torch.ones(CAMERA_NUMBERS))
        self.register_buffer("null", torch.zeros(1, 1, spec.width), persistent=False)
        self.embed = embedding(CAMERA_NUMBERS, spec.width)

    @classmethod
    def needs(cls, settings: CamerasConfig) -> tuple[str, ...]:
        """Read cameras."""
        return ("cameras",)

    def forward(
        self,
        signals: dict[str, Tensor],
        num_frames: int,
        batch_size: int,
        generator: torch.Generator | None = None,
        latents: Latents | None = None,
    ) -> Condition:
        """Embed the camera of every view; NaN means unknown."""
        shape = (batch_size, num_frames, self.size)
        given = of_latent_frames(signals.get("cameras"), shape, self.f_t, self.mean.device)
        cameras = rearrange(given, "b t (views n) -> b t views n", n=CAMERA_NUMBERS)
        known = is_known(cameras, self.std)
        if generator is not None:
            draw = torch.rand(
                batch_size, 1 + cameras.shape[2], generator=generator, device=self.mean.device
            )
            kept = (draw[:, 1:] >= self.config.camera_dropout) & (
                draw[:, :1] >= self.config.dropout
            )
            known = known & kept[:, None, :, None]
        embedded = self.embed(normalised(cameras, self.mean, self.std))
        unknown = self.null.expand(batch_size, num_frames, -1)
        return Condition(unknown, self.null, embedded * known)

    def fit(self, signals: Sequence[dict[str, Tensor]]) -> None:
        """Normalise each of the 16 numbers over all cameras; what never changes stays as it is."""
        every: Float[Tensor, "n 16"] = torch.cat(
            [s["cameras"].reshape(-1, CAMERA_NUMBERS) for s in signals]
        )
        set_mean_and_std(self, every)
