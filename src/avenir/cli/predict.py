"""`avenir predict`: a video's observed seconds, or a text, and what a world makes of the rest."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avenir.cli.arguments import Run, Seed, Trust, opened

if TYPE_CHECKING:
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
    from avenir.console import SecondsBar, say
    from avenir.control_script import read_actions, script
    from avenir.errors import AvenirError
    from avenir.video import Writer, read

    world = opened(run, trust)
    if world.modality == "text":
        for option, words in (("--text", text), ("--tell", tell)):
            if words:
                raise AvenirError(f"{option} was given for a text; it steers videos: leave it out")
        _continue_text(world, video, fill.encode(), round(seconds), seed, out)
        return
    if fill:
        raise AvenirError("--fill was given for a video; it fills holes in texts: leave it out")
    observed = world.fitted(read(video, observe, start, world.card.fps))
    fps = world.card.fps
    num_frames = round(seconds * fps)
    rows, notes = None, []
    if actions is not None:
        rows, notes = read_actions(actions, world.takes, num_frames, fps)
    for note in notes:
        say(f"{actions}: {note}")
    controls = script(world.takes, num_frames, fps, rows, text or (), tell or ())
    pieces = world.stream(observed, seconds, controls=controls, seed=seed)
    with Writer(out, fps=observed.fps) as writer, SecondsBar("imagining", seconds) as steps:
        writer.append(observed)
        for piece in pieces:
            writer.append(piece)
            steps.advance(piece.seconds)
    say(f"{out}: {observed.seconds:.2f} s observed, then {seconds:.2f} s imagined")


def _continue_text(
    world: "World", path: Path, hole: bytes, num_tokens: int, seed: int, out: Path
) -> None:
    """Continue a text file, or fill the hole in it, and print what was written."""
    import sys

    from avenir.console import say
    from avenir.text_files import continued, filled, read_text

    given = read_text(path)
    if hole:
        made = filled(world, given, hole, seed, out)
        say(f"filled: {made.decode(errors='replace')!r}")
        before, _, after = given.partition(hole)
        say(f"{out}: {len(made):,} bytes filled between {len(before):,} and {len(after):,}")
        return
    length = 0
    for piece in continued(world, given, num_tokens, seed, out):
        length += len(piece)
        sys.stdout.write(piece.decode(errors="replace"))
        sys.stdout.flush()
    sys.stdout.write("\n")
    say(f"{out}: {len(given):,} bytes given, then {length:,} written")
