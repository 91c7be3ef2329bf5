"""What is where, pixel by pixel: a small U-Net that reads frames of a world with exact labels.

Its latents are logits, one channel per class of the segmentation and, last, a map whose peaks are
the middles of things. An evaluator: it judges what worlds imagine, so it learns to bear what
imagined frames suffer from: blur, noise and colours that drift. It cannot decode.
"""

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    interpolate,
    pad,
    pixel_shuffle,
    pixel_unshuffle,
)

from avenir.augmentation import Worsening, worsened
from avenir.clip import Batch, Progress
from avenir.config import Config
from avenir.encoders import Encoder, ParameterGroup, Posterior
from avenir.nn.conv import ChannelNorm, ResidualBlock
from avenir.shapes import Compression, Video


class SegmenterWeights(Config):
    """What each loss counts."""

    classes: float = 1.0
    """Cross-entropy of the class of every pixel."""
    centres: float = 20.0
    """Cross-entropy of the map of middles, meaned over pixels: few of them are near one."""


class SegmenterConfig(Worsening):
    """The reader of labelled frames."""

    kind: str = "segmenter"
    num_classes: int = Field(10, ge=2)
    """Classes of the segmentation."""
    widths: tuple[int, ...] = (32, 48, 64)
    """Channels at half, a quarter, an eighth … of the frame's sides."""
    centre_radius: float = Field(1.5, gt=0)
    """Standard deviation in pixels of the spot that marks the middle of a thing."""
    weights: SegmenterWeights = SegmenterWeights()
    """What each loss counts."""


class Segmenter(Encoder):
    """`b T C H W -> b T c H W`: one logit per class and one for the middle of a thing."""

    Config = SegmenterConfig
    needs = ("segmentation", "objects")

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__(Compression(1, 1, 1), config.num_classes + 1)
        self.config, sizes = config, config.widths
        self.proj_in = nn.Conv2d(12, sizes[0], 3, padding=1)
        self.inward = nn.ModuleList(ResidualBlock(size) for size in sizes)
        self.outward = nn.ModuleList(ResidualBlock(size) for size in sizes)
        steps = list(zip(sizes, sizes[1:], strict=False))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in steps)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in steps)
        self.proj_out = nn.Sequential(
            ChannelNorm(sizes[0]),
            nn.SiLU(),
            nn.Conv2d(sizes[0], 4 * self.channels, 3, padding=1),
        )

    def raw_posterior(self, video: Video) -> Posterior:
        """Return the logits of every pixel."""
        frames = rearrange(video, "b T C H W -> (b T) C H W")
        return Posterior(rearrange(self._logits(frames), "(b T) c H W -> b T c H W", b=len(video)))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Compare with `segmentation` `b T H W` and `objects` `b T n 4`: x, y, class, visible."""
        assert batch.video is not None
        frames = rearrange(batch.video, "b T C H W -> (b T) C H W")
        logits = self._logits(worsened(frames, self.config, progress.generator))
        classes = batch.signals["segmentation"].flatten(0, 1).long()
        centres = self._spots(batch.signals["objects"].flatten(0, 1), frames.shape[-2:])
        return {
            "classes": cross_entropy(logits[:, :-1], classes),
            "centres": binary_cross_entropy_with_logits(logits[:, -1], centres),
        }

    def parameter_groups(self) -> list[ParameterGroup]:
        """Train everything."""
        return [ParameterGroup(list(self.parameters()), self.config.weights.model_dump())]

    def _logits(self, frames: Float[Tensor, "n C H W"]) -> Float[Tensor, "n c H W"]:
        height, width = frames.shape[-2:]
        whole = 2 ** len(self.config.widths)
        frames = pad(frames, (0, -width % whole, 0, -height % whole), mode="replicate")
        x = self.proj_in(pixel_unshuffle(frames.contiguous(memory_format=torch.channels_last), 2))
        seen = []
        for level, block in enumerate(self.inward):
            x = block(self.shrink[level - 1](x) if level else x)
            seen.append(x)
        x = self.outward[-1](x)
        for level in reversed(range(len(seen) - 1)):
            x = self.outward[level](seen[level] + interpolate(self.grow[level](x), scale_factor=2))
        return pixel_shuffle(self.proj_out(x), 2)[..., :height, :width]

    def _spots(self, objects: Float[Tensor, "n m 4"], size: torch.Size) -> Float[Tensor, "n H W"]:
        """Paint a spot at the middle of everything that is seen."""
        x, y, kind, visible = objects.unbind(-1)
        rows = torch.arange(size[0], device=objects.device)
        columns = torch.arange(size[1], device=objects.device)
        radius = 2 * self.config.centre_radius**2
        across = torch.exp(-((columns - x[..., None]) ** 2) / radius)
        down = torch.exp(-((rows - y[..., None]) ** 2) / radius)
        shown = ((kind > 0) & (visible > 0.25)).float()
        spots = (down * shown[..., None])[..., :, None] * across[..., None, :]
        return reduce(spots, "n m H W -> n H W", "max")
