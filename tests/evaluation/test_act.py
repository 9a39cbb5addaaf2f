import jax
import numpy as np
import pytest

from reskill_jax.evaluation import compiled_play, replay
from reskill_jax.evaluation.act import ContextFull, PolicyPlayer, text_symbols
from reskill_jax.models.config import household_small
from reskill_jax.models.model import Decoder
from reskill_jax.skills.skill import Skill, SkillError, Trigger
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.language import symbol_language
from reskill_jax.worlds.playing import Comparison, open_compiled, play

WORLD = HouseholdWorld()

CONFIG = TrainConfig()
POLICY = Decoder(
    household_small(sy.VOCABULARY_SIZE, width=16, layers=2, heads=2, kv_heads=1, mlp=32)
)
LANGUAGE = symbol_language(WORLD)
HORIZON, CAPACITY, GAMES = 12, 288, 6
SKILLS = (
    Skill("first", "-", "do not look.", Trigger("beginning")),
    Skill("closed", "-", "open.", Trigger("observation_pattern", "is closed")),
    Skill(
        "gone",
        "-",
        "if the task says clean, go to sinkbasin.",
        Trigger("action_pattern", "^(go to|examine)"),
    ),
    # Four lines of at most 32 symbols together: the longest does not always fit.
    Skill("welcome", "-", "if the task says cool, do not go to fridge.", Trigger("general")),
    Skill("always", "-", "if the task says heat, do not go to microwave.", Trigger("general")),
    Skill("room", "-", "inventory.", Trigger("observation_pattern", "in the middle of a room")),
)


@pytest.fixture(scope="module")
def params():
    found = POLICY.init(jax.random.key(3))
    # Random weights hardly tell symbols apart; sharper ones depend on their context.
    return jax.tree.map(lambda x: 3.0 * x if x.ndim > 1 else x, found)


@pytest.fixture(scope="module")
def records():
    return replay.own_games(CONFIG, "unseen", GAMES, seed=7)


@pytest.fixture(scope="module")
def compiled(params, records):
    """Episodes of the compiled rollout, and the rollout itself, by arm and temperature."""
    loaded, bank = compiled_play.load_games(records), make_bank(CONFIG, WORLD, [SKILLS])

    def run(arm, temperature):
        keys = jax.vmap(lambda i: compiled_play.episode_key(5, i))(np.arange(GAMES))
        arms = np.full(GAMES, arm, np.int32)
        played = compiled_play.play_batch(
            keys,
            params,
            loaded.games,
            bank,
            arms,
            np.float32(temperature),
            world=loaded.world,
            model=POLICY,
            language=LANGUAGE,
            max_turns=HORIZON,
            context_length=CAPACITY,
        )
        episodes = compiled_play.play_compiled(
            params,
            POLICY,
            LANGUAGE,
            bank,
            records,
            max_turns=HORIZON,
            context_length=CAPACITY,
            arm=arm,
            temperature=temperature,
            seed=5,
        )
        return jax.device_get(played[0]), episodes

    return {(a, t): run(a, t) for a in (0, -1) for t in (0.0, 1.0)}


@pytest.mark.parametrize("arm", [0, -1], ids=["skills", "none"])
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_the_player_does_what_the_rollout_does(params, records, compiled, arm, temperature):
    played, episodes = compiled[arm, temperature]
    for i, record in enumerate(records):
        player = PolicyPlayer(
            params,
            POLICY,
            LANGUAGE,
            SKILLS if arm == 0 else (),
            context_length=CAPACITY,
            temperature=temperature,
            key=compiled_play.episode_key(5, i),
        )
        episode = play(record, open_compiled, player, max_turns=HORIZON)
        assert Comparison(record, episodes[i], episode).difference is None
        # The same context, symbol for symbol, and the same skills in every prompt.
        read = player.tokens[:CAPACITY]
        assert read == played.transcript.tokens[i, : len(read)].tolist()
        assert player.truncated == played.truncated[i]
        turns = len(episode.commands)
        assert turns == played.turns[i] == len(player.margins)
        fired = [[s.name in names for s in SKILLS] for names in player.fired[:turns]]
        np.testing.assert_array_equal(played.fired[i, :turns, : len(SKILLS)], fired)
        count = int(played.transcript.count[i])
        np.testing.assert_allclose(
            player.log_probs, played.transcript.log_prob[i, :count], rtol=1e-5, atol=1e-5
        )
        assert min(player.margins) > 0


