"""Asks a retriever over HTTP: the protocol of Search-R1's retrieval server, which the paper uses.

POST /retrieve {"queries": [text], "topk": 3, "return_scores": true} is answered by
{"result": [[{"document": {"contents": text}, "score": number}, ...]]}, best passage first.
"""

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from .protocol import Found, SearchError

MOST_BYTES = 1 << 20  # of a reply; three passages have a few thousand
_BUSY = (429, 500, 502, 503, 504)  # it may answer the next time
_CHUNK = 1 << 16


class _Again(Exception):
    """An attempt that failed in a way that may pass; the message is one line."""


class _Unusable(Exception):
    """A reply that another attempt will not mend; the message is one line."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A retriever answers at the address it was given: no other is asked for it."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


class Retriever:
    """A retriever behind an address. Nothing that goes wrong there is raised: it is told.

    A search can take `longest` seconds while the server is away. Where a step of a session has a
    shorter limit, as it has by default, the limit ends the session first: raise the one or give
    the retriever fewer attempts.

    Attributes:
      url: that is asked.
      topk: passages that are asked for.
      timeout: seconds that an attempt may take.
      attempts: that are made.
    """

    def __init__(
        self,
        url: str,
        topk: int = 3,
        timeout: float = 60.0,
        attempts: int = 10,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ):
        """Checks the address; the server is not asked yet.

        Args:
          url: of the server, with or without /retrieve at its end.
          topk: passages that are asked for.
          timeout: seconds that an attempt may take.
          attempts: that are made; before the second one a second passes, then two, and so on.
          sleep: waits for that long.

        Raises:
          SearchError: this is no address of a server, or a number is not positive.
        """
        if topk < 1 or attempts < 1 or timeout <= 0:
            raise SearchError("topk, timeout and attempts of a retriever are positive")
        self.url = _address(url)
        self.topk, self.timeout, self.attempts = topk, timeout, attempts
        self._sleep = sleep

    @property
    def longest(self) -> float:
        """Seconds that a search can take: all attempts, and the waits between them."""
        return self.attempts * self.timeout + sum(range(1, self.attempts))

    def search(self, query: str) -> Found:
        """The passages that are found for a query, or one line about what went wrong."""
        asked = {"queries": [_plain(query)], "topk": self.topk, "return_scores": True}
        body = json.dumps(asked).encode("ascii")
        told = ""
        for attempt in range(1, self.attempts + 1):
            try:
                return Found(passages_of(self._post(body))[: self.topk])
            except _Unusable as error:
                return Found(error=str(error))
            except _Again as error:
                told = str(error)
            if attempt < self.attempts:
                self._sleep(attempt)
        times = "once" if self.attempts == 1 else f"{self.attempts} times"
        return Found(error=f"{told} (tried {times})")

    def _post(self, body: bytes) -> bytes:
        """The reply to one attempt."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")
        opener = urllib.request.build_opener(_NoRedirects)
        deadline = time.monotonic() + self.timeout
        try:
            with opener.open(request, timeout=self.timeout) as response:
                return _read(response, deadline)
        except urllib.error.HTTPError as error:
            with error:
                kind = _Again if error.code in _BUSY else _Unusable
                raise kind(f"the retriever answered with status {error.code}") from None
        except TimeoutError:
            raise _Again(f"the retriever took more than {self.timeout:g} seconds") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                told = f"the retriever took more than {self.timeout:g} seconds"
                raise _Again(told) from None
            told = getattr(reason, "strerror", None) or type(reason).__name__
            raise _Again(f"the retriever cannot be reached ({told})") from None
        except (http.client.HTTPException, ValueError) as error:
            told = type(error).__name__  # its text is the server's
            raise _Again(f"the retriever's reply broke off ({told})") from None


def _address(url: str) -> str:
    """The address that is asked. Raises SearchError."""
    try:
        parts = urllib.parse.urlsplit(url)
        usable = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and "@" not in parts.netloc
            and parts.port != 0  # reading it raises where it is none
            and all("!" <= character <= "~" for character in url)
        )
    except ValueError:
        usable = False
    if not usable:
        raise SearchError(f"{url!r:.200} is no address of a retriever (http://HOST:PORT)")
    path = parts.path.rstrip("/")
    path = path if path.endswith("/retrieve") else f"{path}/retrieve"
    return parts._replace(path=path, fragment="").geturl()


def _read(response: Any, deadline: float) -> bytes:
    """A reply of bounded size: the time limit of a socket is one of each read, not of all."""
    data = bytearray()
    while chunk := response.read1(_CHUNK):
        data += chunk
        if len(data) > MOST_BYTES:
            raise _Unusable(f"the retriever's reply has more than {MOST_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(data)


def passages_of(data: bytes) -> tuple[str, ...]:
    """The passages in a reply to one query. Raises an error of one line where there are none."""
    try:
        reply = json.loads(data)
    except (ValueError, RecursionError):
        raise _Unusable("the retriever's reply is not JSON") from None
    results = reply.get("result") if isinstance(reply, dict) else None
    if not isinstance(results, list) or not all(isinstance(one, list) for one in results):
        raise _Unusable('the retriever\'s reply has no lists of passages under "result"')
    passages = []
    for item in results[0] if results else ():
        document = item.get("document") if isinstance(item, dict) else None
        contents = document.get("contents") if isinstance(document, dict) else None
        if not isinstance(contents, str):
            raise _Unusable('a passage in the retriever\'s reply has no text under "contents"')
        passages.append(contents)
    return tuple(passages)


def _plain(text: str) -> str:
    """A text that every server can decode: halves of characters are replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")
