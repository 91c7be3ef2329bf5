"""`avenir export`: a world's step as ONNX, to play faster here and to run where PyTorch is not."""

from pathlib import Path
from typing import Annotated

import typer

from avenir.cli.arguments import Overrides, Run, Trust, opened


def export(
    run: Run,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; without it, onnx in the run folder.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Draw in so many steps instead of the world's own number."),
    ] = None,
    trust: Trust = None,
) -> None:
    """Write a world's encoder and its step as ONNX, and check that they do the same.

    `avenir play RUN --onnx` plays what was written; it is faster on a CPU. Graphs are for one clip
    at a time and fixed shapes, which world.json says; fewer steps make a smaller graph.
    """
    from contextlib import nullcontext

    from avenir.console import say
    from avenir.errors import AvenirError
    from avenir.registry import needing
    from avenir.training.objectives import make_source
    from avenir.training.recipe import data_of

    with needing("exporting"):
        from avenir.export import export as exported
        from avenir.export import frames_needed
    world = opened(run, trust, "cpu")
    if world.predictor is None:
        raise AvenirError(f"{str(run)!r} holds an encoder and no predictor: nothing can be stepped")
    folder = out or run / "onnx"
    source = make_source(data_of(run, overrides or [], trust or ()))
    if folder.exists() and not folder.is_dir():
        raise AvenirError(f"{str(folder)!r} is a file; name a folder with --out")
    with nullcontext() if steps is None else world.predictor.in_steps(steps):
        num_frames = frames_needed(world)
        past = world.fitted(source.clip(source.spread("test", num_frames, 1)[0]))
        off = exported(world, folder, past, lambda what: say(f"{what} …"))
    say(f"{folder}: encode.onnx, step.onnx, world.json; frames differ by {off:.1e} at most")