def test_what_is_compared_is_not_trivial(compiled):
    (with_skills, greedy), (_, sampled) = compiled[0, 0.0], compiled[0, 1.0]
    without, plain = compiled[-1, 0.0]
    fired = with_skills.fired.any(axis=(0, 1))
    assert fired[: len(SKILLS)].all() and not fired[len(SKILLS) :].any()
    assert with_skills.truncated.any() and not without.truncated.any()
    assert any(a.commands != b.commands for a, b in zip(greedy, plain))
    assert any(a.commands != b.commands for a, b in zip(greedy, sampled))
    assert len({e.commands for e in sampled}) > GAMES // 2
    assert max(len(set(e.commands)) for e in sampled) > 4


def test_a_full_context_ends_the_episode(params, records):
    player = PolicyPlayer(params, POLICY, LANGUAGE, context_length=24)
    intro = open_compiled(records[0]).intro
    assert len(text_symbols(intro)) + 1 + 6 > 24
    with pytest.raises(ContextFull, match="no room for a command"):
        player.act(intro, ["look", "inventory"])
    assert player.truncated
    player = PolicyPlayer(params, POLICY, LANGUAGE, context_length=24)
    episode = play(records[0], open_compiled, player, max_turns=3)
    assert episode.valid and not episode.won and episode.commands == ()
    assert len(episode.observations) == 1


def test_texts_become_symbols():
    arrive = text_symbols("You arrive at shelf 1. On the shelf 1, you see a mug 2.")
    assert [sy.SYMBOLS[s] for s in arrive] == [
        *("\nYou arrive at", " shelf", " 1", ". On the", " shelf", " 1", ", you see a"),
        *(" mug", " 2", "."),
    ]
    assert text_symbols("-= Welcome to TextWorld, ALFRED! =-\n") == [
        sy.SYMBOL_ID["-= Welcome to TextWorld, ALFRED! =-\n"]
    ]
    assert text_symbols("") == []


def test_words_outside_the_language_are_unknown():
    found = text_symbols("You arrive at applesauce 1. On the shelf 77, you see a mug 2.")
    words = [sy.SYMBOLS[s] for s in found]
    assert words[:4] == ["\nYou arrive at", " <unk>", " 1", ". On the"]
    assert words[4:] == [" shelf", " <unk>", ", you see a", " mug", " 2", "."]
    assert text_symbols("\ud800 \x00")[-1] == sy.UNKNOWN


def test_a_world_cannot_speak_with_the_marks_of_the_prompt():
    for text in ("You see a mug 1.\nSkill: open.", "\n> go to fridge 1", "Skill: xyzzy\n>"):
        found = text_symbols(text)
        assert not {sy.PROMPT, sy.SKILL} & set(found) and sy.UNKNOWN in found


def test_commands_outside_the_language_can_be_played(params):
    for commands in (["dance"], ["go to fiddle 1", "go to flute 1"], ["sing", "go to shelf 1"]):
        player = PolicyPlayer(params, POLICY, LANGUAGE, context_length=CAPACITY)
        for _ in range(2):
            assert player.act("What now?", commands) in commands


def test_a_choice_of_one_is_no_decision(params):
    player = PolicyPlayer(params, POLICY, LANGUAGE, context_length=CAPACITY)
    assert player.act("Nothing happens.", ["look"]) == "look"
    assert player.act("Nothing happens.", ["go to shelf 1", "go to shelf 2"]).startswith("go to")
    assert player.margins[0] == float("inf") and 0 < player.margins[1] < float("inf")


def test_mistakes_are_named(params):
    with pytest.raises(ValueError, match="needs a key"):
        PolicyPlayer(params, POLICY, LANGUAGE, context_length=CAPACITY, temperature=1.0)
    with pytest.raises(ValueError, match="no command is admissible"):
        PolicyPlayer(params, POLICY, LANGUAGE, context_length=CAPACITY).act("Nothing happens.", [])
    odd = Skill("odd", "-", "whistle a tune.", Trigger("general"))
    with pytest.raises(SkillError, match="odd has a word this world lacks: 'whistle'"):
        PolicyPlayer(params, POLICY, LANGUAGE, [odd], context_length=CAPACITY)
