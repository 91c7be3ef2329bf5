"""Latents encoded once: what a predictor trains on, when its encoder is finished.

The cache lies under a folder named by all that it depends on, so that runs share it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from avenir.console import Report
from avenir.data import Recording, Source
from avenir.data.cached import Cached, CachedConfig, write_cache
from avenir.device import seed_of
from avenir.errors import AvenirError
from avenir.shapes import Video
from avenir.splits import Split
from avenir.training.recipe import Recipe
from avenir.world import World

_MOST_RECORDINGS = 100_000
"""More are not encoded without being asked for."""


def encoder_hash(world: World) -> str:
    """Hash the encoder's weights."""
    digest = hashlib.sha256()
    for name, value in world.encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def cache_latents(world: World, data: Source, runs: Path, recipe: Recipe, report: Report) -> Cached:
    """Encode the training recordings once, under a folder named by what they depend on."""
    train = recipe.train
    chosen: Sequence[Recording] = data.recordings("train")
    if train.cache_recordings is None and len(chosen) > _MOST_RECORDINGS:
        raise AvenirError(
            f"the data has {len(chosen):,} training recordings, too many to encode all of them: "
            "set train.cache_recordings to a few hundred, or to 0 to encode at every step"
        )
    if train.cache_recordings is not None:
        windows = data.draw("train", 1, train.cache_recordings, seed_of("cache", recipe.seed))
        chosen = list({w.recording.name: w.recording for w in windows}.values())
    parts = (
        encoder_hash(world),
        data.fingerprint,
        train.cache_recordings,
        train.cache_phases,
        recipe.seed,
    )
    folder = runs / "latents" / f"{seed_of(*map(str, parts)):016x}"
    fill_cache(world, data, {"train": chosen}, folder, train.cache_phases, report)
    return Cached(CachedConfig(path=str(folder)))


def fill_cache(
    world: World,
    data: Source,
    recordings: Mapping[Split, Sequence[Recording]],
    folder: Path,
    phases: int,
    report: Report,
) -> None:
    """Encode recordings with a world's encoder into a folder that the `cached` source reads."""
    world.encoder.views = data.views
    device, compression = world.encoder.latent_mean.device, world.encoder.compression

    @torch.no_grad()
    def encode(video: Video) -> tuple[Tensor, Tensor | None]:
        posterior = world.encoder.posterior(video.to(device))
        return posterior.mean, posterior.log_variance

    every = [recording for members in recordings.values() for recording in members]
    total, done = sum(int(r.seconds * data.fps) for r in every) * phases, 0
    encoder = encoder_hash(world)
    for frames in write_cache(data, recordings, folder, encode, compression, encoder, phases):
        done += frames
        report("encoding latents: frames", done, total)
