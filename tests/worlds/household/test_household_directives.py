"""Directives: what is said, what it means, and which are never said in pretraining."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.worlds.household import commands
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.directives import (
    DIRECTIVE_WIDTH,
    HELD_OUT,
    Directive,
    directive_symbols,
    directive_text,
    draw_directive,
    is_held_out_noun,
    obey,
)
from reskill_jax.worlds.household.expert import expert
from reskill_jax.worlds.household.types import Command
from reskill_jax.worlds.settings import BEGINNER, FLAWLESS


def directive(verb, noun="", *, word="", negative=False):
    def symbol(text):
        return jnp.int32(sy.SYMBOL_ID[" " + text] if text else sy.PAD)

    return Directive(symbol(word), jnp.bool_(negative), jnp.int32(verb), symbol(noun))


SENTENCES = {
    "open.": directive(sy.OPEN),
    "do not look.": directive(sy.LOOK, negative=True),
    "go to sinkbasin.": directive(sy.GO_TO, "sinkbasin"),
    "if the task says clean, go to sinkbasin.": directive(sy.GO_TO, "sinkbasin", word="clean"),
    "if the task says two, do not close drawer.": directive(
        sy.CLOSE, "drawer", word="two", negative=True
    ),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentences_are_read_back_as_the_symbols_they_were(sentence):
    line, length = directive_symbols(SENTENCES[sentence])
    assert directive_text(SENTENCES[sentence]) == sentence
    assert int(line[0]) == sy.SKILL
    assert sy.words(sentence) == line[1 : int(length)].tolist()
    assert not line[int(length) :].any()


def test_no_directive_has_no_line():
    line, length = directive_symbols(directive(-1))
    assert int(length) == 0 and not line.any()


@jax.jit
@jax.vmap
def _drawn(key, game, state, intended):
    said = draw_directive(key, game, state, expert(game, state))
    masks = commands.admissible(game, state)
    obeyed, effective = obey(game, state, masks, said, intended)
    admissible = commands.is_admissible(game, state, obeyed)
    line, length = directive_symbols(said)
    return said, obeyed, effective, admissible, masks.first, line, length


@jax.jit
def _obey(game, state, said, intended):
    return obey(game, state, commands.admissible(game, state), said, intended)


@pytest.fixture(scope="module")
def drawn(make_games, play):
    """Directives drawn in the middle of 256 episodes, four times, and what became of them."""
    games, played = make_games("train"), play(BEGINNER)
    parts = []
    for turn in (0, 2, 4, 7):
        states, intended = jax.tree.map(lambda x, t=turn: x[:, t], (played.states, played.commands))
        keys = jax.random.split(jax.random.key(turn), len(states.held))
        said, obeyed, effective, admissible, masks, line, length = _drawn(
            keys, games, states, intended
        )
        stems = np.concatenate([games.recep_stem, games.object_stem], axis=1)
        stems = np.pad(stems, ((0, 0), (0, 1)))  # index -1: no word
        parts.append((said, intended, obeyed, effective, admissible, masks, line, length, stems))
        parts[-1] += (games.task,)
    joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    fields = "said intended obeyed effective admissible masks line length stems task".split()
    return SimpleNamespace(**dict(zip(fields, joined, strict=True)))


def named(d, command):
    """Whether each command has the directive's verb and, if it has one, its word."""
    rows = np.arange(len(d.effective))
    first, second = d.stems[rows, command.first], d.stems[rows, command.second]
    noun = d.said.noun
    return (command.verb == d.said.verb) & ((noun == 0) | (first == noun) | (second == noun))


