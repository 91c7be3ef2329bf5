"""A toy data set and a toy world that knows its rule: a square steered sideways on a torus."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from avenir.card import Card
from avenir.clip import Clip, to_frames
from avenir.config import Config
from avenir.data import Recording, Skipped, Source, Window
from avenir.encoders import ParameterGroup, Posterior, Tokenizer
from avenir.shapes import Compression, Latents, Video
from avenir.signals import Signal
from avenir.splits import Split

HEIGHT, WIDTH, LENGTH = 16, 24, 30


def painted(x: Tensor, y: int) -> Video:
    """Paint a square whose left edge is `x` (`b T`), in [-1, 1]."""
    columns = (torch.arange(WIDTH) - x[..., None]) % WIDTH < 5
    rows = (torch.arange(HEIGHT) >= y) & (torch.arange(HEIGHT) < y + 5)
    square = (rows[:, None] & columns[..., None, :]).float()
    return (square * 1.6 - 0.8)[:, :, None].expand(-1, -1, 3, -1, -1)


class ToyConfig(Config):
    kind: str = "toy"


class ToySource(Source):
    """Recordings of a square; test recording 0 is training recording 3 over again."""

    Config = ToyConfig

    def __init__(self) -> None:
        self.fps, self.size, self.skipped = 10.0, (HEIGHT, WIDTH), list[Skipped]()
        self.signals = {"actions": Signal(role="action", size=1, names=("right",))}

    def recordings(self, split: Split) -> list[Recording]:
        return [Recording(f"{split}-{i}", LENGTH / self.fps) for i in range(6)]

    @property
    def fingerprint(self) -> str:
        return "toy"

    def clip(self, window: Window) -> Clip:
        split, number = window.recording.name.split("-")
        index = 3 if (split, number) == ("test", "0") else int(number) + 10 * (split == "test")
        chance = torch.Generator().manual_seed(index)
        actions = torch.randint(-2, 3, (LENGTH, 1), generator=chance).float()
        x = torch.cat([torch.zeros(1), actions[:-1, 0].cumsum(0)]) + 3 * index
        frames = to_frames(painted(x[None], index % 9)[0])
        start = round(window.start_seconds * self.fps)
        whole = Clip(frames, self.fps, {"actions": actions}, window.recording.name)
        return whole[start : start + window.num_frames]


class Identity(Tokenizer):
    """Latents are the pixels."""

    Config = ToyConfig

    def __init__(self) -> None:
        super().__init__(Compression(1, 1, 1), 3)

    def raw_posterior(self, video: Video) -> Posterior:
        return Posterior(video)

    def raw_decode(self, latents: Latents) -> Video:
        return latents

    def decoding_losses(
        self, posterior, video, progress, hide=lambda latents: latents
    ) -> dict[str, Tensor]:
        return {}

    def parameter_groups(self) -> list[ParameterGroup]:
        return []

    def freeze_encoder(self) -> None:
        pass


class ToyWorld:
    """Knows the rule; `noise` spoils its pictures, each sample by its own."""

    discovers = False
    takes = {"actions": Signal(role="action", size=1)}

    def __init__(self, noise: float = 0.0, listens: bool = True) -> None:
        self.noise, self.listens = noise, listens
        self.encoder = Identity()
        self.predictor = SimpleNamespace(num_train_frames=12)
        self.conditioner = object()
        self.card = Card(
            name="toy <world>", fps=10, size=(HEIGHT, WIDTH), encoder={}, provenance={"steps": 7}
        )

    def imagine(
        self,
        past: Video,
        signals: dict[str, Tensor],
        horizon: int,
        samples: int,
        generator: torch.Generator,
    ) -> Iterator[Video]:
        moves = signals["actions"][:, past.shape[1] - 1 : -1, 0]
        if not self.listens:
            moves = torch.zeros_like(moves)
        shift = moves.cumsum(1).long()
        made = torch.stack(
            [
                torch.stack([last.roll(int(s), dims=-1) for s in shifts])
                for last, shifts in zip(past[:, -1], shift, strict=True)
            ]
        ).repeat_interleave(samples, 0)
        made = made + self.noise * torch.randn(made.shape, generator=generator)
        yield made[:, : horizon // 2]
        yield made[:, horizon // 2 :]


@pytest.fixture
def source() -> ToySource:
    return ToySource()


@pytest.fixture
def world() -> ToyWorld:
    return ToyWorld(noise=0.3)


@pytest.fixture
def deaf_world() -> ToyWorld:
    return ToyWorld(listens=False)


@pytest.fixture
def windows(source: ToySource) -> list[Window]:
    """One window of 16 frames from each of six test recordings."""
    return source.spread("test", 16, 6)
