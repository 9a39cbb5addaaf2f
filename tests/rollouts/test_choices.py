"""Answers of a batch of rows: one of a list, spelled along its tokens, or free text.

Both against plain loops: over all choices, and over models that encode everything anew.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reskill_jax.models.config import DecoderConfig
from reskill_jax.models.model import Decoder
from reskill_jax.models.sampling import NO_TOKEN, masked_log_probs, sample
from reskill_jax.rollouts.acting import CANDIDATES, Given
from reskill_jax.rollouts.answers import choose_answers, empty_cache, write_answers
from reskill_jax.rollouts.choices import ByChoice, pack

V, END, ROWS, LENGTH = 48, 0, 96, 40
MODEL = Decoder(DecoderConfig(vocabulary=V, width=16, layers=1, heads=2, kv_heads=1, mlp=16))
PARAMS = jax.tree.map(
    lambda x: 3.0 * x if x.ndim > 1 else x, jax.jit(MODEL.init)(jax.random.key(4))
)
PROMPT = (7, 3, 9)

# Few tokens, so that choices begin alike; no two are the same, and each is ended.
sets_of_choices = st.lists(
    st.lists(st.integers(1, 4), min_size=1, max_size=6).map(lambda c: (*c, END)),
    min_size=1,
    max_size=8,
    unique=True,
)


def listed(choices, *, most=7):
    """One row's choices; sets of up to 8 of up to 8 tokens share a shape."""
    return jax.tree.map(lambda x: x[0], pack([choices], most=most))


@functools.lru_cache
def functions_of(speller):
    """(begin, forced, support, take), compiled."""
    return (
        jax.jit(lambda task: speller.begin(task, None)),
        jax.jit(lambda task, spelling: speller.forced(task, None, spelling, jnp.bool_(True))),
        jax.jit(lambda task, spelling: speller.support(task, spelling, most=4)),
        jax.jit(lambda task, spelling, token: speller.take(task, None, spelling, token)),
    )


def walks(speller, choices):
    """Every way an answer can be spelled: (tokens, what could be chosen at each, place chosen)."""
    begin, forced, support, take = functions_of(speller)
    task = listed(choices)
    begun, found = begin(task), []

    def go(spelling, written, options):
        spelling, tokens, count = forced(task, spelling)
        written = (*written, *map(int, tokens[: int(count)]))
        assert int(spelling.symbols) == len(written) and -1 not in written
        if spelling.done:
            place = int(np.argmax(spelling.cursor))
            found.append((written, options, place))
            return
        ids, many = support(task, spelling)
        ids = [int(token) for token in ids if token != NO_TOKEN]
        assert ids == sorted(set(ids)) and ids and not many
        for token in ids:
            go(take(task, spelling, jnp.int32(token)), (*written, token), (*options, ids))

    go(begun, (), ())
    return found


# --- along the choices ----------------------------------------------------------------------------


@settings(max_examples=20)
@given(choices=sets_of_choices, by_symbol=st.booleans())
def test_every_choice_comes_out_in_one_way_and_nothing_else(choices, by_symbol):
    found = walks(ByChoice(8, by_symbol), choices)
    assert sorted(place for *_, place in found) == list(range(len(choices)))
    for written, options, place in found:
        choice = choices[place]
        assert choice[: len(written)] == written
        # As soon as it is the only one left, it is certain.
        others = [c for c in choices if c != choice]
        assert all(c[: len(written)] != written for c in others)
        asked = (
            len(written)
            if by_symbol
            else sum(
                len({c[n] for c in choices if c[:n] == choice[:n]}) > 1 for n in range(len(written))
            )
        )
        assert len(options) == asked
        if not by_symbol:
            assert all(len(ids) > 1 for ids in options)


