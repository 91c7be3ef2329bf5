"""The server that plays: who may connect, what is answered, and that nothing piles up."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache
from importlib import import_module
from itertools import groupby
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch

from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.errors import AvenirError
from avenir.serving.backends import backends_of, initial_states_of
from avenir.serving.messages import offered, written
from avenir.serving.overlays import Overlays
from avenir.serving.player import Player
from avenir.serving.playthrough import Step
from avenir.signals import Signal
from avenir.world import World, load

from .test_serving import hearing_run, weather_run  # noqa: F401

pytest.importorskip("starlette")
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import ClientConnection, connect  # noqa: E402

from avenir.serving import app as serving_app  # noqa: E402
from avenir.serving import page as serving_page  # noqa: E402
from avenir.serving import player as serving_player  # noqa: E402
from avenir.serving.app import (  # noqa: E402
    MOST_BYTES,
    MOST_PAGES,
    Server,
    is_local,
    listen,
    serving,
)


class Running:
    """A server in a thread of its own, on a port of its own."""

    def __init__(self, server: Server) -> None:
        self.server, self.socket = server, listen("127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.web = serving(server, "127.0.0.1")
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        while not self.web.started:
            time.sleep(0.01)

    def _run(self) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            await self.web.serve(sockets=[self.socket])

        asyncio.run(main())

    def connected(self, origin: str = "", said: str = "") -> ClientConnection:
        address, origin = f"ws://{self.address}/play{said}", origin or f"http://{self.address}"
        return connect(address, origin=origin, max_size=None, close_timeout=1)

    def num_tasks(self) -> int:
        async def count() -> int:
            return len(asyncio.all_tasks()) - 1

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result()

    def settled(self, tasks: int) -> bool:
        """Wait until no page plays and no more tasks run than before."""
        for _ in range(1000):
            if not self.server.pages and self.num_tasks() <= tasks:
                return True
            time.sleep(0.01)
        return False

    def stop(self) -> None:
        self.web.should_exit = True
        self.thread.join()


def served(
    world: World, source: Synthetic, overlays: bool = False, token: str | None = None
) -> Running:
    initial_states = initial_states_of(source, world, 2, 6)
    backends, signal = backends_of(world, initial_states, True), source.signals["actions"]
    takes = {name: source.signals.get(name, taken) for name, taken in world.takes.items()}
    about = {"name": "tiny", "fps": 40.0, "steps_per_second": 20.0, "keys": signal.keys}
    about |= {"names": signal.names, "clips": ["data:,"] * 2}
    about["captions"] = ["a red plane"] if "caption" in takes else None
    torch.set_num_threads(1)

    def fitted() -> Overlays:
        seen = Overlays.of(world, initial_states, source)
        assert seen.probes is not None
        # Latents of random weights tell little: one factor passes for well read.
        first, *others = seen.probes.factors
        probes = replace(seen.probes, factors=(first._replace(r2=0.9), *others))
        return replace(seen, probes=probes)

    players = lambda: Player(backends, initial_states, takes)  # noqa: E731
    return Running(Server(players, about, "a key", fitted if overlays else None, token))


@pytest.fixture(scope="module")
def running(tiny_run) -> Iterator[Running]:
    running = served(load(tiny_run), Synthetic(SyntheticConfig(episode_frames=20)))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def hearing(hearing_run) -> Iterator[Running]:  # noqa: F811
    """A server of a world that takes words, with overlays."""
    source = Synthetic(SyntheticConfig(episode_frames=20, captions="some"))
    running = served(load(hearing_run), source, overlays=True)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def outside(weather_run) -> Iterator[Running]:  # noqa: F811
    """A server of a world that is told the weather and the speed."""
    source = Synthetic(SyntheticConfig(episode_frames=20, weather=True))
    running = served(load(weather_run), source)
    yield running
    running.stop()


def say(page: ClientConnection, what: str, **more: object) -> None:
    page.send(json.dumps({"do": what, **more}, separators=(",", ":")))


def shown(page: ClientConnection) -> tuple[dict, bytes]:
    """Return the next frame, passing over words."""
    while isinstance(message := page.recv(timeout=20), str):
        pass
    length = int.from_bytes(message[:4], "big")
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def kept(page: ClientConnection) -> str:
    """Ask for what was played, and return it."""
    say(page, "keep")
    while "kept" not in (said := told(page)):
        pass
    return said["kept"]


def told(page: ClientConnection) -> dict:
    """Return the next words, passing over frames."""
    while not isinstance(message := page.recv(timeout=20), str):
        pass
    return json.loads(message)


def test_the_page_and_what_it_needs_are_served(running):
    for path, holds in (
        ("", b"<main>"),
        ("static/play.js", b"WebSocket"),
        ("static/signals.js", b"offerSignals"),
        ("static/latents.js", b"showFactors"),
        ("static/play.css", b""),
    ):
        with urlopen(f"http://{running.address}/{path}") as answer:
            assert holds in answer.read()
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert answer.headers["cache-control"] == "no-store"


def test_foreign_names_and_foreign_pages_are_refused(running):
    other = Request(f"http://{running.address}/", headers={"Host": "evil.example"})
    with pytest.raises(OSError, match="400"):
        urlopen(other)
    for origin in ("http://evil.example", f"http://{running.address}.evil.example", "null"):
        with pytest.raises(InvalidStatus) as refused:
            running.connected(origin)
        assert refused.value.response.status_code == 403


@pytest.fixture(scope="module")
def guarded(tiny_run) -> Iterator[Running]:
    source = Synthetic(SyntheticConfig(episode_frames=20))
    running = served(load(tiny_run), source, token="a-Token_9")
    yield running
    running.stop()


@pytest.mark.parametrize("said", ["", "?token=", "?token=a-token_9", "?token=%F1", "?x=a-Token_9"])
def test_without_the_token_neither_page_nor_socket_is_given(guarded, said):
    with pytest.raises(HTTPError, match="403") as page:
        urlopen(f"http://{guarded.address}/{said}")
    assert b"its token included" in page.value.read()
    assert page.value.headers["cache-control"] == "no-store"
    page.value.close()
    with pytest.raises(InvalidStatus) as refused:
        guarded.connected(said=said)
    assert refused.value.response.status_code == 403 and not guarded.server.pages


def test_with_the_token_it_is_played_as_ever(guarded):
    with urlopen(f"http://{guarded.address}/?token=a-Token_9") as page:
        assert b"<main>" in page.read()
        assert page.headers["referrer-policy"] == "no-referrer"  # the token stays here
    with guarded.connected(said="?token=a-Token_9") as page:
        assert "hello" in told(page)


def test_the_token_is_for_who_can_be_reached_by_others():
    local = ["127.0.0.1", "127.0.0.2", "::1", "localhost"]
    others = ["0.0.0.0", "::", "192.168.1.2", "studio.local", ""]
    assert [is_local(host) for host in local + others] == [True] * 4 + [False] * 5


def test_the_address_that_is_printed_is_the_one_that_is_answered(guarded, monkeypatch, capsys):
    play = import_module("avenir.cli.play")
    ran = SimpleNamespace(run=lambda sockets: [each.close() for each in sockets])
    monkeypatch.setattr(serving_app, "serving", lambda server, host: ran)
    play._serve(guarded.server, "127.0.0.1", 0)
    said = " ".join(capsys.readouterr().err.split())
    assert "/?token=a-Token_9 (Ctrl-C ends it)" in said and "only those who know" in said
    assert b"${location.search}" in (serving_app.STATIC / "play.js").read_bytes()


def ended(open_socket: socket.socket, seconds: float) -> float:
    """Wait for the other side to end a connection; return how long that took."""
    open_socket.settimeout(seconds)
    began = time.monotonic()
    with suppress(ConnectionError):
        while open_socket.recv(2**16):
            pass
    return time.monotonic() - began


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /stat",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nx",
    ],
    ids=["nothing", "half a line", "no end", "one and a half", "half a body"],
)
def test_a_request_that_does_not_end_is_ended(running, monkeypatch, sent):
    monkeypatch.setattr(serving_app, "REQUEST_SECONDS", 0.5)
    host, port = running.address.split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(sent)
        assert 0.2 < ended(slow, 10) < 2


def test_whoever_asks_letter_by_letter_is_let_go_and_who_plays_is_not(running, monkeypatch):
    monkeypatch.setattr(serving_app, "REQUEST_SECONDS", 0.5)
    host, port = running.address.split(":")
    with running.connected() as page, socket.create_connection((host, int(port))) as slow:
        with pytest.raises(ConnectionError):
            for _ in range(100):
                slow.sendall(b"x")
                time.sleep(0.05)
        assert "hello" in told(page)
        say(page, "step")
        while shown(page)[0]["step"] < 1:
            pass


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system knows no such time")
@pytest.mark.parametrize("plays", [True, False])
def test_a_socket_that_takes_nothing_is_let_go_of_to_the_last(tiny_run, monkeypatch, plays):
    monkeypatch.setattr(serving_app, "UNTAKEN_SECONDS", 1.0)
    monkeypatch.setattr(serving_page, "_PATIENCE_SECONDS", 0.5)
    running = served(load(tiny_run), Synthetic(SyntheticConfig(episode_frames=20)))
    try:
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", int(running.address.split(":")[1])))
            words = f"Host: {running.address}\r\nOrigin: http://{running.address}\r\n"
            words += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            words += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            stalled.sendall(f"GET /play HTTP/1.1\r\n{words}".encode())
            message = b'{"do":"go"}' if plays else b'{"do":"pause"}'
            assert stalled.recv(12) == b"HTTP/1.1 101"
            stalled.sendall(bytes([0x81, 0x80 | len(message), 0, 0, 0, 0]) + message)
            connections = running.web.server_state.connections
            waited = time.monotonic()
            while not running.server.pages and time.monotonic() < waited + 20:
                time.sleep(0.01)
            while (running.server.pages or connections) and time.monotonic() < waited + 20:
                time.sleep(0.05)
            assert not running.server.pages and not connections
    finally:
        running.stop()


def test_a_page_that_rewinds_without_end_gets_its_share_and_no_more(running, monkeypatch):
    monkeypatch.setattr(serving_player, "_EVERY", 1000)  # nothing is kept on the way
    monkeypatch.setattr(serving_player, "MOST_KEPT", 3)
    taken, plain = list[Player](), Player._after

    def slow(player: Player, step: Step) -> dict:
        if begun:
            time.sleep(0.06)  # more than a page has: both ask for more than there is
            taken.append(player)
        return plain(player, step)

    monkeypatch.setattr(Player, "_after", slow)
    begun: list[bool] = []
    with running.connected() as greedy, running.connected() as other:
        for page in (greedy, other):
            assert "hello" in told(page)
            shown(page)
        for _ in range(30):
            say(greedy, "step")
            shown(greedy)
        begun.append(True)
        for _ in range(4):
            say(greedy, "rewind", steps=1)  # 28 steps are played again, each time
        say(other, "go")
        while shown(other)[0]["step"] < 12:
            pass
    # From when both play on they take turns.
    runs = [len(list(same)) for _, same in groupby(taken, key=id)]
    assert len(runs) > 15 and max(runs[1:-1]) <= 2, runs


def test_playing_steps_at_its_own_rate_and_answers_keys(running):
    with running.connected() as page:
        assert told(page)["hello"]["keys"]["ArrowLeft"] == [-1.0, 0.0]
        first, pixels = shown(page)
        assert first["step"] == 0 and first["paused"]
        assert first["pictures"] == {"world": [2, 3, 64, 64]} and len(pixels) == 2 * 64 * 64 * 3
        say(page, "go")
        say(page, "keys", held=["ArrowLeft"], press=17.5)
        say(page, "keys", held=["ArrowLeft"], press=10**400)  # a number that none can be
        say(page, "keys", held=[], press=None)  # down for less than a step, and felt all the same
        steps, started = [], time.monotonic()
        presses = []
        while len(steps) < 20:
            about, _ = shown(page)
            steps.append(about["step"])
            presses += about["presses"]
        seconds = time.monotonic() - started
        assert presses == [17.5]
        assert steps[-1] > steps[0]
        assert (steps[-1] - steps[0]) / seconds < 1.2 * 20  # never faster than the world lives
        say(page, "pause")
        say(page, "rewind", steps=1000)
        say(page, "show", pictures=["world", "simulator", "recording", "nothing"])
        while list(about["pictures"]) != ["world", "simulator", "recording"]:
            about, _ = shown(page)
        assert about["step"] == 0 and about["paused"]


def test_a_playthrough_that_is_kept_opens_on_another_page(running):
    with running.connected() as page, running.connected() as other:
        for _ in range(3):
            say(page, "step")
        played = kept(page)
        assert len(json.loads(played)["actions"]) == 3
        say(other, "open", playthrough=played)
        about, pixels = shown(other)
        while about["step"] < 3:
            about, pixels = shown(other)
        say(page, "pause")
        there, same = shown(page)
        while there["step"] < 3:
            there, same = shown(page)
        assert pixels == same
        say(other, "open", playthrough=played.replace('"seed":0', '"seed":1'))
        assert "from step 1 on" in told(other)["error"]


def test_opening_stops_play_and_shows_what_was_played(running):
    with running.connected() as page:
        for _ in range(12):
            say(page, "step")
        played = kept(page)
        say(page, "start", clip=1, seed=0)
        say(page, "go")
        while shown(page)[0]["clip"] != 1:
            pass
        say(page, "open", playthrough=played)
        steps = []
        while not steps or steps[-1] < 12 or about["clip"] != 2:
            about, _ = shown(page)
            if about["clip"] == 2:
                steps.append(about["step"])
        assert steps[:2] == [5, 10] and about["paused"]


def test_a_page_that_leaves_keeps_its_turn_until_its_step_is_done(running, monkeypatch):
    inside, most = [], []
    plain = Player.step

    def slow(player: Player, action) -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.3)
        plain(player, action)
        inside.pop()

    monkeypatch.setattr(Player, "step", slow)
    tasks = running.num_tasks()
    for _ in range(4):
        with running.connected() as page:
            assert "hello" in told(page)
            say(page, "step")
            time.sleep(0.1)
    assert running.settled(tasks)
    assert max(most) == 1 and not inside


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[]",
        '{"do": 3}',
        '{"do": "dance"}',
        b"\x00\x01",
        '{"do": "keys", "held": 5}',
        '{"do": "show", "pictures": 7}',
        '{"do": "open", "playthrough": "' + 3500 * "[" + '"}',
        '{"do": "start", "clip": 9}',
        '{"do": "rewind", "steps": -1}',
        '{"do": "branch", "number": 1e9}',
        '{"do": "open", "playthrough": "?"}',
        '{"do": "go", "x": "' + 5000 * "x" + '"}',
        "[" * 4000,
        '{"do": "text"}',
        '{"do": "text", "text": 5}',
        '{"do": "text", "text": ["a red plane"]}',
        '{"do": "text", "text": "\\ud800"}',
        '{"do":"open","do":"text","text":"' + 5000 * "x" + '"}',
        '{"do": "edit", "factor": 0}',
        '{"do": "edit", "factor": 0, "amount": "1"}',
        '{"do": "edit", "factor": 0, "amount": NaN}',
        '{"do": "edit", "factor": 0, "amount": 1e3}',
        '{"do": "edit", "factor": 0, "amount": 1' + 400 * "0" + "}",
        '{"do": "edit", "factor": 0.5, "amount": 1}',
        '{"do": "edit", "factor": 99, "amount": 1}',
        '{"do": "signal"}',
        '{"do": "signal", "signal": 5, "value": "fog"}',
        '{"do": "signal", "signal": ["weather"], "value": "fog"}',
        '{"do": "signal", "signal": "weather", "value": 5}',
        '{"do": "signal", "signal": "weather", "value": {"fog": 1}}',
        '{"do": "signal", "signal": "weather", "value": [0, "1"]}',
        '{"do": "signal", "signal": "weather", "value": [[0, 1]]}',
        '{"do": "signal", "signal": "weather", "value": [NaN]}',
        '{"do": "signal", "signal": "weather", "value": [-Infinity]}',
        '{"do": "signal", "signal": "weather", "value": [1' + 400 * "0" + "]}",
        '{"do": "signal", "signal": "weather", "value": "fog"}',
        '{"do": "signal", "signal": "actions", "value": [1, 0]}',
    ],
    ids=range(39),
)
def test_what_means_nothing_is_answered_in_words_and_too_much_of_it_ends(running, message):
    tasks = running.num_tasks()
    with running.connected() as page:
        assert "hello" in told(page)
        page.send(message)
        error = told(page)["error"]
        assert error and "Traceback" not in error
        say(page, "step")
        while shown(page)[0]["step"] < 1:
            pass
    assert running.settled(tasks)


def test_words_are_told_from_the_next_step_on_and_a_playthrough_keeps_them(hearing):
    with hearing.connected() as page, hearing.connected() as other:
        assert told(page)["hello"]["captions"] == ["a red plane"]
        assert shown(page)[0]["text"] is None
        say(page, "step")
        say(page, "text", text=" a blue plane ")
        say(page, "step")
        say(page, "step")
        about, pixels = shown(page)
        while about["step"] < 3:
            about, pixels = shown(page)
        assert about["text"] == "a blue plane"
        played = kept(page)
        assert json.loads(played)["words"] == [[1, "a blue plane"]]
        say(other, "open", playthrough=played)
        there, same = shown(other)
        while there["step"] < 3:
            there, same = shown(other)
        assert same == pixels and there["text"] == "a blue plane"
        say(other, "rewind", steps=3)
        while there["step"]:
            there, _ = shown(other)
        assert there["text"] is None
        say(page, "text", text="")
        while about["text"] is not None:
            about, _ = shown(page)


def test_words_that_cannot_be_told_are_refused_kindly_and_count_for_nothing(hearing, running):
    for server, words, answer in (
        (hearing, 49 * "x", "at most 48 are read"),
        (running, "a red plane", "trained without any"),
    ):
        with server.connected() as page:
            for _ in range(30):  # more than mistakes may be made
                say(page, "text", text=words)
                while "error" not in (said := told(page)):
                    pass
                assert answer in said["error"]
            say(page, "step")
            while (about := shown(page)[0])["step"] < 1:
                pass
            assert about["text"] is None


def test_signals_are_told_from_the_next_step_on_and_a_playthrough_keeps_them(outside):
    with outside.connected() as page, outside.connected() as other:
        weather, speed = told(page)["hello"]["signals"]
        assert weather["name"] == "weather" and weather["names"] == ["day", "night", "fog", "dusk"]
        assert weather["choice"] is True and weather["low"] == [0] * 4
        assert speed["name"] == "speed" and speed["choice"] is False and speed["high"] == [30]
        assert shown(page)[0]["signals"] == {}
        say(page, "step")
        say(page, "signal", signal="weather", value="fog")
        say(page, "signal", signal="speed", value=[12.5])
        say(page, "step")
        about, pixels = shown(page)
        while about["step"] < 2:
            about, pixels = shown(page)
        assert about["signals"] == {"weather": [0, 0, 1, 0], "speed": [12.5]}
        played = kept(page)
        say(other, "open", playthrough=played)
        there, same = shown(other)
        while there["step"] < 2:
            there, same = shown(other)
        assert same == pixels and there["signals"] == about["signals"]
        say(other, "rewind", steps=2)
        while there["step"]:
            there, _ = shown(other)
        assert there["signals"] == {}
        say(page, "signal", signal="weather", value=None)
        while about["signals"] != {"speed": [12.5]}:
            about, _ = shown(page)
        for value, answer in (("hail", "say one of day"), ([1.0], "takes 4"), ("nan", "4 numbers")):
            say(page, "signal", signal="weather", value=value)
            assert answer in told(page)["error"]
        say(page, "step")
        while about["step"] < 3:
            about, _ = shown(page)
        assert about["signals"] == {"speed": [12.5]}


def test_a_number_from_which_nothing_comes_pauses_and_play_goes_on_without_it(outside):
    with outside.connected() as page:
        assert "hello" in told(page)
        say(page, "step")
        say(page, "signal", signal="speed", value=[3e38])
        say(page, "go")
        assert "give something else" in told(page)["error"]
        about, _ = shown(page)
        assert about["paused"] and about["step"] == 1
        say(page, "signal", signal="speed", value=[3])
        say(page, "step")
        while about["step"] < 2:
            about, _ = shown(page)
        assert about["signals"] == {"speed": [3]}


def test_what_a_page_is_sent_is_json_whatever_it_holds():
    words = {"read": [1.5, float("nan"), -float("inf")], "text": "NaN"}
    assert json.loads(written(words)) == {"read": [1.5, None, None], "text": "NaN"}
    assert written({"read": [0.1]}) == '{"read": [0.1]}'


def test_a_choice_is_known_by_its_names_and_bounds():
    named = {"size": 2, "names": ("wet", "dry")}
    bounds = {"low": (0.0, 0.0), "high": (1.0, 1.0)}
    for signal, choice in (
        (Signal(role="action", **named, **bounds), True),
        (Signal.choice(3), True),
        (Signal(role="action", **named), False),  # nobody knows their bounds
        (Signal(role="action", **named, low=(0.0, 0.0), high=(1.0, 2.0)), False),
        (Signal(role="action", size=2, **bounds), False),
        (Signal(role="action", size=1, names=("speed",), low=(0.0,), high=(1.0,)), False),
    ):
        assert offered("signal", signal)["choice"] is choice


def test_words_that_are_no_words_are_mistakes_and_too_many_end_it(hearing):
    with hearing.connected() as page, pytest.raises(ConnectionClosed) as closed:
        for _ in range(30):
            say(page, "text", text=5)
        while True:
            page.recv(timeout=20)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008


def test_latents_are_looked_at_when_asked_and_not_before(hearing, running, monkeypatch):
    asked, read = [], Overlays.read
    monkeypatch.setattr(
        Overlays, "read", lambda seen, latent: asked.append(1) or read(seen, latent)
    )
    with hearing.connected() as page, running.connected() as plain:
        assert told(page)["hello"]["looks"] is True
        say(page, "step")
        while (about := shown(page)[0])["step"] < 1:
            pass
        assert set(about["pictures"]) == {"world"} and "read" not in about and not asked
        say(page, "show", pictures=["world", "latents"])
        factors = told(page)["factors"]
        assert {"name", "unit", "r2"} == set(factors[0]) and factors[0]["name"] == "ego x"
        while "latents" not in about["pictures"]:
            about, pixels = shown(page)
        assert about["pictures"]["latents"] == [1, 3, 8, 8] and len(about["read"]) == len(factors)
        assert len(pixels) == 2 * 64 * 64 * 3 + 8 * 8 * 3
        say(page, "show", pictures=["world"])
        while "latents" in about["pictures"]:
            about, _ = shown(page)
        looked = len(asked)
        say(page, "step")
        while about["step"] < 2:
            about, _ = shown(page)
        assert len(asked) == looked
        assert told(plain)["hello"]["looks"] is False
        say(plain, "show", pictures=["world", "latents"])
        shown(plain)
        assert set(shown(plain)[0]["pictures"]) == {"world"}


def looking(page: ClientConnection) -> dict:
    """Look at latents, and return the words that come before the first of them is shown."""
    say(page, "show", pictures=["world", "latents"])
    return told(page)


@pytest.fixture
def unfitted(hearing, monkeypatch) -> list[int]:
    """Let the server forget its overlays, and add a 1 whenever it fits them."""
    fits, fit = [], hearing.server.overlays.__wrapped__
    counted = cache(lambda: fits.append(1) or fit())
    monkeypatch.setattr(hearing.server, "overlays", counted)
    return fits


def test_latents_are_fitted_when_first_looked_at_and_once_for_all_pages(hearing, unfitted):
    with hearing.connected() as page, hearing.connected() as other, hearing.connected() as third:
        for each in (page, other, third):
            assert "hello" in told(each)
            say(each, "step")
            while shown(each)[0]["step"] < 1:
                pass
        assert not unfitted
        say(page, "show", pictures=["world", "latents"])
        say(other, "show", pictures=["world", "latents"])
        factors = told(page)["factors"]
        assert told(other)["factors"] == factors and len(factors) > 3
        assert looking(third)["factors"] == factors
        while "latents" not in (about := shown(third)[0])["pictures"]:
            pass
        assert len(about["read"]) == len(factors) and len(unfitted) == 1
        say(third, "show", pictures=["world", "latents"])  # whoever has them is not sent them again
        say(third, "text", text=50 * "x")
        assert "error" in told(third)


@pytest.mark.parametrize("error", [AvenirError("no clip"), RuntimeError("out of memory")])
def test_latents_that_cannot_be_fitted_are_explained_and_play_goes_on(hearing, monkeypatch, error):
    def failing() -> Overlays:
        raise error

    with hearing.connected() as page:
        assert "hello" in told(page)
        with monkeypatch.context() as broken:
            broken.setattr(hearing.server, "overlays", failing)
            said = looking(page)
        assert said["factors"] is None and str(error) in said["error"]
        say(page, "step")
        while (about := shown(page)[0])["step"] < 1:
            pass
        assert "latents" not in about["pictures"]
        assert looking(page)["factors"]  # it may be tried again


def test_a_push_that_was_opened_is_taken_away_where_nothing_is_read(hearing):
    with hearing.connected() as page, hearing.connected() as other:
        looking(page)
        say(page, "edit", factor=0, amount=1.5)
        say(page, "step")
        played = kept(page)
        assert "hello" in told(other)  # it never looked inside
        say(other, "open", playthrough=played)
        while (about := shown(other)[0])["step"] < 1:
            pass
        assert about["edit"] == ["ego x", 1.5]
        say(other, "edit", factor=0, amount=0)
        while about["edit"]:
            about, _ = shown(other)
        say(other, "edit", factor=0, amount=1)
        assert "0 are read" in told(other)["error"]


def test_a_factor_is_moved_and_left_alone_again(hearing):
    def after(page: ClientConnection, amount: float) -> tuple[dict, bytes]:
        say(page, "start", clip=0)
        say(page, "edit", factor=1, amount=amount)
        say(page, "step")
        about, pixels = shown(page)
        while about["step"] != 1:
            about, pixels = shown(page)
        say(page, "rewind", steps=1)
        while shown(page)[0]["step"]:
            pass
        return about, pixels

    with hearing.connected() as page:
        assert "hello" in told(page)
        say(page, "edit", factor=1, amount=1)
        assert "0 are read" in told(page)["error"]  # nobody has looked for them yet
        looking(page)
        (plain, still), (about, moved), (_, again) = (after(page, n) for n in (0, -3, 0))
        assert plain["edit"] is None and about["edit"] == ["ego y", -3]
        assert still == again != moved


@pytest.mark.slow
def test_ten_thousand_bad_messages_do_no_harm(running):
    tasks, sent = running.num_tasks(), 0
    chance = torch.Generator().manual_seed(0)
    noise = bytes(torch.randint(0, 256, (10_064,), generator=chance).tolist())
    while sent < 10_000:
        try:
            with running.connected() as page:
                while True:
                    message = noise[sent : sent + 1 + sent % 63]
                    page.send(message if sent % 2 else message.decode("latin1"))
                    sent += 1
        except ConnectionClosed as closed:  # who does not listen may miss the good-bye
            assert closed.rcvd is None or closed.rcvd.code == 1008
    assert running.settled(tasks)


def test_a_message_that_is_too_large_ends_the_page_alone(running):
    tasks = running.num_tasks()
    with running.connected() as good, running.connected() as page:
        page.send("x" * (MOST_BYTES + 1))
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                page.recv(timeout=20)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
        say(good, "step")
        while shown(good)[0]["step"] < 1:
            pass
    assert running.settled(tasks)


def test_fifty_pages_that_vanish_leave_nothing_behind(running):
    tasks = running.num_tasks()
    for number in range(50):
        while len(running.server.pages) == MOST_PAGES:
            time.sleep(0.02)  # until the ones before are found to be gone
        with running.connected() as page:
            told(page)
            say(page, "go")
            if number % 2:  # without a good-bye, or not even that of the line
                page.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            page.socket.shutdown(socket.SHUT_RDWR)
    assert running.settled(tasks)


def test_a_page_that_does_not_take_its_frames_is_let_go(running, monkeypatch):
    monkeypatch.setattr(serving_page, "_PATIENCE_SECONDS", 0.3)
    tasks = running.num_tasks()
    host, port = running.address.split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        where, origin = f"ws://{running.address}/play", f"http://{running.address}"
        with connect(where, sock=raw, origin=origin, close_timeout=1) as page:
            told(page)
            say(page, "show", pictures=["world", "simulator", "recording"])
            say(page, "go")
            # From now on it reads nothing: a few frames fill what lies between, no more are made.
            assert running.settled(tasks)


def test_one_page_too_many_is_told_to_come_back(running):
    tasks = running.num_tasks()
    with ExitStack() as open_pages:
        for _ in range(MOST_PAGES):
            told(open_pages.enter_context(running.connected()))
        with running.connected() as late, pytest.raises(ConnectionClosed) as closed:
            late.recv(timeout=20)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013
    assert running.settled(tasks)
