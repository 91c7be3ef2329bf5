"""`avenir predict`: a video's observed seconds, or a text, and what a world makes of the rest."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avenir.cli.arguments import Run, Seed, Trust, opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from torch import Tensor

    from avenir.signals import Signal
    from avenir.world import World


def predict(
    run: Run,
    video: Annotated[Path, typer.Argument(help="The video, or the text file, to continue.")],
    seconds: Annotated[float, typer.Option(min=0.01, help="Seconds to imagine after them.")] = 4.0,
    observe: Annotated[float, typer.Option(min=0.01, help="Seconds that are observed.")] = 1.0,
    start: Annotated[float, typer.Option(min=0, help="Second at which observing starts.")] = 0.0,
    actions: Annotated[
        Path | None, typer.Option(help="csv with a header and one row for each imagined frame.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="What is to be seen; '1.5:WORDS': from imagined second 1.5 on."),
    ] = None,
    tell: Annotated[
        list[str] | None,
        typer.Option(
            help="Any other signal: weather=night; '1.5:weather=fog': from imagined second 1.5 on."
        ),
    ] = None,
    fill: Annotated[
        str, typer.Option(help="What stands in a text for a hole to fill, as long: '____'")
    ] = "",
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="The mp4 to write.")] = Path("future.mp4"),
    trust: Trust = None,
) -> None:
    """Continue a video: the observed seconds, then the imagined ones, as one mp4.

    A world of text continues a text file, a token a second (a byte, or a piece of text), on the
    terminal and behind the text in --out. All of the file is observed. With --fill it writes where
    the file has a hole instead, seeing both sides of it.
    """
    from avenir.errors import AvenirError
    from avenir.training.log import Steps, say
    from avenir.video import Writer, read

    world = opened(run, trust)
    if world.card.encoder["kind"] == "text":
        for option, words in (("--text", text), ("--tell", tell)):
            if words:
                raise AvenirError(f"{option} was given for a text; it steers videos: leave it out")
        given = _text(video)
        if fill:
            _fill(world, given, fill.encode(), seed, out)
        else:
            _write_on(world, given, round(seconds), seed, out)
        return
    if fill:
        raise AvenirError("--fill was given for a video; it fills holes in texts: leave it out")
    observed = world.fitted(read(video, observe, start, world.card.fps))
    fps, num_frames = world.card.fps, round(seconds * world.card.fps)
    steering = None if actions is None else _read_actions(actions, world.takes, num_frames, fps)
    spoken = _spoken(text, num_frames, fps) if text else None
    told = _told(tell or [], world.takes, num_frames, fps)
    pieces = world.stream(observed, seconds, steering, seed=seed, text=spoken, told=told)
    with Writer(out, fps=observed.fps) as writer, Steps("imagining", seconds) as steps:
        writer.append(observed)
        for piece in pieces:
            writer.append(piece)
            steps.advance(piece.seconds)
    say(f"{out}: {observed.seconds:.2f} s observed, then {seconds:.2f} s imagined")


def _spoken(words: list[str], num_frames: int, fps: float) -> list[str | None]:
    """Say what is told of every imagined frame: each of the words from its second on."""
    told: list[str | None] = [None] * num_frames
    for first, said in _timed("--text", words, num_frames, fps):
        told[first:] = [said or None] * (num_frames - first)
    return told


def _told(
    words: list[str], takes: "Mapping[str, Signal]", num_frames: int, fps: float
) -> "dict[str, Tensor]":
    """Say what other signals are in every imagined frame: each from its second on, or nothing."""
    import torch

    from avenir.errors import AvenirError
    from avenir.steering import check_taken, read_row

    told: dict[str, Tensor] = {}
    for first, said in _timed("--tell", words, num_frames, fps):
        name, equals, value = (part.strip() for part in said.partition("="))
        if not equals:
            raise AvenirError(f"--tell {said!r} was given; write SIGNAL=VALUE: weather=night")
        check_taken(takes, None, None, [name])
        unknown = torch.full((takes[name].size,), torch.nan)
        rows = told.setdefault(name, unknown.repeat(num_frames, 1))
        rows[first:] = read_row(name, takes[name], value) if value else unknown
    return told


def _timed(
    option: str, words: list[str], num_frames: int, fps: float
) -> "Iterator[tuple[int, str]]":
    """Yield from which imagined frame on what is said, the earliest first."""
    import re

    from avenir.errors import AvenirError

    timed = [re.fullmatch(r"(?:(\d+(?:\.\d+)?):)?(.*)", each, re.DOTALL) for each in words]
    parts = [(float(match[1] or 0), match[2].strip()) for match in timed if match is not None]
    for second, said in sorted(parts, key=lambda part: part[0]):
        first = round(second * fps)
        if first >= num_frames:
            raise AvenirError(
                f"{option} '{second:g}:{said}' was given; {num_frames / fps:g} s are imagined: "
                "name an earlier second, or ask for more --seconds"
            )
        yield first, said


def _text(path: Path) -> bytes:
    """Read a text of one byte or more."""
    from avenir.errors import AvenirError

    try:
        given = path.read_bytes()
    except OSError as error:
        raise AvenirError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    if not given:
        raise AvenirError(f"{str(path)!r} is empty; give a text of one byte or more")
    return given


def _fill(world: "World", given: bytes, hole: bytes, seed: int, out: Path) -> None:
    """Write the text with its hole filled, and say what was filled in."""
    from avenir.data.text import clip_of, text_of
    from avenir.errors import AvenirError
    from avenir.files import write_whole
    from avenir.training.log import say

    before, found, after = given.partition(hole)
    if not found or not before or not after:
        raise AvenirError(
            f"--fill {hole.decode()!r} was given, and the text has no such hole between two parts "
            "of it: put it where something is missing"
        )
    said = world.card.tokenizer
    left, right = (clip_of(part, tokenizer=said) for part in (before, after))
    length = clip_of(hole, tokenizer=said).seconds
    made = text_of(world.infill(left, right, length, seed), said)
    write_whole(out, before + made + after)
    say(f"filled: {made.decode(errors='replace')!r}")
    say(f"{out}: {len(made):,} bytes filled between {len(before):,} and {len(after):,}")


def _write_on(world: "World", given: bytes, num_tokens: int, seed: int, out: Path) -> None:
    """Continue a text, and say it as it comes."""
    import sys

    from avenir.data.text import clip_of, text_of
    from avenir.files import whole
    from avenir.training.log import say

    said, length = world.card.tokenizer, 0
    with whole(out) as part, part.open("wb") as file:
        file.write(given)
        past = clip_of(given, tokenizer=said)
        for piece in world.stream(past, float(max(1, num_tokens)), seed=seed):
            more = text_of(piece, said)
            length += len(more)
            file.write(more)
            sys.stdout.write(more.decode(errors="replace"))
            sys.stdout.flush()
    sys.stdout.write("\n")
    say(f"{out}: {len(given):,} bytes given, then {length:,} written")


def _read_actions(
    path: Path, takes: "Mapping[str, Signal]", num_frames: int, fps: float
) -> "Tensor":
    """Read the action of every imagined frame, or of as many as there are, `F a`.

    Columns are found by name. Where one says when rows are, or of which imagined frame, they are
    resampled by it; otherwise each row is of one frame.
    """
    import numpy as np
    import torch

    from avenir import tables
    from avenir.errors import AvenirError
    from avenir.steering import check_taken
    from avenir.training.log import say
    from avenir.video import resample

    check_taken(takes, torch.empty(0), None)
    signal, frames = takes["actions"], np.arange(num_frames)
    try:
        table = tables.read(path)
        columns, notes = tables.signals_by_name(table, signal.names, signal.size)
        rows, where = table.rows[:, columns], [f"line {line}" for line in table.lines]
        if tables.has_times(table, signal.names):
            end, any_number = num_frames / fps, 2**31  # of a longer table the rest is not used
            used, seconds, more = tables.place(table, frames / fps, end, num_declared=any_number)
            rows = resample(rows[used], seconds, end, 0.0, num_frames, fps, signal.change)
            rows[frames / fps < seconds[0] - 0.5 / fps] = np.nan  # nothing is said of these
            until = float(seconds[-1]) + max(1 / fps, float(np.diff(seconds[-2:]).sum()))
            rows = rows[: max(1, round(until * fps))]
            where = [f"the row at {frame / fps:.2f} s" for frame in frames]
            notes += more
        _check_bounds(rows, signal, where)
    except AvenirError as error:
        raise AvenirError(f"{str(path)!r} does not hold actions of this world: {error}") from None
    for note in (*table.notes, *notes):
        say(f"{path}: {note}")
    return torch.from_numpy(rows).float()


def _check_bounds(rows: "np.ndarray", signal: "Signal", where: list[str]) -> None:
    """Refuse the first number that is further out of bounds than rounding takes it."""
    import numpy as np

    from avenir.errors import AvenirError

    if not signal.low:
        return
    low, high = np.array(signal.low), np.array(signal.high)
    room = 0.01 * np.maximum(high - low, 1e-3 * np.maximum(abs(low), abs(high)))
    wrong = np.argwhere((rows < low - room) | (rows > high + room))
    if len(wrong):
        row, column = wrong[0]
        name = signal.names[column] if signal.names else str(column)
        raise AvenirError(
            f"{where[row]}, column {name!r} is {rows[row, column]:g}, and the world was trained on "
            f"{low[column]:g} to {high[column]:g}; stay within"
        )