def test_obeying_follows_the_letter(drawn):
    d = drawn
    met = (d.said.condition == 0) | (d.task == d.said.condition[:, None]).any(1)
    did, meant = named(d, d.obeyed), named(d, d.intended)
    negative = d.said.negative
    assert d.admissible.all()
    assert not (d.effective & ~met).any()
    assert did[d.effective & ~negative].all() and (d.effective & ~negative).sum() > 100
    assert not did[d.effective & negative].any() and (d.effective & negative).sum() > 5
    # Told not to do what it did not intend, nothing changes; told not to do what it did, it does
    # something else.
    np.testing.assert_array_equal((d.effective & negative), met & negative & meant)
    # Ignored: it does what it intended.
    for a, b in zip(d.obeyed, d.intended, strict=True):
        np.testing.assert_array_equal(a[~d.effective], b[~d.effective])


def test_what_can_be_done_is_done(drawn):
    d = drawn
    met = (d.said.condition == 0) | (d.task == d.said.condition[:, None]).any(1)
    rows = np.arange(len(met))
    mask = d.masks[rows, d.said.verb]  # [N, E]
    noun = d.said.noun[:, None]
    possible = (mask & ((noun == 0) | (d.stems[:, :-1] == noun))).any(1)
    ordered = met & ~d.said.negative
    assert d.effective[ordered & possible].all()
    assert (ordered & ~possible).any() and not d.effective[
        ordered & ~mask.any(1)
    ].any()  # what the verb cannot do at all is ignored


def test_held_out_combinations_are_never_drawn(drawn):
    d = drawn
    assert not HELD_OUT[d.said.verb, d.said.noun].any()
    assert (d.said.noun > 0).mean() > 0.1
    assert HELD_OUT[:, 1:].mean() == pytest.approx(0.2, abs=0.05)
    assert not HELD_OUT[:, 0].any()
    noun = sy.SYMBOL_ID[" sinkbasin"]
    assert HELD_OUT[sy.GO_TO, noun] == is_held_out_noun(sy.GO_TO, noun)


def test_drawn_directives_are_sentences_of_the_language(drawn):
    kinds = set()
    for line, length in zip(drawn.line, drawn.length, strict=True):
        said = sy.text(line[1:length])
        found = sy.words(said)
        assert found == line[1:length].tolist()
        assert sy.UNKNOWN not in found and len(found) < DIRECTIVE_WIDTH
        assert said.endswith(".")
        kinds.add((said.startswith("if the task says "), "do not" in said))
    assert len(kinds) == 4


def test_obeying_by_hand(make_games, play):
    games = make_games("train")
    kitchen = int(
        np.flatnonzero(games.sink.any(1) & (games.task == sy.SYMBOL_ID[" clean"]).any(1))[0]
    )
    game = jax.tree.map(lambda x: x[kitchen], games)
    state = game.start
    going = jax.tree.map(lambda x: x[kitchen, 0], play(FLAWLESS).commands)
    assert going.verb == sy.GO_TO
    sink = int(np.argmax(game.sink))

    def outcome(said):
        command, effective = _obey(game, state, said, Command(*map(jnp.asarray, going)))
        return tuple(int(x) for x in command), bool(effective)

    same = tuple(int(x) for x in going)
    assert outcome(directive(sy.GO_TO, "sinkbasin")) == ((sy.GO_TO, sink, -1), True)
    assert outcome(directive(sy.GO_TO, "sinkbasin", word="clean")) == ((sy.GO_TO, sink, -1), True)
    assert outcome(directive(sy.GO_TO, "sinkbasin", word="two")) == (same, False)
    assert outcome(directive(sy.LOOK)) == ((sy.LOOK, -1, -1), True)
    assert outcome(directive(sy.OPEN)) == (same, False)  # nothing to open where it starts
    assert outcome(directive(sy.GO_TO, "bed")) == (same, False)  # no bed in a kitchen
    assert outcome(directive(sy.GO_TO, negative=True)) == ((sy.LOOK, -1, -1), True)
    assert outcome(directive(sy.OPEN, negative=True)) == (same, False)
    assert outcome(directive(-1)) == (same, False)
    word = sy.SYMBOLS[game.recep_stem[going.first]].strip()
    (verb, first, _), effective = outcome(directive(sy.GO_TO, word, negative=True))
    assert effective and verb == sy.GO_TO
    assert game.recep_stem[first] != game.recep_stem[going.first]
