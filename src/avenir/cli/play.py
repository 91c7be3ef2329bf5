"""`avenir play`: step into a world, in a browser."""

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avenir.cli.arguments import Overrides, Run, Trust, opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avenir.clip import Clip
    from avenir.export import OnnxWorld
    from avenir.serving.app import Server
    from avenir.serving.stages import Opening
    from avenir.world import World

_MOST_CAPTIONS = 40


def play(
    run: Run,
    overrides: Overrides = None,
    clips: Annotated[int, typer.Option(min=1, max=64, help="Held-out clips to begin from.")] = 8,
    observe: Annotated[float, typer.Option(min=0.01, help="Seconds that are observed.")] = 1.0,
    video: Annotated[
        Path | None, typer.Option(help="Begin from the first seconds of this video instead.")
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Play what `avenir export RUN` wrote: faster on a CPU.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Who may connect: this machine, unless another address is given.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8321,
    trust: Trust = None,
) -> None:
    """Play a world with the keys of your keyboard, a gamepad, your fingers, or words.

    The page shows what the world imagines from the keys you hold, as fast as the world lives. The
    recording, of the synthetic world the simulator, and what is in the latents can be seen beside
    it. Ctrl-C ends it.
    """
    import torch

    from avenir.errors import AvenirError
    from avenir.registry import needing
    from avenir.serving.overlays import Overlays
    from avenir.serving.player import Player
    from avenir.serving.stages import openings_of, stages_of
    from avenir.training.log import Preparation
    from avenir.training.recipe import data_of
    from avenir.training.tasks import make_source

    with needing("playing"):
        from avenir.serving.app import Server, is_local
    # One core is left to the page: threads that wait for a busy core make every step wait.
    torch.set_num_threads(min(torch.get_num_threads(), max(1, (os.cpu_count() or 2) - 1)))
    world = opened(run, trust)
    if world.predictor is None or world.card.encoder["kind"] == "text":
        raise AvenirError(
            f"{str(run)!r} holds no world that can be played; give one that predicts video"
        )
    source = None
    if video is not None:
        openings = [_opening(world, video, observe)]
    else:
        source = make_source(data_of(run, overrides or [], trust or ()))
        openings = openings_of(source, world, clips, round(observe * world.card.fps), Preparation())
    signal = world.takes.get("actions")
    keys = signal is not None and bool(signal.keys)
    # A simulator knows nothing of actions that a world made up for itself.
    key = str(world.card.provenance.get("key") or world.card.name)
    dreams = _exported(run, world) if onnx else None
    stages = stages_of(world, openings, steers=keys and not world.discovers, dreams=dreams)
    player = Player(stages, openings, world.takes)
    player.step(player.action(()))  # whatever is slow the first time is slow now
    about = _about(world, openings)
    if dreams is not None:  # it rounds otherwise, so that its playthroughs are its own
        key = f"{key} onnx {dreams.about.num_steps}"
    server = Server(
        lambda: Player(stages, openings, world.takes),
        about,
        key,
        lambda: Overlays.of(world, openings, source, Preparation()),
        token=None if is_local(host) else secrets.token_urlsafe(16),
    )
    _serve(server, host, port)


def _exported(run: Path, world: "World") -> "OnnxWorld":
    """Open what was exported of a run; AvenirError when it was trained on since."""
    import torch

    from avenir.errors import AvenirError
    from avenir.registry import needing

    with needing("--onnx"):
        from avenir.export import OnnxWorld, key_of
    exported = OnnxWorld(run / "onnx", torch.get_num_threads())
    if exported.about.key != key_of(world):
        raise AvenirError(
            f"{str(run / 'onnx')!r} was exported from {exported.about.key!r}, and {str(run)!r} is "
            f"{key_of(world)!r} by now: write it anew with `avenir export {run}`"
        )
    return exported


def _opening(world: "World", video: Path, observe: float) -> "Opening":
    from avenir.serving.stages import Opening
    from avenir.video import read

    return Opening(world.fitted(read(video, seconds=observe, fps=world.card.fps)))


def _about(world: "World", openings: "Sequence[Opening]") -> dict[str, Any]:
    """Gather what a page is told at first."""
    signal = world.takes.get("actions")
    f_t = world.encoder.compression.t
    return {
        "name": world.card.name,
        "fps": world.card.fps,
        "steps_per_second": world.card.fps / f_t,
        "keys": {} if signal is None else signal.keys,
        "names": [] if signal is None else list(signal.names),
        "words": _words(openings) if "caption" in world.takes else None,
        "clips": [_picture(opening.past) for opening in openings],
    }


def _words(openings: "Sequence[Opening]") -> list[str]:
    """List captions of the openings: what the world may know words for."""
    clips = [clip for opening in openings for clip in (opening.past, opening.future) if clip]
    rows = [row for clip in clips if "caption" in clip.signals for row in clip.signals["caption"]]
    spoken = [bytes(row.byte().tolist()).rstrip(b"\0") for row in rows if row.isfinite().all()]
    return sorted({words.decode(errors="ignore") for words in spoken} - {""})[:_MOST_CAPTIONS]


def _picture(past: "Clip") -> str:
    """Return the last frame that was observed as an address of the kind data:."""
    import base64
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(past.frames[-1].permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _serve(server: "Server", host: str, port: int) -> None:
    from avenir.errors import AvenirError
    from avenir.serving.app import listen, serving
    from avenir.training.log import say

    try:
        listening = listen(host, port)
    except OSError as error:
        raise AvenirError(
            f"nobody can be served at {host}:{port}: {error.strerror}; give another --port, or "
            "--port 0 for any that is free"
        ) from None
    token = ""
    if server.token is not None:
        say("whoever knows this address can play, and nobody else: its token is new every time")
        token = f"?token={server.token}"
    where = f"[{host}]" if ":" in host else host
    say(f"play at http://{where}:{listening.getsockname()[1]}/{token}   (Ctrl-C ends it)")
    serving(server, host).run(sockets=[listening])
