"""A scripted player, and its characteristic mistakes.

`expert` searches the receptacles in the order in which the room lists them, and does what the task
asks. `habitual` plays like it but with slips that a beginner makes: it passes closed places by,
forgets to clean, heat or cool, takes the wrong thing, undoes what it did. Both see only what the
player has seen; they are pure functions of one game and its state.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

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

_LOOK_TASK = TASK_TYPES.index("look_at_obj_in_light")
_CLEAN_TASK = TASK_TYPES.index("pick_clean_then_place_in_recep")
_HEAT_TASK = TASK_TYPES.index("pick_heat_then_place_in_recep")
_COOL_TASK = TASK_TYPES.index("pick_cool_then_place_in_recep")


class Habits(NamedTuple):
    """Chances of each slip at the moment it can happen. All float."""

    pass_by: float = 0.95  # leaves a closed place unopened while searching
    forget: float = 0.95  # carries the object to the target without the asked treatment
    content: float = 0.98  # then believes it is done and searches on
    idle: float = 0.08  # looks around, checks its hands, examines the place
    distracted: float = 0.1  # takes another object than the one it sees and needs
    undo: float = 0.6  # takes back what it has just put in place
    close: float = 0.6  # closes the place it took something from


BEGINNER = Habits()
FLAWLESS = Habits(*([0.0] * len(Habits._fields)))


def _command(verb, first=-1, second=-1) -> Command:
    return Command(jnp.int32(verb), jnp.asarray(first, jnp.int32), jnp.asarray(second, jnp.int32))


def _first(mask):
    """Index of the first True, -1 when there is none. [K] bool -> [] int32."""
    return jnp.where(jnp.any(mask), jnp.argmax(mask), -1).astype(jnp.int32)


def _select(cases: list[tuple[chex.Array, Command]], otherwise: Command) -> Command:
    """The command of the first case that holds."""
    chosen = otherwise
    for condition, command in reversed(cases):
        chosen = jax.tree.map(lambda a, b, c=condition: jnp.where(c, a, b), command, chosen)
    return chosen


def next_place(game: Game, state: State, allowed=None) -> chex.Array:
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
    num_receps, num_objects = game.recep_stem.shape[0], game.object_stem.shape[0]
    chance = jax.random.uniform(key, (len(Habits._fields),))
    slip = jax.tree.map(lambda drawn, p: drawn < p, Habits(*chance), habits)
    pick = jax.random.uniform(jax.random.fold_in(key, 1), (2,))

    exists = game.recep_stem > 0
    here = exists & (game.recep_place == state.place)
    accessible = here & (~game.openable | state.opened)
    closed = here & game.openable & ~state.opened
    opened = here & game.openable & state.opened
    holding = state.held >= 0
    held = jnp.maximum(state.held, 0)
    visible = state.inside & accessible[None, :]  # [O, R]

    # What the task still asks of an object.
    treatments = (
        (_CLEAN_TASK, CLEAN, state.clean, game.sink),
        (_HEAT_TASK, HEAT, state.hot, game.microwave),
        (_COOL_TASK, COOL, state.cool, game.fridge),
    )
    untreated = jnp.zeros(num_objects, bool)
    device = jnp.zeros(num_receps, bool)
    treat_verb = jnp.int32(CLEAN)
    for task_type, verb, treated, place in treatments:
        asked = game.task_type == task_type
        untreated = jnp.where(asked, ~treated, untreated)
        device = jnp.where(asked, exists & place, device)
        treat_verb = jnp.where(asked, verb, treat_verb)
    look_task = game.task_type == _LOOK_TASK

    holds_goal = holding & game.goal_object[held]
    # Whether it forgets is decided on the way: at the device it remembers, at the target hardly.
    at_target = jnp.any(here & game.goal_recep)
    at_device = jnp.any(here & device)
    must_treat = holds_goal & untreated[held] & jnp.any(device)
    remembers = jnp.where(at_target, ~slip.content, ~slip.forget)
    treats = must_treat & (at_device | remembers)

    def to(recep):
        return _command(GO_TO, recep)

    entity = num_receps + held
    onward = to(next_place(game, state))
    target_here = _first(accessible & game.goal_recep & game.can_hold[held])
    target_closed = _first(closed & game.goal_recep)
    target = _first(exists & game.goal_recep)
    lamp = _first(game.goal_lamp & jnp.any(state.inside & here[None, :], axis=1))
    put_down = _first(accessible & game.can_hold[held])

    # Empty hands: what can be taken here.
    takeable = visible & game.pickupable[:, None]
    wanted = takeable & game.goal_object[:, None]
    misplaced = wanted & (~game.goal_recep[None, :] | look_task)
    forgotten = wanted & game.goal_recep[None, :] & untreated[:, None]
    placed = wanted & game.goal_recep[None, :] & ~untreated[:, None]

    def take(mask):
        best = _first(jnp.any(mask, axis=1))
        return _command(TAKE, num_receps + best, _first(mask[jnp.maximum(best, 0)]))

    others = takeable & ~game.goal_object[:, None]
    any_misplaced, any_forgotten = jnp.any(misplaced), jnp.any(forgotten)
    idle = _select(
        [
            (pick[0] < 0.45, _command(LOOK)),
            ((pick[0] < 0.75) & jnp.any(here), _command(EXAMINE, _first(here))),
        ],
        _command(INVENTORY),
    )
    cases = [
        (slip.idle, idle),
        # Carrying what the task wants.
        (holds_goal & look_task & (lamp >= 0), _command(USE, num_receps + lamp)),
        (holds_goal & look_task, onward),
        (
            treats & at_device,
            _command(treat_verb, entity, _first(here & device)),
        ),
        (holds_goal & slip.close & jnp.any(opened) & ~at_target, _command(CLOSE, _first(opened))),
        (treats, to(_first(device))),
        (holds_goal & (target_here >= 0), _command(MOVE, entity, target_here)),
        (holds_goal & (target_closed >= 0), _command(OPEN, target_closed)),
        (holds_goal & (target >= 0) & ~at_target, to(target)),
        # Carrying something else.
        (holding & (put_down >= 0), _command(MOVE, entity, put_down)),
        (holding & jnp.any(closed), _command(OPEN, _first(closed))),
        (holding, onward),
        # Searching.
        (any_misplaced & slip.distracted & jnp.any(others), take(others)),
        (any_misplaced, take(misplaced)),
        (any_forgotten & ~slip.content, take(forgotten)),
        (jnp.any(placed) & slip.undo, take(placed)),
        (jnp.any(closed) & ~slip.pass_by, _command(OPEN, _first(closed))),
    ]
    return _select(cases, onward)


def matching_command(
    game: Game, state: State, admissible: Admissible, verb, noun, preferred: Command
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


def matches_words(game: Game, command: Command, verb, noun) -> chex.Array:
    """Whether a command has this verb and, unless noun is 0, names this type word. [] bool."""
    stems = jnp.concatenate([game.recep_stem, game.object_stem, jnp.zeros(1, jnp.int32)])
    first, second = stems[command.first], stems[command.second]
    return (command.verb == verb) & ((noun == 0) | (first == noun) | (second == noun))
