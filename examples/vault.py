r"""A compiled world of one's own: a locked door, four levers, and a handle.

A push opens the door after the right lever has clicked.

In this folder, a few minutes on two cores:

    reskill pretrain --world vault:Vault --preset small --name player --waves 300 \
        --episodes 256 --max-turns 6 --context-length 96 --warmup 50 \
        --shape.width 32 --shape.layers 2 --shape.mlp 96
    reskill train --config vault.yaml
    reskill eval runs/vault

Which lever unlocks a door depends on its colour. Doors of stone are seen in evaluations only.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.worlds.symbol_texts import SymbolTexts
from reskill_jax.worlds.vocabulary import ActionVocabulary
from reskill_jax.worlds.world import Shown, Step

COLOURS, MATERIALS = ("red", "blue", "green", "white"), ("wooden", "iron", "stone")
LEVERS = ("first", "second", "third", "fourth")
UNLOCKS = jnp.array([2, 0, 3, 1])  # the lever of each colour
WORDS = ("do not", "pull", "push", *LEVERS, *COLOURS, *MATERIALS)
PHRASES = (
    *("You stand before a door.\nYour task is to: open the", " door.", "."),
    *("\nIt clicks.", "\nNothing happens.", "\nThe door opens."),
)
LANGUAGE = ("", " <unknown>", "\n>", "\nSkill:", *(f" {word}" for word in WORDS), *PHRASES)
UNKNOWN, ASK, SKILL, NOT, PULL, PUSH, LEVER = range(1, 8)  # LEVER: the first of four
COLOUR, MATERIAL = LANGUAGE.index(" red"), LANGUAGE.index(" wooden")
INTRODUCTION, DOOR, STOP, CLICK, NOTHING, OPEN = range(LANGUAGE.index(PHRASES[0]), len(LANGUAGE))

ACTIONS = np.array([*((PULL, LEVER + n) for n in range(4)), (PUSH, 0)])  # all there are
LINES = np.zeros((2, 5, 5), np.int32)  # of a skill that says to take one of them, or not to
for denies in (0, 1):
    for number, (verb, lever) in enumerate(ACTIONS):
        line = [SKILL, *([NOT] * denies), verb, *([lever] if lever else []), STOP]
        LINES[denies, number, : len(line)] = line


class Door(NamedTuple):
    """A task."""

    colour: jax.Array  # [] int32
    material: jax.Array  # [] int32


class Cursor(NamedTuple):
    """An action, partly spelled."""

    verb: jax.Array  # [] int32 symbol, 0 = none yet
    lever: jax.Array  # [] int32 symbol, 0 = none yet
    done: jax.Array  # [] bool


@dataclasses.dataclass(frozen=True)
class Vault(SymbolTexts):
    """Pull the lever that unlocks the door, then push."""

    language, unknown = LANGUAGE, UNKNOWN
    spoken = (PULL, PUSH, *range(LEVER, LEVER + 4))
    instruction = "Open the door: pull the first, second, third or fourth lever, or push."
    prompt, skill_header = LANGUAGE[ASK], LANGUAGE[SKILL]
    splits, task_types, affordances = ("train", "seen", "unseen"), COLOURS, ("pull", "push")
    introduction_length, action_length, observation_length = 4, 2, 1
    decisions_per_turn = 2
    actions = ActionVocabulary(("pull", "push"), frozenset(LEVERS), task_words=COLOURS)
    banks = {}
    demonstrations = "a player that knows no rule and mostly does what it is told"

    def make(self, key, split):
        """A door of a split, by its name or its number."""
        split = self.splits.index(split) if isinstance(split, str) else split
        colour, material = jax.random.split(key)
        material = jax.random.randint(material, (), 0, 2)
        return Door(jax.random.randint(colour, (), 0, 4), jnp.where(split == 2, 2, material))

    def task_text(self, door):
        return jnp.stack([COLOUR + door.colour, MATERIAL + door.material])

    def task_type(self, door):
        return door.colour

    def reset(self, door):
        """Locked; and what is read first."""
        ends = jnp.array([INTRODUCTION, DOOR])
        return jnp.bool_(False), jnp.concatenate([ends[:1], self.task_text(door), ends[1:]])

    def affords(self, door, unlocked):
        return jnp.ones(2, bool)

    def begin(self, door, unlocked):
        return Cursor(jnp.int32(0), jnp.int32(0), jnp.bool_(False))

    def allowed(self, door, cursor):
        verbs, levers = jnp.array([PULL, PULL, PULL, PUSH]), LEVER + jnp.arange(4)
        possible = jnp.where(cursor.verb > 0, levers, verbs)
        return jnp.zeros(len(LANGUAGE), bool).at[possible].set(True)

    def advance(self, door, unlocked, cursor, symbol):
        second = cursor.verb > 0
        verb, lever = jnp.where(second, cursor.verb, symbol), jnp.where(second, symbol, 0)
        moved = Cursor(verb, lever, second | (symbol == PUSH))
        return jax.tree.map(lambda old, new: jnp.where(cursor.done, old, new), cursor, moved)

    def action(self, door, cursor):
        return jnp.stack([cursor.verb, cursor.lever])

    def step(self, door, unlocked, cursor):
        """A right lever clicks; a push opens what is unlocked."""
        clicks = cursor.lever == LEVER + UNLOCKS[door.colour]
        opens = (cursor.verb == PUSH) & unlocked
        seen = jnp.where(opens, OPEN, jnp.where(clicks, CLICK, NOTHING))
        return unlocked | clicks, Step(seen[None], opens.astype(jnp.float32), opens, opens)

    def task_of(self, introduction):
        return introduction.partition("Your task is to: ")[2].rstrip(".")

    def type_of(self, task):
        return next((colour for colour in COLOURS if colour in task.split()), COLOURS[0])

    def player(self, key):
        return jnp.zeros(())  # there is one alone

    def demonstrate(self, key, door, unlocked, player):
        """An action at random; half of the time a skill names one that is taken, or is not."""
        draw, talk, deny = jax.random.split(key, 3)
        named, other = jax.random.permutation(draw, 5)[:2]
        denies = jax.random.bernoulli(deny, 0.3).astype(jnp.int32)
        line = jnp.where(jax.random.bernoulli(talk), jnp.asarray(LINES)[denies, named], 0)
        taken = jnp.asarray(ACTIONS, jnp.int32)[jnp.where(denies, other, named)]
        return Shown(line[None], taken, jnp.float32(1))
