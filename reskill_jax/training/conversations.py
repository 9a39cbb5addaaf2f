"""What conversations are to training: evidence for the creator, versions that differ, validity."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from reskill_jax.creators.episode import Episode
from reskill_jax.models.sampling import NO_TOKEN
from reskill_jax.rollouts.conversation import Conversation
from reskill_jax.rollouts.episodes import Rollouts
from reskill_jax.rollouts.host import HostRollouts
from reskill_jax.skills.skill import Skill
from reskill_jax.storage.sampled import SampledEpisode, Turn
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.lifecycle import Versions
from reskill_jax.training.settings import TrainingError
from reskill_jax.worlds.world import TaskSpec


def arms_differ_in(versions: Versions, task: str) -> np.ndarray:
    """[A] bool: arms that can play a task otherwise than arm 0; see `skills.bank.arms_differ`."""
    concerned = [
        Counter((s.trigger, s.advice) for s in version if s.trigger.applies_to_task(task))
        for version in versions
    ]
    return np.array([one != concerned[0] for one in concerned])


def versions_differ(versions: Versions, tasks: Sequence[TaskSpec]) -> np.ndarray:
    """[tasks, A] bool: `arms_differ_in` of every task."""
    return np.stack([arms_differ_in(versions, task.text) for task in tasks])


def wrote_text(played: Rollouts) -> bool:
    """Whether some token was chosen from the whole vocabulary."""
    rows = played.transcript
    used = np.arange(rows.position.shape[1]) < rows.count[:, None]
    return bool(np.any(used & np.all(rows.support == NO_TOKEN, axis=-1)))


def episode_of(
    told: Conversation, task: str, arm: int, step: int, names: Sequence[str] | None
) -> Episode:
    """A valid conversation as evidence.

    Args:
      told: the conversation.
      task: identifies it.
      arm: it was played with. step: of training.
      names: verbs whose possibility is told; None = whole choices are, and the creator, which has
        to find the verbs, shortens them.
    """
    possible: list[tuple[str, ...]] = []
    if all(told.possible):
        possible = list(told.possible)
        if names is not None:
            possible = [
                tuple(n for n in names if any(_begins(choice, n) for choice in choices))
                for choices in told.possible
            ]
    return Episode(
        task=task,
        goal=told.task.text,
        family=told.task.kind,
        arm=arm,
        success=told.success,
        step=step,
        actions=tuple(told.actions),
        observations=tuple(told.observations),
        possible=tuple(possible),
        skills_fired=tuple(told.fired),
    )


def sampled_of(told: Conversation, skills: Sequence[Skill]) -> SampledEpisode:
    """A valid conversation as people read it."""
    says = {skill.name: f"{skill.name}: {skill.action}" for skill in skills}
    turns = tuple(
        Turn(tuple(says[name] for name in fired), action, observation, reward)
        for fired, action, observation, reward in zip(
            told.fired, told.actions, told.observations[1:], told.rewards
        )
    )
    return SampledEpisode(told.task.text, told.success, told.ended, told.observations[0], turns)


def _begins(choice: str, name: str) -> bool:
    return choice == name or choice.startswith(name + " ")


def check_valid(played: HostRollouts, config: TrainConfig, where: str) -> None:
    """A run whose episodes are mostly lost is ended: its figures would say nothing."""
    count = len(played.conversations)
    lost = sum(played.causes.values())
    if lost <= config.sessions.max_invalid * count:
        return
    cause, most = Counter(played.causes).most_common(1)[0]
    detail = next(o.detail for o in played.conversations if o.cause == cause)
    raise TrainingError(
        f"{lost} of {count} episodes of {where} are invalid, {most} because of {cause!r}: "
        f"{detail}; {_ADVICE.get(cause, 'the world has to be mended')}"
    )


_ADVICE = {
    "context": "give more room with --context-length, or fewer turns with --max-turns",
    "hung": "give calls more time with --sessions.time-limit",
    "lost": "give calls more time, or fewer sessions to a worker with more --sessions.workers",
    "crowded": "a decision has room for 32 candidates; --prompt.no-constrained writes free text",
    "choices": "give answers more room with --prompt.answer-tokens",
    "policy": "train again with other weights or a lower --learning-rate",
}
