"""Failures with a known cause: an expert plays, one thing goes wrong, and the expert goes on.

Every function is unbatched and pure; `plant` makes one episode. T steps, R receptacles, O objects.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from reskill_jax.creators.attribution.models import KINDS
from reskill_jax.worlds.household import commands, engine
from reskill_jax.worlds.household.demonstrations import random_command
from reskill_jax.worlds.household.expert import expert, next_place
from reskill_jax.worlds.household.symbols import (
    CLEAN,
    COOL,
    EXAMINE,
    GO_TO,
    HEAT,
    INVENTORY,
    LOOK,
    MOVE,
    OPEN,
    TAKE,
)
from reskill_jax.worlds.household.types import Command, Game, State
from reskill_jax.worlds.household.world import HouseholdWorld

TURNS = 32  # T, recorded
FARTHEST = 30  # steps of an expert that are looked ahead
OBJECT, PLACE, OMITTED, LOOP, WANDERING, SKILL, NONE = range(len(KINDS))
# By how many steps a budget exceeds the expert's own length, by kind: 30 to 70 % of plants fail.
_SLACK = ((1, 3), (0, 3), (1, 4), (2, 7), (2, 8), (1, 6), (1, 6))
DIRECTIVES = (LOOK, INVENTORY, EXAMINE)  # of planted skills; their trigger: after "go to"


class Planted(NamedTuple):
    """One episode and the truth about it."""

    game: Game
    kind: chex.Array  # [] int32
    step: chex.Array  # [] int32 where it went wrong first; -1 if it did not
    actions: Command  # [T]
    spelled: chex.Array  # [T, La] int32 symbols of the actions
    observations: chex.Array  # [T, Lo] int32
    fired: chex.Array  # [T] bool: the skill was in the prompt
    has_skill: chex.Array  # [] bool
    directive: chex.Array  # [] int32 index into DIRECTIVES
    distance: chex.Array  # [T + 1] steps that an expert needs from there on; inf beyond FARTHEST
    carried: chex.Array  # [T] bool: something was in the hands
    turns: chex.Array  # [] int32 until it was won, or T
    budget: chex.Array  # [] int32 steps allowed
    won: chex.Array  # [] bool: within the budget


def distance_of(game: Game, state: State) -> chex.Array:
    """Steps an expert needs from a state; inf if more than FARTHEST."""

    def going_on(carry):
        state, steps = carry
        return ~engine.won(game, state) & (steps < FARTHEST)

    def step(carry):
        state, steps = carry
        moved, _, _ = engine.step(game, state, expert(game, state), max_symbols=1)
        return moved, steps + 1

    state, steps = jax.lax.while_loop(going_on, step, (state, jnp.int32(0)))
    return jnp.where(engine.won(game, state), steps.astype(jnp.float32), jnp.inf)


def _drawn(key: chex.PRNGKey, mask: chex.Array) -> chex.Array:
    """Index of a random True; -1 if there is none."""
    drawn = jnp.argmax(jnp.where(mask, jax.random.uniform(key, mask.shape), -1.0))
    return jnp.where(jnp.any(mask), drawn, -1).astype(jnp.int32)


def _go_to(place: chex.Array) -> Command:
    return Command(jnp.int32(GO_TO), place.astype(jnp.int32), jnp.int32(-1))


class _Plan(NamedTuple):
    """What is drawn about an episode before it begins."""

    kind: chex.Array
    step: chex.Array  # not before this one
    length: chex.Array  # steps of a loop, of wandering, of omissions
    first: chex.Array  # [] int32 receptacle of a loop
    second: chex.Array
    directive: chex.Array
    has_skill: chex.Array


def _other_object(key, game: Game, state: State, best: Command) -> tuple[Command, chex.Array]:
    """Takes a thing of another type from here instead."""
    options = commands.admissible(game, state).first[TAKE]
    receptacles = game.recep_stem.shape[0]
    stems = jnp.concatenate([jnp.zeros(receptacles, jnp.int32), game.object_stem])
    wrong = options & (stems != stems[best.first]) & (best.verb == TAKE)
    first = _drawn(key, wrong)
    second = _drawn(key, commands.second_arguments(game, state, jnp.int32(TAKE), first))
    return Command(jnp.int32(TAKE), first, second), (first >= 0) & (second >= 0)


def _other_place(key, game: Game, state: State) -> tuple[Command, chex.Array]:
    """Puts what the task asks for down where it does not belong."""
    receptacles = game.recep_stem.shape[0]
    held = jnp.maximum(state.held, 0)
    seconds = commands.second_arguments(game, state, jnp.int32(MOVE), receptacles + held)
    goal = jnp.concatenate([game.goal_recep, jnp.zeros(game.object_stem.shape[0], bool)])
    second = _drawn(key, seconds & ~goal)
    wanted = (state.held >= 0) & game.goal_object[held] & (second >= 0)
    return Command(jnp.int32(MOVE), receptacles + held, second), wanted


def _action(key, plan: _Plan, game: Game, state: State, t, begun, last_verb):
    """The action of a step, and whether it is (part of) what goes wrong."""
    keys = jax.random.split(key, 3)
    best = expert(game, state)
    due = (t >= plan.step) & (begun < 0)  # it has not happened yet
    within = due | ((begun >= 0) & (t < begun + plan.length))
    taken, can_take = _other_object(keys[0], game, state, best)
    put, can_put = _other_place(keys[1], game, state)
    prepares = (best.verb == OPEN) | (best.verb == CLEAN) | (best.verb == HEAT)
    prepares = prepares | (best.verb == COOL)
    onward = _go_to(next_place(game, state))
    there = jnp.any(
        (game.recep_place == state.place) & (jnp.arange(len(game.recep_stem)) == plan.first)
    )
    loop = _go_to(jnp.where(there, plan.second, plan.first))
    directive = jnp.asarray(DIRECTIVES)[plan.directive]
    here = _drawn(keys[2], commands.admissible(game, state).first[EXAMINE])
    bare = directive != EXAMINE
    told = Command(directive, jnp.where(bare, -1, here).astype(jnp.int32), jnp.int32(-1))
    obeys = (last_verb == GO_TO) & plan.has_skill & (t >= plan.step) & (bare | (here >= 0))
    cases = (
        (OBJECT, due & can_take, taken),
        (PLACE, due & can_put, put),
        (OMITTED, within & prepares & (onward.first >= 0), onward),
        (LOOP, within & commands.is_admissible(game, state, loop), loop),
        (WANDERING, within, random_command(keys[2], game, state)),
        (SKILL, obeys, told),
    )
    action, wrong = best, jnp.bool_(False)
    for kind, condition, command in cases:
        now = (plan.kind == kind) & condition
        action = jax.tree.map(lambda a, b, now=now: jnp.where(now, a, b), command, action)
        wrong = wrong | now
    return action, wrong


def plant(key: chex.PRNGKey, *, world: HouseholdWorld, split: str) -> Planted:
    """Plays one episode in which one thing goes wrong.

    Args:
      key: of everything. world: its rooms. split: of games.
    """
    keys = jax.random.split(key, 10)
    game = world.make(keys[0], split)
    exists = game.recep_stem > 0
    first = _drawn(keys[1], exists)
    kind = jax.random.randint(keys[2], (), 0, len(KINDS))
    start = distance_of(game, game.start)
    enough = jnp.where(jnp.isfinite(start), start, FARTHEST).astype(jnp.int32)
    latest = jnp.maximum(enough - 2, 1)
    plan = _Plan(
        kind=kind,
        step=jax.random.randint(keys[3], (), 0, latest),
        length=jax.random.randint(keys[4], (), 3, 9),
        first=first,
        second=_drawn(keys[5], exists & (game.recep_place != game.recep_place[first])),
        directive=jax.random.randint(keys[6], (), 0, len(DIRECTIVES)),
        has_skill=(kind == SKILL) | jax.random.bernoulli(keys[7], 0.5),
    )
    low, high = jnp.asarray(_SLACK)[kind]
    slack = jax.random.randint(keys[8], (), low, high)
    budget = jnp.where(kind == NONE, enough - jnp.minimum(slack, enough - 1), enough + slack)

    def turn(carry, key_t):
        (state, begun, last_verb, done), (key, t) = carry, key_t
        action, wrong = _action(key, plan, game, state, t, begun, last_verb)
        begun = jnp.where((begun < 0) & wrong & ~done, t, begun)
        moved, seen, _ = engine.step(game, state, action, max_symbols=world.observation_length)
        fired = plan.has_skill & (last_verb == GO_TO)
        spelled, _ = commands.command_symbols(game, action)
        told = (action, spelled, seen, fired, distance_of(game, state), state.held >= 0, done)
        won = done | engine.won(game, moved)
        return (moved, begun, action.verb, won), told

    begin = (game.start, jnp.int32(-1), jnp.int32(-1), engine.won(game, game.start))
    times = jnp.arange(TURNS, dtype=jnp.int32)
    (state, begun, _, _), told = jax.lax.scan(
        turn, begin, (jax.random.split(keys[9], TURNS), times)
    )
    actions, spelled, seen, fired, distance, carried, done = told
    turns = jnp.sum(~done).astype(jnp.int32)
    return Planted(
        game=game,
        kind=kind,
        step=jnp.where(kind == NONE, 0, begun),
        actions=actions,
        spelled=spelled,
        observations=seen,
        fired=fired,
        has_skill=plan.has_skill,
        directive=plan.directive,
        distance=jnp.append(distance, distance_of(game, state)),
        carried=carried,
        turns=turns,
        budget=budget,
        won=(turns <= budget) & (turns < TURNS),
    )
