"""`avenir import`: a folder of videos, or a game that is played, becomes a LeRobot data set.

Resized, at one rate, split by recording; broken files are named and left out. Started again, it
goes on with the recordings that are missing, and brings up to date those that changed.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from avenir.errors import AvenirError

_PLAYED: dict[str, Any] = {"rich_help_panel": "When an environment is recorded"}


def import_(
    videos: Annotated[
        str,
        typer.Argument(
            help="Folder of videos or pictures, a LeRobot data set, or a Gymnasium environment to "
            "record: CarRacing-v3."
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder of the data set to write.")],
    size: Annotated[str, typer.Option(help="Height x width in pixels; both even.")] = "64x64",
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 10.0,
    test: Annotated[
        list[str] | None,
        typer.Option(help="Recordings to test on, as a pattern: 'town/*'. May be repeated."),
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(help="Recordings to choose settings on, likewise. May be repeated."),
    ] = None,
    delta_actions: Annotated[
        bool, typer.Option("--delta-actions", help="The csv's actions are changes: add them up.")
    ] = False,
    episodes: Annotated[
        int,
        typer.Option(
            min=3, help="Episodes to record; a tenth to validate on, a tenth to test on.", **_PLAYED
        ),
    ] = 50,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of each.", **_PLAYED)] = 20.0,
    skip: Annotated[
        float, typer.Option(min=0, help="Seconds left out where each begins.", **_PLAYED)
    ] = 0.0,
    policy: Annotated[
        str,
        typer.Option(
            help="Who acts: random, scripted, human (you, in a window, from the keyboard; Escape "
            "ends it and keeps what is recorded), or module:function.",
            **_PLAYED,
        ),
    ] = "random",
) -> None:
    """Turn videos, or a game, into a data set to train on, and say what could not be read."""
    from functools import partial

    from rich.progress import Progress

    from avenir.data.lerobot import importing
    from avenir.tables import printable

    if printable(str(to)) != str(to):
        raise AvenirError(f"--to {str(to)!r} is not UTF-8, which tables need; give another name")
    frame = _size(size)
    if importing.is_environment(videos, to):
        played = (episodes, seconds, skip, policy)
        make = partial(importing.source_of_environment, videos, frame, fps, *played)
    else:
        held_out = {"test": tuple(test or ()), "validation": tuple(validation or ())}
        read = (frame, fps, held_out, delta_actions)
        make = partial(importing.source_of_folder, Path(videos), to, *read)
    with Progress(transient=True) as progress:
        bar = progress.add_task("importing", total=None)

        def advance(name: str, done: float, total: float) -> None:
            progress.update(bar, description=name, completed=done, total=total)

        report = importing.import_dataset(make, to, advance)
    _show(report, to)
    if not report["imported"]:
        raise AvenirError(f"nothing in {str(videos)!r} could be imported; the reasons are above")


def _size(words: str) -> tuple[int, int]:
    height, _, width = words.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) * int(width)):
        raise AvenirError(f"size {words!r} was given; write height x width: 64x64")
    return int(height), int(width)


def _show(report: dict[str, Any], to: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("recording", "episode", "split", "frames", title=f"imported into {to}")
    for row in report["imported"]:
        table.add_row(escape(row["name"]), *(str(row[k]) for k in ("episode", "split", "frames")))
    console = Console()
    console.print(table)
    for row in report["skipped"]:
        console.print(f"[yellow]skipped[/] {escape(row['name'])}: {escape(row['reason'])}")
    for note in report["notes"]:
        console.print(f"[yellow]note[/] {escape(note)}")
    frames = sum(row["frames"] for row in report["imported"])
    console.print(
        f"{len(report['imported'])} recordings, {frames} frames imported; "
        f"{len(report['skipped'])} skipped; report in {to / 'import_report.json'}"
    )
