"""`avenir play`: step into a world, in a browser."""

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avenir.cli.arguments import Overrides, Run, Trust, opened

if TYPE_CHECKING:
    from avenir.export import OnnxWorld
    from avenir.serving.app import Server
    from avenir.world import World


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
    """Play a world with the keys of your keyboard, a gamepad, your fingers, or text.

    The page shows what the world imagines from the keys you hold, as fast as the world lives. The
    recording, of the synthetic world the simulator, and what is in the latents can be seen beside
    it. Ctrl-C ends it.
    """
    import torch

    from avenir.console import PrintedReport
    from avenir.errors import AvenirError
    from avenir.registry import needing
    from avenir.serving.backends import backends_of, initial_state_of, initial_states_of
    from avenir.serving.greeting import greeting
    from avenir.serving.overlays import Overlays
    from avenir.serving.player import Player
    from avenir.training.objectives import make_source
    from avenir.training.recipe import data_of

    with needing("playing"):
        from avenir.serving.app import Server, is_local
    # One core is left to the page: threads that wait for a busy core make every step wait.
    torch.set_num_threads(min(torch.get_num_threads(), max(1, (os.cpu_count() or 2) - 1)))
    world = opened(run, trust)
    if world.predictor is None or world.modality == "text":
        raise AvenirError(
            f"{str(run)!r} holds no world that can be played; give one that predicts video"
        )
    source = None
    if video is not None:
        initial_states = [initial_state_of(world, video, observe)]
    else:
        source = make_source(data_of(run, overrides or [], trust or ()))
        past = round(observe * world.card.fps)
        initial_states = initial_states_of(source, world, clips, past, PrintedReport())
    exported = _exported(run, world) if onnx else None
    signal = world.action_signal
    # A simulator knows nothing of actions that a world made up for itself.
    steers = signal is not None and bool(signal.keys) and not world.discovers
    backends = backends_of(world, initial_states, steers, exported)
    player = Player(backends, initial_states, world.takes)
    player.step(player.action(()))  # whatever is slow the first time is slow now
    key = str(world.card.provenance.get("key") or world.card.name)
    if exported is not None:  # it rounds otherwise, so that its playthroughs are its own
        key = f"{key} onnx {exported.about.num_steps}"
    server = Server(
        lambda: Player(backends, initial_states, world.takes),
        greeting(world, initial_states),
        key,
        lambda: Overlays.of(world, initial_states, source, PrintedReport()),
        token=None if is_local(host) else secrets.token_urlsafe(16),
    )
    _serve(server, host, port)


def _exported(run: Path, world: "World") -> "OnnxWorld":
    import torch

    from avenir.registry import needing

    with needing("--onnx"):
        from avenir.export import opened_beside
    return opened_beside(run, world, torch.get_num_threads())


def _serve(server: "Server", host: str, port: int) -> None:
    from avenir.console import say
    from avenir.errors import AvenirError
    from avenir.serving.app import listen, serving

    try:
        listening = listen(host, port)
    except OSError as error:
        raise AvenirError(
            f"no page can be served at {host}:{port}: {error.strerror}; give another --port, or "
            "--port 0 for any that is free"
        ) from None
    token = ""
    if server.token is not None:
        say("only those who know this address can play: its token is new every time")
        token = f"?token={server.token}"
    where = f"[{host}]" if ":" in host else host
    say(f"play at http://{where}:{listening.getsockname()[1]}/{token}   (Ctrl-C ends it)")
    serving(server, host).run(sockets=[listening])
