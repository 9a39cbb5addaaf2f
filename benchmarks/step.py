"""What the skill layer costs: one training step with and without it, in one process.

Three programs' worth of work on the same games, with the same noise and the same policy:

  plain   GRPO alone (skills=False)
  idle    the skill layer with an empty bank and no trial
  active  as many trials as run at once: every version of the bank holds four skills, their triggers
          on actions and observations, and each trial would replace one of them

Games are won in the last turn alone, so every episode lasts all its turns and the three play
equally many. Runs are interleaved, each round beginning with another, and compared in pairs; what
counts is the median ratio.

    python benchmarks/step.py [--quick] [--json FILE]
"""

import argparse
import dataclasses
import functools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.core.trial import start_trial
from reskill_jax.devices.machine import describe_machine
from reskill_jax.rollouts.compiled import play as play_rows
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.training.config import ModelConfig, TrainConfig, household, replace, smallest
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.training.runner import algorithm_of, games_of_step
from reskill_jax.training.settings import Policy, load_policy
from reskill_jax.training.state import TrainState, init_state
from reskill_jax.training.step import game_key, train_step
from reskill_jax.worlds.household.world import HouseholdWorld

WORLD = HouseholdWorld()

SKILLS = (
    Skill("begin-at-the-sink", "a thing is dirty", "if the task says clean, go to sinkbasin.",
          Trigger("beginning")),
    Skill("open-what-is-closed", "a place is closed", "open.",
          Trigger("observation_pattern", "is closed")),
    Skill("leave-empty-places", "a place is empty", "go to.",
          Trigger("observation_pattern", "you see nothing")),
    Skill("no-inventory", "after a thing was taken", "do not inventory.",
          Trigger("action_pattern", "^take")),
)  # fmt: skip
NEW_SKILLS = (  # one a trial, in the place of one of these
    Skill("begin-at-the-fridge", "a thing is warm", "if the task says cool, go to fridge.",
          Trigger("beginning")),
    Skill("close-what-is-open", "a place is open", "close.",
          Trigger("observation_pattern", "is open")),
    Skill("open-empty-places", "a place is empty", "open.",
          Trigger("observation_pattern", "you see nothing")),
    Skill("look-around", "after a move", "do not look.",
          Trigger("action_pattern", "^(move|open)")),
    Skill("begin-at-the-microwave", "a thing is cold", "if the task says hot, go to microwave.",
          Trigger("beginning")),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LastTurnWorld(HouseholdWorld):
    """The household, won by chance in the last turn alone: all episodes are equally long.

    Half of the rollouts win, so nearly every group has a gradient: the update at its dearest.
    """

    max_turns: int = 1

    def reset(self, task):
        """A state with a clock."""
        state, intro = super().reset(task)
        return (jnp.int32(1), state), intro

    def affords(self, task, state):
        """As in the household."""
        return super().affords(task, state[1])

    def begin(self, game, state):
        """As in the household."""
        return super().begin(game, state[1])

    def advance(self, game, state, cursor, symbol):
        """As in the household."""
        return super().advance(game, state[1], cursor, symbol)

    def step(self, task, state, cursor):
        """As in the household, but the last command wins if the sum of its symbols is odd."""
        turn, state = state
        state, step = super().step(task, state, cursor)
        won = (turn == self.max_turns) & (jnp.sum(self.action(task, cursor)) % 2 == 1)
        reward = won.astype(jnp.float32)
        return (turn + 1, state), step._replace(reward=reward, success=won, done=won)


def compiled(function, *arguments):
    """The compiled function and the seconds that took."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    return program, time.perf_counter() - start


def states(config: TrainConfig, params) -> dict[str, TrainState]:
    """The state that each of the three starts from, again and again."""
    idle = init_state(config, params, make_bank(config, WORLD, [()]))
    trial = start_trial(2, np.ones(2, bool), max_steps=config.trial.max_steps)
    active = idle._replace(
        bank=jax.tree.map(jnp.asarray, make_bank(config, WORLD, versions(config))),
        trials=jax.tree.map(
            lambda new, old: jnp.broadcast_to(jnp.asarray(new, old.dtype), old.shape),
            trial,
            idle.trials,
        ),
    )
    return {"plain": idle, "idle": idle, "active": active}


def versions(config: TrainConfig) -> list[list[Skill]]:
    """The skills of every arm: each part that it holds replaces one of the bank in use."""
    found = []
    for arm in range(config.arms):
        skills = list(SKILLS)
        for part in range(config.trial.concurrent):
            if arm >> part & 1:
                skills[part % len(skills)] = NEW_SKILLS[part]
        found.append(skills)
    return found


def play(state: TrainState, games, arms, *, world, policy: Policy, config: TrainConfig):
    """The rollouts of a step alone."""
    rows = config.groups * config.group_size
    made = jax.vmap(lambda g: world.make(game_key(config.seed, g), "train"))(games)
    played, _ = play_rows(
        jax.random.split(state.key, rows),
        state.params,
        jax.tree.map(lambda x: jnp.repeat(x, config.group_size, axis=0), made),
        state.bank,
        arms,
        world=world,
        model=policy.model,
        language=policy.language,
        max_turns=config.max_turns,
        context_length=config.context_length,
        temperature=config.temperature,
    )
    return played.turns


def measure(config: TrainConfig, repeats: int) -> dict:
    """Times the steps; returns everything that is printed."""
    world = LastTurnWorld(spec=config.rooms, max_turns=config.max_turns)
    policy = load_policy(ModelConfig(), world)
    start = states(config, policy.params)
    policy = policy._replace(params=())
    plain_config = dataclasses.replace(config, skills=False)
    games = [jnp.asarray(games_of_step(config, i)) for i in range(repeats)]
    arms = jnp.arange(config.groups * config.group_size) % config.arms

    step = functools.partial(
        train_step,
        world=world,
        model=policy.model,
        language=policy.language,
        algorithm=algorithm_of(config),
    )
    plain, plain_seconds = compiled(
        functools.partial(step, config=plain_config), start["plain"], games[0]
    )
    full, full_seconds = compiled(functools.partial(step, config=config), start["idle"], games[0])
    turns_only, _ = compiled(
        functools.partial(play, world=world, policy=policy, config=config),
        start["idle"], games[0], arms,
    )  # fmt: skip
    programs = {"plain": plain, "idle": full, "active": full}
    wall: dict[str, list[float]] = {name: [] for name in (*programs, "rollout", "rollout active")}
    metrics: dict[str, list] = {name: [] for name in programs}

    def timed(name, program, *arguments):
        began = time.perf_counter()
        result = jax.block_until_ready(program(*arguments))
        wall[name].append(time.perf_counter() - began)
        return result

    for name, program in programs.items():  # warm
        jax.block_until_ready(program(start[name], games[0]))
    for i, numbers in enumerate(games):
        names = list(programs)
        for name in names[i % 3 :] + names[: i % 3]:  # nobody is always the first
            result = timed(name, programs[name], start[name], numbers)
            metrics[name].append(jax.device_get(result[1]))
        timed("rollout", turns_only, start["idle"], numbers, arms)
        timed("rollout active", turns_only, start["active"], numbers, arms)

    def mean(name, field):
        return float(np.mean([getattr(m, field) for m in metrics[name]]))

    def ratio(name):
        pairs = np.array(wall[name]) / np.array(wall["plain"])
        return {
            "median": float(np.median(pairs)),
            "quartiles": [float(q) for q in np.quantile(pairs, [0.25, 0.75])],
        }

    found = {
        "machine": describe_machine(),
        "policy": "the shipped weights",
        "rollouts": f"{config.groups} x {config.group_size}",
        "max_turns": config.max_turns,
        "context_length": config.context_length,
        "repeats": repeats,
        "seconds": {name: float(np.median(times)) for name, times in wall.items()},
        "turns": {name: mean(name, "turns") for name in programs},
        "context_tokens": {name: mean(name, "context_tokens") for name in programs},
        "skill_tokens": {name: mean(name, "skill_tokens") for name in programs},
        "success": {name: mean(name, "success") for name in programs},
        "truncated": {name: mean(name, "truncated") for name in programs},
        "ratio": {name: ratio(name) for name in ("idle", "active")},
        "compile_seconds": {"plain": plain_seconds, "with skills": full_seconds},
    }
    found["context_ratio"] = found["context_tokens"]["active"] / found["context_tokens"]["plain"]
    return found


def main() -> None:
    """Runs the three and prints times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all")
    parser.add_argument("--repeats", type=int, help="interleaved runs of each; 15, quick: 3")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    config = smallest() if arguments.quick else household()
    # Room for every turn, skills included: a row that is cut short would save work.
    config = replace(
        config, context_length=config.context_length * 5 // 4, optimizer=dict(learning_rate=1e-9)
    )
    found = measure(config, arguments.repeats or (3 if arguments.quick else 15))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    print(found["machine"])
    print(
        f"{found['rollouts']} rollouts, {found['max_turns']} turns, room for "
        f"{found['context_length']} tokens, {found['policy']}; medians of {found['repeats']} "
        "interleaved runs"
    )
    print("            seconds   turns  context  skill tokens  against plain (quartiles)")
    for name in ("plain", "idle", "active"):
        line = (
            f"  {name:<8}{found['seconds'][name]:9.3f}{found['turns'][name]:8.1f}"
            f"{found['context_tokens'][name]:9.1f}{found['skill_tokens'][name]:14.1f}"
        )
        if name in found["ratio"]:
            low, high = found["ratio"][name]["quartiles"]
            line += f"  {found['ratio'][name]['median']:.3f} ({low:.3f} - {high:.3f})"
        print(line)
    seconds = found["seconds"]
    for name, label in (("idle", "rollout"), ("active", "rollout active")):
        share = seconds[label] / seconds[name]
        print(f"  {name}: rollout {seconds[label]:.3f} s ({share:.0%}), the rest is the update")
    print(f"  context, active against plain: {found['context_ratio']:.2f}")
    print(
        f"  episodes cut short per step: {found['truncated']['plain']:.1f} plain, "
        f"{found['truncated']['active']:.1f} active"
    )
    compile_seconds = found["compile_seconds"]
    print(
        f"  compiled in {compile_seconds['plain']:.1f} s (plain), "
        f"{compile_seconds['with skills']:.1f} s (with skills)"
    )


if __name__ == "__main__":
    main()
