"""`avenir features`: what encoders see in a video, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from avenir.cli.arguments import Trust, opened


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
    from avenir.console import say
    from avenir.evaluation.probing.features import beside_each_other, painted
    from avenir.video import read, write

    clips, features = [], []
    for run in runs:
        world = opened(run, trust)
        clips.append(world.fitted(read(video, seconds, start, world.card.fps)))
        features.append(painted(world, clips[-1]))
    write(out, beside_each_other(clips[0], features))
    say(f"{out}: {' | '.join([video.name, *(run.name for run in runs)])}")
