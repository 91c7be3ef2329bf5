"""What a run says while it trains: a bar on a terminal, lines elsewhere, and `metrics.jsonl`."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from avenir.console import console, say
from avenir.files import append_row, flush, read_rows, write_whole


class Log:
    """Progress, rate and losses of one run."""

    def __init__(self, folder: Path, name: str, first_step: int, steps: int) -> None:
        self.path, self.name, self.steps = folder / "metrics.jsonl", name, steps
        self.first_step, self.started = first_step, time.monotonic()
        self._forget_after(first_step)
        self.last_line = self.started

    def record(self, row: dict[str, Any]) -> None:
        """Append one row to `metrics.jsonl`."""
        append_row(self.path, row)

    def flush(self) -> None:
        """Bring all rows to the disk: what is saved after them has them."""
        flush(self.path)

    @contextmanager
    def bar(self) -> Iterator["Log"]:
        """Show progress until the block ends."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
        )
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        with self.progress:
            self.row = self.progress.add_task(
                self.name, total=self.steps, completed=self.first_step, losses=""
            )
            yield self

    def advance(self, step: int, losses: dict[str, float], waiting: float) -> None:
        """Show where the run stands after `step` steps; `waiting` is the share spent on data."""
        words = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        rate = (step - self.first_step) / max(1e-9, time.monotonic() - self.started)
        words = f"{rate:.1f} steps/s  {words}"
        self.progress.update(self.row, completed=step, losses=words)
        if not console.is_terminal and time.monotonic() - self.last_line > 15:
            self.last_line = time.monotonic()
            left = (self.steps - step) / max(rate, 1e-9)
            say(f"{self.name}  {step}/{self.steps}  {left:.0f} s left  {words}")
        row = {"step": step, "steps_per_second": rate, "waiting": waiting, **losses}
        self.record(row)

    def _forget_after(self, step: int) -> None:
        """Drop rows of steps that a resumed run is about to do again, and a torn one."""
        if self.path.exists():
            rows = [(row.get("step", 0), row) for row in read_rows(self.path)]
            kept = [row for at, row in rows if isinstance(at, int) and at <= step]
            write_whole(self.path, "".join(json.dumps(row) + "\n" for row in kept))
