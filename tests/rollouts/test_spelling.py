"""Spelling actions by tokens, against a tree of all whole spellings."""

import dataclasses
from typing import NamedTuple

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import assume, given

from reskill_jax.models.sampling import NO_TOKEN
from reskill_jax.rollouts.spelling import ByToken, speller_of
from reskill_jax.worlds.language import Frame, token_language

TEXTS = ("", " go", " got", " to", " toaster", " to go", " 1", " 10", " 101", " 2", " a", " ab")
END = 10


class Cursor(NamedTuple):
    alive: chex.Array  # [M] bool
    position: chex.Array  # [] int32
    done: chex.Array  # [] bool


@dataclasses.dataclass(frozen=True)
class ListedWorld:
    """A world whose actions are a list of symbols each; which are possible is the task."""

    table: tuple[tuple[int, ...], ...]  # [M, La] symbols, 0 behind

    language = TEXTS
    spoken = tuple(range(1, len(TEXTS)))
    decisions_per_turn = 4

    @property
    def action_length(self):
        return len(self.table[0])

    def begin(self, task, state):
        return Cursor(task, jnp.int32(0), jnp.sum(task) == 1)

    def allowed(self, task, cursor):
        column = jnp.asarray(self.table)[:, jnp.minimum(cursor.position, self.action_length - 1)]
        found = jnp.zeros(len(TEXTS) + 1, bool)
        return found.at[jnp.where(cursor.alive, column, len(TEXTS))].set(True)[:-1]

    def advance(self, task, state, cursor, symbol):
        column = jnp.asarray(self.table)[:, jnp.minimum(cursor.position, self.action_length - 1)]
        alive = cursor.alive & (column == symbol)
        moved = Cursor(alive, cursor.position + 1, jnp.sum(alive) <= 1)
        return jax.tree.map(lambda a, b: jnp.where(cursor.done, a, b), cursor, moved)

    def action(self, task, cursor):
        found = jnp.asarray(self.table)[jnp.argmax(cursor.alive)]
        return jnp.where(jnp.any(cursor.alive), found, 0)


def letters(text):
    return list(text.encode())


def language_of(world):
    return token_language(world, letters, Frame(ask=(62,), answered=(END, 11)), space=True)


SYMBOLS = st.integers(1, len(TEXTS) - 1)


@st.composite
def worlds(draw):
    """Actions none of which begins another, and which of them are possible."""
    found = draw(st.lists(st.lists(SYMBOLS, min_size=1, max_size=3), min_size=2, max_size=8))
    rows = {tuple(row) for row in found}
    rows = sorted(r for r in rows if not any(o != r and o == r[: len(o)] for o in rows))
    # Texts, too, must tell actions apart: " to go" is " to", " go".
    texts = {}
    for row in rows:
        texts.setdefault("".join(TEXTS[s] for s in row), row)
    rows = sorted(texts.values())
    width = max(map(len, rows))
    world = ListedWorld(tuple(row + (0,) * (width - len(row)) for row in rows))
    mask = draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    mask[draw(st.integers(0, len(rows) - 1))] = True
    return world, np.asarray(mask), draw(st.integers(0, 10_000))


def ambiguous(world, mask, language):
    """Whether somewhere a token both continues a symbol and may follow it: then the longer is
    meant, and what else it could have been is lost."""
    rows = [tuple(s for s in row if s) for row, on in zip(world.table, mask, strict=True) if on]
    for row in rows:
        for place in range(len(row)):
            fellows = [o for o in rows if o[:place] == row[:place] and len(o) > place]
            own = language.symbols[row[place]]
            longer = {
                language.symbols[o[place]][len(own)]
                for o in fellows
                if language.symbols[o[place]][: len(own)] == own and o[place] != row[place]
            }
            behind = {
                (*language.spell(o[place + 1 :], opening=False), END)[0]
                for o in fellows
                if o[place] == row[place]
            }
            if longer & behind:
                return True
    return False


def walk(world, mask, seed):
    """(supports, tokens chosen or forced, the action) of a random walk."""
    language = language_of(world)
    speller = speller_of(world, language)
    assert isinstance(speller, ByToken)
    task, rng = jnp.asarray(mask), np.random.default_rng(seed)
    supports, tokens = [], []
    forced = jax.jit(lambda s: speller.forced(task, (), s, jnp.bool_(True)))
    take = jax.jit(lambda s, t: speller.take(task, (), s, t))
    spelling, found, count = forced(speller.begin(task, ()))
    tokens += found[: int(count)].tolist()
    while not spelling.done:
        support, many = speller.support(task, spelling, most=16)
        options = [t for t in support.tolist() if t != NO_TOKEN]
        assert len(options) > 1 and not many
        supports.append((len(tokens), options))
        tokens.append(int(rng.choice(options)))
        spelling, found, count = forced(take(spelling, tokens[-1]))
        tokens += found[: int(count)].tolist()
    action = world.action(task, spelling.cursor)
    rest = [int(s) for s in action[int(spelling.symbols) :] if s]
    tokens = tokens[: len(tokens) - int(spelling.ahead)]
    tokens += language.spell(rest, opening=spelling.symbols == 0) + [END, 11]
    assert len(supports) <= speller.most
    return language, supports, tokens, [int(s) for s in action if s]


@given(worlds())
def test_candidates_are_the_branches_of_the_tree_of_spellings(given_world):
    world, mask, seed = given_world
    language = language_of(world)
    assume(not ambiguous(world, mask, language))
    _, supports, tokens, action = walk(world, mask, seed)
    possible = {
        (*language.spell([s for s in row if s], opening=True), END, 11): [s for s in row if s]
        for row, on in zip(world.table, mask, strict=True)
        if on
    }
    assert possible[tuple(tokens)] == action
    branches, left = [], set(possible)
    for place in range(len(tokens)):
        left = {s for s in left if s[:place] == tuple(tokens[:place])}
        options = sorted({s[place] for s in left})
        if len(options) > 1:
            branches.append((place, options))
    assert supports == branches


def test_the_end_of_an_action_is_a_choice_where_another_goes_on():
    world = ListedWorld(((1, 6), (1, 7), (1, 8)))  # go 1, go 10, go 101
    seen = set()
    for seed in range(12):
        _, supports, tokens, action = walk(world, np.ones(3, bool), seed)
        assert supports[0] == (5, [END, ord("0")])
        seen.add((TEXTS[action[1]], bytes(tokens).decode()))
    assert seen == {(text, f" go{text}\n\x0b") for text in (" 1", " 10", " 101")}


def test_an_action_that_is_the_only_one_is_not_spelled():
    world = ListedWorld(((1, 6), (2, 7)))
    _, supports, tokens, action = walk(world, np.asarray([False, True]), 0)
    assert supports == [] and action == [2, 7] and bytes(tokens[:-2]).decode() == " got 10"
