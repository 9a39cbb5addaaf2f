"""Episodes in the tokens of other tokenizers, against the same episodes told on the host."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.models.config import DecoderConfig
from reskill_jax.models.model import Decoder
from reskill_jax.models.sampling import NO_TOKEN, masked_log_probs
from reskill_jax.rollouts.compiled import play
from reskill_jax.rollouts.host import HostPlay, play_host
from reskill_jax.rollouts.prompt import SymbolPrompt
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.training.scoring import decision_logits
from reskill_jax.worlds.alfworld_games import game_record
from reskill_jax.worlds.household import TextGame, pddl
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.generator import RoomSpec
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.language import Frame, LanguageError, token_language
from reskill_jax.worlds.sessions.pool import SessionPool
from reskill_jax.worlds.sessions.source import Source
from reskill_jax.worlds.text_games import TextGames, task_of

ROOMS = RoomSpec(receptacles=6, min_receptacles=5, objects=5, min_objects=4)
WORLD = HouseholdWorld(spec=ROOMS)
ROWS, TURNS = 8, 5
MARKS = {"<|user|>": 256, "<|agent|>": 257, "<|end|>": 258}


def letters(text):
    """Every letter is a token: " 1" begins " 10", " to" begins " toaster"."""
    return list(text.encode())


def syllables(text):
    """Letters in threes from the left, as far as nothing but letters; the rest one by one."""
    ids, word = [], ""
    for letter in text + "\0":
        if letter.isalpha():
            word += letter
            continue
        parts = [word[i : i + 3] for i in range(0, len(word), 3)]
        ids += [ord(p) if len(p) == 1 else 300 + zlib.crc32(p.encode()) % 9700 for p in parts]
        word = ""
        ids += [ord(letter)] if letter != "\0" else []
    return ids


CHAT = Frame(
    start=(258, 256, *letters("\n")),
    ask=(258, *letters("\n"), 257, *letters("\n")),
    answered=(258, *letters("\n"), 256, *letters("\n")),
)
PLAIN = Frame(start=tuple(letters("Play.\n\n")), ask=tuple(letters("\n>")), answered=(10,))
CASES = {
    "letters, plain": (letters, PLAIN, True, 2400),
    "letters, chat": (letters, CHAT, False, 2400),
    "syllables, chat": (syllables, CHAT, False, 1200),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, lab):
    """A language, a model, and what is played with them, with skills and without."""
    encode, frame, space, length = CASES[request.param]
    language = token_language(WORLD, encode, frame, space=space)
    model = Decoder(
        DecoderConfig(vocabulary=10_000, width=32, layers=1, heads=2, kv_heads=1, mlp=32)
    )
    params = model.init(jax.random.key(0))
    skills = (lab.skill("open", "open.", "observation_pattern", "You"),)
    bank = make_bank(lab.config, WORLD, [skills])
    keys = jax.random.split(jax.random.key(1), ROWS)
    games = jax.jit(jax.vmap(functools.partial(WORLD.make, split="train")))(keys)
    arms = np.asarray([0, 0, 0, 0, -1, -1, -1, -1], np.int32)
    played, record = jax.jit(
        functools.partial(
            play,
            world=WORLD,
            model=model,
            language=language,
            max_turns=TURNS,
            context_length=length,
        )
    )(keys, params, games, bank, arms)
    found = jax.device_get((games, played, record))
    return language, model, params, skills, keys, found


def rows(found):
    for n in range(ROWS):
        yield n, *jax.tree.map(lambda x, n=n: x[n], found)


def unpad(row):
    return [int(x) for x in row if x != sy.PAD]


def test_tokens_are_what_was_read_and_written(case):
    language, _, _, skills, _, found = case
    frame, spoke = language.frame, 0
    for n, _, played, record in rows(found):
        tokens = [*frame.start, *language.spell(unpad(record.introductions), opening=True)]
        of_skills, action = [], None
        observation = sy.text(record.introductions)
        for turn in range(int(played.turns) + 1):
            for skill in skills if n < 4 else ():
                if skill.trigger.fires(turn=turn, last_action=action, observation=observation):
                    line = language.spell([sy.SKILL, *sy.words(skill.action)], opening=False)
                    of_skills += range(len(tokens), len(tokens) + len(line))
                    tokens += line
            tokens += frame.ask if turn == 0 or not played.success else ()
            if turn == played.turns:
                break
            action, observation = sy.text(record.actions[turn]), sy.text(record.observations[turn])
            tokens += language.spell(unpad(record.actions[turn]), opening=True) + [*frame.answered]
            tokens += language.spell(unpad(record.observations[turn]), opening=True)
        assert int(played.transcript.length) == len(tokens) and played.valid
        room = played.transcript.tokens.shape[0]  # what lies beyond is lost
        assert played.transcript.tokens[: len(tokens)].tolist() == tokens[:room]
        kept = [place for place in of_skills if place < room]
        assert np.flatnonzero(played.of_skills).tolist() == kept
        spoke += len(of_skills) > 0
    assert spoke > 0


def test_candidates_are_what_an_admissible_command_can_go_on_with(case):
    language, _, _, _, _, found = case
    decisions = 0
    for _, game, played, record in rows(found):
        host = TextGame.from_pddl(pddl.write(game), task=sy.text(game.task))
        row, at = played.transcript, 0
        for turn in range(int(played.turns)):
            spellings = {
                (*language.spell(sy.words(c), opening=True), *language.frame.answered)
                for c in host.admissible()
            }
            command = sy.text(record.actions[turn])
            written = (*language.spell(sy.words(command), opening=True), *language.frame.answered)
            for place, token in enumerate(written):
                possible = {s for s in spellings if s[:place] == written[:place]}
                options = sorted({s[place] for s in possible})
                if len(possible) == 1:
                    break
                if len(options) > 1:
                    support = row.support[at][row.support[at] != NO_TOKEN]
                    assert support.tolist() == options
                    assert row.tokens[row.position[at] + 1] == token and row.turn[at] == turn
                    at += 1
            assert host.step(command)[0] == sy.text(record.observations[turn])
        assert at == row.count
        decisions += at
    assert decisions > 20


def test_log_probs_are_those_of_the_loss(case):
    _, model, params, _, _, (_, played, _) = case
    rows = played.transcript
    logits = jax.jit(functools.partial(decision_logits, model=model))(params, rows)
    used = np.arange(rows.position.shape[1]) < rows.count[:, None]
    found = np.asarray(masked_log_probs(logits, rows.support != NO_TOKEN))
    behind = np.take_along_axis(rows.tokens, rows.position + 1, axis=1)
    again = np.where(rows.support == behind[:, :, None], found, 0).sum(-1)
    np.testing.assert_allclose(again[used], rows.log_prob[used], atol=1e-4)


def test_texts_on_the_host_are_played_the_same(case):
    language, model, params, skills, keys, (games, played, record) = case
    count, length = played.transcript.tokens.shape
    records = [
        game_record(jax.tree.map(lambda x, n=n: np.asarray(x[n]), games), name=str(n), split="s")
        for n in range(count)
    ]
    plan = HostPlay(
        model,
        SymbolPrompt(WORLD, language),
        max_turns=played.reward.shape[1],
        context_length=length,
        answer_tokens=language.action_tokens(WORLD) - len(language.frame.answered),
        decisions=played.transcript.position.shape[1],
        overflow_is_invalid=False,
    )
    with SessionPool(Source(world=TextGames(engine="household")), workers=0) as pool:
        found = play_host(
            [task_of(one) for one in records],
            [skills if n < 4 else () for n in range(count)],
            keys,
            params,
            pool=pool,
            plan=plan,
            slots=played.fired.shape[2],
        )
    for n, told in enumerate(found.conversations):
        turns = int(played.turns[n])
        assert told.actions == [sy.text(action) for action in record.actions[n, :turns]]
    there, here = played.transcript, found.rollouts.transcript
    np.testing.assert_array_equal(there.tokens, here.tokens)
    used = np.arange(there.position.shape[1]) < there.count[:, None]
    np.testing.assert_array_equal(there.support[used], here.support[used])
    np.testing.assert_allclose(there.log_prob[used], here.log_prob[used], atol=1e-4)
    assert int(there.length.min()) > 200


def test_numbers_may_begin_alike(lab):
    """Where " 1" is all that is left of " 1" and " 10", the end of the action is a choice."""
    language = token_language(WORLD, letters, PLAIN, space=True)
    one, ten = (language.symbols[sy.symbol(text)] for text in (" 1", " 10"))
    assert ten[: len(one)] == one
    assert language.trie.alphabet[language.trie.end] == PLAIN.answered[0]
    assert language.decisions_per_turn(WORLD) > WORLD.decisions_per_turn


def test_what_is_no_language():
    with pytest.raises(LanguageError, match="something has to follow an action"):
        token_language(WORLD, letters, Frame(), space=True)
    with pytest.raises(LanguageError, match="the tokenizer has the same tokens for"):
        token_language(WORLD, lambda text: [7] * len(text), PLAIN, space=True)
    with pytest.raises(LanguageError, match="the tokenizer has no tokens for"):
        token_language(WORLD, lambda text: [], PLAIN, space=True)


def test_a_tokenizer_that_puts_a_space_in_front_of_everything():
    def spaced(text):
        return letters("_" + text)

    language = token_language(WORLD, spaced, PLAIN, space=True)
    assert language.symbols[sy.symbol(" fridge")] == tuple(letters(" fridge"))
    assert language.opening[sy.symbol("\nYou open the")] == tuple(letters("You open the"))
    assert language.opening[sy.symbol(" open")] == tuple(letters(" open"))
    chat = token_language(WORLD, spaced, CHAT, space=False)
    assert chat.opening[sy.symbol(" open")] == tuple(letters("open"))
    assert jnp.asarray(chat.flat.length).shape == (2, sy.VOCABULARY_SIZE)
