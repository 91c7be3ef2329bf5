"""Pictures for latents that cannot be decoded: the training frames whose own latents are nearest.

What a predictor foresees in the space of a representation can so be watched, and measured as any
other future. It can be no better than its memory: how near that comes to true futures stands beside
it, where the codec of other worlds stands.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from avenir.clip import Batch, Progress
from avenir.console import Report
from avenir.data import Source
from avenir.encoders import Encoder, ParameterGroup, Posterior
from avenir.evaluation.baselines import frames_of
from avenir.shapes import Latents, Video
from avenir.world import World

_MOST_GROUPS, _MOST_NUMBERS = 4000, 2**26
"""Groups of frames that it holds, and numbers of all their latents: 256 MiB."""

_BATCH = 32


class NearestDecoder(Encoder):
    """An encoder, with pictures in the place of a decoder."""

    can_decode = True

    def __init__(
        self,
        encoder: Encoder,
        latents: Float[Tensor, "n c h w"],
        groups: Float[Tensor, "n T C H W"],
    ) -> None:
        super().__init__(encoder.compression, encoder.channels)
        self.encoder, self.groups, self.views = encoder, groups, encoder.views
        self.latent_mean, self.latent_std = encoder.latent_mean, encoder.latent_std
        self.points = latents.flatten(1).to(encoder.latent_mean.device)

    def raw_posterior(self, video: Video) -> Posterior:
        """Encode as the encoder does."""
        return self.encoder.raw_posterior(video)

    def decode(self, latents: Latents) -> Video:
        """Return, for every latent frame, the group of frames whose latents are nearest to it."""
        b = len(latents)
        near = torch.cdist(rearrange(latents, "b t c h w -> (b t) (c h w)"), self.points).argmin(1)
        return rearrange(self.groups[near.cpu()], "(b t) f C H W -> b (t f) C H W", b=b)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Learn nothing: frames are stored."""
        return {}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Name nothing."""
        return []


def groups_in(world: World) -> int | None:
    """Return how many groups of frames a nearest decoder holds; None of a world that decodes."""
    return len(world.encoder.groups) if isinstance(world.encoder, NearestDecoder) else None


@torch.no_grad()
def with_nearest_decoder(world: World, source: Source, report: Report) -> World:
    """Give a world whose encoder cannot decode one that shows the nearest training frames.

    Any other world comes back as it is.
    """
    encoder = world.encoder
    if encoder.can_decode:
        return world
    _, h, w = encoder.compression.latent_shape(1, *source.size)
    count = max(1, min(_MOST_GROUPS, _MOST_NUMBERS // (encoder.channels * h * w)))
    windows = source.spread("train", encoder.compression.t, count)
    latents, groups = [], []
    for start in range(0, len(windows), _BATCH):
        report("storing training frames", start, len(windows))
        video = frames_of(source.read(windows[start : start + _BATCH]))
        latents.append(encoder.encode(video.to(encoder.latent_mean.device))[:, 0].cpu())
        groups.append(video)
    report("storing training frames", len(windows), len(windows))
    decoder = NearestDecoder(encoder, torch.cat(latents), torch.cat(groups))
    return World(world.card, decoder, world.conditioner, world.predictor)
