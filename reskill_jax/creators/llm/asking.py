"""One policy for all clients: deadline, attempts, budget, forms of answer, and the record of it.

Every call that is made is recorded with what it brought, failures included; a call that is on
record is not made again. So whoever goes through the same questions once more, after a crash or
without a network, meets the same answers and the same failures in the same order.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from reskill_jax.storage.replies import ReplyStore

from .call import FORMS, CallError, Client, Form, Remedy, Reply, Request
from .reading import ReplyError, parse_reply

T = TypeVar("T")
_CHARACTERS_PER_TOKEN = 4  # where a server does not count
_LONGEST_PAUSE = 30.0  # seconds between two attempts, unless the server asks for more
_MOST_ROOM = 4  # times the tokens of an answer, after answers that were cut off


class Stopped(Exception):
    """The run is over, so nobody waits for an answer any more."""


class _BudgetError(Exception):
    """A call that must not be made any more."""


@dataclasses.dataclass(frozen=True)
class Spent:
    """What calls have cost."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0  # of all calls together; several may be under way at once

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            round(self.seconds + other.seconds, 3),
        )

    @property
    def tokens(self) -> int:
        """Of questions and answers."""
        return self.input_tokens + self.output_tokens

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a run may spend on its creator.

    Attributes:
      seconds: of a call.
      attempts: at an answer, whatever is wrong with the earlier ones.
      calls, tokens: of the whole run; None = any number.
    """

    seconds: float = 60.0
    attempts: int = 3
    calls: int | None = None
    tokens: int | None = None


class Ladder:
    """Which form of answer a server knows: found out once, and then remembered."""

    def __init__(self, forms: tuple[Form, ...]) -> None:
        """Begins with the strictest form."""
        self._lock = threading.Lock()
        self._forms, self._at, self._proven = forms, 0, False

    @property
    def form(self) -> Form:
        """To ask in."""
        with self._lock:
            return self._forms[self._at]

    def works(self, form: Form) -> None:
        """An answer came in this form."""
        with self._lock:
            self._at, self._proven = self._forms.index(form), True

    def refuses(self, form: Form, *, certainly: bool) -> bool:
        """The server does not answer in this form; returns whether there is another to try.

        A form that has worked before is not given up for an error that may have other reasons.
        """
        with self._lock:
            if self._proven and not certainly:
                return False
            at = self._forms.index(form)
            if at + 1 >= len(self._forms):
                return False
            self._at = max(self._at, at + 1)
            return True


class Asker:
    """Asks a server on behalf of one run. Threads may share one."""

    def __init__(
        self,
        client: Client | None,
        store: ReplyStore,
        limits: Limits,
        *,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        """Asks nothing yet.

        Args:
          client: None = only what is on record is answered.
          store: where calls are recorded and looked up.
          limits: of what may be spent.
          wait: called with seconds to wait; returns whether the run is over meanwhile.
        """
        self._client, self._store, self._limits = client, store, limits
        self._stop = threading.Event()
        self._wait = self._stop.wait if wait is None else wait
        self._ladder = Ladder(FORMS if client is None else client.forms)
        self._lock = threading.Lock()
        self._used = Spent()

    def begin(self, used: Spent) -> None:
        """Takes over what a run has spent so far, as its checkpoint tells."""
        with self._lock:
            self._used = used

    def close(self) -> None:
        """No further call is begun, no pause is waited out."""
        self._stop.set()
        if self._client is not None:
            self._client.close()

    def left(self, used: Spent) -> tuple[float, float]:
        """Calls and tokens that a run may still spend that has spent `used`."""
        calls, tokens = self._limits.calls, self._limits.tokens
        return (
            float("inf") if calls is None else calls - used.calls,
            float("inf") if tokens is None else tokens - used.tokens,
        )

    def ask(
        self, request: Request, read: Callable[[dict[str, Any]], T], tell: Callable[[Spent], None]
    ) -> T:
        """Asks until there is an answer that can be used, or the attempts are used up.

        Args:
          request: the question.
          read: makes something of the answer; raises ReplyError with feedback if it cannot.
          tell: called with what each call cost.

        Raises:
          CallError: there is no answer. Stopped: the run is over.
        """
        room = _MOST_ROOM * request.max_tokens
        for attempt in range(1, self._limits.attempts + 1):
            last = attempt == self._limits.attempts
            reply = self._complete(request, tell)
            if reply.stop == "refused":
                raise CallError("never", f"the model refuses: {reply.text[:100] or 'no reason'}")
            try:
                return read(parse_reply(reply.text, request.schema))
            except ReplyError as error:
                if reply.stop == "length":
                    if last:
                        raise CallError(
                            "less", f"the answer is longer than {request.max_tokens} tokens"
                        ) from None
                    request = request.with_room(room)
                    continue
                if last:
                    told = f"no usable answer in {attempt} attempts: {error}"
                    raise CallError("never", told) from None
                request = request.after(str(error))
        raise AssertionError("an asker makes at least one attempt")

    def _complete(self, request: Request, tell: Callable[[Spent], None]) -> Reply:
        """One answer, whatever it holds: other forms are tried, what may pass is tried again."""
        digest, number, failures = request.digest, 0, 0
        while True:
            number += 1
            entry = self._store.find(digest, number)
            if entry is None:
                entry = self._call(request, digest, number)
            else:
                self._replayed(entry)
            tell(_cost(entry))
            if entry["remedy"] is None:
                return Reply(entry["text"], entry["stop"])
            if entry["remedy"] == "form":  # the next call is in another one
                continue
            error = CallError(entry["remedy"], entry["error"], entry.get("wait"))
            failures += 1
            if error.remedy != "later" or failures >= self._limits.attempts:
                raise error
            if self._store.find(digest, number + 1) is None:
                pause = min(2.0**failures, _LONGEST_PAUSE) if error.wait is None else error.wait
                if self._wait(pause):
                    raise Stopped

    def _call(self, request: Request, digest: str, number: int) -> dict[str, Any]:
        """Makes a call and records it; returns the record."""
        if self._stop.is_set():
            raise Stopped
        if self._client is None:
            raise CallError("never", "there is no record of the reply to this request")
        form = self._ladder.form
        entry: dict[str, Any] = {"form": form, "remedy": None, "calls": 1}
        began = time.monotonic()
        try:
            self._take()
            reply = self._client.complete(request, form, seconds=self._limits.seconds)
            entry |= dataclasses.asdict(reply)
            self._ladder.works(form)
        except _BudgetError as error:
            entry |= {"remedy": "never", "error": str(error), "calls": 0}
        except CallError as error:
            if self._stop.is_set():  # given up by us: nothing that the server has done
                raise Stopped from None
            entry |= {"remedy": error.remedy, "error": str(error), "wait": error.wait}
            if error.remedy == "form":
                entry["remedy"] = self._other_form(form, error)
        entry["seconds"] = round(time.monotonic() - began, 3)
        entry |= _counted(entry, request)
        with self._lock:
            self._used += dataclasses.replace(_cost(entry), calls=0)
        self._store.keep(digest, number, request.to_dict(), entry)
        return entry

    def _other_form(self, form: Form, error: CallError) -> Remedy:
        """What a refused form calls for: another one, if there is one that may be known."""
        certainly = not str(error).startswith("HTTP 5")
        if self._ladder.refuses(form, certainly=certainly):
            return "form"
        return "never" if certainly else "later"

    def _replayed(self, entry: Mapping[str, Any]) -> None:
        """Learns from a recorded call what it would have learned from making it."""
        if entry["remedy"] is None:
            self._ladder.works(entry["form"])
        elif entry["remedy"] == "form":
            self._ladder.refuses(entry["form"], certainly=True)
        with self._lock:
            self._used += _cost(entry)

    def _take(self) -> None:
        """Counts one more call, if it may be made."""
        with self._lock:
            calls, tokens = self.left(self._used)
            if calls < 1:
                raise _BudgetError(f"the budget of {self._limits.calls} calls is used up")
            if tokens < 1:
                raise _BudgetError(f"the budget of {self._limits.tokens} tokens is used up")
            self._used += Spent(calls=1)


def _counted(entry: Mapping[str, Any], request: Request) -> dict[str, int]:
    """Tokens of a call; estimated from the characters where the server does not count."""
    if entry["remedy"] is not None:
        return {"input_tokens": 0, "output_tokens": 0}
    asked = len(request.system) + len(request.user)
    guess = {"input_tokens": asked, "output_tokens": len(entry["text"])}
    return {
        name: -(-characters // _CHARACTERS_PER_TOKEN) if entry[name] is None else entry[name]
        for name, characters in guess.items()
    }


def _cost(entry: Mapping[str, Any]) -> Spent:
    tokens = entry["input_tokens"], entry["output_tokens"]
    return Spent(entry["calls"], *tokens, entry["seconds"])
