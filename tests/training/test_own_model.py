"""The base model as its own creator."""

import dataclasses
import io
import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from reskill_jax.creators.llm.call import CallError, Request
from reskill_jax.models import chat, load_model
from reskill_jax.training import loop, own_model
from reskill_jax.training.config import ModelConfig, TrainConfig, replace
from reskill_jax.training.creators import at_work, creator_of
from reskill_jax.training.own_model import SLICE, OwnModel
from reskill_jax.worlds.household.world import HouseholdWorld

HERE = Path(__file__).parent
REQUEST = Request("0/insight/0", "insight", "Be brief.", "Say <|end|> a word.", {}, 40, 0.7)


@pytest.fixture(scope="module")
def loaded(checkpoint_folder):
    return load_model(checkpoint_folder)


@pytest.fixture(scope="module")
def client(loaded, checkpoint_folder):
    template = chat.read_template(checkpoint_folder)
    return OwnModel(loaded.model, loaded.params, loaded.tokenizer, template, context=256)


def asked(client, **changes):
    request = Request(**{**REQUEST.to_dict(), **changes})
    return client.complete(request, "text", seconds=60)


def test_what_it_writes_is_what_the_model_says(client, loaded):
    """Without chance: token by token as the whole text, encoded anew, says, over several slices."""
    reply = asked(client, temperature=0.0)
    assert reply.output_tokens > SLICE or reply.stop == "end"
    tokenizer, model = loaded.tokenizer, loaded.model
    tokens = tokenizer.encode("<|system|>\nBe brief.<|end|>\n<|user|>\n")
    tokens += tokenizer.encode("Say <|end|> a word.", control=False)
    tokens += tokenizer.encode("<|end|>\n<|agent|>\n")
    assert reply.input_tokens == len(tokens)
    padded = np.zeros((1, 256), np.int32)
    forward = jax.jit(lambda t: model.logits(loaded.params, model.forward(loaded.params, t)))
    said = []
    for _ in range(reply.output_tokens):
        padded[0, : len(tokens) + len(said)] = tokens + said
        logits = forward(jnp.asarray(padded))[0, len(tokens) + len(said) - 1]
        said.append(int(jnp.argmax(logits)))
    ended = reply.stop == "end"
    assert reply.text == tokenizer.decode(said[:-1] if ended else said)


def test_the_same_request_gets_the_same_answer(client):
    one, other = asked(client), asked(client)
    assert one == other and one.output_tokens <= 40
    assert asked(client, place="0/insight/1").text != one.text


def test_what_does_not_fit_asks_for_less(client):
    with pytest.raises(CallError, match="more than 256") as found:
        asked(client, user="x" * 250)
    assert found.value.remedy == "less"


def test_an_answer_that_takes_too_long_is_given_up(client):
    with pytest.raises(CallError, match="no answer within 0 s"):
        client.complete(REQUEST, "text", seconds=0)


def test_waiting_for_its_turn_is_not_the_time_of_a_call(client, monkeypatch):
    now = [0.0]

    class Busy:
        """A lock that others hold for a hundred seconds."""

        def __enter__(self):
            now[0] += 100.0

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(own_model, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(client, "_lock", Busy())
    reply = asked(client)
    assert reply.output_tokens > SLICE and now == [100.0]  # it looked at the time in between


@dataclasses.dataclass(frozen=True)
class Runner:
    config: TrainConfig
    creator: object


@pytest.mark.parametrize("kind, parallel", [("self", 1), ("llm", 7)])
def test_it_is_asked_one_question_at_a_time(loaded, checkpoint_folder, tmp_path, kind, parallel):
    creator = dict(kind=kind, parallel=7) | (
        dict(model="m", url="http://h") if kind == "llm" else {}
    )
    config = replace(TrainConfig(), model=ModelConfig(str(checkpoint_folder)), creator=creator)
    runner = Runner(config, creator_of(config, HouseholdWorld()))
    policy = types.SimpleNamespace(loaded=loaded, params=loaded.params)
    with at_work(runner, types.SimpleNamespace(path=tmp_path), policy) as working:
        assert working.creator.desk._parallel == parallel


def test_its_weights_outlive_those_that_are_trained(loaded, client):
    before = asked(client)
    copy = jax.tree.map(jnp.copy, loaded.params)
    other = OwnModel(loaded.model, copy, loaded.tokenizer, client._template, context=256)
    jax.tree.map(lambda x: x.delete(), copy)  # as the first step does with what it is given
    assert asked(other) == before


def test_after_the_end_nothing_is_computed(loaded):
    other = OwnModel(loaded.model, loaded.params, loaded.tokenizer, None, context=256)
    assert isinstance(asked(other).text, str)  # without a template, in plain text
    other.close()
    with pytest.raises(CallError, match="the run is over"):
        asked(other)


@pytest.mark.slow
def test_a_run(checkpoint_folder, tmp_path, monkeypatch):
    """Random weights say nothing that can be used; the run goes on, and says so."""
    monkeypatch.syspath_prepend(str(HERE))
    config = replace(
        TrainConfig(),
        root=str(tmp_path),
        name="own",
        world="guess_worlds:Guess",
        model=ModelConfig(str(checkpoint_folder)),
        steps=3,
        groups=2,
        group_size=4,
        max_turns=3,
        context_length=240,
        optimizer=dict(minibatches=2),
        trial=dict(concurrent=1, min_steps=1, min_episodes=4, max_steps=2),
        creator=dict(kind="self", reservoir=1, lag=1, contrasts=2, attempts=1, reply_tokens=40),
        prompt=dict(answer_tokens=8),
        sessions=dict(workers=0, patience=0.5),
        eval_every=0,
        eval_tasks=4,
    )
    loop.train(config, console=Console(file=io.StringIO()))
    lines = (tmp_path / "own" / "lifecycle.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    failed = [event for event in events if event["event"] == "creator_failed"]
    assert failed and "pauses for 2 steps" in failed[0]["reason"]


def test_it_needs_a_language_model():
    with pytest.raises(ValueError, match="needs a language model"):
        replace(TrainConfig(), creator=dict(kind="self"))
