"""Any source becomes a LeRobot data set: missing recordings are written, changed ones renewed.

Frames are read and written in pieces, so that the length of a recording does not matter.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avenir.clip import Clip
from avenir.data import Recording, Source, Window
from avenir.data.lerobot import LeRobotWriter, renewal
from avenir.errors import AvenirError, Stopped
from avenir.files import alone_in, write_whole
from avenir.registry import find
from avenir.splits import SPLITS

PIECE_BYTES = 2**27
"""A recording is written in pieces of this size."""

_ENVIRONMENT = re.compile(r"([\w.]+:)?[\w./-]+-v\d+")
"""Ids of environments end with their version."""

Advance = Callable[[str, float, float], None]
"""Called with the recording at hand, how many seconds of video are done, and of how many."""


def is_environment(name: str, to: Path) -> bool:
    """Whether a name is an environment's id, and no folder but the one that is written to."""
    same = Path(name).resolve() == to.resolve()
    return bool(_ENVIRONMENT.fullmatch(name)) and (same or not Path(name).exists())


def source_of_folder(
    folder: Path,
    to: Path,
    size: tuple[int, int],
    fps: float,
    held_out: Mapping[str, tuple[str, ...]],
    delta: bool,
) -> Source:
    """Read a folder of videos, or a data set in the LeRobot format.

    `held_out` has the patterns of recordings to validate and to test on, by the split's name.
    Raises AvenirError where it is the folder to write to, and whatever the source raises.
    """
    if folder.resolve() == to.resolve():
        raise AvenirError(
            f"{str(folder)!r} was to be imported into itself; name another folder with --to"
        )
    kind = "lerobot" if (folder / "meta" / "info.json").is_file() else "folder"
    found = find("data", kind)
    table: dict[str, Any] = {"path": str(folder), "size": size, "fps": fps, "memory_gb": 0}
    table |= {**held_out, **({"action_change": "delta"} if delta else {})}
    return found(found.Config.parse(table))


def source_of_environment(
    name: str,
    size: tuple[int, int],
    fps: float,
    episodes: int,
    seconds: float,
    skip: float,
    policy: str,
) -> Source:
    """Record an environment as it is read; a tenth is to validate on, a tenth to test on."""
    found, num_test = find("data", "gymnasium"), max(1, episodes // 10)
    table: dict[str, Any] = {"environment": name, "policy": policy, "size": size, "fps": fps}
    table |= {"episode_frames": round(seconds * fps), "skip_frames": round(skip * fps)}
    table |= {"train_recordings": episodes - 2 * num_test, "test_recordings": num_test}
    return found(found.Config.parse(table))


def import_dataset(make: Callable[[], Source], to: Path, advance: Advance) -> dict[str, Any]:
    """Write what a source holds into folder `to`, and `import_report.json` beside it.

    Returns the report: what is `imported`, what was `skipped` and why, and `notes` on what was
    assumed. Warnings of libraries, from making the source on, are among the notes.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source = make()
        with alone_in(to, "import"):
            report = _write(source, to, advance)
            # What libraries tell their developers is of no use to those who import.
            shown = [warning for warning in caught if issubclass(warning.category, UserWarning)]
            report["notes"] += source.notes
            report["notes"] += sorted({str(warning.message) for warning in shown})
            write_whole(to / "import_report.json", json.dumps(report, indent=2) + "\n")
    return report


@dataclass(frozen=True)
class _Job:
    """A recording to import, and what makes its episode what it is."""

    recording: Recording
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


def _jobs(source: Source) -> dict[str, _Job]:
    change = source.signals["actions"].change if "actions" in source.signals else ""
    jobs: dict[str, _Job] = {}
    for split in SPLITS:
        for each in source.recordings(split):
            signals = f"{change} {each.signals}" if each.signals else ""
            made_from = {"origin": each.origin, "signals": signals}
            jobs[each.name] = _Job(each, split, each.task or "video", made_from)
    return jobs


def _write(source: Source, to: Path, advance: Advance) -> dict[str, Any]:
    """Write what is missing, or all of it anew where something changed; report what there is."""
    renewal.settle(to)
    writer, jobs = LeRobotWriter(to, source.fps, source.size, source.signals), _jobs(source)
    skipped = [{"name": each.name, "reason": each.reason} for each in source.skipped]
    left_out = {each.name for each in source.skipped} - jobs.keys()
    gone = [e for e in writer.episodes if e["source"] not in jobs.keys() | left_out]
    left = {e["source"] for e in gone}
    stale = [e for e in writer.episodes if e["source"] not in left and not _is_done(e, jobs)]
    notes = _note("changed since they were imported, and brought up to date", stale)
    notes += _note("not there any more; kept as they were imported", gone)
    if stale:
        writer = _renew(writer, source, jobs, gone, skipped, advance)
    else:
        renewal.abandon(to)
        there = {episode["source"] for episode in writer.episodes}
        todo = [job for name, job in jobs.items() if name not in there]
        _append(writer, source, todo, None, skipped, advance)
    imported = [_row(episode) for episode in writer.episodes]
    return {"imported": imported, "skipped": skipped, "notes": notes}


def _is_done(episode: dict[str, Any], jobs: dict[str, _Job]) -> bool:
    job = jobs.get(episode["source"])
    return job is not None and job.is_done(episode)


def _note(what: str, episodes: list[dict[str, Any]]) -> list[str]:
    names = [episode["source"] for episode in episodes]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return [f"{', '.join(names[:8])}{more}: {what}"] if names else []


def _renew(
    old: LeRobotWriter,
    source: Source,
    jobs: dict[str, _Job],
    gone: list[dict[str, Any]],
    skipped: list[dict[str, str]],
    advance: Advance,
) -> LeRobotWriter:
    """Write a data set anew beside the old one, taking over what is as it was, and replace it."""
    new = renewal.begin(old)
    known = {episode["source"] for episode in gone}
    if not all(e["source"] in known or _is_done(e, jobs) for e in new.episodes):
        renewal.abandon(old.root)  # it was begun for what changed again since
        new = renewal.begin(old)
    there = {episode["source"] for episode in new.episodes}
    todo = [job for name, job in jobs.items() if name not in there]
    _append(new, source, todo, old, skipped, advance)
    for episode in gone:
        if episode["source"] not in there:
            new.adopt(old, episode, split=episode["split"], task=episode["tasks"][0])
    if not new.episodes:
        return new
    renewal.finish(old.root)
    return LeRobotWriter(old.root, source.fps, source.size, source.signals)


def _append(
    writer: LeRobotWriter,
    source: Source,
    jobs: list[_Job],
    old: LeRobotWriter | None,
    skipped: list[dict[str, str]],
    advance: Advance,
) -> None:
    """Append what the jobs ask for, taken over from the old data set where it is the same."""
    before = {} if old is None else {episode["source"]: episode for episode in old.episodes}
    done, total = 0.0, sum(job.recording.seconds for job in jobs)
    for job in jobs:
        name = job.recording.name
        advance(name, done, total)
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
        done += job.recording.seconds


def _pieces(source: Source, recording: Recording) -> Iterator[Clip]:
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
