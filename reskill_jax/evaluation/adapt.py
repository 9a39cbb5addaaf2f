"""A frozen agent plays a world on the host, and its skills are compared and adopted meanwhile.

An agent plays episodes with the skills they are drawn with: a language model behind an address, or
a policy of ours. Nothing of it is trained.
"""

import concurrent.futures
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax

from reskill_jax.agents.episode import AgentEpisode, AgentStep, Draw
from reskill_jax.agents.rendering import render_note
from reskill_jax.agents.trials import SkillTrials
from reskill_jax.evaluation.replay import load_run
from reskill_jax.models.sharding import gather_for_rollout
from reskill_jax.rollouts.conversation import Conversation
from reskill_jax.rollouts.host import play_host
from reskill_jax.training.config import TrainConfig, replace
from reskill_jax.training.host import HostRunner, make_host_runner
from reskill_jax.training.sections import ModelConfig
from reskill_jax.training.settings import load_policy, open_world
from reskill_jax.worlds.host_worlds import MadeWorld
from reskill_jax.worlds.registry import WORLDS, WorldError
from reskill_jax.worlds.tau_rec.chat import ChatClient, ChatError
from reskill_jax.worlds.world import HostWorld, TaskSpec

ASK = "Answer with your next action alone, on one line."
_TRIES = 3  # to name an action that is possible
_MOST_USELESS = 3  # tasks in a row without a valid episode


class NobodyPlays(RuntimeError):
    """No episode of several tasks in a row is valid; the message is one line."""


class Outcomes(NamedTuple):
    """What became of the episodes."""

    won: int
    invalid: int
    reason: str  # of the last that is invalid; "" = all are valid


class Pair(NamedTuple):
    """An episode to play."""

    draw: Draw
    task: TaskSpec


class Agent(Protocol):
    """Who plays."""

    def play(self, pairs: Sequence[Pair]) -> list[AgentEpisode]:
        """Plays episodes; they come back in their order, judged by the world."""
        ...

    def close(self) -> None:
        """Gives back what it holds."""
        ...


