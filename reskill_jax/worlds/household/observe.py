"""What the engine says, as symbols.

Every answer has one shape: an opening phrase, then items of three symbols (word, number, what
follows). A list is a run of such items whose last one is followed by the full stop, so one
gather writes any answer.
"""

import jax
import jax.numpy as jnp
import numpy as np

from . import symbols as sy
from .rules import columns, nearby
from .types import MAX_SHARED, Command, Game, State

_ID = sy.SYMBOL_ID
_STOP = _ID["."]
_MIDDLE = "\nYou are in the middle of a room. Looking quickly around you, you see"


def _ids(*texts: str) -> np.ndarray:
    return np.array([_ID[t] for t in texts], np.int32)


# Opening phrase of each verb's answer; look, inventory and examine depend on the state.
_OPENING = _ids(
    "\nYou are facing the",
    "\nYou are carrying: a",
    "\n" + sy.HELP_TEXT,
    "\nYou arrive at",
    "\nOn the",
    "\nYou open the",
    "\nYou close the",
    "\nYou pick up the",
    "\nYou move the",
    "\nYou turn on the",
    "\nYou clean the",
    "\nYou heat the",
    "\nYou cool the",
    "\nYou sliced the",
)
# What stands between the two names of a verb with two arguments.
_BETWEEN = np.full(len(sy.VERBS), _STOP, np.int32)
_BETWEEN[[sy.TAKE, sy.MOVE, sy.CLEAN, sy.HEAT, sy.COOL, sy.SLICE]] = _ids(
    " from the", " to the", " using the", " using the", " using the", " with the"
)
# How an examined object looks, at [clean, hot, cool, sliced].
_LOOKS = np.full((2, 2, 2, 2), _ID["\nThere's nothing special about"], np.int32)
for _clean, _hot, _cool, _sliced in np.ndindex(2, 2, 2, 2):
    if _clean and _hot and _sliced:
        _phrase = "\nThis is a hot and clean sliced"
    elif _clean and _cool and _sliced:
        _phrase = "\nThis is a cool and clean sliced"
    elif _clean and _sliced:
        _phrase = "\nThis is a clean sliced"
    elif _hot and _sliced:
        _phrase = "\nThis is a hot sliced"
    elif _cool and _sliced:
        _phrase = "\nThis is a cool sliced"
    elif _clean and _hot:
        _phrase = "\nThis is a hot and clean"
    elif _clean and _cool:
        _phrase = "\nThis is a cool and clean"
    elif _hot:
        _phrase = "\nThis is a hot"
    elif _clean:
        _phrase = "\nThis is a clean"
    elif _cool:
        _phrase = "\nThis is a cold"
    elif _sliced:
        _phrase = "\nThis is a sliced"
    else:
        continue
    _LOOKS[_clean, _hot, _cool, _sliced] = _ID[_phrase]


