"""Actions that were not recorded: what the past does not say of the next frame, in a few codes.

Genie (2402.15391, section 2.1): a network reads both frames and gives one of a handful of codes; a
second one predicts the later frame from the earlier and the code. What moves by itself is not worth
a code, so that what is steered gets them. Here the bottleneck is FSQ (2309.15505). The predictor
reads the codes and does not shape them: from a noised frame it knows the large changes itself, and
would need no code. A player chooses a code, as any other action.
"""

import math
from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm, one_hot

from avenir.clip import Condition
from avenir.conditioners import ConditionSpec, DiscoveringConditioner, embedding, kept_frames
from avenir.config import Config
from avenir.errors import AvenirError
from avenir.nn.quantize import FiniteScalar
from avenir.shapes import Actions, Latents


class LatentActionsConfig(Config):
    """Discovered actions."""

    kind: str = "latent_actions"
    levels: tuple[int, ...] = Field((3, 3), min_length=1)
    """Levels of each number of a code; their product is how many actions there are."""
    hidden: int = Field(64, ge=1)
    """Channels of the network that sees two frames."""
    dropout: float = Field(0.1, ge=0, le=1)
    """Chance that all actions of a window are absent, which guidance needs."""
    part_dropout: float = Field(0.1, ge=0, le=1)
    """Chance that they are absent from some frame on, as in a future without actions, or up to
    it."""


class LatentActionsConditioner(DiscoveringConditioner):
    """Pairs of latent frames `b t c h w`, or codes that are given, to one vector for each frame.

    Given codes are `b T a`, one of the `a` numbers 1: what `discover` returns.
    """

    Config = LatentActionsConfig
    null: Tensor

    def __init__(self, config: LatentActionsConfig, spec: ConditionSpec) -> None:
        super().__init__()
        if min(config.levels) < 3:
            raise AvenirError(
                f"conditioner.levels is {config.levels}; FSQ rounds a number of two levels nearly "
                "always to the same one: take 3 or more for each"
            )
        self.config, self.f_t = config, spec.f_t
        self.codes = FiniteScalar(config.levels)
        hidden, numbers = config.hidden, len(config.levels)
        self.backbone = nn.Sequential(
            nn.Conv2d(3 * spec.channels, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, 2 * hidden, 3, stride=2, padding=1),
            nn.SiLU(),
        )
        self.attend = nn.Conv2d(2 * hidden, 1, 1)
        self.project = nn.Linear(2 * hidden, numbers)
        # Every number varies as much as rounding it to its levels needs, from the first step on.
        self.spread = nn.BatchNorm1d(numbers, affine=False)
        self.predict = nn.Sequential(
            nn.Conv2d(2 * spec.channels + numbers, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, spec.channels, 3, padding=1),
        )
        self.register_buffer("null", torch.zeros(1, 1, numbers + 1), persistent=False)
        self.embed = embedding(numbers + 1, spec.width)

    @classmethod
    def count(cls, settings: LatentActionsConfig) -> int:
        """Multiply the levels."""
        return math.prod(settings.levels)

    def forward(
        self,
        signals: dict[str, Tensor],
        num_frames: int,
        batch_size: int,
        generator: torch.Generator | None = None,
        latents: Latents | None = None,
    ) -> Condition:
        """Embed the code that leads into every latent frame; nothing leads into the first."""
        shape, device = (batch_size, num_frames), self.null.device
        known = torch.zeros(shape, device=device)
        codes = torch.zeros(*shape, len(self.config.levels), device=device)
        if latents is not None:
            with torch.no_grad():
                codes = torch.cat([codes[:, :1], self._seen(latents)], dim=1)
            known[:, 1:] = 1
        elif "actions" in signals:
            chosen = self._incoming(signals["actions"], num_frames)
            known[:, : chosen.shape[1]] = chosen.isfinite().all(-1).float()
            tokens = chosen.nan_to_num().argmax(-1)[..., None, None]
            codes[:, : chosen.shape[1]] = self.codes.codes(tokens)[..., 0, 0]
        if generator is not None:
            config = self.config
            known = known * kept_frames(*shape, config.dropout, config.part_dropout, generator)
        flagged = torch.cat([codes * known[..., None], known[..., None]], dim=-1)
        return Condition(self.embed(flagged), self.embed(self.null))

    def losses(self, latents: Latents) -> dict[str, Tensor]:
        """Say how every frame changes, from the last two before it and its code."""
        codes = self._seen(latents)
        before, change = latents[:, :-1], latents.diff(dim=1)
        earlier = torch.cat([torch.zeros_like(change[:, :1]), change[:, :-1]], dim=1)
        h, w = latents.shape[-2:]
        inputs = torch.cat([before, earlier, repeat(codes, "b t n -> b t n h w", h=h, w=w)], dim=2)
        predicted = self.predict(inputs.flatten(0, 1))
        return {"discovery": (predicted - change.flatten(0, 1)).square().mean()}

    def fit(self, signals: Sequence[dict[str, Tensor]]) -> None:
        """Take nothing: no signal is read."""

    @torch.no_grad()
    def discover(self, latents: Latents) -> Actions:
        """Say which actions led from frame to frame, `b t·f_t a`, one of them 1; NaN at the end."""
        chosen = one_hot(self._tokens(latents), self.codes.vocabulary).float()
        # Into latent i lead the actions of frames f_t·i-1 … f_t·i+f_t-2.
        actions = repeat(chosen, "b t a -> b (t f) a", f=self.f_t)
        unknown = actions.new_full((len(actions), self.f_t, actions.shape[-1]), torch.nan)
        return torch.cat([unknown[:, 1:], actions, unknown[:, :1]], dim=1)

    def _tokens(self, latents: Latents) -> Int[Tensor, "b _t"]:
        return self.codes.tokens(self._seen(latents)[..., None, None])[..., 0, 0]

    def _seen(self, latents: Latents) -> Float[Tensor, "b _t n"]:
        """Look at every two frames that follow each other, and say a code."""
        before, after = latents[:, :-1], latents[:, 1:]
        pairs = rearrange([before, after, after - before], "three b t c h w -> (b t) (three c) h w")
        features = self.backbone(pairs)
        share = self.attend(features).flatten(2).softmax(-1)
        pooled = (features.flatten(2) * share).sum(-1)
        numbers = self.spread(self.project(layer_norm(pooled, pooled.shape[-1:])))
        numbers = rearrange(numbers, "(b t) n -> b t n 1 1", b=len(latents))
        return self.codes(numbers)[..., 0, 0]

    def _incoming(self, actions: Actions, num_frames: int) -> Float[Tensor, "b t a"]:
        """Take the first action that leads into every latent frame; they are all the same."""
        count = self.codes.vocabulary
        if actions.shape[-1] != count:
            raise AvenirError(
                f"actions have {actions.shape[-1]} numbers per frame; this world discovered "
                f"{count} actions: give `b T {count}`, one of them 1"
            )
        before = torch.full_like(actions[:, :1], torch.nan)
        return torch.cat([before, actions], dim=1)[:, :-1][:, :: self.f_t][:, :num_frames]
