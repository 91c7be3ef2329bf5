"""Validation while a run trains: video that is not trained on, and what the model makes of it."""

from pathlib import Path

import torch

from avenir.clip import Clip
from avenir.data.cached import Cached
from avenir.device import generator
from avenir.shapes import Video
from avenir.signals import observed
from avenir.training.log import Log
from avenir.training.objectives import Objective
from avenir.video import write


@torch.no_grad()
def write_samples(
    task: Objective, folder: Path, step: int, seed: int, log: Log, count: int = 4
) -> None:
    """Write `step_N.mp4`, true clips above and made ones below, and log `validation_psnr`.

    It is `train_psnr` where nothing is kept to validate on. A data set of latents has no frames to
    compare with: then nothing is written.
    """
    world, data = task.world, task.data
    if isinstance(data, Cached):
        return
    split = data.selection_split(task.num_frames)
    windows = data.spread(split, task.num_frames, count)
    batch = data.read(windows).to(world.encoder.latent_mean.device)
    assert batch.video is not None
    modes = {module: module.training for module in world.modules()}
    world.eval()
    if world.predictor is None:
        made = world.encoder.decode(world.encoder.encode(batch.video))[:, : task.num_frames]
        made = made[..., : data.size[0], : data.size[1]]
        hidden = 0
    else:
        hidden = world.encoder.compression.t * max(1, world.predictor.num_train_frames // 3)
        rng = generator("samples", seed, device=batch.video.device)
        horizon = task.num_frames - hidden
        past = batch.video[:, :hidden]
        signals = observed(batch.signals, hidden, data.signals)
        if world.discovers:
            signals = {"actions": world.discovered(batch.video)}
        pieces = world.imagine(past, signals, horizon, 1, rng)
        made = torch.cat([past, *pieces], dim=1)
    for module, mode in modes.items():  # frozen parts are not in the mode of the whole
        module.training = mode
    error = (made[:, hidden:].clamp(-1, 1) - batch.video[:, hidden:]).square().mean((1, 2, 3, 4))
    psnr = float((10 * torch.log10(4 / error)).mean())
    log.record({"step": step, f"{split}_psnr": psnr})
    write(folder / f"step_{step:06d}.mp4", Clip.from_video(_tiles(batch.video, made), data.fps))


def _tiles(true: Video, made: Video) -> Video:
    """Lay clips side by side, the true ones above."""
    rows = [torch.cat(list(video), dim=-1) for video in (true, made)]
    return torch.cat(rows, dim=-2)[None]
