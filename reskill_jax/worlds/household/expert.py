"""A scripted player, and its characteristic mistakes.

`expert` searches the receptacles in the order in which the room lists them, and does what the task
asks. `habitual` plays like it but with slips that a beginner makes: it passes closed places by,
forgets to clean, heat or cool, takes the wrong thing, undoes what it did. Both see only what the
player has seen; they are pure functions of one game and its state.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from reskill_jax.worlds.settings import BEGINNER, FLAWLESS, Habits

from .commands import Admissible, second_arguments
from .symbols import (
    CLEAN,
    CLOSE,
    COOL,
    EXAMINE,
    GO_TO,
    HEAT,
    HELP,
    INVENTORY,
    LOOK,
    MOVE,
    OPEN,
    SLICE,
    TAKE,
    USE,
)
from .tables import TASK_TYPES
from .types import Command, Game, State

__all__ = ["expert", "habitual", "matches_words", "matching_command", "next_place"]

_LOOK_TASK = TASK_TYPES.index("look_at_obj_in_light")
_CLEAN_TASK = TASK_TYPES.index("pick_clean_then_place_in_recep")
_HEAT_TASK = TASK_TYPES.index("pick_heat_then_place_in_recep")
_COOL_TASK = TASK_TYPES.index("pick_cool_then_place_in_recep")


_Slips = Any  # Habits of [] bool: whether each slip happens now


class _Scene(NamedTuple):
    """What is around the player and in its hands."""

    exists: chex.Array  # [R] bool
    here: chex.Array  # [R] bool: at the player's place
    accessible: chex.Array  # [R] bool: here, and open or without a door
    closed: chex.Array  # [R] bool: here
    opened: chex.Array  # [R] bool: here, with a door
    holding: chex.Array  # [] bool
    held: chex.Array  # [] int32 object, 0 when empty-handed
    visible: chex.Array  # [O, R] bool: which object lies where


class _Treatment(NamedTuple):
    """What the task asks to be done to an object."""

    untreated: chex.Array  # [O] bool: still to be done
    device: chex.Array  # [R] bool: with one of these
    verb: chex.Array  # [] int32


class _Errand(NamedTuple):
    """What to do with the thing in hand. Receptacles and lamp are -1 where there is none."""

    look_task: chex.Array  # [] bool: the object is to be looked at under a lamp
    holds_goal: chex.Array  # [] bool: it is what the task wants
    at_target: chex.Array  # [] bool
    at_device: chex.Array  # [] bool
    treats: chex.Array  # [] bool: sets out to treat it
    entity: chex.Array  # [] int32: the thing
    onward: Command  # to the next place
    target_here: chex.Array  # [] int32 target it can be put into at once
    target_closed: chex.Array  # [] int32 target here that is closed
    target: chex.Array  # [] int32 target anywhere
    lamp: chex.Array  # [] int32 object here
    put_down: chex.Array  # [] int32 receptacle here


class _Finds(NamedTuple):
    """What can be taken here."""

    misplaced: chex.Array  # [O, R] bool: wanted, and not where it belongs
    forgotten: chex.Array  # [O, R] bool: where it belongs, but untreated
    placed: chex.Array  # [O, R] bool: where it belongs, and treated
    others: chex.Array  # [O, R] bool: not wanted
    any_misplaced: chex.Array  # [] bool
    any_forgotten: chex.Array  # [] bool


def _command(verb: int, first: chex.Array | int = -1, second: chex.Array | int = -1) -> Command:
    return Command(jnp.int32(verb), jnp.asarray(first, jnp.int32), jnp.asarray(second, jnp.int32))


def _first(mask: chex.Array) -> chex.Array:
    """Index of the first True, -1 when there is none. [K] bool -> [] int32."""
    return jnp.where(jnp.any(mask), jnp.argmax(mask), -1).astype(jnp.int32)


def _select(cases: list[tuple[chex.Array, Command]], otherwise: Command) -> Command:
    """The command of the first case that holds."""
    chosen = otherwise
    for condition, command in reversed(cases):
        chosen = jax.tree.map(lambda a, b, c=condition: jnp.where(c, a, b), command, chosen)
    return chosen


def next_place(game: Game, state: State, allowed: chex.Array | None = None) -> chex.Array:
    """The receptacle listed after the current one, round and round. [] int32, -1 when none.

    Args:
      allowed: [R] bool, receptacles to choose from; all by default.
    """
    exists = game.recep_stem > 0
    index = jnp.arange(exists.shape[0], dtype=jnp.int32)
    current = jnp.max(jnp.where(exists & (game.recep_place == state.place), index, -1))
    elsewhere = exists & (game.recep_place != state.place)
    if allowed is not None:
        elsewhere = elsewhere & allowed
    distance = jnp.where(elsewhere, (index - current - 1) % exists.shape[0], exists.shape[0])
    return jnp.where(jnp.any(elsewhere), jnp.argmin(distance), -1).astype(jnp.int32)


def expert(game: Game, state: State) -> Command:
    """The command of a player without slips. Unbatched."""
    return habitual(jax.random.key(0), game, state, habits=FLAWLESS)


def habitual(key: chex.PRNGKey, game: Game, state: State, *, habits: Habits = BEGINNER) -> Command:
    """The command of a player with slips; always admissible. Unbatched.

    Args:
      key: random key of this decision.
      habits: chances of the slips.
    """
    chance = jax.random.uniform(key, (len(Habits._fields),))
    slip = jax.tree.map(lambda drawn, p: drawn < p, Habits(*chance), habits)
    pick = jax.random.uniform(jax.random.fold_in(key, 1), (2,))
    scene = _look_around(game, state)
    treatment = _asked_treatment(game, state, scene)
    errand = _plan_errand(game, state, scene, treatment, slip)
    finds = _search_here(game, scene, treatment, errand)
    cases = [
        (slip.idle, _idle_command(pick, scene)),
        *_carrying(game, scene, treatment, errand, slip),
        *_searching(game, scene, finds, slip),
    ]
    return _select(cases, errand.onward)


def _look_around(game: Game, state: State) -> _Scene:
    exists = game.recep_stem > 0
    here = exists & (game.recep_place == state.place)
    accessible = here & (~game.openable | state.opened)
    return _Scene(
        exists=exists,
        here=here,
        accessible=accessible,
        closed=here & game.openable & ~state.opened,
        opened=here & game.openable & state.opened,
        holding=state.held >= 0,
        held=jnp.maximum(state.held, 0),
        visible=state.inside & accessible[None, :],
    )


def _asked_treatment(game: Game, state: State, scene: _Scene) -> _Treatment:
    treatments = (
        (_CLEAN_TASK, CLEAN, state.clean, game.sink),
        (_HEAT_TASK, HEAT, state.hot, game.microwave),
        (_COOL_TASK, COOL, state.cool, game.fridge),
    )
    untreated = jnp.zeros(game.object_stem.shape[0], bool)
    device = jnp.zeros(game.recep_stem.shape[0], bool)
    treat_verb = jnp.int32(CLEAN)
    for task_type, verb, treated, place in treatments:
        asked = game.task_type == task_type
        untreated = jnp.where(asked, ~treated, untreated)
        device = jnp.where(asked, scene.exists & place, device)
        treat_verb = jnp.where(asked, verb, treat_verb)
    return _Treatment(untreated, device, treat_verb)


def _plan_errand(
    game: Game, state: State, scene: _Scene, treatment: _Treatment, slip: _Slips
) -> _Errand:
    held = scene.held
    look_task = game.task_type == _LOOK_TASK
    holds_goal = scene.holding & game.goal_object[held]
    # Whether it forgets is decided on the way: at the device it remembers, at the target hardly.
    at_target = jnp.any(scene.here & game.goal_recep)
    at_device = jnp.any(scene.here & treatment.device)
    must_treat = holds_goal & treatment.untreated[held] & jnp.any(treatment.device)
    remembers = jnp.where(at_target, ~slip.content, ~slip.forget)
    return _Errand(
        look_task=look_task,
        holds_goal=holds_goal,
        at_target=at_target,
        at_device=at_device,
        treats=must_treat & (at_device | remembers),
        entity=game.recep_stem.shape[0] + held,
        onward=_command(GO_TO, next_place(game, state)),
        target_here=_first(scene.accessible & game.goal_recep & game.can_hold[held]),
        target_closed=_first(scene.closed & game.goal_recep),
        target=_first(scene.exists & game.goal_recep),
        lamp=_first(game.goal_lamp & jnp.any(state.inside & scene.here[None, :], axis=1)),
        put_down=_first(scene.accessible & game.can_hold[held]),
    )


def _search_here(game: Game, scene: _Scene, treatment: _Treatment, errand: _Errand) -> _Finds:
    takeable = scene.visible & game.pickupable[:, None]
    wanted = takeable & game.goal_object[:, None]
    misplaced = wanted & (~game.goal_recep[None, :] | errand.look_task)
    forgotten = wanted & game.goal_recep[None, :] & treatment.untreated[:, None]
    return _Finds(
        misplaced=misplaced,
        forgotten=forgotten,
        placed=wanted & game.goal_recep[None, :] & ~treatment.untreated[:, None],
        others=takeable & ~game.goal_object[:, None],
        any_misplaced=jnp.any(misplaced),
        any_forgotten=jnp.any(forgotten),
    )


def _idle_command(pick: chex.Array, scene: _Scene) -> Command:
    """Looks around, examines the place or checks its hands. pick: [2] uniform float32."""
    cases = [
        (pick[0] < 0.45, _command(LOOK)),
        ((pick[0] < 0.75) & jnp.any(scene.here), _command(EXAMINE, _first(scene.here))),
    ]
    return _select(cases, _command(INVENTORY))


def _carrying(
    game: Game, scene: _Scene, treatment: _Treatment, errand: _Errand, slip: _Slips
) -> list[tuple[chex.Array, Command]]:
    """What to do with something in hand: first with what the task wants, then with the rest."""
    holds_goal, entity = errand.holds_goal, errand.entity
    target_here, target_closed, target = errand.target_here, errand.target_closed, errand.target
    return [
        (
            holds_goal & errand.look_task & (errand.lamp >= 0),
            _command(USE, game.recep_stem.shape[0] + errand.lamp),
        ),
        (holds_goal & errand.look_task, errand.onward),
        (
            errand.treats & errand.at_device,
            _command(treatment.verb, entity, _first(scene.here & treatment.device)),
        ),
        (
            holds_goal & slip.close & jnp.any(scene.opened) & ~errand.at_target,
            _command(CLOSE, _first(scene.opened)),
        ),
        (errand.treats, _command(GO_TO, _first(treatment.device))),
        (holds_goal & (target_here >= 0), _command(MOVE, entity, target_here)),
        (holds_goal & (target_closed >= 0), _command(OPEN, target_closed)),
        (holds_goal & (target >= 0) & ~errand.at_target, _command(GO_TO, target)),
        # Carrying something else.
        (scene.holding & (errand.put_down >= 0), _command(MOVE, entity, errand.put_down)),
        (scene.holding & jnp.any(scene.closed), _command(OPEN, _first(scene.closed))),
        (scene.holding, errand.onward),
    ]


def _searching(
    game: Game, scene: _Scene, finds: _Finds, slip: _Slips
) -> list[tuple[chex.Array, Command]]:
    """What to do with empty hands, before going on."""
    num_receps = game.recep_stem.shape[0]

    def take(mask: chex.Array) -> chex.Array:
        best = _first(jnp.any(mask, axis=1))
        return _command(TAKE, num_receps + best, _first(mask[jnp.maximum(best, 0)]))

    return [
        (finds.any_misplaced & slip.distracted & jnp.any(finds.others), take(finds.others)),
        (finds.any_misplaced, take(finds.misplaced)),
        (finds.any_forgotten & ~slip.content, take(finds.forgotten)),
        (jnp.any(finds.placed) & slip.undo, take(finds.placed)),
        (jnp.any(scene.closed) & ~slip.pass_by, _command(OPEN, _first(scene.closed))),
    ]


def matching_command(
    game: Game,
    state: State,
    admissible: Admissible,
    verb: chex.Array,
    noun: chex.Array,
    preferred: Command,
) -> tuple[Command, chex.Array]:
    """An admissible command with this verb and, if given, this word. Unbatched.

    Among several the preferred command wins if it matches, then (for `go to`) the next place in
    the room's order, then the first.

    Args:
      verb: [] int32; noun: [] int32 symbol of a type word, 0 = any.
      preferred: a command.

    Returns:
      The command and whether there is one ([] bool).
    """
    stems = jnp.concatenate([game.recep_stem, game.object_stem])  # [E]
    num_receps = game.recep_stem.shape[0]
    first_mask = admissible.first[verb]
    any_noun = noun == 0
    by_first = first_mask & (any_noun | (stems == noun))
    use_first = jnp.any(by_first)
    first = _first(jnp.where(use_first, by_first, first_mask))
    nearest = next_place(game, state, by_first[:num_receps])
    first = jnp.where((verb == GO_TO) & use_first, nearest, first)
    goal_first = by_first & jnp.concatenate([jnp.zeros(num_receps, bool), game.goal_object])
    first = jnp.where((verb == TAKE) & jnp.any(goal_first), _first(goal_first), first)
    bare = (verb == LOOK) | (verb == INVENTORY) | (verb == HELP)
    second_mask = second_arguments(game, state, verb, first)
    two = (verb == TAKE) | (verb == MOVE) | (verb == CLEAN) | (verb == HEAT) | (verb == COOL)
    two = two | (verb == SLICE)
    by_second = second_mask & (any_noun | use_first | (stems == noun))
    found = jnp.any(first_mask) & jnp.where(two, jnp.any(by_second), use_first | any_noun)
    found = jnp.where(bare, any_noun & jnp.any(first_mask), found)
    command = Command(
        jnp.asarray(verb, jnp.int32),
        jnp.where(bare, -1, first),
        jnp.where(two, _first(by_second), -1),
    )
    matches = matches_words(game, preferred, verb, noun)
    command = jax.tree.map(lambda a, b: jnp.where(matches, a, b), preferred, command)
    return command, found | matches


def matches_words(game: Game, command: Command, verb: chex.Array, noun: chex.Array) -> chex.Array:
    """Whether a command has this verb and, unless noun is 0, names this type word. [] bool."""
    stems = jnp.concatenate([game.recep_stem, game.object_stem, jnp.zeros(1, jnp.int32)])
    first, second = stems[command.first], stems[command.second]
    return (command.verb == verb) & ((noun == 0) | (first == noun) | (second == noun))
