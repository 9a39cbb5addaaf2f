import jax
import numpy as np
import pytest

from reskill_jax.evaluation import compiled_play, given_games
from reskill_jax.evaluation.text_play import episode_of_texts, margins, play_texts
from reskill_jax.models.config import household_small
from reskill_jax.models.model import Decoder
from reskill_jax.skills.skill import Skill, SkillError, Trigger
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.language import symbol_language
from reskill_jax.worlds.playing import Comparison

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
    return given_games.own_games(WORLD, "unseen", GAMES, seed=7)


@pytest.fixture(scope="module")
def compiled(params, records):
    """Episodes of the compiled rollout, and the rollout itself, by arm and temperature."""
    loaded, bank = WORLD.load_games(records), make_bank(CONFIG, WORLD, [SKILLS])

    def run(arm, temperature):
        keys = jax.vmap(lambda i: compiled_play.episode_key(5, i))(np.arange(GAMES))
        arms = np.full(GAMES, arm, np.int32)
        played = compiled_play.play_batch(
            keys,
            params,
            loaded.tasks,
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
            world=WORLD,
            max_turns=HORIZON,
            context_length=CAPACITY,
            arm=arm,
            temperature=temperature,
            seed=5,
        )
        return jax.device_get(played[0]), episodes

    return {(a, t): run(a, t) for a in (0, -1) for t in (0.0, 1.0)}


@pytest.fixture(scope="module")
def as_text(params, records):
    """The same games in an engine that answers with texts, by arm and temperature."""

    def run(arm, temperature):
        return play_texts(
            records,
            params,
            POLICY,
            LANGUAGE,
            SKILLS if arm == 0 else (),
            engine="household",
            max_turns=HORIZON,
            context_length=CAPACITY,
            temperature=temperature,
            seed=5,
        )

    return {(a, t): run(a, t) for a in (0, -1) for t in (0.0, 1.0)}


@pytest.mark.parametrize("arm", [0, -1], ids=["skills", "none"])
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_texts_are_played_as_symbols_are(records, compiled, as_text, arm, temperature):
    """The same commands, the same context symbol for symbol, the same skills in every prompt."""
    played, episodes = compiled[arm, temperature]
    found = as_text[arm, temperature]
    for record, one, told in zip(records, episodes, found.conversations, strict=True):
        assert Comparison(record, one, episode_of_texts(told)).difference is None
    there, here = played.transcript, found.rollouts.transcript
    used = np.arange(there.position.shape[1]) < there.count[:, None]
    for name in ("tokens", "length", "count"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))
    for name in ("position", "support", "turn", "weight"):
        np.testing.assert_array_equal(getattr(there, name)[used], getattr(here, name)[used])
    np.testing.assert_allclose(there.log_prob[used], here.log_prob[used], rtol=1e-5, atol=1e-5)
    for name in ("reward", "success", "valid", "turns", "of_skills", "truncated"):
        np.testing.assert_array_equal(getattr(played, name), getattr(found.rollouts, name))
    skills = found.rollouts.fired.shape[2]
    np.testing.assert_array_equal(played.fired[:, :, :skills], found.rollouts.fired)


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


def test_how_near_to_a_tie_commands_came(params, as_text):
    played = as_text[0, 0.0]
    found = margins(played, params, POLICY)
    assert [len(one) for one in found] == [len(told.actions) for told in played.conversations]
    every = [lead for one in found for lead in one]
    assert min(every) > 0 and min(every) < 5


def test_a_full_context_ends_the_episode(params, records):
    played = play_texts(
        records[:1], params, POLICY, LANGUAGE, engine="household", max_turns=3, context_length=24
    )
    (told,) = played.conversations
    assert told.valid and not told.success and told.actions == [] and told.ended == "context"
    assert len(told.observations) == 1 and played.rollouts.truncated.all()


def test_a_skill_that_cannot_be_read_is_named(params, records):
    odd = Skill("odd", "-", "whistle a tune.", Trigger("general"))
    with pytest.raises(SkillError, match="odd has a word this world lacks: 'whistle'"):
        play_texts(
            records[:1],
            params,
            POLICY,
            LANGUAGE,
            [odd],
            engine="household",
            max_turns=3,
            context_length=CAPACITY,
        )
