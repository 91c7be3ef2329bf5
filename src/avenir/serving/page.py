"""One page that plays: hears what it says, takes a step at every tick, and shows it frames.

Frames are four bytes that say how long the JSON behind them is, that JSON, then the pixels.
Everything that waits has a bound: a slow or dead page is let go.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Protocol

from anyio import CapacityLimiter, create_task_group, to_thread
from starlette.websockets import WebSocket, WebSocketDisconnect

from avenir.errors import AvenirError
from avenir.serving.messages import (
    MOST_BYTES,
    MOST_KEYS,
    MOST_LETTERS,
    offered,
    parsed,
    whole,
    written,
)
from avenir.serving.overlays import Overlays
from avenir.serving.player import Player
from avenir.serving.playthrough import read_playthrough
from avenir.serving.stages import Direction

_MOST_A_SECOND = 120
"""Messages; keys that repeat are not sent, so that nobody types as fast."""
_MOST_MISTAKES = 20
_MOST_WAITING = 16
"""Messages that wait for the end of a step."""
_PATIENCE_SECONDS = 5.0
"""How long a page may take to receive a frame."""
_STEPS_SHOWN = 5
"""When a playthrough is opened, one step in so many is shown."""


_END = object()


class Gone(Exception):
    """A page that is no longer there."""


class Refused(Exception):
    """A page that is let go, with the websocket's code for it."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Host(Protocol):
    """What pages know of the server that let them in."""

    player: Callable[[], Player]
    about: dict[str, Any]
    world: str
    overlays: Callable[[], Overlays] | None
    turn: CapacityLimiter


