"""`avenir passport`: what latents are worth, before any generator is trained on them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avenir.cli.arguments import Clips, Evaluator, RunsAndSettings, Seed, Trust, opened, parted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from avenir.data import Source
    from avenir.world import World


def passport(
    words: RunsAndSettings,
    clips: Clips = 256,
    frames: Annotated[int, typer.Option(min=2, help="Frames of each clip.")] = 16,
    evaluator: Evaluator = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder of the table.")] = Path("passport"),
    trust: Trust = None,
) -> None:
    """Measure encoders' latents on the same held-out clips, side by side, and say what follows.

    The data is the first run's unless said otherwise; every encoder must live at its size and rate.
    """
    from avenir.console import PrintedReport, say
    from avenir.evaluation.probing.passport import measure_passports
    from avenir.evaluation.probing.passport_results import PassportConfig, table
    from avenir.files import write_whole
    from avenir.training.objectives import make_source
    from avenir.training.recipe import data_of

    runs, overrides = parted(words)
    worlds = {name: opened(run, trust) for name, run in runs.items()}
    source = make_source(data_of(next(iter(runs.values())), overrides, trust or ()))
    settings = PassportConfig.parse({"num_clips": clips, "num_frames": frames, "seed": seed})
    judge = _evaluator(evaluator, source, worlds, trust or ())
    found = measure_passports(worlds, source, settings, judge, PrintedReport())
    write_whole(out / "passport.json", found.model_dump_json(indent=2) + "\n")
    write_whole(out / "passport.md", table(found))
    typer.echo(table(found))
    say(f"passport: {out / 'passport.md'}")


def _evaluator(
    run: Path | None, source: "Source", worlds: "dict[str, World]", trust: "Iterable[str]"
) -> "World | None":
    from avenir.evaluation.readers.readout import evaluator_for

    if run is not None:
        return opened(run, trust)
    return evaluator_for(source, next(iter(worlds.values())).encoder.latent_mean.device)
