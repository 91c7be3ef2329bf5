"""`avenir predict`: a video's observed seconds, and what a world makes of the rest."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avenir.cli.arguments import Observe, Run, Seconds, Seed

if TYPE_CHECKING:
    from torch import Tensor


def predict(
    run: Run,
    video: Annotated[Path, typer.Argument(help="The video to continue.")],
    seconds: Seconds = 4.0,
    observe: Observe = 1.0,
    start: Annotated[float, typer.Option(min=0, help="Second at which observing starts.")] = 0.0,
    actions: Annotated[
        Path | None, typer.Option(help="csv with a header and one row for each imagined frame.")
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="The mp4 to write.")] = Path("future.mp4"),
) -> None:
    """Continue a video: the observed seconds, then the imagined ones, as one mp4."""
    from avenir.training.log import Steps, say
    from avenir.video import Writer, read
    from avenir.world import load

    world = load(run)
    observed = world.fitted(read(video, seconds=observe, start_seconds=start))
    steering = None if actions is None else _read_actions(actions)
    pieces = world.stream(observed, seconds, steering, seed=seed)
    with Writer(out, fps=observed.fps) as writer, Steps("imagining", seconds) as steps:
        writer.append(observed)
        for piece in pieces:
            writer.append(piece)
            steps.advance(piece.seconds)
    say(f"{out}: {observed.seconds:.2f} s observed, then {seconds:.2f} s imagined")


def _read_actions(path: Path) -> "Tensor":
    import csv

    import torch

    from avenir.errors import AvenirError

    try:
        with path.open(newline="") as file:
            rows = [[float(value) for value in row] for row in list(csv.reader(file))[1:]]
        return torch.tensor(rows)
    except (OSError, ValueError) as error:
        raise AvenirError(
            f"{str(path)!r} does not hold actions: {error}; write a csv with a header and one row "
            "of numbers for each imagined frame"
        ) from None
