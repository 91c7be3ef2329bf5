"""`avenir import`: a folder of videos, or a game that is played, becomes a LeRobot data set.

Resized, at one rate, split by recording; broken files are named and left out. Started again, it
goes on with the recordings that are missing, and brings up to date those that changed.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avenir.errors import AvenirError, Stopped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from avenir.clip import Clip
    from avenir.data import Recording, Source, Split
    from avenir.data.lerobot import LeRobotWriter

_PLAYED: dict[str, Any] = {"rich_help_panel": "When an environment is recorded"}
_ENVIRONMENT = re.compile(r"([\w.]+:)?[\w./-]+-v\d+")
"""Ids of environments end with their version."""
PIECE_BYTES = 2**27
"""A recording is written in pieces of this size, so that its length does not matter."""


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
    delta_actions: Annotated[
        bool, typer.Option("--delta-actions", help="The csv's actions are changes: add them up.")
    ] = False,
    episodes: Annotated[
        int, typer.Option(min=2, help="Episodes to record; a tenth to test on.", **_PLAYED)
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
    import warnings

    from avenir.files import alone_in
    from avenir.tables import printable

    if printable(str(to)) != str(to):
        raise AvenirError(f"--to {str(to)!r} is not UTF-8, which tables need; give another name")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        same = Path(videos).resolve() == to.resolve()
        if _ENVIRONMENT.fullmatch(videos) and (same or not Path(videos).exists()):
            source = _environment(videos, _size(size), fps, episodes, seconds, skip, policy)
        elif same:
            raise AvenirError(
                f"{videos!r} was to be imported into itself; name another folder with --to"
            )
        else:
            source = _source(Path(videos), _size(size), fps, test, delta_actions)
        with alone_in(to, "import"):
            report = _write(source, to)
            # What libraries tell their developers is no business of whoever imports.
            told = [warning for warning in caught if issubclass(warning.category, UserWarning)]
            report["notes"] += source.notes
            report["notes"] += sorted({str(warning.message) for warning in told})
            _save(report, to)
    _show(report, to)
    if not report["imported"]:
        raise AvenirError(f"nothing in {str(videos)!r} could be imported; the reasons are above")


def _source(
    videos: Path, size: tuple[int, int], fps: float, test: list[str] | None, delta: bool
) -> "Source":
    from avenir.registry import find

    kind = "lerobot" if (videos / "meta" / "info.json").is_file() else "folder"
    found = find("data", kind)
    table: dict[str, Any] = {"path": str(videos), "size": size, "fps": fps, "memory_gb": 0}
    table |= {"test": tuple(test or ())} | ({"action_change": "delta"} if delta else {})
    return found(found.Config.parse(table))


def _environment(
    name: str,
    size: tuple[int, int],
    fps: float,
    episodes: int,
    seconds: float,
    skip: float,
    policy: str,
) -> "Source":
    from avenir.registry import find

    found, num_test = find("data", "gymnasium"), max(1, episodes // 10)
    table: dict[str, Any] = {"environment": name, "policy": policy, "size": size, "fps": fps}
    table |= {"episode_frames": round(seconds * fps), "skip_frames": round(skip * fps)}
    table |= {"train_recordings": episodes - num_test, "test_recordings": num_test}
    return found(found.Config.parse(table))


def _size(words: str) -> tuple[int, int]:
    height, _, width = words.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) * int(width)):
        raise AvenirError(f"size {words!r} was given; write height x width: 64x64")
    return int(height), int(width)


@dataclass(frozen=True)
class _Job:
    """A recording to import, and what makes its episode what it is."""

    recording: "Recording"
    split: str
    task: str
    made_from: dict[str, str]

    def has(self, episode: dict[str, Any]) -> bool:
        """Tell whether an episode has its frames and rows."""
        return all((episode.get(key) or "") == value for key, value in self.made_from.items())

    def is_done(self, episode: dict[str, Any]) -> bool:
        """Tell whether an episode is what it would become."""
        same = (episode["split"], episode["tasks"]) == (self.split, [self.task])
        return same and self.has(episode)


def _jobs(source: "Source") -> dict[str, _Job]:
    change = source.signals["actions"].change if "actions" in source.signals else ""
    splits: tuple[Split, ...] = ("train", "test")
    jobs: dict[str, _Job] = {}
    for split in splits:
        for each in source.recordings(split):
            signals = f"{change} {each.signals}" if each.signals else ""
            made_from = {"origin": each.origin, "signals": signals}
            jobs[each.name] = _Job(each, split, each.task or "video", made_from)
    return jobs


def _write(source: "Source", to: Path) -> dict[str, Any]:
    """Write what is missing, or all of it anew where something changed; report what there is."""
    from avenir.data.lerobot import LeRobotWriter, renewal

    renewal.settle(to)
    writer, jobs = LeRobotWriter(to, source.fps, source.size, source.signals), _jobs(source)
    skipped = [{"name": each.name, "reason": each.reason} for each in source.skipped]
    left_out = {each.name for each in source.skipped} - jobs.keys()
    gone = [e for e in writer.episodes if e["source"] not in jobs.keys() | left_out]
    left = {e["source"] for e in gone}
    stale = [e for e in writer.episodes if e["source"] not in left and not _is_done(e, jobs)]
    notes = _said("changed since they were imported, and brought up to date", stale)
    notes += _said("not there any more; kept as they were imported", gone)
    if stale:
        writer = _renew(writer, source, jobs, gone, skipped)
    else:
        renewal.abandon(to)
        there = {episode["source"] for episode in writer.episodes}
        todo = [job for name, job in jobs.items() if name not in there]
        _append(writer, source, todo, None, skipped)
    imported = [_row(episode) for episode in writer.episodes]
    return {"imported": imported, "skipped": skipped, "notes": notes}


def _is_done(episode: dict[str, Any], jobs: dict[str, _Job]) -> bool:
    job = jobs.get(episode["source"])
    return job is not None and job.is_done(episode)


def _said(what: str, episodes: list[dict[str, Any]]) -> list[str]:
    names = [episode["source"] for episode in episodes]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return [f"{', '.join(names[:8])}{more}: {what}"] if names else []


def _renew(
    old: "LeRobotWriter",
    source: "Source",
    jobs: dict[str, _Job],
    gone: list[dict[str, Any]],
    skipped: list[dict[str, str]],
) -> "LeRobotWriter":
    """Write a data set anew beside the old one, taking over what is as it was, and replace it."""
    from avenir.data.lerobot import LeRobotWriter, renewal

    new = renewal.begin(old)
    known = {episode["source"] for episode in gone}
    if not all(e["source"] in known or _is_done(e, jobs) for e in new.episodes):
        renewal.abandon(old.root)  # it was begun for what changed again since
        new = renewal.begin(old)
    there = {episode["source"] for episode in new.episodes}
    todo = [job for name, job in jobs.items() if name not in there]
    _append(new, source, todo, old, skipped)
    for episode in gone:
        if episode["source"] not in there:
            new.adopt(old, episode, split=episode["split"], task=episode["tasks"][0])
    if not new.episodes:
        return new
    renewal.finish(old.root)
    return LeRobotWriter(old.root, source.fps, source.size, source.signals)


def _append(
    writer: "LeRobotWriter",
    source: "Source",
    jobs: list[_Job],
    old: "LeRobotWriter | None",
    skipped: list[dict[str, str]],
) -> None:
    """Append what the jobs ask for, taken over from the old data set where it is the same."""
    from rich.progress import Progress

    before = {} if old is None else {episode["source"]: episode for episode in old.episodes}
    with Progress(transient=True) as progress:
        bar = progress.add_task("importing", total=sum(job.recording.seconds for job in jobs))
        for job in jobs:
            name = job.recording.name
            progress.update(bar, description=name)
            episode = before.get(name)
            try:
                if old is not None and episode is not None and job.has(episode):
                    writer.adopt(old, episode, split=job.split, task=job.task)
                else:
                    about = {"source": name, "split": job.split, "task": job.task}
                    writer.append(_pieces(source, job.recording), **about, **job.made_from)
            except AvenirError as error:
                skipped.append({"name": name, "reason": str(error)})
                if isinstance(error, Stopped):
                    break
            progress.advance(bar, job.recording.seconds)


def _pieces(source: "Source", recording: "Recording") -> "Iterator[Clip]":
    from avenir.data import Window

    num_frames = int(recording.seconds * source.fps + 1e-6)
    if num_frames < 2:
        raise AvenirError(
            f"{recording.seconds:.2f} s are {num_frames} frames at {source.fps:g} fps; "
            "two are needed to have a future"
        )
    step = max(16, PIECE_BYTES // (3 * source.size[0] * source.size[1]))
    for first in range(0, num_frames, step):
        yield source.clip(Window(recording, first / source.fps, min(step, num_frames - first)))


def _row(episode: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": episode["source"],
        "episode": episode["episode_index"],
        "split": episode["split"],
        "frames": episode["length"],
    }


def _save(report: dict[str, Any], to: Path) -> None:
    import json

    from avenir.files import write_whole

    write_whole(to / "import_report.json", json.dumps(report, indent=2) + "\n")


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
