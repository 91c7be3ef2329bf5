"""The server that plays: who may connect, what is answered, and that nothing piles up."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.request import Request, urlopen

import pytest
import torch

from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.serving.player import Player
from avenir.serving.stages import openings_of, stages_of
from avenir.world import load

pytest.importorskip("starlette")
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import ClientConnection, connect  # noqa: E402

from avenir.serving import app as serving_app  # noqa: E402
from avenir.serving.app import MOST_BYTES, MOST_PAGES, Server, listen, serving  # noqa: E402


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

    def connected(self, origin: str = "") -> ClientConnection:
        origin = origin or f"http://{self.address}"
        return connect(f"ws://{self.address}/play", origin=origin, max_size=None, close_timeout=1)

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


@pytest.fixture(scope="module")
def running(tiny_run) -> Iterator[Running]:
    world, source = load(tiny_run), Synthetic(SyntheticConfig(episode_frames=20))
    openings = openings_of(source, world, 2, 6)
    stages, signal = stages_of(world, openings, True), source.signals["actions"]
    about = {"name": "tiny", "fps": 40.0, "steps_per_second": 20.0, "keys": signal.keys}
    about |= {"names": signal.names, "clips": ["data:,"] * 2}
    torch.set_num_threads(1)
    running = Running(Server(lambda: Player(stages, openings, signal), about, "a key"))
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


def told(page: ClientConnection) -> dict:
    """Return the next words, passing over frames."""
    while not isinstance(message := page.recv(timeout=20), str):
        pass
    return json.loads(message)


def test_the_page_and_what_it_needs_are_served(running):
    for path, holds in (
        ("", b"<main>"),
        ("static/play.js", b"WebSocket"),
        ("static/play.css", b""),
    ):
        with urlopen(f"http://{running.address}/{path}") as answer:
            assert holds in answer.read()
            if not path:
                assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_foreign_names_and_foreign_pages_are_refused(running):
    other = Request(f"http://{running.address}/", headers={"Host": "evil.example"})
    with pytest.raises(OSError, match="400"):
        urlopen(other)
    for origin in ("http://evil.example", f"http://{running.address}.evil.example", "null"):
        with pytest.raises(InvalidStatus) as refused:
            running.connected(origin)
        assert refused.value.response.status_code == 403


def test_playing_steps_at_its_own_rate_and_answers_keys(running):
    with running.connected() as page:
        assert told(page)["hello"]["keys"]["ArrowLeft"] == [-1.0, 0.0]
        first, pixels = shown(page)
        assert first["step"] == 0 and first["paused"]
        assert first["stages"] == {"dream": [2, 3, 64, 64]} and len(pixels) == 2 * 64 * 64 * 3
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
        say(page, "show", stages=["dream", "simulator", "recording", "nothing"])
        while list(about["stages"]) != ["dream", "simulator", "recording"]:
            about, _ = shown(page)
        assert about["step"] == 0 and about["paused"]


def test_a_playthrough_that_is_kept_opens_on_another_page(running):
    with running.connected() as page, running.connected() as other:
        for _ in range(3):
            say(page, "step")
        say(page, "keep")
        said: dict = {}
        while "kept" not in said:
            said = told(page)
        assert len(json.loads(said["kept"])["actions"]) == 3
        say(other, "open", playthrough=said["kept"])
        about, pixels = shown(other)
        while about["step"] < 3:
            about, pixels = shown(other)
        say(page, "pause")
        there, same = shown(page)
        while there["step"] < 3:
            there, same = shown(page)
        assert pixels == same
        say(other, "open", playthrough=said["kept"].replace('"seed":0', '"seed":1'))
        assert "from step 1 on" in told(other)["error"]


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
        '{"do": "show", "stages": 7}',
        '{"do": "open", "playthrough": "' + 3500 * "[" + '"}',
        '{"do": "begin", "clip": 9}',
        '{"do": "rewind", "steps": -1}',
        '{"do": "branch", "number": 1e9}',
        '{"do": "open", "playthrough": "?"}',
        '{"do": "go", "x": "' + 5000 * "x" + '"}',
        "[" * 4000,
    ],
    ids=range(15),
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
    monkeypatch.setattr(serving_app, "_PATIENCE_SECONDS", 0.3)
    tasks = running.num_tasks()
    host, port = running.address.split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        where, origin = f"ws://{running.address}/play", f"http://{running.address}"
        with connect(where, sock=raw, origin=origin, close_timeout=1) as page:
            told(page)
            say(page, "show", stages=["dream", "simulator", "recording"])
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
