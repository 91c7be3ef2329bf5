"""What training does to frames so that encoders learn to look past it: colours, blur, noise.

Knows frames and a generator of chance; no encoder and no loss.
"""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import conv2d, pad

from avenir.config import Config
from avenir.shapes import Video

Images = Float[Tensor, "n C H W"]


def jittered(video: Video, strength: float, generator: torch.Generator) -> Video:
    """Mix the colours of each row by a random matrix near the identity, and shift them."""
    b, device = len(video), video.device
    mix = torch.eye(3, device=device) + strength * torch.randn(
        b, 3, 3, generator=generator, device=device
    )
    shift = strength * torch.randn(b, 1, 3, 1, 1, generator=generator, device=device)
    return torch.einsum("b d c, b t c h w -> b t d h w", mix, video) + shift


class Worsening(Config):
    """What an evaluator learns to bear: imagined frames are blurred, noisy, and drift in colour."""

    blur: float = Field(0.3, ge=0, le=1)
    """Share of training frames that are blurred."""
    blur_radius: float = Field(2.0, gt=0.5)
    """Most they are blurred, as a deviation in pixels."""
    noise: float = Field(0.12, ge=0)
    """Most noise that training frames get, as a deviation in [-1, 1] units."""
    colour: float = Field(0.15, ge=0)
    """Deviation of the gain and offset that every colour channel gets in training."""


def worsened(frames: Images, config: Worsening, generator: torch.Generator) -> Images:
    """Blur, discolour and spoil frames, each by its own measure."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(len(frames), *shape, generator=generator, device=frames.device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(len(frames), *shape, generator=generator, device=frames.device)

    radius = 0.5 + (config.blur_radius - 0.5) * uniform(1, 1, 1)[:1]
    often = uniform(1, 1, 1) < config.blur
    frames = torch.where(often, blurred(frames, radius, config.blur_radius), frames)
    gain = 1 + config.colour * normal(3, 1, 1)
    frames = frames * gain + config.colour * normal(3, 1, 1)
    return frames + config.noise * uniform(1, 1, 1) * normal(*frames.shape[1:])


def blurred(frames: Images, radius: Float[Tensor, "1 1 1 1"], most: float) -> Images:
    """Blur by a Gaussian of deviation `radius`, at most `most` pixels."""
    reach = int(2.5 * most)
    offsets = torch.arange(-reach, reach + 1, device=frames.device)
    weights = torch.exp(-offsets.square() / (2 * radius**2))
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    wide = pad(frames, (reach, reach, reach, reach), mode="replicate")
    return conv2d(conv2d(wide, weights.mT, groups=3), weights, groups=3)
