"""Arguments that several verbs share, said once."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avenir.errors import AvenirError

if TYPE_CHECKING:
    from avenir.world import World

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings to change, in the recipe's own words: data=videos train.steps=200",
    ),
]
Run = Annotated[Path, typer.Argument(help="A run folder that `avenir train` wrote.")]
RunsAndSettings = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN... [KEY=VALUE]...",
        help="Run folders; then what to change of the first one's data: data=FOLDER",
    ),
]
Runs = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Code that is not avenir's and that folders may name, such as my_lab.my_encoder: it "
        "is run. May be repeated.",
    ),
]
Clips = Annotated[int, typer.Option(min=1, help="Held-out clips to judge on.")]
Evaluator = Annotated[
    Path | None,
    typer.Option(help="A run that judges sets of clips (one ships for synthetic), or texts."),
]
Seed = Annotated[int, typer.Option(help="Another seed is another future.")]


def opened(run: Path, trust: Iterable[str] | None, device: str | None = None) -> "World":
    """Open a run; of one whose training has not ended, say so."""
    from avenir.console import say
    from avenir.training.recipe import how_far
    from avenir.world import load

    world = load(run, device, trust or ())
    if (unfinished := how_far(run, world.card)) is not None:
        say(f"{str(run)!r} is unfinished: {unfinished}")
    return world


def parted(words: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Tell run folders from settings, and name each run by its folder.

    Where two folders share a name, runs are named by what differs in their paths.
    """
    runs = [Path(word) for word in words if "=" not in word]
    if not runs:
        raise AvenirError(f"{' '.join(words)!r} was given and no run; name one run folder or more")
    paths = [run.resolve() for run in runs]
    names = [path.name for path in paths]
    if len(set(names)) < len(set(paths)):
        shared = Path(os.path.commonpath(paths))
        names = [path.relative_to(shared).as_posix() for path in paths]
    return dict(zip(names, runs, strict=True)), [word for word in words if "=" in word]


def whole_numbers(words: str, option: str) -> tuple[int, ...]:
    """Parse whole numbers with commas between them, as an option was given them."""
    parts = words.split(",") if words else []
    if not all(part.strip().isdecimal() for part in parts):
        raise AvenirError(f"{option} {words} was given; say whole numbers: {option} 1,2,4")
    return tuple(int(part) for part in parts)
