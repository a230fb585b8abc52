"""Clients of the page's server, without a browser."""

import socket
from typing import Any

from websockets.sync.client import connect


def open_page(port: int, query: str = "", origin: str | None = "") -> Any:
    """A WebSocket as the page opens it, or of another origin."""
    own = f"http://127.0.0.1:{port}"
    given: Any = own if origin == "" else origin
    return connect(f"ws://127.0.0.1:{port}/live{query}", origin=given, proxy=None)


def open_deaf_page(port: int) -> socket.socket:
    """Asks for a WebSocket, and reads nothing."""
    deaf = socket.create_connection(("127.0.0.1", port))
    deaf.sendall(
        f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n"
        f"Origin: http://127.0.0.1:{port}\r\n\r\n".encode()
    )
    return deaf
