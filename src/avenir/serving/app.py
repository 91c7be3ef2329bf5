"""Serves a player to a browser: one page, and frames over a websocket. Knows no worlds.

Everyone who connects plays alone, in a playthrough of their own. Only pages of this server may
connect, and where others than this machine reach it, only those who know the token in its address.
"""

import asyncio
import ipaddress
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn
from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from starlette.websockets import WebSocket
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from avenir.serving.messages import MOST_BYTES
from avenir.serving.overlays import Overlays
from avenir.serving.page import Page
from avenir.serving.player import Player

STATIC = Path(__file__).parent / "static"

MOST_PAGES = 4
"""Pages that play at once; the next one is told to come back."""
_MOST_UNTAKEN = 2**17
"""Bytes on their way to a page."""
REQUEST_SECONDS = 10.0
"""Within which a connection asks for all of a page, or becomes one that plays."""
UNTAKEN_SECONDS = 20.0
"""How long what was sent may lie there untaken."""

_NO_TOKEN = "give the whole address that `avenir play` printed, its token included"

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class _Files(StaticFiles):
    """What a page is made of: never another version's than the page is."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


class _Requests(AutoHTTPProtocol):
    """A connection that asks for what a page is made of, and is let go of when it takes long.

    However slowly it asks, or takes what it asked for. One that plays is another protocol by then.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        asyncio.get_running_loop().call_later(REQUEST_SECONDS, self._let_go, transport)

    def _let_go(self, transport: asyncio.Transport) -> None:
        if transport.get_protocol() is self:
            transport.abort()


class Server:
    """Lets pages in, at most `MOST_PAGES`, and gives each a player of its own.

    `about` is what a page is told of the world; `world` is its key, which playthroughs carry. With
    `overlays`, which fits them, a page may look at latents: the first that does lets it be called.
    With a `token` only addresses that say it are answered; what all pages share is no secret.
    """

    def __init__(
        self,
        player: Callable[[], Player],
        about: dict[str, Any],
        world: str,
        overlays: Callable[[], Overlays] | None = None,
        token: str | None = None,
    ) -> None:
        self.player, self.about, self.world, self.token = player, about, world, token
        # In turn: no two pages fit at once.
        self.overlays: Callable[[], Overlays] | None = overlays and cache(overlays)
        self.pages: set[Page] = set()

    def app(self, hosts: list[str]) -> Starlette:
        """Return the application, which answers only to the names in `hosts`."""
        routes = [
            Route("/", self._page),
            WebSocketRoute("/play", self._play),
            Mount("/static", _Files(directory=STATIC)),
        ]
        return Starlette(
            routes=routes,
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        # One step at a time: steps of two pages side by side would take each other's cores.
        self.turn = CapacityLimiter(1)
        yield

    def _knows(self, who: HTTPConnection) -> bool:
        """Say whether an address has the token in it, in the same time however wrong it is."""
        given = who.query_params.get("token", "")
        return self.token is None or secrets.compare_digest(given.encode(), self.token.encode())

    async def _page(self, request: Request) -> Response:
        if not self._knows(request):
            return PlainTextResponse(_NO_TOKEN, 403, headers=_HEADERS)
        return FileResponse(STATIC / "play.html", headers=_HEADERS)

    async def _play(self, channel: WebSocket) -> None:
        origin, host = channel.headers.get("origin", ""), channel.headers.get("host", "")
        if origin.partition("://")[2] != host:
            await channel.close(1008, "only pages of this server may connect")
            return
        if not self._knows(channel):
            await channel.close(1008, _NO_TOKEN)
            return
        if len(self.pages) >= MOST_PAGES:
            await channel.accept()
            await channel.close(1013, f"{MOST_PAGES} pages play already: close one of them")
            return
        page = Page(channel, self)
        self.pages.add(page)
        try:
            await channel.accept()
            await page.play()
        finally:
            self.pages.discard(page)


def is_local(host: str) -> bool:
    """Say whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Take an address, before anything is said of it; port 0 is any that is free."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit it: a page that falls behind is shown few frames that are old.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST_UNTAKEN)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # of Linux; elsewhere its page is let go, and it stays
        patience = round(1000 * UNTAKEN_SECONDS)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
    try:
        listening.bind((host, port))
        listening.listen()  # who comes before it answers waits
    except OSError:
        listening.close()
        raise
    return listening


def serving(server: Server, host: str) -> uvicorn.Server:
    """Return what runs a server, under the name of the address it listens at."""
    everywhere = host in ("0.0.0.0", "::")
    named = f"[{host}]" if ":" in host else host
    hosts = ["*"] if everywhere else list({named, "localhost", "127.0.0.1"})
    config = uvicorn.Config(
        server.app(hosts),
        http=_Requests,
        log_level="warning",
        ws_max_size=MOST_BYTES,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)
