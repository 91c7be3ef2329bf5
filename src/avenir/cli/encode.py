"""`avenir encode`: video to latents on disk, and back to see what they keep."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avenir.cli.arguments import Overrides, Run, Trust, opened

if TYPE_CHECKING:
    from avenir.world import World


def encode(
    run: Run,
    overrides: Overrides = None,
    video: Annotated[Path | None, typer.Option(help="One video, instead of a data set.")] = None,
    out: Annotated[
        Path,
        typer.Option(help="Folder for a data set's latents; mp4 for a video's reconstruction."),
    ] = Path("latents"),
    phases: Annotated[int, typer.Option(min=1, help="Temporal phases of each recording.")] = 1,
    trust: Trust = None,
) -> None:
    """Encode a data set once, so that predictors train from its latents (kind `cached`).

    Stopped, it goes on where it was. With --video, one video of any length is encoded and decoded,
    in memory that does not grow with it.
    """
    from collections.abc import Sequence

    from avenir.console import PrintedReport, say
    from avenir.data import Recording
    from avenir.splits import SPLITS, Split
    from avenir.training.latent_cache import fill_cache
    from avenir.training.objectives import make_source
    from avenir.training.recipe import data_of

    world = opened(run, trust)
    if video is not None:
        _reconstruct(world, video, out)
        return
    source = make_source(data_of(run, overrides or [], trust or ()))
    recordings: dict[Split, Sequence[Recording]] = {s: source.recordings(s) for s in SPLITS}
    fill_cache(world, source, recordings, out, phases, PrintedReport())
    say(f"latents: {out}; train on them with data.kind=cached data={out}")


def _reconstruct(world: "World", video: Path, out: Path) -> None:
    from avenir.console import SecondsBar, say
    from avenir.video import Writer, probe, stream

    target = out if out.suffix else out.with_suffix(".mp4")
    num_frames = 8 * world.encoder.compression.t
    seen = stream(video, num_frames, fps=world.card.fps)
    with (
        Writer(target, fps=world.card.fps) as writer,
        SecondsBar("encoding", probe(video).seconds) as steps,
    ):
        for clip in world.reconstruct(seen):
            writer.append(clip)
            steps.advance(clip.seconds)
    say(f"{target}: encoded and decoded again")
