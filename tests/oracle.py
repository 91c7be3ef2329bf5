"""A data set whose signals give its frames away, and a world that does nothing but read them.

Every frame is of one grey, and every signal says which. A world that is handed the future of one
paints what truly follows.
"""

from collections.abc import Iterator
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from avenir.clip import Clip, to_frames
from avenir.config import Config
from avenir.data import Recording, Skipped, Source, Window
from avenir.shapes import Compression, Video
from avenir.signals import Role, Signal
from avenir.splits import Split

SIZE, NUM_FRAMES = (8, 8), 24


class GreySource(Source):
    """Recordings of which each frame has a grey of its own, that signals tell."""

    Config = Config

    def __init__(self, **roles: Role) -> None:
        self.fps, self.size, self.skipped = 10.0, SIZE, list[Skipped]()
        self.signals = {name: Signal(role=role, size=1) for name, role in roles.items()}

    def recordings(self, split: Split) -> list[Recording]:
        return [Recording(f"{split}-{i}", NUM_FRAMES / self.fps) for i in range(4)]

    @property
    def fingerprint(self) -> str:
        return "grey"

    def clip(self, window: Window) -> Clip:
        chance = torch.Generator().manual_seed(sum(map(ord, window.recording.name)))
        grey = torch.rand(NUM_FRAMES, 1, generator=chance) * 2 - 1
        start = round(window.start_seconds * self.fps)
        grey = grey[start : start + window.num_frames]
        frames = to_frames(painted(grey[None])[0])
        return Clip(frames, self.fps, dict.fromkeys(self.signals, grey), window.recording.name)


def painted(grey: Tensor) -> Video:
    """Paint frames of these greys, `b T 1`."""
    return grey[..., None, None].expand(-1, -1, 3, *SIZE)


class Oracle(nn.Module):
    """Paints what a signal says, and mid-grey where it says nothing."""

    discovers = False
    predictor = SimpleNamespace(num_train_frames=6)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.encoder = SimpleNamespace(
            latent_mean=torch.zeros(1), compression=Compression(1, 1, 1), views=1
        )

    def imagine(
        self,
        past: Video,
        signals: dict[str, Tensor],
        horizon: int,
        samples: int,
        generator: torch.Generator,
    ) -> Iterator[Video]:
        seen = past.shape[1]
        yield painted(signals[self.name][:, seen : seen + horizon].nan_to_num(0))
