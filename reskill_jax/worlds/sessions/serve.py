"""The loop that steps sessions: in a process of its own, or in a thread."""

import contextlib
import importlib
import os
import pickle
import select
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from .messages import Reply, SessionError, choices_of, encode, failed, line_of, reply_of

MOST_CHARACTERS = 100_000  # of an observation
GRACE = 5.0  # seconds that a worker has to close its sessions, when nobody needs them any more


class WorldNameError(ValueError):
    """MODULE:CLASS that names no world; the message is one line."""


def world_made(name: str) -> Any:
    """What MODULE:CLASS makes; the module is looked for here, too.

    Raises:
      WorldNameError: there is no such module or class, or it cannot be made.
    """
    made = object_named(name, f"the world {name}")
    try:
        return made() if callable(made) else made
    except (Exception, SystemExit) as error:
        raise WorldNameError(f"the world {name} cannot be made ({line_of(error)})") from error


def world_named(name: str) -> Any:
    """The world on the host that MODULE:CLASS names, see `world_made`.

    Raises:
      WorldNameError: it cannot be made, or is no world on the host.
    """
    return checked(name, world_made(name))


def checked(name: str, world: Any) -> Any:
    """A world on the host, if it is one.

    Raises:
      WorldNameError: it has no tasks, or cannot be opened.
    """
    for method in ("tasks", "open"):
        if not callable(getattr(world, method, None)):
            raise WorldNameError(f"{name} is no world: it has no method {method}")
    return world


def object_named(name: str, what: str) -> Any:
    """What MODULE:NAME names; the module is looked for here, too.

    Args:
      name: MODULE:NAME, with dots for names inside of others.
      what: is looked for, for messages.

    Raises:
      WorldNameError: there is no such module or name.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise WorldNameError(f"{what}: something of your own is named MODULE:NAME")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise WorldNameError(f"{what}: cannot import {module} ({line_of(error)})") from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise WorldNameError(f"{what}: {module} has no {attribute}") from None
    except (Exception, SystemExit) as error:  # of a module that imports when it is asked
        raise WorldNameError(f"{what}: cannot import {module} ({line_of(error)})") from error
    return found


def serve(connection: Connection, world: Any, *, most: int = MOST_CHARACTERS) -> None:
    """Answers requests until the other end closes the connection.

    Requests are (what, place, payload): ("open", place, task as a pickle), ("step", place, action)
    and ("close", place, None), which has no answer. Whatever a session raises is its failure alone.
    """
    sessions: dict[int, Any] = {}
    with contextlib.closing(connection):
        while True:
            try:
                what, place, payload = connection.recv()
            except (EOFError, OSError):
                break
            if what == "close":
                _close(sessions.pop(place, None))
                continue
            reply = _answer(sessions, what, place, payload, world, most)
            if reply.failed:
                _close(sessions.pop(place, None))
            try:
                connection.send_bytes(encode(reply))
            except OSError:
                break
        for session in sessions.values():
            _close(session)


def _answer(
    sessions: dict[int, Any], what: str, place: int, payload: Any, world: Any, most: int
) -> Reply:
    try:
        if what == "open":
            session = sessions[place] = world.open(pickle.loads(payload))  # from the parent
            outcome = session.reset()
        else:
            session = sessions[place]
            outcome = session.step(payload)
        reply = reply_of(place, outcome, None, most=most)
        choices = getattr(session, "choices", None)
        if reply.done or choices is None:
            return reply
        return reply._replace(choices=choices_of(choices()))
    except BaseException as error:  # SystemExit, too: a session must not end the others
        cause = "malformed" if isinstance(error, SessionError) else "raised"
        return failed(place, cause, line_of(error))


def _close(session: Any) -> None:
    with contextlib.suppress(BaseException):  # it is over, whatever it says
        close = getattr(session, "close", None)
        if close is not None:
            close()


def main(handle: int) -> None:
    """A worker process: its first message says which world, its first answer whether there is one.

    Args:
      handle: of its connection.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when it is over
    os.set_inheritable(handle, False)  # an engine that outlives the worker must not hold it open
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # what worlds print is no output of the parent's
    threading.Thread(target=_end_with_parent, args=(handle,), daemon=True).start()
    connection = Connection(handle)
    try:
        told = connection.recv()
    except (EOFError, OSError):
        return
    try:
        if told["name"] is not None:
            world = world_named(told["name"])
        else:
            world = pickle.loads(told["world"])  # from the parent, who made it
        reply = Reply(-1)
    except WorldNameError as error:
        reply = failed(-1, "start", str(error))
    except (Exception, SystemExit) as error:
        reply = failed(-1, "start", f"the world cannot be unpickled ({line_of(error)})")
    with contextlib.suppress(OSError):
        connection.send_bytes(encode(reply))
    if not reply.failed:
        serve(connection, world, most=told["most"])


def _end_with_parent(handle: int) -> None:
    """Ends a worker that is in the middle of a call when nobody waits for it any more."""
    waiting = select.poll()
    waiting.register(handle, 0)  # that the other end is gone is told unasked
    waiting.poll()
    time.sleep(GRACE)
    os._exit(1)
