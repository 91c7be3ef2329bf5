"""Arguments that several verbs share, said once."""

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings to change, in the recipe's own words: data=videos train.steps=200",
    ),
]
Run = Annotated[Path, typer.Argument(help="A run folder that `avenir train` wrote.")]
Runs = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]
Clips = Annotated[int, typer.Option(min=1, help="Held-out clips to judge on.")]
Observe = Annotated[float, typer.Option(min=0.01, help="Seconds that are observed.")]
Seconds = Annotated[float, typer.Option(min=0.01, help="Seconds to imagine after them.")]
Seed = Annotated[int, typer.Option(help="Another seed is another future.")]
