"""A POST to a model's server, with what is to be done about a failure."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from reskill_jax.network import post as network
from reskill_jax.network.post import PostError, Response

from .call import MAX_REPLY, CallError, told_by


def post(
    url: str, body: Any, headers: Mapping[str, str], *, key: str | None, seconds: float
) -> Response:
    """See `network.post.post`.

    Raises:
      CallError: no connection, or no complete answer in time.
    """
    try:
        return network.post(
            url, body, headers, secret=key, seconds=seconds, most_bytes=4 * MAX_REPLY
        )
    except PostError as error:
        if error.failure == "timeout":
            raise CallError("later", f"no answer within {seconds:g} s") from None
        if error.failure == "large":
            raise CallError("never", f"the server sent {error}") from None
        told = "cannot be reached" if error.failure == "unreachable" else "broke off"
        raise CallError("later", f"{urlsplit(url).netloc} {told}: {error}") from None


def json_of(response: Response) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
      CallError: it is none; a proxy's page, say.
    """
    try:
        value = json.loads(response.body.decode("utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        shown = told_by(response.body[:400].decode("utf-8", "replace"))
        raise CallError("later", f"the server sent no JSON object but {shown!r}")
    return value
