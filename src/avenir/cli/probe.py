"""`avenir probe`: what can be read from encoders' latents, beside raw pixels and others."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avenir.cli.arguments import Clips, RunsAndSettings, Seed, Trust, opened, parted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from avenir.data import Source
    from avenir.encoders import Encoder


def probe(
    words: RunsAndSettings,
    clips: Clips = 256,
    windows: Annotated[
        int, typer.Option(min=20, help="Training windows that probes learn from.")
    ] = 1500,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder of the table.")] = Path("semantics"),
    trust: Trust = None,
) -> None:
    """Say how semantic latents are: probes for what is where, how it moves and what steers it.

    Linear probes learn on training recordings and are scored on test recordings; raw pixels, a
    random network and, on synthetic, a network trained on the labels stand beside every encoder.
    """
    from avenir.console import PrintedReport, say
    from avenir.evaluation.probing.semantics import SemanticsConfig, measure_semantics, table
    from avenir.files import write_whole
    from avenir.training.objectives import make_source
    from avenir.training.recipe import data_of

    runs, overrides = parted(words)
    source = make_source(data_of(next(iter(runs.values())), overrides, trust or ()))
    settings = SemanticsConfig(num_train_windows=windows, num_clips=clips, seed=seed)
    encoders = _encoders(runs, source, trust or ())
    semantics = measure_semantics(encoders, source, settings, PrintedReport())
    write_whole(out / "semantics.json", semantics.model_dump_json(indent=2))
    write_whole(out / "semantics.md", table(semantics))
    say(table(semantics))
    say(f"written: {out / 'semantics.md'}, {out / 'semantics.json'}")


def _encoders(
    runs: dict[str, Path], source: "Source", trust: "Iterable[str]"
) -> "dict[str, Encoder]":
    """Open runs that live at the data's size and rate."""
    from avenir.errors import AvenirError

    encoders = {}
    for name, run in runs.items():
        world = opened(run, trust)
        if (world.card.size, world.card.fps) != (source.size, source.fps):
            raise AvenirError(
                f"{str(run)!r} lives at {world.card.size} and {world.card.fps:g} fps, the data at "
                f"{source.size} and {source.fps:g} fps: probe runs of one size and rate together"
            )
        encoders[name] = world.encoder
    return encoders
