"""The page and its WebSocket: what is published goes to every browser that has the page open.

The page is three files of this package; nothing comes from another host. Only browsers on this
machine are answered, unless the server is bound to another address: then a token is asked for. A
request from another site's page (its Origin) is refused, and so is one under another host name, by
which such a page could get around that.
"""

import asyncio
import contextlib
import hmac
import ipaddress
import json
import logging
import secrets
import threading
from collections.abc import Mapping
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from modessm_jax.live.live import Message
from modessm_jax.live.sentences import Sentences

try:
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.datastructures import Headers
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
except ImportError as error:
    raise ImportError(
        f"the page needs websockets: pip install 'modessm_jax[live]' ({error})"
    ) from error

MAX_CLIENTS = 8
MAX_MESSAGE = 8192  # bytes of a client's message; the longest correction is shorter
MAX_WAITING = 250  # messages a client may be behind: 5 s of one bin each
SOCKET = "/live"  # the path of the WebSocket

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Server:
    """Serves the page while it is entered, in a thread of its own.

    Args:
        host: the address to bind to.
        port: the port; 0 for any that is free.
        about: what the page is told of the decoder; see `page.js`.
        sentences: those so far, and where corrections are saved.

    Attributes:
        url: of the page, with the token if one is needed.
        port: that it is bound to.
        token: None where none is needed.

    Raises:
        OSError: the address cannot be bound to.
    """

    def __init__(self, host: str, port: int, about: Mapping[str, Any], sentences: Sentences):
        self._host, self.port = host, port
        self._about, self._sentences = dict(about), sentences
        self.token = None if is_local(host) else secrets.token_urlsafe(16)
        page = resources.files("modessm_jax.live") / "page"
        self._files = {
            path: (kind, (page / name).read_bytes()) for path, (name, kind) in _FILES.items()
        }
        self._clients: dict[ServerConnection, asyncio.Queue[str]] = {}
        self._forming: dict[str, list[Any]] = {}
        self._forget()

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    def __enter__(self) -> "Server":
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def publish(self, message: Message) -> None:
        """Sends a message to all clients; from any thread, and at once."""
        self._loop.call_soon_threadsafe(self._broadcast, message)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        # Whoever knocks and leaves, or speaks no HTTP, is none of the user's concern.
        quiet = logging.getLogger(f"{__name__}.websockets")
        quiet.setLevel(logging.CRITICAL)
        serving = serve(
            self._client,
            self._host,
            self.port,
            process_request=self._answer,
            max_size=MAX_MESSAGE,
            compression=None,  # it would take longer than sending
            close_timeout=1,
            logger=quiet,
        )
        async with serving as server:
            self.port = server.sockets[0].getsockname()[1]
            self._started.set()
            await self._stop.wait()

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """A file, a refusal, or None for a WebSocket that may be opened."""
        path, query = urlsplit(request.path)[2:4]
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        if self.token is None and not is_local(urlsplit(f"//{host}").hostname or ""):
            return _text(HTTPStatus.FORBIDDEN, "This page is for this machine alone.")
        if path in ("/", SOCKET) and self.token is not None:
            given = parse_qs(query).get("token", [""])[0]
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return _text(HTTPStatus.FORBIDDEN, "Open the address with the token in it.")
        if path == SOCKET:
            if origin not in (f"http://{host}", f"https://{host}"):
                return _text(HTTPStatus.FORBIDDEN, "This is for the decoder's own page alone.")
            if len(self._clients) >= MAX_CLIENTS:
                return _text(HTTPStatus.SERVICE_UNAVAILABLE, "Too many pages are open.")
            return None
        if path not in self._files:
            return _text(HTTPStatus.NOT_FOUND, "There is no such file.")
        return _response(HTTPStatus.OK, *self._files[path])

    async def _client(self, connection: ServerConnection) -> None:
        waiting: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        hello = {"type": "hello", **self._about, "forming": self._forming}
        waiting.put_nowait(json.dumps({**hello, "sentences": self._sentences.shown()}))
        self._clients[connection] = waiting
        sending = asyncio.create_task(self._send(connection, waiting))
        try:
            with contextlib.suppress(ConnectionClosed):
                async for received in connection:
                    self._receive(received, waiting)
        finally:
            self._clients.pop(connection, None)
            sending.cancel()

    async def _send(self, connection: ServerConnection, waiting: asyncio.Queue[str]) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.send(await waiting.get())

    def _receive(self, received: str | bytes, waiting: asyncio.Queue[str]) -> None:
        """Saves a correction: `{"corrects": number of the sentence, "text": what was meant}`."""
        try:
            given = json.loads(received)
            correction = self._sentences.correct(int(given["corrects"]), str(given["text"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, OSError) as error:
            with contextlib.suppress(asyncio.QueueFull):
                waiting.put_nowait(json.dumps({"type": "refused", "reason": str(error)}))
            return
        self._broadcast({"type": "correction", **correction})

    def _broadcast(self, message: Message) -> None:
        self._remember(message)
        text = json.dumps(message)
        for connection, waiting in list(self._clients.items()):
            try:
                waiting.put_nowait(text)
            except asyncio.QueueFull:  # too slow; the page opens another connection when it can
                del self._clients[connection]
                connection.transport.abort()

    def _remember(self, message: Message) -> None:
        """Keeps the sentence that is forming, for pages that are opened later."""
        if message["type"] == "news":
            for name in ("phonemes", "words"):
                self._forming[name] += message[name]
            self._forming["tentative"] = message["tentative"]
        elif message["type"] == "sentence":
            self._forget()

    def _forget(self) -> None:
        self._forming = {"phonemes": [], "words": [], "tentative": []}


def is_local(host: str) -> bool:
    """Whether an address or name is that of this machine for itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _text(status: HTTPStatus, text: str) -> Response:
    return _response(status, "text/plain; charset=utf-8", f"{text}\n".encode())


def _response(status: HTTPStatus, kind: str, body: bytes) -> Response:
    headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"}
    return Response(status, status.phrase, Headers(headers | _HEADERS), body)
