"""`avenir study`: a declared experiment from start to verdict, and the page that tells of it."""

from pathlib import Path
from typing import Annotated

import typer

from avenir.cli.arguments import Overrides, Trust, whole_numbers


def study(
    protocol: Annotated[
        Path, typer.Argument(help="What is declared: studies/alignment-demo.toml.")
    ],
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs, rows and page; `runs/NAME` unless said.")
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Seeds to gather now, such as 1,2; all declared ones unless said.")
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="Processes of one thread each.")] = 2,
    merge: Annotated[
        bool, typer.Option("--merge", help="Run nothing: conclude from the rows there are.")
    ] = False,
    trust: Trust = None,
) -> None:
    """Run what a protocol declares, arms × seeds, and give the verdict.

    Finished runs are kept; a study that was stopped goes on. Rows of another protocol are refused.
    """
    from avenir.console import say
    from avenir.errors import AvenirError
    from avenir.study import Study, conclude
    from avenir.study.report import write_learning_report
    from avenir.study.running import films, run

    folder = out or Path("runs") / protocol.stem
    declared = Study(protocol, overrides or [], folder, trust or ())
    say(f"protocol {declared.hash}")
    known = declared.protocol.seeds
    wanted = whole_numbers(seeds, "--seeds") or known
    if not set(wanted) <= set(known):
        raise AvenirError(f"seeds {wanted} were asked for; the protocol declares {known}")
    if not merge:
        run(declared, wanted, workers)
    conclusion = conclude(declared)
    page = write_learning_report(folder, conclusion, films(declared))
    for compared in conclusion.comparisons:
        say(f"{compared.name}: {compared.verdict.sentence}")
    say(f"report: {page}")
