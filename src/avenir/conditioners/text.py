"""Captions: every latent frame gets the caption of its last frame, word by word.

A word is a fixed random vector, and a caption the sum of its words: what they do to pictures the
predictor learns. That they stay what they are is the point, as with the frozen readers of
text-to-image models: a reader that is trained along changes its output faster than the predictor,
which words help in one frame of many, can learn to use it (docs/choices.md). There is no vocabulary
to keep: the bytes of a word are hashed twice, to two rows of a table (1709.03933), so every word of
any language has its own pair. A caption may change from frame to frame: another one in
the middle of a future is a promptable event (Genie 3). Frames without a caption, and dropped ones,
are absent.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from avenir.clip import Condition
from avenir.conditioners import Conditioner, ConditionSpec, kept_frames, of_latent_frames
from avenir.config import Config
from avenir.shapes import Latents

_PRIME = 2**31 - 1

_ORDER = 0.5
"""How much of a word's vector depends on its place in the caption."""


class TextConditionerConfig(Config):
    """A caption of every frame."""

    kind: str = "text"
    rows: int = Field(1024, ge=2)
    """Rows of the table of words."""
    dropout: float = Field(0.1, ge=0, le=1)
    """Chance that all captions of a window are absent, which guidance needs."""
    part_dropout: float = Field(0.2, ge=0, le=1)
    """Chance that captions are absent up to some frame, as of a video without description, or
    from some frame on, as when no more is described."""


class TextConditioner(Conditioner):
    """Captions `b T s`, UTF-8 bytes with zeros behind them, to one vector per latent frame."""

    Config = TextConditionerConfig
    words: Float[Tensor, "rows d"]
    places: Float[Tensor, "s d"]

    def __init__(self, config: TextConditionerConfig, spec: ConditionSpec) -> None:
        super().__init__()
        self.config, self.f_t = config, spec.f_t
        self.size = spec.sizes["caption"]
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("words", torch.randn(config.rows, spec.width, generator=generator))
        self.register_buffer(
            "places", torch.randn(self.size, spec.width, generator=generator).sign()
        )
        self.null = nn.Parameter(0.02 * torch.randn(1, 1, spec.width))

    @classmethod
    def needs(cls, settings: TextConditionerConfig) -> tuple[str, ...]:
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
        shape = (batch_size, num_frames, self.size)
        captions = of_latent_frames(signals.get("caption"), shape, self.f_t, self.null.device)
        known = captions.isfinite().all(-1)
        if generator is not None:
            config = self.config
            known = known & kept_frames(
                batch_size, num_frames, config.dropout, config.part_dropout, generator
            )
        read = self._read(captions.nan_to_num().long().flatten(0, 1)).unflatten(0, shape[:2])
        return Condition(torch.where(known[..., None], read, self.null), self.null)

    def fit(self, signals: Sequence[dict[str, Tensor]]) -> None:
        """Take nothing: bytes are what they are."""

    def _read(self, letters: Int[Tensor, "n s"]) -> Float[Tensor, "n d"]:
        """Add up the words of every caption; their number does not change its scale."""
        hashes, ends = _words(letters)
        rows, place = self.config.rows, (ends.cumsum(1) - 1).clamp(min=0)
        words = self.words[hashes % rows] + self.words[hashes // rows % rows]
        words = words * (1 + _ORDER * self.places[place]) * ends[..., None]
        return words.sum(1) / (2 * (1 + _ORDER**2) * ends.sum(1, keepdim=True)).sqrt()


def _words(letters: Int[Tensor, "n s"]) -> tuple[Int[Tensor, "n s"], Bool[Tensor, "n s"]]:
    """Hash every word at its last letter, and say where those are: at least one of a caption."""
    inside = (letters != 0) & (letters != ord(" "))
    hashes, so_far = torch.zeros_like(letters), torch.zeros_like(letters[:, 0])
    for place in range(letters.shape[1]):
        so_far = torch.where(inside[:, place], (so_far * 257 + letters[:, place]) % _PRIME, 0)
        hashes[:, place] = so_far
    ends = inside & ~nn.functional.pad(inside[:, 1:], (0, 1))
    # Of a caption without words the first place counts: there is nothing else to look at.
    ends[:, 0] |= ~ends.any(1)
    return hashes, ends