def test_a_choice_that_begins_another():
    go, go_on = (1, END), (1, 2, END)
    for by_symbol in (False, True):
        found = {place: written for written, _, place in walks(ByChoice(8, by_symbol), [go, go_on])}
        assert found == {0: (1, END), 1: (1, 2)}
        # Without a token that ends it there is no way to say that nothing follows.
        found = [place for *_, place in walks(ByChoice(8, by_symbol), [(1,), (1, 2)])]
        assert found == [1]


def test_choices_that_are_the_same_are_one():
    twice = [(1, 2, END), (1, 3, END), (1, 2, END)]
    for by_symbol in (False, True):
        found = walks(ByChoice(8, by_symbol), twice)
        assert sorted((place, written[:2]) for written, _, place in found) == [
            (0, (1, 2)),
            (1, (1, 3)),
        ]
        ((written, options, place),) = walks(ByChoice(8, by_symbol), [(1, 2, END)] * 3)
        assert (written, place) == ((1, 2, END), 0)
        assert [len(ids) for ids in options] == [1] * (3 * by_symbol)


def test_a_choice_alone_is_certain():
    assert walks(ByChoice(8, False), [(1, 2, END)]) == [((), (), 0)]
    # Where symbols are tokens the model is asked once, as in a compiled world.
    assert walks(ByChoice(8, True), [(1, 2, END)]) == [((1,), ([1],), 0)]


def test_a_choice_as_long_as_there_is_room():
    whole = (1, 2, 3, 4, 1, 2, 3, 4)
    other = (*whole[:7], 1)
    for by_symbol in (False, True):
        found = walks(ByChoice(8, by_symbol), [whole, other])
        assert sorted((place, written) for written, _, place in found) == [(0, whole), (1, other)]


def test_more_candidates_than_there_is_room_for():
    task = listed([(n, END) for n in (3, 1, 2, 5, 4, 1)])
    speller = ByChoice(8, False)
    begin, _, support, _ = functions_of(speller)
    ids, many = support(task, begin(task))
    np.testing.assert_array_equal(ids, [1, 2, 3, 4])
    assert many
    ids, many = speller.support(task, begin(task), most=5)
    np.testing.assert_array_equal(ids, [1, 2, 3, 4, 5])
    assert not many


def test_packed_choices():
    packed = pack([[(1, 2), (3,)], [], [(4, 5, 6)]], most=20)
    assert packed.tokens.shape == (3, 8, 8) and packed.tokens.dtype == np.int32
    np.testing.assert_array_equal(packed.count, [2, 0, 1])
    np.testing.assert_array_equal(packed.tokens[0, :2, :3], [[1, 2, -1], [3, -1, -1]])
    np.testing.assert_array_equal(packed.tokens[2, 0, :4], [4, 5, 6, -1])
    assert (packed.tokens[1] == -1).all() and (packed.tokens[0, 2:] == -1).all()


@pytest.mark.parametrize(
    "count, width, most, shape",
    [
        (1, 1, 65, (8, 8)),
        (8, 8, 65, (8, 8)),
        (9, 9, 65, (16, 16)),
        (33, 17, 65, (64, 32)),
        (1000, 33, 65, (1024, 64)),
        (2, 65, 65, (8, 65)),  # no more than there can be
        (2, 3, 5, (8, 5)),
        (2, 70, 65, (8, 70)),  # never less than there are
        (0, 0, 65, (8, 8)),
    ],
)
def test_few_sizes_of_packed_choices(count, width, most, shape):
    packed = pack([[(1,) * max(width, 1)] * count, []], most=most)
    assert packed.tokens.shape == (2, *shape)
    assert packed.count.tolist() == [count, 0]


# --- a model that chooses -------------------------------------------------------------------------


@jax.jit
def next_logits(tokens, count):
    """[V] after the first `count` tokens of a row, everything encoded anew."""
    return MODEL.logits(PARAMS, MODEL.forward(PARAMS, tokens[None])[0, count - 1])


def after(tokens):
    """[V] logits after these tokens."""
    padded = np.zeros(LENGTH, np.int32)
    padded[: len(tokens)] = tokens
    return np.asarray(next_logits(padded, len(tokens)))


