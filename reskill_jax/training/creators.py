"""The creator that a configuration names, and what it needs while a run goes on."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax

from reskill_jax.creators.creator import Creator
from reskill_jax.creators.llm.asking import Asker, Limits
from reskill_jax.creators.llm.bedrock import BedrockClient, boto3_is_missing
from reskill_jax.creators.llm.beside import Desk, SharedDesk
from reskill_jax.creators.llm.call import Client
from reskill_jax.creators.llm.clients import (
    ANTHROPIC_KEY,
    ANTHROPIC_URL,
    OPENAI_KEY,
    OPENAI_URL,
    AnthropicClient,
    OpenAIClient,
    base_url,
    key_of,
)
from reskill_jax.creators.llm.creator import LLMCreator, Prices
from reskill_jax.creators.llm.pipeline import Plan
from reskill_jax.creators.rules.creator import RulesCreator
from reskill_jax.creators.rules.recommend import CreatorSettings
from reskill_jax.devices.processes import from_first
from reskill_jax.models import chat
from reskill_jax.storage.replies import ReplyStore
from reskill_jax.storage.run_folder import RunFolder
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.own import creator_named
from reskill_jax.training.own_model import OwnModel
from reskill_jax.training.ranges import RESERVOIR_CAPACITY
from reskill_jax.training.sections import CreatorConfig
from reskill_jax.worlds.world import compiled_of

R = TypeVar("R")


def creator_settings(config: TrainConfig) -> CreatorSettings:
    """The creator's settings that a run's configuration decides."""
    return CreatorSettings(
        min_episodes=config.creator.reservoir,
        trigger_rate=config.creator.trigger_rate,
        retire_after=config.creator.retire_after,
        assertions=config.creator.assertions,
        max_operations=1 if config.trial.split_bundles else config.creator.max_operations,
        experience=config.creator.experience,
        least_chance=config.creator.least_chance,
        contradictions=config.creator.contradictions,
        blame=config.creator.blame,
    )


def creator_of(config: TrainConfig, world: Any) -> Creator[Any]:
    """The creator that a configuration names; without a compiled world's words it mines its own.

    One with a language model proposes nothing before it is `at_work`.

    Raises:
      WorldNameError, OwnPartError: it is one of the user's own, and there is none, or it cannot be
        used.
    """
    told = config.creator
    if told.is_own:
        return creator_named(told.kind)
    compiled = compiled_of(world)
    rules = RulesCreator(
        None if compiled is None else compiled.actions,
        () if compiled is None else compiled.language,
        RESERVOIR_CAPACITY,
        settings=creator_settings(config),
    )
    if told.kind == "rules":
        return rules
    prices = Prices(told.input_price, told.output_price)
    return LLMCreator(rules, fallback=told.fallback == "rules", prices=prices)


@contextlib.contextmanager
def at_work(runner: R, folder: RunFolder, policy: Any) -> Iterator[R]:
    """A runner whose creator has what it needs to propose, until the run is over.

    Args:
      runner: a frozen dataclass with a `config` and a `creator`.
      folder: of the run, where requests and replies are kept.
      policy: `settings.Policy` that the run begins with; nothing has used its parameters up.

    Raises:
      RunFolderError: there are no replies to replay; OtherProcessError: for the first process.
    """
    config, creator = runner.config.creator, runner.creator  # type: ignore[attr-defined]
    if not isinstance(creator, LLMCreator):
        yield runner
        return
    own: list[Desk] = []  # none but in the first process

    def open_own() -> int:
        own.append(open_desk(config, creator, folder, policy))
        return 0

    from_first(open_own)
    desk = own[0] if jax.process_count() == 1 else SharedDesk(own[0] if own else None)
    working = dataclasses.replace(creator, desk=desk)
    try:
        yield dataclasses.replace(runner, creator=working)  # type: ignore[type-var]
    finally:
        desk.close()


def open_desk(config: CreatorConfig, creator: LLMCreator, folder: RunFolder, policy: Any) -> Desk:
    """Where the pipelines of a run are worked on.

    Raises:
      RunFolderError: there are no replies to replay.
    """
    recorded = None if config.recording is None else Path(config.recording)
    store = ReplyStore(folder.path, recorded=recorded)
    limits = Limits(
        config.call_seconds, config.attempts, calls=config.call_budget, tokens=config.token_budget
    )
    alone = config.kind == "self"  # our own model writes one answer at a time
    client = own_model(policy) if alone else client_of(config)
    asker = Asker(None if config.kind == "replay" else client, store, limits)
    plan = Plan(
        creator.rules,
        contrasts=config.contrasts,
        attempts=config.attempts,
        max_tokens=config.reply_tokens,
    )
    parallel = 1 if alone else config.parallel
    return Desk(asker, store, plan, parallel=parallel, lag=config.lag)


def client_of(config: CreatorConfig) -> Client:
    """The client of a provider; keys come from the environment.

    Raises:
      ValueError: a key that cannot be sent.
    """
    model = config.model or ""
    if config.provider == "openai":
        return OpenAIClient(model, base_url(config.url or OPENAI_URL, "/v1"), key_of(OPENAI_KEY))
    if config.provider == "anthropic":
        url = base_url(config.url or ANTHROPIC_URL, "")
        return AnthropicClient(model, url, key_of(ANTHROPIC_KEY))
    return BedrockClient(model, config.url)


def own_model(policy: Any) -> OwnModel:
    """The model that a run begins with, as a client."""
    loaded = policy.loaded
    return OwnModel(
        loaded.model, policy.params, loaded.tokenizer, chat.read_template(loaded.folder)
    )


def lacks(config: CreatorConfig) -> str | None:
    """What a creator cannot do without and does not have here, in one line; None = nothing.

    Raises:
      ValueError: a key that cannot be sent.
    """
    if config.kind == "rules" or config.is_own:
        return None
    if config.kind == "self" and jax.process_count() > 1:
        return "--creator self works in one process; several train with --creator llm or rules"
    if config.kind in ("replay", "self"):
        return None
    keys = {"openai": OPENAI_KEY, "anthropic": ANTHROPIC_KEY}
    name = keys.get(config.provider)
    if name is not None and config.url is None and key_of(name) is None:
        return f"--creator.provider {config.provider} without --creator.url needs {name} to be set"
    if config.provider == "bedrock" and boto3_is_missing():
        return '--creator.provider bedrock needs boto3: pip install "reskill-jax[bedrock]"'
    return None