class Page:
    """One page that plays: what it says comes in, a step is taken at every tick, frames go out."""

    def __init__(self, channel: WebSocket, server: Host) -> None:
        self.channel, self.server = channel, server
        self.held: list[str] = []
        self.tapped: list[str] = []
        self.presses: list[float] = []
        self.answered: list[float] = []
        self.paused, self.opening = True, False
        self.shown, self.looking = ["dream"], False
        self.overlays: Overlays | None = None
        self.waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_MOST_WAITING)
        self.woken = asyncio.Event()

    async def play(self) -> None:
        """Play until the page is gone, or is let go; a step that has begun is waited for."""
        try:
            async with create_task_group() as parts:
                parts.start_soon(self._tick)
                await self._hear()
                parts.cancel_scope.cancel()
        except* Gone:
            pass
        except* Refused as refusals:
            refusal = refusals.exceptions[0]
            assert isinstance(refusal, Refused)
            await self._close(refusal.code, refusal.reason)
        except* Exception:
            logging.getLogger("uvicorn.error").exception("a page could not be played on")
            await self._close(1011, "the world failed; its log says why")

    async def _close(self, code: int, reason: str) -> None:
        with suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            await asyncio.wait_for(self.channel.close(code, reason), _PATIENCE_SECONDS)

    # What a page says -------------------------------------------------------------------------

    async def _hear(self) -> None:
        mistakes, lately = 0, deque[float](maxlen=_MOST_A_SECOND)
        while True:
            message = await self.channel.receive()
            if message["type"] == "websocket.disconnect":
                return
            now = time.monotonic()
            if len(lately) == _MOST_A_SECOND and now - lately[0] < 1:
                raise Refused(1008, f"more than {_MOST_A_SECOND} messages in a second")
            lately.append(now)
            try:
                self._take(message.get("text"))
            except asyncio.QueueFull:
                await self._tell({"error": "too much at once: wait for what was asked before"})
            except AvenirError as error:
                mistakes += 1
                if mistakes > _MOST_MISTAKES:
                    raise Refused(1008, f"{mistakes} messages that mean nothing") from None
                await self._tell({"error": str(error)})

    def _take(self, text: str | None) -> None:
        """Hold keys at once; let what changes the player wait for the end of a step."""
        said = parsed(text)
        if said["do"] != "keys":
            if said["do"] == "open" and self.opening:
                raise asyncio.QueueFull
            self.waiting.put_nowait(said)
            self.opening |= said["do"] == "open"
            self.woken.set()
            return
        known = self.server.about["keys"]
        self.held = [key for key in said["held"][:MOST_KEYS] if key in known]
        if not self.paused:  # a key may be down for less than a step
            self.tapped += [key for key in self.held if key not in self.tapped]
        if said["press"] is not None:
            self.presses = [*self.presses[1 - _MOST_WAITING :], said["press"]]

    # What a page is shown ---------------------------------------------------------------------

    async def _tick(self) -> None:
        self.player = await self._in_turn(self.server.player)
        hello = {"stages": list(self.player.stages), "looks": self.server.overlays is not None}
        hello["signals"] = [offered(*each) for each in self.player.tellable.items()]
        await self._tell({"hello": self.server.about | hello})
        await self._show(0.0)
        period = 1 / self.server.about["steps_per_second"]
        due = time.monotonic()
        while True:
            while not self.waiting.empty():
                await self._do(self.waiting.get_nowait())
            if self.paused:
                self.woken.clear()
                if self.waiting.empty():
                    await self.woken.wait()
                due = time.monotonic()
                continue
            due = max(due + period, time.monotonic())  # what is late is not made up for
            action = self.player.action(list(dict.fromkeys([*self.tapped, *self.held])))
            self.tapped = []
            # Keys that go down while a step is computed are answered by the next.
            self.answered, self.presses = self.presses, []
            try:
                await self._show(await self._in_turn(_timed, self.player.step, action))
            except AvenirError as error:
                self.paused = True
                await self._tell({"error": str(error)})
                await self._show(0.0)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _do(self, said: dict[str, Any]) -> None:
        """Do what a page asks of the player, and show where it stands."""
        player, what = self.player, said["do"]
        try:
            if what in ("go", "pause"):
                self.paused, self.tapped = what == "pause", []
                if self.paused:  # a wait is no answer
                    self.presses = []
            elif what == "show":
                self.shown = [name for name in player.stages if name in said["stages"]]
                self.looking = "latents" in said["stages"] and await self._look()
            elif what == "say":
                player.say(said["text"])
            elif what == "tell":
                player.tell(said["signal"], said.get("value"))
            elif what == "push":
                player.move(self._direction(said), said["amount"])
            elif what == "begin":
                await self._in_turn(player.begin, whole(said, "clip"), whole(said, "seed"))
            elif what == "rewind":
                await self._by_turns(player.rewinding(player.now - whole(said, "steps")))
            elif what == "branch":
                await self._by_turns(player.branching(whole(said, "number")))
            elif what == "step":
                await self._in_turn(player.step, player.action(self.held))
            elif what == "keep":
                kept = await self._in_turn(self._kept)
                await self._tell({"kept": kept})
            elif what == "open":
                self.opening = False
                await self._open(said["playthrough"])
        except AvenirError as error:
            await self._tell({"error": str(error)})
        await self._show(0.0)

    async def _look(self) -> bool:
        """Have latents fitted to be looked at, say what is read in them, and whether any can be."""
        if self.overlays is None and self.server.overlays is not None:
            words: dict[str, Any] = {"factors": None}
            try:
                self.overlays = seen = await self._in_turn(self.server.overlays)
                words["factors"] = [factor._asdict() for factor in seen.factors]
            except Exception as error:
                logging.getLogger("uvicorn.error").exception("latents could not be looked at")
                words["error"] = f"latents cannot be looked at: {error}; play on, or try it again"
            await self._tell(words)
        return self.overlays is not None

    def _direction(self, said: dict[str, Any]) -> Direction | None:
        """Return what is to be pushed; nothing, by 0, also where nobody has looked inside."""
        if not said["amount"]:
            return None
        number = whole(said, "factor")
        directions = [] if self.overlays is None else self.overlays.directions
        if number >= len(directions):
            raise AvenirError(
                f"factor {number} was to be moved; {len(directions)} are read, counted from 0: "
                "look inside, and move one of those"
            )
        return directions[number]

    def _kept(self) -> str:
        kept = self.player.kept(self.server.world).model_dump_json()
        if len(json.dumps(kept)) > MOST_BYTES - MOST_LETTERS:
            raise AvenirError("it has grown too large to be opened again: go back, and save then")
        return kept

    async def _open(self, text: str) -> None:
        """Play a playthrough again and stop."""
        playthrough = await self._in_turn(read_playthrough, text)
        again = self.player.open(playthrough, self.server.world)
        self.paused = True
        await self._by_turns(again, _STEPS_SHOWN)

    async def _by_turns(self, steps: Generator[None, None, None], shown: int = 0) -> None:
        """Take steps to their end, one in each turn: others have theirs in between.

        Of `shown` steps one is shown; of 0 none.
        """
        done = 0
        try:
            while await self._in_turn(_one_of, steps):
                done += 1
                if shown and done % shown == 0:
                    await self._show(0.0)
        finally:
            steps.close()

    async def _show(self, seconds: float) -> None:
        player, shown = self.player, [n for n in self.shown if n in self.player.line.states[0]]
        pictures, push = {name: player.frames(name) for name in shown}, player.push
        about = {
            "step": player.now,
            "steps": len(player.line.told),
            "branches": [len(branch.told) for branch in player.branches],
            "clip": player.number,
            "seed": player.seed,
            "paused": self.paused,
            "presses": self.answered,
            "milliseconds": round(1000 * seconds, 2),
            "text": player.text,
            "others": dict(player.others),
            "push": push and [push.direction.factor, push.amount],
        }
        if self.looking and self.overlays is not None:
            latent = player.latents
            pictures["latents"] = self.overlays.painted(latent)
            about["read"] = self.overlays.read(latent)
        about["stages"] = {name: list(frames.shape) for name, frames in pictures.items()}
        self.answered = []
        head = written(about).encode()
        pixels = (p.permute(0, 2, 3, 1).contiguous().numpy().tobytes() for p in pictures.values())
        await self._send(len(head).to_bytes(4, "big") + head + b"".join(pixels))

    async def _tell(self, words: dict[str, Any]) -> None:
        await self._send(written(words))

    async def _send(self, message: str | bytes) -> None:
        """Send, or let a page go that does not take what it is sent."""
        sending = (
            self.channel.send_text(message)
            if isinstance(message, str)
            else self.channel.send_bytes(message)
        )
        try:
            await asyncio.wait_for(sending, _PATIENCE_SECONDS)
        except TimeoutError:
            raise Refused(1008, "frames were not taken in time") from None
        except (RuntimeError, WebSocketDisconnect):
            raise Gone from None

    async def _in_turn(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await to_thread.run_sync(work, *arguments, limiter=self.server.turn)


def _timed(work: Callable[..., Any], *arguments: Any) -> float:
    """Do it and say in how many seconds, not counting the wait for its turn."""
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def _one_of(steps: Generator[None, None, None]) -> bool:
    """Take a step, and say whether there was one."""
    return next(steps, _END) is not _END
