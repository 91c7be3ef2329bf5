"""LPIPS (Zhang et al. 2018, 1801.03924) on VGG-16, for those who have its weights.

Nothing is downloaded: a safetensors file holds VGG's convolutions as `features.N.weight|bias` and
the learned channel weights as `lin0 … lin4`, `1 c 1 1` each. Optional everywhere.
"""

from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from avenir.errors import AvenirError
from avenir.shapes import Video

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Width and number of convolutions of VGG-16's blocks, a halving between them."""
_TAPS = (3, 8, 15, 22, 29)
"""Layers after which features are compared: the last ReLU of each block."""
_MEAN = (-0.030, -0.088, -0.188)
_STD = (0.458, 0.448, 0.450)
"""Of ImageNet, for pictures in [-1, 1]."""


class LPIPS(nn.Module):
    """Distance of two videos frame by frame, in VGG's features; its weights never train."""

    mean: Tensor
    std: Tensor

    def __init__(self, divide_widths_by: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        incoming, taps = 3, []
        for number, (width, num_convolutions) in enumerate(_BLOCKS):
            outgoing = width // divide_widths_by
            layers += [nn.MaxPool2d(2)] if number else []
            for _ in range(num_convolutions):
                layers += [nn.Conv2d(incoming, outgoing, 3, padding=1), nn.ReLU()]
                incoming = outgoing
            taps.append(outgoing)
        self.features = nn.Sequential(*layers)
        for number, channels in enumerate(taps):
            self.register_buffer(f"lin{number}", torch.ones(1, channels, 1, 1))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @classmethod
    def load(cls, path: str) -> "LPIPS":
        """Read the weights from a safetensors file."""
        if not Path(path).exists():
            raise AvenirError(
                f"LPIPS weights were asked for at {path!r} and are not there; put them there, or "
                "leave encoder.lpips out: the perceptual term needs no download"
            )
        metric = cls()
        metric.load_state_dict(load_file(path))
        return metric

    def forward(self, decoded: Video, video: Video) -> Float[Tensor, ""]:
        """Compare unit-length features at five depths."""
        both = torch.cat([decoded, video])
        x = (rearrange(both, "b t c h w -> (b t) c h w") - self.mean) / self.std
        total, number = x.new_zeros(()), 0
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in _TAPS:
                unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
                one, other = unit.chunk(2)
                weighed = (one - other).square() * self.get_buffer(f"lin{number}")
                total = total + weighed.sum(1).mean()
                number += 1
        return total
