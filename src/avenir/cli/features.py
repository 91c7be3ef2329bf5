"""`avenir features`: what encoders see in a video, side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avenir.cli.arguments import Trust, opened

if TYPE_CHECKING:
    from avenir.clip import Clip
    from avenir.world import World

_SHOWN_PIXELS = 192
"""Height of a panel."""


def features(
    runs: Annotated[list[Path], typer.Argument(help="Run folders whose encoders are shown.")],
    video: Annotated[Path, typer.Option(help="The video they look at.")],
    seconds: Annotated[float, typer.Option(min=0.01, help="How much of it.")] = 10.0,
    start: Annotated[float, typer.Option(min=0, help="Second at which it begins.")] = 0.0,
    out: Annotated[Path, typer.Option(help="The mp4 to write.")] = Path("features.mp4"),
    trust: Trust = None,
) -> None:
    """Paint the principal components of encoders' features over a video.

    Where two places have one colour, the encoder finds them alike. The video comes first, then one
    panel for each encoder, in the order given: what it sees of the video, at its own proportions.
    """
    import torch

    from avenir.clip import Clip
    from avenir.training.log import say
    from avenir.video import read, write

    panels = []
    for number, run in enumerate(runs):
        world = opened(run, trust)
        seen = world.fitted(read(video, seconds, start, world.card.fps))
        if number == 0:
            panels.append(_shown(seen))
        panels.append(_shown(_painted(world, seen)).resampled(panels[0].fps))
    length = min(panel.num_frames for panel in panels)
    frames = torch.cat([panel.frames[:length] for panel in panels], dim=-1)
    write(out, Clip(frames, panels[0].fps))
    say(f"{out}: {' | '.join([video.name, *(run.name for run in runs)])}")


def _painted(world: "World", clip: "Clip") -> "Clip":
    import torch

    from avenir.clip import Clip
    from avenir.evaluation.probing.features import components, paint

    cell, device = world.encoder.compression, world.encoder.latent_mean.device
    with torch.no_grad():
        pieces = clip.video.split(8 * cell.t, dim=1)
        latents = torch.cat([world.encoder.encode(p.to(device)).cpu() for p in pieces], dim=1)
    frames = paint(latents, components(latents), cell)
    height, width = clip.size
    return Clip(frames[: clip.num_frames, :, :height, :width], clip.fps)


def _shown(clip: "Clip") -> "Clip":
    """Bring a panel to the common height, its proportions kept and its width even."""
    height, width = clip.size
    return clip.resized(_SHOWN_PIXELS, 2 * round(_SHOWN_PIXELS * width / height / 2))
