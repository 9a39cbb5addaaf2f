"""Does the monitor notice each collapse, name it, and stay quiet otherwise?

The shipped policy plays the household with hand-written skills and looks at itself. Healthy looks
are compared with: evidence that is shuffled; skills that all have one trigger; a policy that was
fine-tuned to ignore its skills; a prior that is sure of the generic utility. R rows, T turns.
"""

import functools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from reskill_jax.models.sampling import NO_TOKEN, masked_log_probs
from reskill_jax.rollouts import transcript as transcripts
from reskill_jax.rollouts.compiled import play
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.training.config import ModelConfig, household
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.training.looks import Look, look_at
from reskill_jax.training.monitor import ALARMS, Monitor, watch
from reskill_jax.training.reflection import account, reflect, shuffled_evidence
from reskill_jax.training.scoring import decision_logits
from reskill_jax.training.settings import load_policy
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.language import symbol_language

TURNS, CONTEXT, GROUPS, GROUP_SIZE, LOOKED_AT = 12, 256, 8, 8, 16
ONSET = 8  # looks before a collapse begins
KINDS = ("evidence", "bank", "instruction", "context")


def _skill(name: str, action: str, pattern: str, kind: str = "action_pattern") -> Skill:
    return Skill(name, "For the study.", action, Trigger(kind, pattern))


HEALTHY = (
    _skill("open-closed", "open.", "is closed", "observation_pattern"),
    _skill("look-when-empty", "inventory.", "nothing", "observation_pattern"),
    _skill("check-what-was-taken", "inventory.", "^take"),
    _skill("examine-on-tables", "examine.", "^go to (desk|shelf|sidetable|countertop)"),
)
TOGETHER = tuple(_skill(s.name, s.action, "^go to") for s in HEALTHY)


class Lab:
    """The programs, compiled once."""

    def __init__(self) -> None:
        """Loads the policy; nothing is compiled yet."""
        self.world = HouseholdWorld()
        self.language = symbol_language(self.world)
        policy = load_policy(ModelConfig(), self.world)
        self.model, self.params = policy.model, policy.params
        self.config = household()
        model, language, world = self.model, self.language, self.world

        @jax.jit
        def look(key, params, bank):
            keys = jax.random.split(key, 3)
            games = jax.vmap(lambda k: world.make(k, "train"))(jax.random.split(keys[0], GROUPS))
            tasks = jax.tree.map(lambda x: jnp.repeat(x, GROUP_SIZE, axis=0), games)
            rows = GROUPS * GROUP_SIZE
            arms = jnp.zeros(rows, jnp.int32)
            played, _ = play(
                jax.random.split(keys[1], rows),
                params,
                tasks,
                bank,
                arms,
                world=world,
                model=model,
                language=language,
                max_turns=TURNS,
                context_length=CONTEXT,
            )
            looked_at = jnp.arange(LOOKED_AT) * (rows // LOOKED_AT)
            told = reflect(
                keys[2],
                params,
                played,
                bank,
                arms,
                looked_at,
                model=model,
                language=language,
                temperature=1.0,
            )
            return played, told

        self.look = look
        self.account = jax.jit(account)
        self.shuffle = jax.jit(shuffled_evidence)

    def bank(self, skills: Sequence[Skill]) -> Any:
        """One version."""
        made = make_bank(self.config, self.world, [skills])
        return jax.tree.map(lambda x: jnp.asarray(x[:1]), made)

    def ignoring(self, bank: Any, rounds: int) -> Any:
        """Parameters after learning to do with the skills' lines what is done without them."""
        model, params = self.model, self.params
        played, _ = self.look(jax.random.key(99), params, bank)
        row = played.transcript
        used = jnp.arange(row.position.shape[1]) < row.count[:, None]
        allowed = (row.support != NO_TOKEN) | ~used[:, :, None]
        plain = jax.vmap(transcripts.without)(row, played.of_skills)

        def log_probs(params, rows):
            logits = decision_logits(params, rows, model=model)
            return masked_log_probs(logits, allowed, temperature=1.0)

        target = jax.jit(log_probs)(params, plain)
        counts = used[:, :, None] & (row.support != NO_TOKEN)

        def loss(params):
            for_real = jnp.where(counts, jnp.exp(target), 0.0)
            return -jnp.sum(for_real * jnp.where(counts, log_probs(params, row), 0.0)) / jnp.sum(
                used
            )

        optimizer = optax.adam(2e-3)

        @jax.jit
        def step(params, state):
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, updates), state

        state = optimizer.init(params)
        for _ in range(rounds):
            params, state = step(params, state)
        return params


