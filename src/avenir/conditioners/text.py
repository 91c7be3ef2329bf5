"""Words: every latent frame is told the caption of its last frame, read byte by byte.

The reader is a small transformer that is trained along with the predictor, so a word means what it
does to pictures. A caption may change from frame to frame: saying something else in the middle of a
future is a promptable event (Genie 3). Frames without a caption, and dropped ones, are absent.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from avenir.clip import Condition
from avenir.conditioners import Conditioner
from avenir.config import Config
from avenir.shapes import Latents


class TextConfig(Config):
    """A caption of every frame."""

    kind: str = "text"
    depth: int = Field(2, ge=1)
    """Blocks of the reader."""
    heads: int = Field(4, ge=1)
    """Attention heads of the reader; they divide the predictor's width."""
    dropout: float = Field(0.1, ge=0, le=1)
    """Chance that all captions of a window are absent, which guidance needs."""
    part_dropout: float = Field(0.2, ge=0, le=1)
    """Chance that captions are absent up to some frame, as of a video that nobody described, or
    from some frame on, as when nothing more is said."""


class TextConditioner(Conditioner):
    """Captions `b T s`, UTF-8 bytes with zeros behind them, to one vector per latent frame."""

    Config = TextConfig

    def __init__(
        self,
        config: TextConfig,
        sizes: Mapping[str, int],
        f_t: int,
        width: int,
        channels: int,
    ) -> None:
        super().__init__()
        self.config, self.f_t, self.size = config, f_t, sizes["caption"]
        self.letters = nn.Embedding(256, width)
        self.where = nn.Parameter(0.02 * torch.randn(self.size, width))
        block = nn.TransformerEncoderLayer(
            width, config.heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, config.depth, enable_nested_tensor=False)
        self.say = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.nothing = nn.Parameter(0.02 * torch.randn(1, 1, width))

    @classmethod
    def needs(cls, settings: TextConfig) -> tuple[str, ...]:
        """Read captions."""
        return ("caption",)

    def forward(
        self,
        signals: dict[str, Tensor],
        num_frames: int,
        batch_size: int,
        generator: torch.Generator | None = None,
        latents: Latents | None = None,
    ) -> Condition:
        """Read the caption of the last frame of every latent frame; NaN means unknown."""
        device = self.nothing.device
        said = torch.full((batch_size, num_frames, self.size), torch.nan, device=device)
        captions = signals.get("caption")
        if captions is not None:
            # Frames that fill no group any more end in their own last caption.
            short = -captions.shape[1] % self.f_t
            whole = torch.cat([captions, captions[:, -1:].expand(-1, short, -1)], dim=1)
            given = whole[:, self.f_t - 1 :: self.f_t][:, :num_frames]
            said[:, : given.shape[1]] = given
        known = said.isfinite().all(-1)
        if generator is not None:
            known = known & self._kept(known, generator)
        per_frame = torch.where(known[..., None], self._read(said.nan_to_num()), self.nothing)
        return Condition(per_frame, self.nothing)

    def fit(self, signals: Sequence[dict[str, Tensor]]) -> None:
        """Take nothing: bytes are what they are."""

    def _kept(self, known: Bool[Tensor, "b t"], chance: torch.Generator) -> Bool[Tensor, "b t"]:
        b, num_frames = known.shape
        drawn = torch.rand(b, 4, 1, generator=chance, device=known.device).unbind(1)
        before = torch.arange(num_frames, device=known.device) < drawn[0] * num_frames
        part = torch.where(drawn[1] < 0.5, before, ~before) | (drawn[2] >= self.config.part_dropout)
        return part & (drawn[3] >= self.config.dropout)

    def _read(self, said: Float[Tensor, "b t s"]) -> Float[Tensor, "b t d"]:
        """Read every caption that differs once."""
        different, which = said.flatten(0, 1).long().unique(dim=0, return_inverse=True)
        return self._meaning(different)[which].unflatten(0, said.shape[:2])

    def _meaning(self, letters: Int[Tensor, "n s"]) -> Float[Tensor, "n d"]:
        # Of a caption without words all bytes count: there is nothing else to look at.
        behind = (letters == 0) & (letters > 0).any(1, keepdim=True)
        seen = self.blocks(self.letters(letters) + self.where, src_key_padding_mask=behind)
        counts = (~behind).float()[..., None]
        return self.say((seen * counts).sum(1) / counts.sum(1))
