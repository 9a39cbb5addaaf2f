"""One POST of JSON over HTTP, with a deadline and a size for all of it.

Timeouts of HTTP libraries are per read: a server that sends a byte now and then holds a call up for
ever. Here the time left is set before every read. Nothing is retried, redirected or decompressed.
"""

import dataclasses
import http.client
import json
import ssl
import time
import urllib.request
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

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
    url: str, body: Any, headers: Mapping[str, str] = {}, *, seconds: float, most_bytes: int
) -> Response:
    """POSTs JSON.

    Args:
      url: http:// or https://; a proxy that the environment names is used.
      body: of JSON types.
      headers: more headers; keys go here and nowhere else.
      seconds: for everything, connecting included.
      most_bytes: of an answer.

    Raises:
      PostError: there is no whole answer.
    """
    end = time.monotonic() + seconds
    data = json.dumps(body, ensure_ascii=True).encode("ascii")
    sent = {"Content-Type": "application/json", "Accept": "application/json", **headers}
    connection, target = _connection(url, seconds)
    try:
        try:
            connection.connect()
            assert connection.sock is not None
            connection.sock.settimeout(_left(end))
            connection.request("POST", target, data, sent)
        except (OSError, http.client.HTTPException) as error:
            raise _failed(error, "unreachable") from None
        try:
            sock = connection.sock  # a response without keep-alive takes it from the connection
            sock.settimeout(_left(end))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Response(response.status, found, _read(response, sock, end, most_bytes))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failed(error, "broken") from None
    finally:
        connection.close()


def _failed(error: Exception, failure: Failure) -> PostError:
    if isinstance(error, TimeoutError):
        return PostError("timeout")
    # The text of other errors may be the server's.
    return PostError(failure, getattr(error, "strerror", None) or type(error).__name__)


def _read(response: http.client.HTTPResponse, sock: Any, end: float, most_bytes: int) -> bytes:
    data = bytearray()
    while True:
        sock.settimeout(_left(end))
        chunk = response.read1(_CHUNK)
        if not chunk:
            break
        data += chunk
        if len(data) > most_bytes:
            raise PostError("large", f"more than {most_bytes} bytes")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(data)


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connection(url: str, seconds: float) -> tuple[http.client.HTTPConnection, str]:
    """A connection that is not open yet, and what to ask it for."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy is None or urllib.request.proxy_bypass(host):
        if secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                host, parts.port, timeout=seconds, context=context
            ), target
        return http.client.HTTPConnection(host, parts.port, timeout=seconds), target
    through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    at, port = through.hostname or "", through.port
    if not secure:
        return http.client.HTTPConnection(at, port, timeout=seconds), url
    tunnel = http.client.HTTPSConnection(
        at, port, timeout=seconds, context=ssl.create_default_context()
    )
    tunnel.set_tunnel(host, parts.port or 443)
    return tunnel, target
