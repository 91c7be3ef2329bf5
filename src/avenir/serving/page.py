"""One page that plays: reads its messages, takes a step at every tick, and shows it frames.

Frames are four bytes that say how long the JSON behind them is, that JSON, then the pixels.
Everything that waits has a bound: a slow or dead page is let go.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, Protocol

from anyio import CapacityLimiter, create_task_group, to_thread
from starlette.websockets import WebSocket, WebSocketDisconnect

from avenir.errors import AvenirError
from avenir.serving.backends import Direction
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

_MOST_A_SECOND = 120
"""Messages; keys that repeat are not sent, so that no player sends as many."""
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
    """One page that plays: messages come in, a step is taken at every tick, frames go out."""

    def __init__(self, channel: WebSocket, server: Host) -> None:
        self.channel, self.server = channel, server
        self.held: list[str] = []
        self.tapped: list[str] = []
        self.presses: list[float] = []
        self.answered: list[float] = []
        self.paused = True
        self.opening = False
        self.shown = ["world"]
        self.shows_latents = False
        self.overlays: Overlays | None = None
        self.waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_MOST_WAITING)
        self.woken = asyncio.Event()

    async def play(self) -> None:
        """Play until the page is gone, or is let go; a step that has begun is waited for."""
        try:
            async with create_task_group() as parts:
                parts.start_soon(self._tick)
                await self._listen()
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

    # Messages ---------------------------------------------------------------------------------

    async def _listen(self) -> None:
        mistakes = 0
        lately = deque[float](maxlen=_MOST_A_SECOND)
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
        message = parsed(text)
        if message["do"] != "keys":
            if message["do"] == "open" and self.opening:
                raise asyncio.QueueFull
            self.waiting.put_nowait(message)
            self.opening |= message["do"] == "open"
            self.woken.set()
            return
        known = self.server.about["keys"]
        self.held = [key for key in message["held"][:MOST_KEYS] if key in known]
        if not self.paused:  # a key may be down for less than a step
            self.tapped += [key for key in self.held if key not in self.tapped]
        if message["press"] is not None:
            self.presses = [*self.presses[1 - _MOST_WAITING :], message["press"]]

    # What a page is shown ---------------------------------------------------------------------

    async def _tick(self) -> None:
        self.player = await self._in_turn(self.server.player)
        hello = {"backends": list(self.player.backends), "looks": self.server.overlays is not None}
        hello["signals"] = [offered(*each) for each in self.player.settable.items()]
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

    async def _do(self, message: dict[str, Any]) -> None:
        """Do what a page asks of the player, and show where it stands."""
        try:
            await _HANDLERS[message["do"]](self, message)
        except AvenirError as error:
            await self._tell({"error": str(error)})
        await self._show(0.0)

    async def _go(self, message: dict[str, Any]) -> None:
        self.paused = False
        self.tapped = []

    async def _pause(self, message: dict[str, Any]) -> None:
        self.paused = True
        self.tapped = []
        self.presses = []  # a wait is no answer

    async def _choose(self, message: dict[str, Any]) -> None:
        """Choose the pictures that are shown; of latents too, once they can be painted."""
        self.shown = [name for name in self.player.backends if name in message["pictures"]]
        self.shows_latents = "latents" in message["pictures"] and await self._prepare_overlays()

    async def _set_text(self, message: dict[str, Any]) -> None:
        self.player.set_text(message["text"])

    async def _set_signal(self, message: dict[str, Any]) -> None:
        self.player.set_signal(message["signal"], message.get("value"))

    async def _set_edit(self, message: dict[str, Any]) -> None:
        self.player.set_edit(self._direction(message), message["amount"])

    async def _start(self, message: dict[str, Any]) -> None:
        await self._in_turn(self.player.start, whole(message, "clip"), whole(message, "seed"))

    async def _rewind(self, message: dict[str, Any]) -> None:
        step = self.player.now - whole(message, "steps")
        await self._by_turns(self.player.rewinding(step))

    async def _branch(self, message: dict[str, Any]) -> None:
        await self._by_turns(self.player.branching(whole(message, "number")))

    async def _step(self, message: dict[str, Any]) -> None:
        await self._in_turn(self.player.step, self.player.action(self.held))

    async def _keep(self, message: dict[str, Any]) -> None:
        await self._tell({"kept": await self._in_turn(self._kept)})

    async def _open(self, message: dict[str, Any]) -> None:
        """Play a playthrough again and stop."""
        self.opening = False
        playthrough = await self._in_turn(read_playthrough, message["playthrough"])
        again = self.player.open(playthrough, self.server.world)
        self.paused = True
        await self._by_turns(again, _STEPS_SHOWN)

    async def _prepare_overlays(self) -> bool:
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

    def _direction(self, message: dict[str, Any]) -> Direction | None:
        """Return where latents are moved; nowhere, by 0, also before any overlay was fitted."""
        if not message["amount"]:
            return None
        number = whole(message, "factor")
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
        player = self.player
        possible = player.timeline.states[0]
        pictures = {name: player.frames(name) for name in self.shown if name in possible}
        edit = player.edit
        about = {
            "step": player.now,
            "steps": len(player.timeline.steps),
            "branches": [len(branch.steps) for branch in player.branches],
            "clip": player.number,
            "seed": player.seed,
            "paused": self.paused,
            "presses": self.answered,
            "milliseconds": round(1000 * seconds, 2),
            "text": player.controls.text,
            "signals": {name: row.tolist() for name, row in player.controls.signals.items()},
            "edit": edit and [edit.direction.factor, edit.amount],
        }
        if self.shows_latents and self.overlays is not None:
            latent = player.latents
            pictures["latents"] = self.overlays.painted(latent)
            about["read"] = self.overlays.read(latent)
        about["pictures"] = {name: list(frames.shape) for name, frames in pictures.items()}
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


_HANDLERS: dict[str, Callable[[Page, dict[str, Any]], Awaitable[None]]] = {
    "go": Page._go,
    "pause": Page._pause,
    "show": Page._choose,
    "text": Page._set_text,
    "signal": Page._set_signal,
    "edit": Page._set_edit,
    "start": Page._start,
    "rewind": Page._rewind,
    "branch": Page._branch,
    "step": Page._step,
    "keep": Page._keep,
    "open": Page._open,
}
"""What is done at a message, by its verb; `keys` are held at once."""
