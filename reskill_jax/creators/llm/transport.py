"""One request over HTTP with a deadline for all of it.

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
from typing import Any
from urllib.parse import urlsplit

from .call import MAX_REPLY, CallError, told_by

_MOST_BYTES = 4 * MAX_REPLY
_CHUNK = 1 << 16


@dataclasses.dataclass(frozen=True)
class Response:
    """What a server sent."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
          CallError: it is none; a proxy's page, say.
        """
        try:
            value = json.loads(self.body.decode("utf-8"))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            shown = told_by(self.body[:400].decode("utf-8", "replace"))
            raise CallError("later", f"the server sent no JSON object but {shown!r}")
        return value


def post(url: str, body: Any, headers: Mapping[str, str], *, seconds: float) -> Response:
    """POSTs JSON.

    Args:
      url: http:// or https://; a proxy that the environment names is used.
      body: of JSON types.
      headers: more headers; keys go here and nowhere else.
      seconds: for everything, connecting included.

    Raises:
      CallError: no connection, or no complete answer in time.
    """
    end = time.monotonic() + seconds
    data = json.dumps(body, ensure_ascii=True).encode("ascii")
    sent = {"Content-Type": "application/json", "Accept": "application/json", **headers}
    connection, target = _connection(url, seconds)
    try:
        connection.connect()
        assert connection.sock is not None
        connection.sock.settimeout(_left(end))
        connection.request("POST", target, data, sent)
        connection.sock.settimeout(_left(end))
        sock = connection.sock  # a response without keep-alive takes it away from the connection
        response = connection.getresponse()
        parts, size = [], 0
        while True:
            sock.settimeout(_left(end))
            part = response.read1(_CHUNK)
            if not part:
                break
            size += len(part)
            if size > _MOST_BYTES:
                raise CallError("never", f"the server sent more than {_MOST_BYTES} bytes")
            parts.append(part)
        found = {name.lower(): value for name, value in response.getheaders()}
        return Response(response.status, found, b"".join(parts))
    except TimeoutError:
        raise CallError("later", f"no answer within {seconds:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        where = urlsplit(url).netloc
        raise CallError("later", f"{where} cannot be reached: {told_by(reason)}") from None
    finally:
        connection.close()


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
    target = parts.path or "/"
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
