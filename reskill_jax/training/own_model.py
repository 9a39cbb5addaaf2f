"""The base model itself as creator: it answers through the functions that play, on the same device.

The paper's ablation. Its weights are those that the run began with, kept apart from those that are
trained. Answers are written a few tokens at a time, so that steps of training come in between.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.creators.llm.call import CallError, Form, Reply, Request
from reskill_jax.models import chat
from reskill_jax.models.families import ModelError
from reskill_jax.models.tokenizer import Tokenizer
from reskill_jax.rollouts.acting import Given
from reskill_jax.rollouts.answers import empty_cache, write_answers

CONTEXT = 8192  # tokens of question and answer
SLICE = 32  # tokens that are written without a break
_FIRST_CHUNK = 64  # tokens of a question that are encoded at a time


class OwnModel:
    """A `Client` that asks a model of our own; what it samples follows from the request alone."""

    forms: tuple[Form, ...] = ("text",)

    def __init__(
        self,
        model: Any,
        params: Any,
        tokenizer: Tokenizer,
        template: tuple[str, Mapping[str, Any]] | None,
        *,
        context: int = CONTEXT,
    ) -> None:
        """Keeps a copy of the parameters, in the precision that the model computes in.

        Args:
          model: of `reskill_jax.models`. params: of it.
          tokenizer: of it.
          template: its chat template, as `chat.read_template` gives it; None = plain text.
          context: tokens of question and answer.
        """
        self._model, self._tokenizer, self._template = model, tokenizer, template
        self._params = jax.tree.map(lambda x: jnp.array(x, dtype=model.dtype, copy=True), params)
        self._context = context
        self._lock = threading.Lock()  # one answer at a time: each has a cache
        self._closed = threading.Event()

    def complete(self, request: Request, form: Form, *, seconds: float) -> Reply:
        """See `Client`. `seconds` begin when its turn comes: one answer is written at a time."""
        asked, stops = self._prompt(request)
        if len(asked) + request.max_tokens > self._context:
            raise CallError(
                "less",
                f"{len(asked)} tokens and {request.max_tokens} of the answer are more than "
                f"{self._context}",
            )
        with self._lock:
            if self._closed.is_set():
                raise CallError("never", "the run is over")
            end = time.monotonic() + seconds
            said, ended = self._write(asked, stops, request, end, seconds)
        text = self._tokenizer.decode(said[:-1] if ended else said)
        return Reply(text, "end" if ended else "length", len(asked), len(said))

    def close(self) -> None:
        """Waits until nothing is computed any more, which takes no longer than a slice."""
        self._closed.set()
        with self._lock:
            pass

    def _prompt(self, request: Request) -> tuple[list[int], set[int]]:
        """The tokens of a question, and those of which each ends the answer."""
        encode = self._tokenizer.encode
        if self._template is None:
            pieces = chat.plain_pieces(request.system, "\n\nAnswer:\n")
        else:
            template, named = self._template
            try:
                pieces = chat.cut_template(template, named, request.system)
            except ModelError as error:
                raise CallError("never", str(error)) from error
        tokens = [*encode(pieces.start), *encode(request.user, control=False), *encode(pieces.ask)]
        if self._template is None:
            return [*self._tokenizer.start, *tokens], set(self._tokenizer.stop)
        ends = encode(pieces.answered)[:1]
        return tokens, {*self._tokenizer.stop, *ends}

    def _write(
        self, asked: list[int], stops: set[int], request: Request, end: float, seconds: float
    ) -> tuple[list[int], bool]:
        """The tokens of an answer, and whether it has ended by itself."""
        model = self._model
        tokens = np.zeros((1, self._context), np.int32)
        tokens[0, : len(asked)] = asked
        length, held, written = len(asked), 0, 0
        cache = empty_cache(rows=1, capacity=self._context, model=model)
        keys = jax.random.key(int(request.digest[:8], 16))[None]
        ends = np.asarray([[stop] for stop in sorted(stops)], np.int32).reshape(-1, 1)
        while written < request.max_tokens:
            given = Given(
                keys,
                self._params,
                np.asarray([written // SLICE], np.int32),
                np.ones(1, bool),
                np.float32(request.temperature),
            )
            cache, *found = write_answers(
                cache,
                tokens,
                np.asarray([length], np.int32),
                np.asarray([held], np.int32),
                given,
                np.asarray([min(SLICE, request.max_tokens - written)], np.int32),
                ends,
                model=model,
                most=SLICE,
                candidates=0,
                first_chunk=_FIRST_CHUNK,
            )
            new, holds = jax.device_get(found)
            count = int(new.length[0]) - length
            tokens, length, held = np.array(new.tokens), int(new.length[0]), int(holds[0])
            written += count
            if tokens[0, length - 1] in stops:
                return tokens[0, length - written : length].tolist(), True
            if time.monotonic() > end or self._closed.is_set():
                raise CallError("later", f"no answer within {seconds:g} s")
        return tokens[0, length - written : length].tolist(), False
