"""The life of the skills between steps: evidence to the creator, proposals into trials, decisions.

The comparison itself runs inside the compiled step; this is the host's side of it, one pure step
at a time: `SkillLibrary` is frozen and its JSON round trip is exact.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reskill_jax.creators.creator import Creator, Library, Proposal, Refusal
from reskill_jax.creators.episode import Episode
from reskill_jax.skills.bank import Bank, build_bank, identity_bank
from reskill_jax.skills.skill import Skill
from reskill_jax.skills.skillmd import FILE_NAME, SkillFileError, import_skills
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.creators import creator_of
from reskill_jax.training.monitor import Monitor
from reskill_jax.training.ranges import MAX_SKILLS
from reskill_jax.training.worth import BankWorth
from reskill_jax.worlds.world import CompiledWorld, compiled_of

Versions = Sequence[tuple[Skill, ...]]  # the skills of every arm


@dataclasses.dataclass(frozen=True)
class SkillLibrary:
    """Skills as texts, and the creator's memory.

    Attributes:
      creator: evidence, assertions, history.
      skills: the bank in use, in slot order.
      proposals: what is under test, one a part; None = nothing. As many as parts once it began.
      served: steps each active skill has been in use.
      next_proposal: no proposal before this step.
      monitor: what the policy says of the skills, and alarms; nothing if it is not asked.
      worth: what control rollouts say of the skills in use; nothing without such rollouts.
    """

    creator: Any
    skills: tuple[Skill, ...] = ()
    proposals: tuple[Proposal | None, ...] = (None,)
    served: Mapping[str, int] = dataclasses.field(default_factory=dict)
    next_proposal: int = 0
    monitor: Monitor = Monitor()
    worth: BankWorth = BankWorth()

    def to_dict(self, creator: Creator[Any]) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "creator": creator.dump(self.creator),
            "skills": [skill.to_dict() for skill in self.skills],
            "proposals": [None if one is None else one.to_dict() for one in self.proposals],
            "served": dict(self.served),
            "next_proposal": self.next_proposal,
            **({"monitor": self.monitor.to_dict()} if self.monitor.looks else {}),
            **({"worth": self.worth.to_dict()} if self.worth != BankWorth() else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], creator: Creator[Any] | None) -> "SkillLibrary":
        """Reads `to_dict`; without a creator its memory is left out (None)."""
        return cls(
            creator=None if creator is None else creator.load(data["creator"]),
            skills=tuple(Skill.from_dict(skill) for skill in data["skills"]),
            proposals=tuple(
                None if one is None else Proposal.from_dict(one) for one in data["proposals"]
            ),
            served=dict(data["served"]),
            next_proposal=data["next_proposal"],
            monitor=Monitor.from_dict(data["monitor"]) if "monitor" in data else Monitor(),
            worth=BankWorth.from_dict(data["worth"]) if "worth" in data else BankWorth(),
        )


def versions(library: SkillLibrary, config: TrainConfig) -> Versions:
    """The skills of every arm: the bank in use with every choice of the proposals under test."""
    found = []
    for arm in range(config.arms):
        skills = library.skills
        for part, proposal in enumerate(library.proposals):
            if proposal is not None and arm >> part & 1:
                skills = proposal.bundle.apply(skills, capacity=MAX_SKILLS)
        found.append(skills)
    return found


def begin_library(
    config: TrainConfig, world: Any, creator: Creator[Any] | None = None
) -> SkillLibrary:
    """The skills a run begins with, no evidence.

    Args:
      config: of the run.
      world: that it plays.
      creator: of the skills; None = the one that `config.creator` names.

    Raises:
      SkillFileError: `config.bank` names no readable skills.
    """
    creator = creator_of(config, world) if creator is None else creator
    memory = creator.init(config.seed)
    return SkillLibrary(memory, starting_skills(config, world), (None,) * config.trial.concurrent)


def starting_skills(config: TrainConfig, world: Any) -> tuple[Skill, ...]:
    """Skills that come with the world, those of a folder, or none.

    A SKILL.md of the folder that cannot be read is left out with a SkillFileWarning.

    Raises:
      SkillFileError: there is no such folder, or no skill in it that can be read.
    """
    if config.bank is None or not config.skills:
        return ()
    banks = getattr(compiled_of(world), "banks", {}) | dict(getattr(world, "banks", {}))
    if config.bank in banks:
        return banks[config.bank]
    skills = import_skills(config.bank)
    if not skills:
        raise SkillFileError(f"{config.bank}: there is no folder with a {FILE_NAME} in it")
    return skills


def make_bank(config: TrainConfig, world: Any, arms: Sequence[Sequence[Skill]]) -> Bank:
    """The arrays of all arms; arms that are not given hold what arm 0 holds."""
    filled = [*arms, *[arms[0]] * (config.arms - len(arms))]
    compiled = compiled_of(world)
    if compiled is None:
        return identity_bank(filled, slots=config.slots)
    world = compiled
    return build_bank(
        filled,
        language=world.language,
        encode=world.words,
        lacking=world.lacking,
        slots=config.slots,
        header=world.skill_header,
        unknown=world.unknown,
    )


def episodes_of(
    evidence: Any,
    games: np.ndarray,
    step: int,
    names: Sequence[Sequence[str]],
    *,
    group_size: int,
    world: CompiledWorld,
) -> list[Episode]:
    """The valid rollouts of a step as text, one of each outcome of a task with the bank in use, and
    one of each with anything under test.

    Args:
      evidence: `step.Evidence` on the host.
      games: [B] numbers of the games played.
      step: the training step.
      names: of the skills of each arm, in slot order.
      group_size: G.
      world: that was played.
    """
    record = evidence.record
    found: dict[tuple[int, bool, bool], Episode] = {}
    for row, (arm, success) in enumerate(zip(evidence.arms, evidence.success, strict=True)):
        game = int(games[row // group_size])
        key = (game, arm > 0, bool(success))
        if key in found or not evidence.valid[row]:
            continue
        turns = int(evidence.turns[row])
        intro = world.text(record.introductions[row])
        goal = world.task_of(intro)
        active = names[int(arm)] if arm >= 0 else ()
        found[key] = Episode(
            task=str(game),
            goal=goal,
            family=world.type_of(goal),
            arm=int(arm),
            success=bool(success),
            step=step,
            actions=tuple(world.text(a) for a in record.actions[row, :turns]),
            observations=(intro, *(world.text(o) for o in record.observations[row, :turns])),
            possible=tuple(
                tuple(name for name, can in zip(world.affordances, mask, strict=True) if can)
                for mask in record.affordances[row, :turns]
            ),
            skills_fired=tuple(
                tuple(n for n, on in zip(active, fired, strict=False) if on)
                for fired in evidence.fired[row, :turns]
            ),
        )
    return list(found.values())


def learn(
    library: SkillLibrary, episodes: Sequence[Episode], creator: Creator[Any]
) -> SkillLibrary:
    """Adds evidence, and one more step of service for every active skill."""
    served = {skill.name: library.served.get(skill.name, 0) + 1 for skill in library.skills}
    return dataclasses.replace(
        library, creator=creator.observe(library.creator, episodes), served=served
    )


def resolve_trial(
    library: SkillLibrary,
    part: int,
    decision: int,
    *,
    step: int,
    config: TrainConfig,
    creator: Creator[Any],
    reason: str,
    found: str | None = None,
) -> tuple[SkillLibrary, list[dict[str, Any]]]:
    """Takes note of a decision about a proposal under test.

    Args:
      library: with a proposal.
      part: the proposal's.
      decision: 0 = the bank in use stays, > 0 = the proposal is adopted.
      step: the training step.
      config: of the run.
      creator: whose proposal it is.
      reason: for the log.
      found: for the creator, more of what the trial found; None = the reason.

    Returns:
      The library after it, and the lines for the lifecycle log (without counts).
    """
    proposal = library.proposals[part]
    if proposal is None:
        raise ValueError(f"step {step}: a decision without a proposal")
    accepted = decision > 0
    retirement = proposal.kind == "retirement"
    event = {True: {True: "retired", False: "accepted"}, False: {True: "kept", False: "rejected"}}
    operations = proposal.bundle.to_dict()["operations"]
    lines = [
        {
            "step": step,
            "event": event[accepted][retirement],
            "trial": proposal.id,
            "operations": operations,
            "reason": reason,
        }
    ]
    if accepted and not retirement:
        lines += [
            {"step": step, "event": "pruned", "trial": proposal.id, "operations": [o]}
            | {"reason": "deleted by an accepted bundle"}
            for o in operations
            if o["operation"] == "DELETE"
        ]
    skills, worth = library.skills, library.worth
    if accepted:
        skills, worth = proposal.bundle.apply(skills, capacity=MAX_SKILLS), worth.after(skills)
    kept = set(library.skills) & set(skills)  # a modified skill starts its service anew
    library = dataclasses.replace(
        library,
        creator=creator.conclude(
            library.creator, proposal.id, accepted, step=step, reason=found or reason
        ),
        skills=skills,
        worth=worth,
        served={s.name: library.served.get(s.name, 0) if s in kept else 0 for s in skills},
        proposals=tuple(None if k == part else p for k, p in enumerate(library.proposals)),
        next_proposal=step + config.creator.cooldown,
    )
    return library, lines


def suggest(
    library: SkillLibrary, *, step: int, config: TrainConfig, creator: Creator[Any]
) -> tuple[SkillLibrary, dict[str, Any] | None]:
    """Asks for the next proposal to test, if it is time.

    Returns:
      The library, with one more proposal if there is one, and a line for the log or None.
    """
    free = [part for part, proposal in enumerate(library.proposals) if proposal is None]
    if not free or step < library.next_proposal or not config.proposes(step):
        return library, None
    shown = Library(
        library.skills,
        under_test(library),
        library.served,
        config.slots,
        sensitivity=library.monitor.sensitivities(),
        together=library.monitor.together() if config.trial.split_bundles else frozenset(),
    )
    memory, outcome = creator.propose(library.creator, shown, step=step)
    library = dataclasses.replace(library, creator=memory)
    if isinstance(outcome, Refusal):
        if not outcome.looked:
            return library, None
        event = "creator_failed" if outcome.failed else "unproposed"
        line = {"step": step, "event": event, "trial": None, "operations": []}
        again = {"again": True} if outcome.again else {}
        return library, line | {"reason": outcome.reason} | again
    line = {
        "step": step,
        "event": "retirement_started" if outcome.kind == "retirement" else "proposed",
        "trial": outcome.id,
        "operations": outcome.bundle.to_dict()["operations"],
        "reason": outcome.reason,
        **creator.notes(memory),
    }
    proposals = list(library.proposals)
    proposals[free[0]] = outcome
    return dataclasses.replace(library, proposals=tuple(proposals)), line


def under_test(library: SkillLibrary) -> dict[str, Skill | None]:
    """Skills that proposals under test would add or change, by name; None = take away."""
    return {
        operation.name: operation.skill
        for proposal in library.proposals
        if proposal is not None
        for operation in proposal.bundle.operations
    }
