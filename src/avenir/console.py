"""What the user is told while work is done: sentences, bars, and reports of how far it is."""

import os
import stat
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[str, int, int], None]
"""Called while work is done: what, how much is done, of how much."""

console = Console(stderr=True, highlight=False)


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


class SecondsBar:
    """A bar for work measured in seconds of video."""

    def __init__(self, what: str, seconds: float) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self.row = self.progress.add_task(what, total=seconds)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def advance(self, seconds: float) -> None:
        """Show that so many more seconds are done."""
        self.progress.advance(self.row, seconds)


class PrintedReport:
    """Tells of slow work that is no training: what, how much is done, of how much."""

    def __init__(self) -> None:
        self.reported = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Print a line every few seconds, and at the end."""
        if time.monotonic() - self.reported > 5 or done >= total:
            self.reported = time.monotonic()
            say(f"{what}: {done:,} of {total:,}")


def hush() -> None:
    """Say nothing any longer: the terminal is gone, and to write to it would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)


def say(words: str) -> None:
    """Tell the user one thing."""
    console.print(words, markup=False, soft_wrap=True)
