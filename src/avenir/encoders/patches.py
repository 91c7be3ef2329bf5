"""The pixels themselves, cut into patches: what a latent saves is measured against it.

Nothing is learnt and nothing is lost: latents are the pixels of a group of frames and a block of
rows and columns, side by side as channels.
"""

from einops import rearrange

from avenir.config import Config
from avenir.encoders import FixedTokenizer, Posterior
from avenir.shapes import Compression, Latents, Video


class PatchesConfig(Config):
    """Raw patches."""

    kind: str = "patches"
    compression: tuple[int, int, int] = (1, 8, 8)
    """Frames, rows and columns of a patch."""


class Patches(FixedTokenizer):
    """`b T C H W -> b t c h w` and exactly back, `c = C·f_t·f_h·f_w`."""

    Config = PatchesConfig

    def __init__(self, config: PatchesConfig) -> None:
        t, h, w = config.compression
        super().__init__(Compression(t, h, w), 3 * t * h * w)

    def raw_posterior(self, video: Video) -> Posterior:
        """Stack the pixels of every patch as channels."""
        return Posterior(
            rearrange(video, "b (t f) C (h p) (w q) -> b t (f C p q) h w", **self._sides)
        )

    def raw_decode(self, latents: Latents) -> Video:
        """Put the pixels back in their places."""
        pattern = "b t (f C p q) h w -> b (t f) C (h p) (w q)"
        return rearrange(latents, pattern, **self._sides)

    @property
    def _sides(self) -> dict[str, int]:
        f, p, q = self.compression
        return {"f": f, "p": p, "q": q}