def _write(game: Game, opening, head, follows, num_head, counts, has_list, *, max_symbols: int):
    """Writes opening, head items, then the list of entities (each `counts` times), then a stop.

    Args:
      game: one game.
      opening: [] int32 symbol
      head: [H] int32 entities; follows: [H] int32 what follows each; num_head: [] int32
      counts: [O] int32, how often each object is listed
      has_list: [] bool; without one, the head ends the answer
      max_symbols: capacity; what does not fit is cut off.

    Returns:
      ([max_symbols] int32, [] int32 length)
    """
    num_receptacles = game.recep_stem.shape[0]
    num_items = max(-(-(max_symbols - 1) // 3), 1)
    counts = jnp.where(has_list, counts, 0)
    end = jnp.cumsum(counts, dtype=jnp.int32)
    begin = num_head + end - counts
    where = jnp.where(counts > 0, begin, num_items)
    number = jnp.arange(num_receptacles, num_receptacles + counts.shape[0], dtype=jnp.int32)
    listed = jnp.zeros(num_items, jnp.int32).at[where].set(number, mode="drop")
    # An object listed twice fills the gap up to the next one's place.
    listed = jax.lax.cummax(listed)

    item = jnp.arange(num_items, dtype=jnp.int32)
    total = num_head + end[-1]
    short = min(head.shape[0], num_items)
    padded = jnp.zeros(num_items, jnp.int32)
    entity = jnp.where(item < num_head, padded.at[:short].set(head[:short]), listed)
    separator = jnp.where(item == total - 2, _ID[", and a"], _ID[", a"])
    separator = jnp.where(item == total - 1, _STOP, separator)
    separator = jnp.where(item < num_head, padded.at[:short].set(follows[:short]), separator)
    stems = jnp.concatenate([game.recep_stem, game.object_stem])
    numbers = jnp.concatenate([game.recep_number, game.object_number])
    triples = jnp.stack([stems[entity], numbers[entity], separator], axis=-1)
    triples = jnp.where((item < total)[:, None], triples, sy.PAD)

    # An empty list leaves a lone full stop.
    lone = has_list & (end[-1] == 0)
    stop = (item == total) & lone
    triples = triples.at[:, 0].set(jnp.where(stop, _STOP, triples[:, 0]))
    answer = jnp.concatenate([jnp.reshape(opening, (1,)), triples.reshape(-1)])[:max_symbols]
    length = jnp.minimum(1 + 3 * total + lone, max_symbols)
    return answer.astype(jnp.int32), length.astype(jnp.int32)


def _facing(game: Game, state: State):
    """The head of `look` at a receptacle: [K] entities, [K] what follows each, [] how many."""
    index, count = nearby(game, state)
    k = jnp.arange(index.shape[0], dtype=jnp.int32)
    follows = jnp.where(k == count - 2, _ID[", and"], _ID[","])
    # Things that lie between receptacles of one place: taken out of one, put into another.
    counts = jnp.sum(columns(state.gone, index), axis=1, dtype=jnp.int32)
    counts = jnp.where(state.at[:, state.place], counts, 0)
    see = jnp.where(
        jnp.any(counts > 0), _ID[". Next to it, you see a"], _ID[". Next to it, you see nothing"]
    )
    follows = jnp.where(k == count - 1, see, follows)
    return index, follows, count, counts


def answer(game: Game, state: State, command: Command, admissible, *, max_symbols: int):
    """The engine's answer to a command that has just been carried out.

    Args:
      game: one game.
      state: the state AFTER the command.
      command: the command.
      admissible: [] bool, whether the engine understood it.
      max_symbols: capacity of the answer.

    Returns:
      symbols: [max_symbols] int32, PAD behind.
      length: [] int32
    """
    num_receptacles = game.recep_stem.shape[0]
    num_objects = game.object_stem.shape[0]
    verb = jnp.clip(command.verb, 0, len(sy.VERBS) - 1)
    first, second = command.first, command.second
    examine = verb == sy.EXAMINE
    examine_object = examine & (first >= num_receptacles)
    look = verb == sy.LOOK
    receptacle = jnp.clip(first, 0, num_receptacles - 1)
    item = jnp.clip(
        jnp.where(verb == sy.INVENTORY, state.held, first - num_receptacles), 0, num_objects - 1
    )

    # Sentences about one receptacle: arriving, opening, examining.
    shows = (verb == sy.GO_TO) | (verb == sy.OPEN) | (examine & ~examine_object)
    openable, opened = game.openable[receptacle], state.opened[receptacle]
    contents = jnp.where(
        examine_object,
        game.inner[:, item] & game.container[item],
        state.inside[:, receptacle] & ~(openable & ~opened),
    )
    some = jnp.any(contents)
    inside = jnp.where(
        some, _ID[" is open. In it, you see a"], _ID[" is open. In it, you see nothing"]
    )
    upon = jnp.where(some, _ID[", you see a"], _ID[", you see nothing"])
    seen = jnp.where(openable, jnp.where(opened, inside, _ID[" is closed."]), upon)
    within = jnp.where(some, _ID[". In it, you see a"], _ID[". In it, you see nothing"])
    then = jnp.where(openable, _ID[". The"], _ID[". On the"])

    face, face_follows, face_count, floor = _facing(game, state)
    nowhere = look & (face_count == 0)
    empty_handed = (verb == sy.INVENTORY) & (state.held < 0)

    # How it begins.
    looks = jnp.asarray(_LOOKS)[
        state.clean[item].astype(jnp.int32),
        state.hot[item].astype(jnp.int32),
        state.cool[item].astype(jnp.int32),
        state.sliced[item].astype(jnp.int32),
    ]
    looks = jnp.where(game.container[item], _ID["\nThis is a normal"], looks)
    opening = jnp.asarray(_OPENING)[verb]
    opening = jnp.where(examine & openable, _ID["\nThe"], opening)
    opening = jnp.where(examine_object, looks, opening)
    opening = jnp.where(empty_handed, _ID["\nYou are not carrying anything."], opening)
    opening = jnp.where(nowhere, _ID[_MIDDLE + " nothing"], opening)
    opening = jnp.where(admissible, opening, _ID["\nNothing happens."])

    # The names and what follows them.
    arrives = (verb == sy.GO_TO) | (verb == sy.OPEN)
    names_two = arrives | (_index(_BETWEEN, verb) != _STOP)
    wordless = (verb == sy.HELP) | empty_handed | ~admissible
    num_head = jnp.where(names_two, 2, 1)
    num_head = jnp.where(look, face_count, num_head)
    num_head = jnp.where(wordless, 0, num_head)
    size = max(face.shape[0], 2)
    name1 = jnp.where(verb == sy.INVENTORY, num_receptacles + item, first)
    name2 = jnp.where(arrives, first, second)
    follow1 = jnp.where(arrives, then, _index(_BETWEEN, verb))
    follow1 = jnp.where(examine, seen, follow1)
    is_box = examine_object & game.container[item]
    follow1 = jnp.where(examine_object, jnp.where(is_box, within, _STOP), follow1)
    follow2 = jnp.where(arrives, seen, _STOP)
    face = jnp.pad(face, (0, size - face.shape[0]))
    face_follows = jnp.pad(face_follows, (0, size - face_follows.shape[0]))
    pad = [jnp.zeros((), jnp.int32)] * (size - 2)
    head = jnp.where(look, face, jnp.stack([name1, name2, *pad]))
    follows = jnp.where(look, face_follows, jnp.stack([follow1, follow2, *pad]))
    entities = num_receptacles + num_objects
    head = jnp.clip(head, 0, entities - 1)

    has_list = admissible & (look | is_box | (shows & ~(openable & ~opened)))
    counts = jnp.where(look, floor, contents.astype(jnp.int32))
    return _write(game, opening, head, follows, num_head, counts, has_list, max_symbols=max_symbols)


def _index(table: np.ndarray, index):
    return jnp.asarray(table)[index]


def intro(game: Game, *, max_symbols: int):
    """The text a game begins with, from the welcome to the full stop after the goal.

    Args:
      game: one game.
      max_symbols: capacity; what does not fit is cut off.

    Returns:
      symbols: [max_symbols] int32, PAD behind.
      length: [] int32
    """
    num_receptacles = game.recep_stem.shape[0]
    index, count = nearby(game, game.start)
    exists = game.recep_stem > 0
    rank = jnp.cumsum(exists, dtype=jnp.int32)
    order = jnp.full((num_receptacles,), num_receptacles, jnp.int32)
    order = order.at[jnp.where(exists, rank - 1, num_receptacles)].set(
        jnp.arange(num_receptacles, dtype=jnp.int32), mode="drop"
    )
    k = jnp.arange(num_receptacles, dtype=jnp.int32)
    total = rank[-1]
    follows = jnp.where(k == total - 2, _ID[", and a"], _ID[", a"])
    follows = jnp.where(k == total - 1, _STOP, follows)

    facing = count > 0
    face, face_follows, _, floor = _facing(game, game.start)
    short = num_receptacles - face.shape[0]
    head = jnp.where(facing, jnp.pad(face, (0, short)), order)
    follows = jnp.where(facing, jnp.pad(face_follows, (0, short)), follows)
    opening = jnp.where(total > 0, _ID[_MIDDLE + " a"], _ID[_MIDDLE + " nothing"])
    opening = jnp.where(facing, _ID["\nYou are facing the"], opening)
    room, room_length = _write(
        game,
        opening,
        jnp.clip(head, 0, num_receptacles - 1),
        follows,
        jnp.where(facing, count, total),
        floor,
        facing | (total == 0),
        max_symbols=max_symbols,
    )
    task_length = jnp.sum(game.task != sy.PAD, dtype=jnp.int32)
    task = jnp.concatenate([jnp.asarray(_ids("\n\nYour task is to:")), game.task])
    text = jnp.zeros(max_symbols, jnp.int32).at[0].set(_ID["-= Welcome to TextWorld, ALFRED! =-\n"])
    t = jnp.arange(max_symbols, dtype=jnp.int32)
    text = text.at[jnp.where(t < room_length, t + 1, max_symbols)].set(room, mode="drop")
    w = jnp.arange(task.shape[0], dtype=jnp.int32)
    text = text.at[jnp.where(w <= task_length, 1 + room_length + w, max_symbols)].set(
        task, mode="drop"
    )
    text = text.at[room_length + task_length + 2].set(_STOP, mode="drop")
    return text, jnp.minimum(room_length + task_length + 3, max_symbols)


def observation_capacity(
    num_receptacles: int, num_objects: int, *, shared: int = MAX_SHARED
) -> int:
    """The longest answer `step` can give in a room of these capacities.

    Args:
      num_receptacles: R.
      num_objects: O.
      shared: the most receptacles that share a place. Only `look` at a shared place can name an
        object more than once, so rooms without shared places (1) need far less.

    Returns:
      Number of symbols as a Python int.
    """
    shared = max(1, min(shared, num_receptacles))
    return 1 + 3 * max(2 + num_objects, shared + (shared - 1) * num_objects) + 1


def intro_capacity(num_receptacles: int, task_length: int) -> int:
    """The longest intro of a room of R receptacles and a goal text of W symbols."""
    return 1 + 1 + 3 * num_receptacles + 1 + 1 + task_length + 1