def _seen(lab: Lab, key: Any, params: Any, skills: Sequence[Skill], how: str, step: int) -> Look:
    """One look, through glasses that some collapses are made with."""
    played, told = jax.device_get(lab.look(key, params, lab.bank(skills)))
    rows = told.rows
    likelihood, candidate = told.log_likelihood, told.candidate
    prior = np.zeros(candidate.shape[1], np.float32)
    if how == "evidence":
        likelihood = lab.shuffle(key, likelihood, candidate)
    if how == "context":
        prior[0] = np.log(99.0 * len(skills))
    if how in ("evidence", "context"):
        mask = np.arange(TURNS) < played.turns[rows][:, None]
        fired = played.fired[rows]
        told = told._replace(
            **jax.device_get(lab.account(key, likelihood, candidate, mask, fired, prior))
        )
    evidence = SimpleNamespace(
        reflection=told,
        games=step * GROUPS + np.arange(GROUPS),
        arms=np.zeros(len(played.valid), int),
        valid=played.valid,
        fired=played.fired,
        success=played.success,
    )
    names = [[skill.name for skill in skills]]
    return look_at(evidence, names, group_size=GROUP_SIZE, step=step)


# How far each figure is from what a healthy run shows: more is worse.
_DEGREES: dict[str, Callable[[Any], float]] = {
    "evidence": lambda f: f["information_gain"]["p"],
    "context": lambda f: (
        f["context_information"]["generic"]
        - f["context_information"]["nats"] / max(f["context_information"]["most"], 1e-9)
    ),
    "instruction": lambda f: -f["sensitivity"]["nats"],
    "bank": lambda f: -f["effective_rank"]["value"] / max(f["effective_rank"]["null"], 1e-9),
}


def auc(healthy: Sequence[float], collapsed: Sequence[float]) -> float:
    """Chance that a collapsed run looks worse than a healthy one."""
    h, c = np.asarray(healthy)[:, None], np.asarray(collapsed)[None]
    return float(np.mean((c > h) + 0.5 * (c == h)))


def _watched(looks: Sequence[Look]) -> list[Monitor]:
    monitors, monitor = [], Monitor()
    for look in looks:
        monitor = watch(monitor, look)
        monitors.append(monitor)
    return monitors


def collapse_study(*, looks: int, rounds: int = 60) -> dict[str, Any]:
    """AUC, delay and names of alarms of every kind of collapse; false alarms of healthy looks.

    Args:
      looks: of each run, of which ONSET precede the collapse.
      rounds: of the fine-tuning that makes a policy ignore its skills.
    """
    lab = Lab()
    see = functools.partial(_seen, lab)
    key = jax.random.key(5)

    def run(number: int, how: str) -> list[Monitor]:
        made = []
        for step in range(1, looks + 1):
            on = how if step > ONSET else ""
            params = ignoring if on == "instruction" else lab.params
            skills = TOGETHER if on == "bank" else HEALTHY
            of_step = jax.random.fold_in(jax.random.fold_in(key, number), step)
            made.append(see(of_step, params, skills, on, step))
        return _watched(made)

    ignoring = lab.ignoring(lab.bank(HEALTHY), rounds)
    healthy = [*run(0, ""), *run(1, "")]
    quiet = [m for m in healthy if len(m.looks) >= 3]
    false = sum(bool(m.alarms) for m in quiet)
    told: dict[str, Any] = {
        "healthy_looks": len(quiet),
        "false_alarms_per_100": 100 * false / max(len(quiet), 1),
        "false_names": sorted({name for m in quiet for name in m.alarms}),
    }
    for number, kind in enumerate(KINDS, 2):
        monitors = run(number, kind)
        after = monitors[ONSET:]
        late = after[len(after) // 2 :]
        right = [i for i, m in enumerate(after, 1) if kind in m.alarms]
        told[kind] = {
            "meaning": ALARMS[kind],
            "auc": auc(*([_DEGREES[kind](m.figures) for m in runs] for runs in (quiet, late))),
            "delay": right[0] if right else None,
            "looks_with_right_name": len(right) / len(after),
            "looks_with_wrong_name": sum(bool(set(m.alarms) - {kind}) for m in after) / len(after),
        }
        healthy_degrees = [_DEGREES[kind](m.figures) for m in quiet]
        told[kind]["healthy_degree"] = float(np.median(healthy_degrees))
        told[kind]["late_degree"] = float(np.median([_DEGREES[kind](m.figures) for m in late]))
        print(kind, {k: v for k, v in told[kind].items() if k != "meaning"}, flush=True)
    print({k: v for k, v in told.items() if k not in KINDS})
    return told
