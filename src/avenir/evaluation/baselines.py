"""Continuations that need no world: what any world has to beat.

The last frame held, the mean image of the training recordings, and what followed the most similar
past among them. Knows sources and frames, no worlds.
"""

from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from avenir.clip import Batch
from avenir.console import Report
from avenir.data import Source, Window
from avenir.device import seed_of
from avenir.encoders import Encoder
from avenir.shapes import Video

Past = Float[Tensor, "b _ C H W"]
"""A video in [-1, 1] of another length than the one it meets."""

_ROWS = 16
"""Rows of the small pictures that pasts are compared by."""

_FRAMES = 8
"""Frames, spread over the past, that it is compared by."""

_READ_NUMBERS = 2**25
"""Numbers read at once while searching: 128 MiB."""


def copy_last(past: Past, horizon: int) -> Video:
    """Hold the last observed frame."""
    return past[:, -1:].expand(-1, horizon, -1, -1, -1)


def mean_image(source: Source, count: int, seed: int) -> Float[Tensor, "C H W"]:
    """Return the mean of `count` frames drawn from the training recordings, in [-1, 1]."""
    # More frames move the mean by less than a level of 255.
    count = min(count, 512)
    windows = source.draw("train", 1, count, seed_of("mean image", seed))
    total = torch.zeros(3, *source.size)
    for start in range(0, count, 64):
        total += frames_of(source.read(windows[start : start + 64])).sum((0, 1))
    return total / count


class NearestPast:
    """Finds the training past most like an observed one, and tells what followed it.

    Likeness is the L2 distance over at most eight past frames together, shrunk to 16 rows.
    """

    def __init__(
        self, source: Source, past: int, horizon: int, count: int, seed: int, report: Report
    ) -> None:
        self.source, self.past, self.horizon = source, past, horizon
        self.windows = training_windows(source, past + horizon, past, count, seed)
        size = max(1, _READ_NUMBERS // (past * 3 * source.size[0] * source.size[1]))
        shrunk = []
        for start in range(0, len(self.windows), size):
            report("searching training pasts", start, len(self.windows))
            part = [replace(w, num_frames=past) for w in self.windows[start : start + size]]
            shrunk.append(_shrunk(frames_of(source.read(part))))
        report("searching training pasts", len(self.windows), len(self.windows))
        self.index = torch.cat(shrunk)
        self.squares = self.index.square().sum(1)

    def find(self, past: Video) -> list[Window]:
        """Return the training window whose past is nearest, for every row."""
        distance = self.squares - 2 * _shrunk(past) @ self.index.T
        return [self.windows[int(i)] for i in distance.argmin(1)]

    def continuation(self, past: Past) -> Video:
        """Read what followed the nearest training past, for every row."""
        return frames_of(self.source.read(self.find(past)))[:, self.past :]


def training_windows(
    source: Source, num_frames: int, stride: int, count: int, seed: int
) -> list[Window]:
    """Return at most `count` training windows, drawn among all that begin at a stride."""
    rng = np.random.default_rng(seed_of("training windows", seed))
    recordings = source.recordings("train")
    chosen = np.arange(len(recordings))
    if len(recordings) > count:
        chosen = np.sort(rng.choice(len(recordings), count, replace=False))
    windows = []
    for recording in (recordings[int(i)] for i in chosen):
        room = int(recording.seconds * source.fps + 1e-6) - num_frames
        windows += [
            Window(recording, start / source.fps, num_frames)
            for start in range(0, room + 1, stride)
        ]
    if len(windows) > count:
        windows = [windows[i] for i in np.sort(rng.choice(len(windows), count, replace=False))]
    # Nothing fits: let the source say so in its own words.
    return windows or source.draw("train", num_frames, 1, seed)


def frames_of(batch: Batch) -> Video:
    """Return the frames of a batch that a data set, not a cache, has given."""
    assert batch.video is not None
    return batch.video


def _shrunk(past: Video) -> Float[Tensor, "b n"]:
    height, width = past.shape[-2:]
    chosen = torch.linspace(0, past.shape[1] - 1, min(_FRAMES, past.shape[1])).round().long()
    past = past[:, chosen]
    size = min(_ROWS, height), min(max(1, round(_ROWS * width / height)), width)
    return rearrange(
        adaptive_avg_pool2d(past.flatten(0, 1), size), "(b T) C H W -> b (T C H W)", b=len(past)
    )


def reconstructed(encoder: Encoder, video: Video) -> Video:
    """Encode and decode any number of frames of any size."""
    num_frames, (height, width) = video.shape[1], video.shape[-2:]
    made = encoder.decode(encoder.encode(video.to(encoder.latent_mean.device)))
    return made[:, :num_frames, :, :height, :width].to(video.device)


@torch.no_grad()
def ceiling(encoder: Encoder, past: Past, true: Video) -> Video:
    """Send the true future through the codec, its groups where a world's groups are."""
    extra = past.shape[1] % encoder.compression.t
    made = reconstructed(encoder, torch.cat([past[:, extra:], true], dim=1))
    return made[:, past.shape[1] - extra :].clamp(-1, 1)