def log_prob_of(choice, choices, prompt=PROMPT):
    """Of a whole answer: the sum over the tokens at which others part from it."""
    total = 0.0
    for n, token in enumerate(choice):
        options = sorted({c[n] for c in choices if c[:n] == choice[:n]})
        if len(options) > 1:
            logits = after([*prompt, *choice[:n]])[options]
            total += float(jax.nn.log_softmax(logits)[options.index(token)])
    return total


def rows_of(prompts):
    """Tokens [R, L] and lengths [R]."""
    tokens = np.zeros((len(prompts), LENGTH), np.int32)
    for n, prompt in enumerate(prompts):
        tokens[n, : len(prompt)] = prompt
    return tokens, np.array([len(prompt) for prompt in prompts], np.int32)


def given_rows(rows, *, temperature=1.0, active=None, turn=2, seed=0):
    keys = jax.random.split(jax.random.key(seed), rows)
    active = np.ones(rows, bool) if active is None else active
    return Given(keys, PARAMS, np.full(rows, turn, np.int32), active, np.float32(temperature))


def answered(choices, *, by_symbol=False, **told):
    """Every row chooses among the same; (transcript, places chosen, tokens written, crowded)."""
    return all_answered([PROMPT] * ROWS, [choices] * ROWS, by_symbol=by_symbol, **told)[:4]


def all_answered(prompts, choices, *, by_symbol=False, **told):
    """As `answered`, of rows that differ, and how many tokens the cache holds."""
    tokens, lengths = rows_of(prompts)
    packed = pack(choices, most=7)
    _, *found = choose_answers(
        empty_cache(rows=ROWS, capacity=LENGTH, model=MODEL),
        tokens,
        lengths,
        np.zeros(ROWS, np.int32),
        given_rows(ROWS, **told),
        packed,
        model=MODEL,
        speller=ByChoice(packed.tokens.shape[-1], by_symbol),
        next_chunk=1 if by_symbol else 2,
        first_chunk=16,
    )
    return jax.device_get(found)


@pytest.mark.parametrize("by_symbol", [False, True], ids=["tokens", "symbols"])
def test_whole_answers_have_the_probability_of_their_tokens(by_symbol):
    for number, choices in enumerate(
        [
            [(1, 2, END), (1, 2, 3, END), (1, END), (2, 5, END), (40, 1, 1, 1, 1, END)],
            [(1, 1, 1, END), (1, 1, 2, END)],
            [(5, END)],
            [(n, 4, END) for n in range(10, 17)],
        ]
    ):
        expected = np.array([log_prob_of(choice, choices) for choice in choices])
        assert np.exp(expected).sum() == pytest.approx(1.0, abs=1e-5)
        rows, chosen, written, crowded = answered(choices, by_symbol=by_symbol, seed=number)
        used = np.arange(rows.position.shape[1]) < rows.count[:, None]
        found = np.where(used, rows.log_prob, 0.0).sum(axis=1)
        np.testing.assert_allclose(found, expected[chosen], atol=1e-4)
        assert not crowded.any()
        for n in range(ROWS):
            choice = choices[chosen[n]]
            told = rows.tokens[n, len(PROMPT) : rows.length[n]].tolist()
            assert told == list(choice[: written[n]]) and len(told) == written[n]
            # What could not be otherwise was not decided.
            asked = [c for c in choices if c != choice]
            parts = {
                i
                for i in range(len(choice))
                if any(c[:i] == choice[:i] and c[i] != choice[i] for c in asked)
            }
            assert (rows.position[n, : rows.count[n]] - len(PROMPT) + 1).tolist() == sorted(parts)
        assert ((rows.support >= 0).sum(axis=2)[used] > 1).all()
        assert (rows.turn[used] == 2).all() and (rows.weight == used).all()
        # 96 rows: no choice is met much more, or less, often than its probability says.
        share = np.bincount(chosen, minlength=len(choices)) / ROWS
        spread = np.sqrt(np.exp(expected) * (1 - np.exp(expected)) / ROWS)
        assert (np.abs(share - np.exp(expected)) <= 4 * spread + 1e-6).all()


