"""Reads what flies over synthetic frames.

Trained by `recipes/visitor_reader.toml` on training recordings of all pairs of kind and colour,
for one that misses some reads others in their place. Its weights lie in `visitor_reader`.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avenir.data.synthetic.visitors import Visitor
from avenir.encoders.regressor import Regressor
from avenir.shapes import Video
from avenir.world import World

FOLDER = Path(__file__).parent / "visitor_reader"

_SHOWS = 0.5
"""Share of a visitor that is read in some frame when it is there."""


class SeenVisitors(NamedTuple):
    """What is read in a stretch of frames of every clip."""

    shows: Bool[Tensor, " b"]
    """Whether anything does."""
    pair: Float[Tensor, "b 2"]
    """Kind and colour, of what shows most."""


class VisitorReader:
    """Says what flies over synthetic frames."""

    def __init__(self, network: Regressor, size: tuple[int, int]) -> None:
        self.network, self.size = network.eval(), size

    @classmethod
    def shipped(cls, device: torch.device | str) -> "VisitorReader":
        """Open the one that comes with the package."""
        world = World.load(FOLDER, device)
        assert isinstance(world.encoder, Regressor)
        return cls(world.encoder, world.card.size)

    @torch.no_grad()
    def read(self, video: Video) -> SeenVisitors:
        """Look at frames `b T C H W` together."""
        parts = video.split(8, dim=1)
        device = self.network.latent_mean.device
        shown = torch.cat([self.network.measured(part.to(device)) for part in parts], dim=1).cpu()
        kinds, colours = shown.split((len(Visitor), shown.shape[-1] - len(Visitor)), dim=-1)
        pair = [each.clamp(min=0).sum(1).argmax(-1) for each in (kinds, colours)]
        return SeenVisitors(kinds.amax((1, 2)) > _SHOWS, torch.stack(pair, dim=1).float())
