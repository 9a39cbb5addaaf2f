"""One POST of JSON over HTTP, with a deadline and a size for all of it.

Timeouts of HTTP libraries are per read: a server that sends a byte now and then holds a call up for
ever. Here the connection is ended when the time is over. Nothing is retried, redirected or
decompressed.
"""

import base64
import contextlib
import dataclasses
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

_CHUNK = 1 << 16

Failure = Literal["timeout", "unreachable", "broken", "large"]


class PostError(Exception):
    """There is no whole answer.

    Attributes:
      failure: it took too long; there is no connection; the answer broke off; it is too large.
    """

    def __init__(self, failure: Failure, reason: str = "") -> None:
        """Keeps what the system says about it; nothing of it is the server's."""
        super().__init__(reason or failure)
        self.failure: Failure = failure


@dataclasses.dataclass(frozen=True)
class Response:
    """What a server sent."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


def post(
    url: str,
    body: Any,
    headers: Mapping[str, str] = {},
    *,
    secret: str | None = None,
    seconds: float,
    most_bytes: int,
) -> Response:
    """POSTs JSON.

    Args:
      url: http:// or https://; a proxy that the environment names is used.
      body: of JSON types.
      headers: more headers; keys go here and nowhere else.
      secret: a key among them; where a server repeats it, the answer has *** in its place.
      seconds: for everything, connecting included.
      most_bytes: of an answer.

    Raises:
      PostError: there is no whole answer.
    """
    end = time.monotonic() + seconds
    data = json.dumps(body, ensure_ascii=True).encode("ascii")
    sent = {"Content-Type": "application/json", "Accept": "application/json", **headers}
    connection, target, through = _connection(url, seconds)
    sent |= through
    deadline = None
    try:
        try:
            connection.connect()
            assert connection.sock is not None
            deadline = _Deadline(connection.sock, end - time.monotonic())
            connection.request("POST", target, data, sent)
        except (OSError, http.client.HTTPException) as error:
            raise _failed(error, "unreachable", deadline) from None
        try:
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            read = _read(response, most_bytes)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failed(error, "broken", deadline) from None
        if deadline.passed:  # what came may be a half
            raise PostError("timeout")
        if secret:
            read = read.replace(secret.encode(), b"***")
        return Response(response.status, found, read)
    finally:
        if deadline is not None:
            deadline.cancel()
        connection.close()


class _Deadline:
    """Ends a connection when its time is over, wherever a call then waits."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self.passed = False
        self._sock = sock  # a response without keep-alive takes it from the connection
        self._timer = threading.Timer(max(seconds, 0.0), self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        self.passed = True
        with contextlib.suppress(OSError):  # closed by itself in the meantime
            self._sock.shutdown(socket.SHUT_RDWR)

    def cancel(self) -> None:
        self._timer.cancel()


def _failed(error: Exception, failure: Failure, deadline: _Deadline | None) -> PostError:
    if isinstance(error, TimeoutError) or (deadline is not None and deadline.passed):
        return PostError("timeout")
    # The text of other errors may be the server's.
    return PostError(failure, getattr(error, "strerror", None) or type(error).__name__)


def _read(response: http.client.HTTPResponse, most_bytes: int) -> bytes:
    data = bytearray()
    while chunk := response.read1(_CHUNK):
        data += chunk
        if len(data) > most_bytes:
            raise PostError("large", f"more than {most_bytes} bytes")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(data)


def _connection(
    url: str, seconds: float
) -> tuple[http.client.HTTPConnection, str, Mapping[str, str]]:
    """A connection that is not open yet, what to ask it for, and headers for a proxy."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy is None or urllib.request.proxy_bypass(host):
        if secure:
            context = ssl.create_default_context()
            return (
                http.client.HTTPSConnection(host, parts.port, timeout=seconds, context=context),
                target,
                {},
            )
        return http.client.HTTPConnection(host, parts.port, timeout=seconds), target, {}
    through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    at, port, known = through.hostname or "", through.port, _credentials(through)
    if not secure:
        return http.client.HTTPConnection(at, port, timeout=seconds), url, known
    tunnel = http.client.HTTPSConnection(
        at, port, timeout=seconds, context=ssl.create_default_context()
    )
    tunnel.set_tunnel(host, parts.port or 443, headers=dict(known))
    return tunnel, target, {}


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    told = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(told).decode('ascii')}"}