def test_the_likeliest_token_is_chosen_when_greedy():
    choices = [(1, 2, END), (1, 2, 3, END), (1, END), (2, 5, END), (40, 1, 1, 1, 1, END)]
    left, n = choices, 0
    while len(left) > 1:
        options = sorted({c[n] for c in left})
        best = options[int(np.argmax(after([*PROMPT, *left[0][:n]])[options]))]
        left, n = [c for c in left if c[n] == best], n + 1
    rows, chosen, _, _ = answered(choices, temperature=0.0)
    assert {choices[place] for place in chosen} == {left[0]}
    assert not rows.log_prob.any()


def test_a_row_is_crowded_beyond_the_candidates_of_a_decision():
    more = np.arange(ROWS) % 3 == 0
    choices = [[(n + 1, END) for n in range(CANDIDATES + extra)] for extra in more]
    rows, chosen, _, crowded, _ = all_answered([PROMPT] * ROWS, choices)
    np.testing.assert_array_equal(crowded, more)
    assert chosen.max() < CANDIDATES and len(set(chosen)) > 4
    assert (rows.count == 1).all() and (rows.support[:, 0] == np.arange(1, CANDIDATES + 1)).all()


def test_rows_with_different_choices_and_rows_that_are_not_asked():
    kinds = [
        (PROMPT[:2], [(1, END), (2, END)]),
        (PROMPT, [(3, 3, END)]),
        ((*PROMPT, 5, 6), [(4, 1, END), (4, 2, END)]),
        (PROMPT, []),
    ]
    prompts, choices = zip(*(kinds[n % 4] for n in range(ROWS)))
    active = np.arange(ROWS) % 4 != 3
    tokens, lengths = rows_of(prompts)
    rows, _, written, crowded, held = all_answered(prompts, choices, active=active)
    np.testing.assert_array_equal(rows.count.reshape(-1, 4), [[1, 0, 1, 0]] * (ROWS // 4))
    np.testing.assert_array_equal(written.reshape(-1, 4), [[1, 0, 2, 0]] * (ROWS // 4))
    # What is certain is not encoded, and for a row that is not asked nothing is done.
    np.testing.assert_array_equal(held.reshape(-1, 4), [[2, 0, 6, 0]] * (ROWS // 4))
    np.testing.assert_array_equal(rows.length, lengths + written)
    np.testing.assert_array_equal(rows.tokens[~active], tokens[~active])
    assert not crowded.any()
    for n in (0, 2, 4, 6):
        assert rows.support[n, 0].tolist() == [1, 2, *[NO_TOKEN] * (CANDIDATES - 2)]
        at = int(rows.position[n, 0])
        log_probs = np.asarray(masked_log_probs(after(rows.tokens[n, : at + 1]), np.arange(V) < 3))
        log_probs = log_probs[1:3] - np.logaddexp(*log_probs[1:3])
        chosen = int(rows.tokens[n, at + 1])
        assert float(rows.log_prob[n, 0]) == pytest.approx(log_probs[chosen - 1], abs=1e-4)


# --- free text ------------------------------------------------------------------------------------

NOTHING_ENDS = np.full((3, 3), -1, np.int32)
RAGGED = ((5,), PROMPT, (*range(1, 20),), (2, 2), (9, 8, 7, 6))
MOST = 12


def written_text(prompts, *, limits=None, stops=NOTHING_ENDS, candidates=0, **told):
    """(transcript, tokens that the cache holds)."""
    tokens, lengths = rows_of(prompts)
    rows = len(prompts)
    limits = np.full(rows, MOST) if limits is None else limits
    _, *found = write_answers(
        empty_cache(rows=rows, capacity=LENGTH, model=MODEL),
        tokens,
        lengths,
        np.zeros(rows, np.int32),
        given_rows(rows, **told),
        np.asarray(limits, np.int32),
        np.asarray(stops, np.int32),
        model=MODEL,
        most=MOST,
        candidates=candidates,
        first_chunk=16,
    )
    return jax.device_get(found)


@jax.jit
def drawn(key, logits, temperature):
    return sample(key, logits, jnp.ones(V, bool), temperature=temperature)


def plainly_written(prompt, key, *, limit, stops=(), temperature=1.0, turn=2):
    """(tokens, log-probabilities) of a row, everything encoded anew for each token."""
    tokens, log_probs = list(prompt), []
    key = jax.random.fold_in(key, turn)
    while len(log_probs) < limit:
        noise = jax.random.fold_in(key, len(log_probs))
        token, log_prob = drawn(noise, after(tokens), temperature)
        tokens.append(int(token))
        log_probs.append(float(log_prob))
        said = tuple(tokens[len(prompt) :])
        if any(len(said) >= len(stop) and said[-len(stop) :] == tuple(stop) for stop in stops):
            break
    return tokens, log_probs


def ends(*stops):
    """[E, S], as `write_text` wants them; one size for all tests."""
    found = NOTHING_ENDS.copy()
    for n, stop in enumerate(stops):
        found[n, 3 - len(stop) :] = stop
    return found


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_free_text_is_what_a_plain_loop_writes(temperature):
    rows, held = written_text(RAGGED, temperature=temperature)
    keys = jax.random.split(jax.random.key(0), len(RAGGED))
    for n, prompt in enumerate(RAGGED):
        tokens, log_probs = plainly_written(prompt, keys[n], limit=MOST, temperature=temperature)
        assert rows.tokens[n, : rows.length[n]].tolist() == tokens
        np.testing.assert_allclose(rows.log_prob[n, : rows.count[n]], log_probs, atol=1e-4)
        first = len(prompt) - 1
        assert rows.position[n].tolist() == list(range(first, first + MOST))
        assert held[n] == len(tokens) - 1  # the last one has nothing behind it yet
    assert (rows.count == MOST).all() and (rows.turn == 2).all() and (rows.weight == 1).all()


def test_rows_have_limits_of_their_own():
    limits = [0, 1, 5, MOST, MOST + 7]
    rows, held = written_text(RAGGED, limits=limits)
    whole, _ = written_text(RAGGED)
    np.testing.assert_array_equal(rows.count, [0, 1, 5, MOST, MOST])
    for n, prompt in enumerate(RAGGED):
        length = len(prompt) + rows.count[n]
        assert rows.length[n] == length
        np.testing.assert_array_equal(rows.tokens[n, :length], whole.tokens[n, :length])
        assert not rows.tokens[n, length:].any()
    assert held[0] == 0


def test_text_ends_with_a_token_that_ends_it():
    whole, _ = written_text(RAGGED)
    said = [whole.tokens[n, len(p) :][:MOST].tolist() for n, p in enumerate(RAGGED)]
    stops = [(said[0][3],), (said[1][0],), (said[2][6],)]
    rows, _ = written_text(RAGGED, stops=ends(*stops))
    keys = jax.random.split(jax.random.key(0), len(RAGGED))
    for n, prompt in enumerate(RAGGED):
        tokens, _ = plainly_written(prompt, keys[n], limit=MOST, stops=stops)
        assert rows.tokens[n, : rows.length[n]].tolist() == tokens
    assert rows.count[1] == 1 and rows.count.max() > 1


def test_text_ends_with_several_tokens_together():
    whole, _ = written_text(RAGGED)
    said = [whole.tokens[n, len(p) :][:MOST].tolist() for n, p in enumerate(RAGGED)]
    stops = [tuple(said[0][4:7]), tuple(said[3][1:3]), (said[4][8],)]
    rows, _ = written_text(RAGGED, stops=ends(*stops))
    keys = jax.random.split(jax.random.key(0), len(RAGGED))
    for n, prompt in enumerate(RAGGED):
        tokens, _ = plainly_written(prompt, keys[n], limit=MOST, stops=stops)
        assert rows.tokens[n, : rows.length[n]].tolist() == tokens
    assert rows.count[0] <= 7 and rows.count[3] <= 3
    # What was there before does not count: the last token of the prompt, and the first written.
    begun = [(RAGGED[1][-1], said[1][0])]
    rows, _ = written_text(RAGGED, stops=ends(*begun))
    tokens, _ = plainly_written(RAGGED[1], keys[1], limit=MOST, stops=begun)
    assert rows.tokens[1, : rows.length[1]].tolist() == tokens and rows.count[1] > 1


def test_rows_that_do_not_write_stay_as_they_are():
    active = np.array([True, False, True, False, True])
    rows, held = written_text(RAGGED, active=active)
    whole, _ = written_text(RAGGED)
    np.testing.assert_array_equal(rows.count, MOST * active)
    for n, prompt in enumerate(RAGGED):
        if active[n]:
            np.testing.assert_array_equal(rows.tokens[n], whole.tokens[n])
        else:
            assert rows.tokens[n, : len(prompt)].tolist() == list(prompt)
            assert not rows.tokens[n, len(prompt) :].any() and held[n] == 0


def test_anything_could_be_chosen_in_free_text():
    """Its decisions have no support, however much room there is for one."""
    whole, _ = written_text(RAGGED)
    rows, _ = written_text(RAGGED, candidates=CANDIDATES)
    assert rows.support.shape == (len(RAGGED), MOST, CANDIDATES) and (rows.support == -1).all()
    assert whole.support.shape == (len(RAGGED), MOST, 0)
    np.testing.assert_array_equal(rows.tokens, whole.tokens)
    np.testing.assert_array_equal(rows.log_prob, whole.log_prob)


def test_what_the_cache_holds_is_not_encoded_again():
    """Two texts in a row, with something said between them, as a plain loop writes them."""
    keys = jax.random.split(jax.random.key(0), len(RAGGED))
    tokens, lengths = rows_of(RAGGED)
    cache = empty_cache(rows=len(RAGGED), capacity=LENGTH, model=MODEL)
    held = np.zeros(len(RAGGED), np.int32)
    rows = [list(prompt) for prompt in RAGGED]
    for turn in (0, 1):
        cache, found, held = write_answers(
            cache,
            tokens,
            lengths,
            held,
            given_rows(len(RAGGED), turn=turn),
            np.full(len(RAGGED), 6, np.int32),
            NOTHING_ENDS,
            model=MODEL,
            most=MOST,
            candidates=0,
            first_chunk=16,
        )
        for n, row in enumerate(rows):
            rows[n], log_probs = plainly_written(row, keys[n], limit=6, turn=turn)
            assert np.asarray(found.tokens)[n, : found.length[n]].tolist() == rows[n]
            np.testing.assert_allclose(found.log_prob[n, :6], log_probs, atol=1e-4)
            rows[n] += [11, 12, 13][: n % 4]
        tokens, lengths = rows_of(rows)


def test_a_place_is_used_again():
    """What another row has left in the cache is not seen."""
    nothing = np.zeros(len(RAGGED), np.int32)
    cache = empty_cache(rows=len(RAGGED), capacity=LENGTH, model=MODEL)
    rows = []
    for prompts in (RAGGED[::-1], RAGGED):
        tokens, lengths = rows_of(prompts)
        cache, found, _ = write_answers(
            cache,
            tokens,
            lengths,
            nothing,
            given_rows(len(RAGGED)),
            np.full(len(RAGGED), MOST, np.int32),
            NOTHING_ENDS,
            model=MODEL,
            most=MOST,
            candidates=0,
            first_chunk=16,
        )
        rows.append(jax.device_get(found))
    fresh, _ = written_text(RAGGED)
    np.testing.assert_array_equal(rows[1].tokens, fresh.tokens)
    np.testing.assert_array_equal(rows[1].log_prob, fresh.log_prob)
