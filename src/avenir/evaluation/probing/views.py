"""What probes read of latents, however these are shaped, and whom an encoder is compared with.

Latents of any grid are brought to common ones by exact area means over pixels. Raw pixels, a random
network and a segmenter trained on labels are looked at just as an encoder is. Knows no label.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from avenir.data import Source
from avenir.device import best_device, seed_of
from avenir.encoders import Encoder, padded
from avenir.evaluation.readers.readout import Readout
from avenir.nn.conv import GroupEncoder
from avenir.shapes import Compression, Latents, Video

CELL = 4
"""Rows and columns of pixels that one answer about a place stands for."""

MOST_POOLED = 4
"""Most rows and columns of a pooled frame."""

RAW_PIXELS, RANDOM_NETWORK, SUPERVISED = "raw pixels", "random network", "supervised"


class Subject(NamedTuple):
    """An encoder, or anything that makes latents of video on the group-local time grid."""

    name: str
    compression: Compression
    encode: Callable[[Video], Latents]

    @classmethod
    def of(cls, name: str, encoder: Encoder) -> "Subject":
        """Ask an encoder, wherever it is."""

        def encode(video: Video) -> Latents:
            return encoder.encode(video.to(encoder.latent_mean.device))

        return cls(name, encoder.compression, encode)


class Views(NamedTuple):
    """What probes read of the latents of `n` windows."""

    pooled: Float[Tensor, "n t d"]
    """Every latent frame of a window, area means over at most 4×4 cells."""
    places: Float[Tensor, "n h w c"]
    """Every latent of the last instant; where they are finer than cells, the means of cells."""
    cells: tuple[int, int]
    """Rows and columns of cells in one place."""

    def at(self, clip: Tensor, x: Tensor, y: Tensor) -> Float[Tensor, "m c"]:
        """Return the latent that covers each point, in pixels; (0, 0) is the middle of a pixel."""
        row = (y + 0.5) / (CELL * self.cells[0])
        column = (x + 0.5) / (CELL * self.cells[1])
        return self.places[clip, row.long(), column.long()]

    @classmethod
    def joined(cls, parts: Sequence["Views"]) -> "Views":
        """Put windows one after the other."""
        pooled = torch.cat([part.pooled for part in parts])
        return cls(pooled, torch.cat([part.places for part in parts]), parts[0].cells)


def view(subject: Subject, video: Video) -> Views:
    """Encode windows, which end when their last groups do, and keep what probes read."""
    _, *steps = subject.compression
    latents = subject.encode(video).float().cpu()
    size, counts = video.shape[-2:], latents.shape[-2:]
    few = [min(MOST_POOLED, count) for count in counts]
    wide = [pixels / num for pixels, num in zip(size, few, strict=True)]
    cells = max(1, steps[0] // CELL), max(1, steps[1] // CELL)
    own = [float(CELL * num) for num in cells]
    num = [-(-pixels // int(cell)) for pixels, cell in zip(size, own, strict=True)]
    pooled = area_means(latents, few, wide, steps, size)
    places = area_means(latents[:, -1], num, own, steps, size)
    return Views(pooled.flatten(2), rearrange(places, "n c h w -> n h w c"), cells)


def area_means(
    x: Float[Tensor, "*n h w"],
    counts: Sequence[int],
    cells: Sequence[float],
    steps: Sequence[int],
    size: Sequence[int],
) -> Float[Tensor, "*n _ _"]:
    """Mean a grid over the cells of another: `counts` of them, `cells` pixels each.

    A value stands for `steps` pixels. What lies outside `size`, where edges were repeated, does not
    count; a cell inside one value takes that value.
    """
    across = zip(counts, cells, steps, x.shape[-2:], size, strict=True)
    down, right = (_shares(*line).to(x) for line in across)
    return down @ x @ right.T


def _shares(count: int, cell: float, step: int, length: int, size: int) -> Float[Tensor, "n m"]:
    """Return how much of each cell every value of a line covers."""
    first = torch.arange(count, dtype=torch.float64)[:, None] * cell
    start = torch.arange(length, dtype=torch.float64) * step
    end = torch.minimum((first + cell).clamp(max=size), start + step)
    shared = (end - torch.maximum(first, start)).clamp(min=0)
    return shared / shared.sum(1, keepdim=True)


def references(source: Source, seed: int) -> list[Subject]:
    """Return whom every encoder is compared with: the last of them where the source has labels."""
    device = best_device()
    found = [_raw_pixels(), _random_network(device, seed)]
    readout = Readout.of(source, device)
    return [*found, _supervised(readout)] if readout else found


def _raw_pixels() -> Subject:
    """Four frames, every 4×4 pixels one mean: nothing is lost but what is finer than that."""
    compression = Compression(4, 8, 8)

    def encode(video: Video) -> Latents:
        pattern = "b (t f) C (h p y) (w q x) -> b t (f C p q) h w"
        return reduce(padded(video, compression), pattern, "mean", f=4, p=2, q=2, y=4, x=4)

    return Subject(RAW_PIXELS, compression, encode)


def _random_network(device: torch.device, seed: int) -> Subject:
    """Use a tokenizer's trunk that nothing has trained, its residual branches drawn as well."""
    compression = Compression(4, 8, 8)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed_of("random network", seed))
        network = GroupEncoder(compression, width=32, depth=2, channels=64)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    network = network.to(device).requires_grad_(False)
    return Subject(
        RANDOM_NETWORK, compression, lambda video: network(padded(video, compression).to(device))
    )


def _supervised(readout: Readout) -> Subject:
    """Use the chances of every class at every pixel of a group's last frame.

    Each also times its place, so that means over cells still tell where a class is within them.
    """
    encoder = readout.encoder
    compression = Compression(4, 1, 1)

    def encode(video: Video) -> Latents:
        frames = padded(video, compression)[:, 3::4].to(encoder.latent_mean.device)
        logits = encoder.raw_posterior(frames).mean
        chances = torch.cat([logits[:, :, :-1].softmax(2), logits[:, :, -1:].sigmoid()], dim=2)
        y, x = (torch.linspace(-1, 1, n, device=chances.device) for n in chances.shape[-2:])
        return torch.cat([chances, chances * y[:, None], chances * x], dim=2)

    return Subject(SUPERVISED, compression, encode)