def adapt(
    trials: SkillTrials,
    tasks: Sequence[TaskSpec],
    agent: Agent,
    *,
    episodes: int,
    at_once: int = 8,
    notify: Callable[[dict[str, Any]], None] = lambda line: None,
) -> Outcomes:
    """Plays tasks one after another, each as often as a group is large.

    A store that was played with before goes on with the next task.

    Args:
      trials: the store.
      tasks: of the world; after the last one the first follows.
      agent: who plays.
      episodes: to play.
      at_once: episodes that are drawn and played together.
      notify: told every line of the lifecycle log.

    Raises:
      NobodyPlays: no episode of three tasks in a row is valid; they are reported before.
    """
    group, done, won = trials.settings.group_size, trials.status().draws, 0
    invalid, reason, useless = 0, "", set[str]()  # tasks since the last valid episode
    for first in range(0, episodes, at_once):
        pairs = []
        for number in range(first, min(first + at_once, episodes)):
            task = tasks[(done + number) // group % len(tasks)]
            pairs.append(Pair(trials.draw(task.id, text=task.text, kind=task.kind), task))
        for pair, episode in zip(pairs, agent.play(pairs), strict=True):
            won += bool(episode.success)
            if episode.invalid is None:
                useless.clear()
            else:
                invalid, reason = invalid + 1, episode.invalid
                useless.add(pair.task.id)
            for event in trials.report(episode).events:
                notify(dict(event))
        if len(useless) >= min(_MOST_USELESS, len(tasks)):
            raise NobodyPlays(f"no episode of {len(useless)} tasks in a row is valid: {reason}")
    return Outcomes(won, invalid, reason)


class ChatAgent:
    """A language model behind an OpenAI-compatible address; sessions run in this process."""

    def __init__(
        self, client: ChatClient, world: HostWorld, *, max_turns: int = 30, at_once: int = 8
    ) -> None:
        """Asks nothing yet."""
        self.client, self.world, self.max_turns = client, world, max_turns
        self._pool = concurrent.futures.ThreadPoolExecutor(at_once)

    def play(self, pairs: Sequence[Pair]) -> list[AgentEpisode]:
        """See `Agent`."""
        return list(self._pool.map(self._play, pairs))

    def _play(self, pair: Pair) -> AgentEpisode:
        started, steps, told = time.time(), list[AgentStep](), dict[str, Any]()
        try:
            opening, success = self._episode(pair, steps)
            told = dict(opening=opening, success=success)
        except Exception as error:  # of the session or the model: the episode says nothing
            told = dict(invalid=" ".join(f"{type(error).__name__}: {error}".split())[:1000])
        return AgentEpisode(
            pair.draw.id,
            tuple(steps),
            framework="reskill_jax",
            model=self.client.model,
            started=started,
            duration=time.time() - started,
            **told,
        )

    def _episode(self, pair: Pair, steps: list[AgentStep]) -> tuple[str, bool]:
        """Plays an episode into `steps`; what the session began with, and whether it was won."""
        session, success = self.world.open(pair.task), False
        try:
            opening = observation = session.reset()
            if pair.task.text and pair.task.text not in observation:
                opening = observation = f"{pair.task.text}\n\n{observation}"
            instruction = "\n\n".join(filter(None, (getattr(self.world, "instruction", ""), ASK)))
            messages = [{"role": "system", "content": instruction}]
            while len(steps) < self.max_turns:
                last = steps[-1].action if steps else None
                skills = pair.draw.firing(
                    turn=len(steps), last_action=last, observation=observation
                )
                action = self._ask(messages, observation, render_note(skills), session.choices())
                if action is None:
                    break
                outcome = session.step(action)
                observation, success = outcome.observation, outcome.success
                names = tuple(skill.name for skill in skills)
                steps.append(AgentStep(action, observation, names))
                if outcome.done:
                    break
            return opening, success
        finally:
            session.close()

    def _ask(
        self,
        messages: list[dict[str, str]],
        observation: str,
        note: str,
        choices: Sequence[str] | None,
    ) -> str | None:
        """The next action; None = none that is possible. Notes and lists are shown once."""
        messages.append({"role": "user", "content": observation})
        asked = [observation] if choices is None else [observation, _list(choices)]
        asked += [note] if note else []
        now = [*messages[:-1], {"role": "user", "content": "\n\n".join(asked)}]
        for _ in range(_TRIES):
            text = str(self.client.complete(now).get("content") or "").strip()
            if "</think>" in text:
                text = text.rpartition("</think>")[2].strip()
            action = _chosen(text, choices)
            if action is not None:
                messages.append({"role": "assistant", "content": action})
                return action
            now += [{"role": "assistant", "content": text or "(nothing)"}]
            now += [{"role": "user", "content": f"That is not possible now. {ASK}"}]
        return None

    def close(self) -> None:
        """Ends its threads."""
        self._pool.shutdown()


def _list(choices: Sequence[str]) -> str:
    return "\n".join(["Possible now:", *(f"- {choice}" for choice in choices)])


def _chosen(text: str, choices: Sequence[str] | None) -> str | None:
    if choices is None:
        return text or None
    known = {" ".join(choice.lower().split()): choice for choice in choices}
    lines = [" ".join(line.lower().strip(" -*>`\"'.").split()) for line in text.splitlines()]
    return next((known[line] for line in reversed(lines) if line in known), None)


class PolicyAgent:
    """A policy of ours: that of a run, the shipped one, or a checkpoint of the Hub."""

    def __init__(self, runner: HostRunner, params: Any, name: str) -> None:
        """Takes a runner with its workers; `policy_agent` makes one."""
        self.runner, self.params, self.name = runner, params, name

    def play(self, pairs: Sequence[Pair]) -> list[AgentEpisode]:
        """See `Agent`. What an episode samples follows from its draw."""
        seed, started = jax.random.key(self.runner.config.seed), time.time()
        draws = jax.numpy.asarray([pair.draw.id for pair in pairs])
        played = play_host(
            [pair.task for pair in pairs],
            [pair.draw.skills for pair in pairs],
            jax.vmap(lambda number: jax.random.fold_in(seed, number))(draws),
            self.params,
            pool=self.runner.pool,
            plan=self.runner.plan,
            slots=max(self.runner.config.slots, *(len(pair.draw.skills) for pair in pairs)),
            temperature=self.runner.config.temperature,
        )
        duration = (time.time() - started) / len(pairs)
        return [
            self._told(pair, one, started, duration)
            for pair, one in zip(pairs, played.conversations, strict=True)
        ]

    def _told(self, pair: Pair, one: Conversation, started: float, duration: float) -> AgentEpisode:
        steps = zip(one.actions, one.observations[1:], one.fired)
        return AgentEpisode(
            pair.draw.id,
            tuple(AgentStep(*step) for step in steps),
            one.success if one.valid else None,
            None if one.valid else f"{one.cause}: {one.detail}",
            opening=one.observations[0] if one.observations else "",
            framework="reskill_jax",
            model=self.name,
            started=started,
            duration=duration,
        )

    def close(self) -> None:
        """Ends the workers."""
        self.runner.close()


def policy_agent(agent: str, made: MadeWorld, config: TrainConfig, *, name: str) -> PolicyAgent:
    """A policy that plays a world on the host.

    Args:
      agent: folder of a run, or what `--model` takes.
      made: the world.
      config: how it is played: world, limits, workers.
      name: of the agent, for reports.

    Raises what `load_run`, `load_policy` and `make_host_runner` raise.
    """
    if (Path(agent) / "config.json").is_file() and (Path(agent) / "checkpoints").is_dir():
        run = load_run(agent)
        config = replace(config, model=vars(run.config.model), slots=run.config.slots)
        policy, params = run.policy, run.params
        if run.config.world != config.world and policy.prompt is not None:
            policy = load_policy(config.model, made.world, read_params=False, prompt=config.prompt)
    else:
        config = replace(config, model=vars(ModelConfig(agent)))
        policy = load_policy(config.model, made.world, prompt=config.prompt)
        params = policy.params
    runner = make_host_runner(config, made, policy._replace(params=()), trains=False)
    read = jax.jit(lambda params: gather_for_rollout(params, policy.model))
    return PolicyAgent(runner, read(params), name)


def open_host_world(config: TrainConfig) -> MadeWorld:
    """The world that a configuration names, which has to be one on the host.

    Raises:
      WorldError: it is compiled, or cannot be made.
    """
    opened = open_world(config)
    if not isinstance(opened, MadeWorld):
        as_text = f"{config.world}_text"
        hint = f"; its games as text are called {as_text}" if as_text in WORLDS else ""
        raise WorldError(f"{config.world} is a compiled world: no agent plays it in text{hint}")
    return opened


__all__ = [
    "Agent",
    "ChatAgent",
    "ChatClient",
    "ChatError",
    "Pair",
    "PolicyAgent",
    "adapt",
    "open_host_world",
    "policy_agent",
]
