"""Measures a household policy: how it plays without, with good and with bad skills, and obeys.

    python experiments/measure_household.py                       # the shipped weights
    python experiments/measure_household.py --weights my.safetensors --games 512

Success is that of sampling at temperature 1, on games the policy was never pretrained on (`unseen`:
object-place combinations kept out of it). P(follow) is the share of turns at which the policy, told
by a skill to go to a kind of place that is in the room and where it is not, goes there; for words
whose combination with "go to" was in the pretraining, and for those that were held out.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.devices.machine import describe_machine
from reskill_jax.models import weights
from reskill_jax.models.decoder import DecoderConfig
from reskill_jax.models.model import Decoder
from reskill_jax.rollouts import compiled
from reskill_jax.rollouts.episodes import Record, Rollouts
from reskill_jax.skills.bank import Bank, build_bank
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.storage.intervals import wilson_interval
from reskill_jax.worlds.household import symbols
from reskill_jax.worlds.household.directives import HELD_OUT
from reskill_jax.worlds.household.handwritten import BAD, GOOD
from reskill_jax.worlds.household.symbols import GO_TO
from reskill_jax.worlds.household.tables import RECEPTACLE_TYPES
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.language import symbol_language

HORIZON, CAPACITY = 18, 416


def play(
    params,
    policy: DecoderConfig,
    bank: Bank,
    arms: np.ndarray,
    *,
    split: str,
    max_turns: int,
    context_length: int,
    seed: int = 0,
) -> tuple[tuple[Rollouts, Record], object]:
    """One game per entry of `arms` ([N] int); the same seed gives the same games."""
    world = HouseholdWorld()
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(len(arms)))
    games = jax.jit(jax.vmap(lambda key: world.make(key, split)))(keys)
    run = jax.jit(
        lambda keys, params, games, bank, arms: compiled.play(
            keys, params, games, bank, arms, world=world, model=Decoder(policy),
            language=symbol_language(world), max_turns=max_turns, context_length=context_length,
        )
    )  # fmt: skip
    return jax.device_get((run(keys, params, games, bank, jnp.asarray(arms, jnp.int32)), games))


def measure_success(params, policy: DecoderConfig, *, games: int, seed: int) -> dict:
    """Success with no, good and bad skills, on seen and unseen families."""
    bank = _bank([GOOD, BAD])
    found = {}
    for split in ("seen", "unseen"):
        arms = np.repeat([-1, 0, 1], games)
        # The same games in each of the three conditions.
        played, _ = play_blocks(params, policy, bank, arms, split=split, block=games, seed=seed)
        won = played.reshape(3, games)
        for name, row in zip(("without", "good", "bad"), won, strict=True):
            low, high = wilson_interval(int(row.sum()), games)
            found[f"{split} {name} skills"] = {
                "success": round(float(row.mean()), 3),
                "interval": [round(low, 3), round(high, 3)],
                "games": games,
            }
    return found


def play_blocks(params, policy, bank, arms, *, split, block, seed):
    """Success of `arms` played in blocks, every block on the same games."""
    won = []
    for start in range(0, len(arms), block):
        played, games = play(
            params, policy, bank, arms[start : start + block], split=split,
            max_turns=HORIZON, context_length=CAPACITY, seed=seed,
        )  # fmt: skip
        won.append(played.success)
    return np.concatenate(won), games


def measure_obedience(params, policy: DecoderConfig, *, games: int, seed: int) -> dict:
    """P(follow) of "go to <place>", for words seen and held out in pretraining."""
    words = [name.lower() for name in RECEPTACLE_TYPES]
    arms = [[Skill("go", "a yardstick", f"go to {word}.", Trigger("general"))] for word in words]
    per_word = max(1, games // len(words))
    played, made = play(
        params, policy, _bank(arms), np.repeat(np.arange(len(words)), per_word),
        split="seen", max_turns=8, context_length=320, seed=seed,
    )  # fmt: skip
    counts = {"in pretraining": [0, 0], "held out": [0, 0]}
    for row in range(len(words) * per_word):
        stem = symbols.SYMBOL_ID[" " + words[row // per_word]]
        kind = "held out" if HELD_OUT[GO_TO, stem] else "in pretraining"
        places = int(np.sum(made.recep_stem[row] == stem))
        at = False
        for action in played.actions[row, : played.turns[row]]:
            goes = action[0] == symbols.FIRST_VERB + GO_TO
            if places and (places > 1 or not at):
                counts[kind][1] += 1
                counts[kind][0] += int(goes and action[1] == stem)
            at = bool(action[1] == stem) if goes else at
    return {
        name: {"follow": round(followed / max(told, 1), 3), "told": told}
        for name, (followed, told) in counts.items()
    }


def _bank(arms: Sequence[Sequence[Skill]]) -> Bank:
    return build_bank(arms, language=symbols.SYMBOLS, encode=symbols.words, lacking=symbols.lacking)


def measure(params, policy: DecoderConfig, *, games: int = 256, seed: int = 10_000) -> dict:
    """All of it, as plain numbers."""
    return {
        "success": measure_success(params, policy, games=games, seed=seed),
        "follow": measure_obedience(params, policy, games=2 * games, seed=seed),
        "max_turns": HORIZON,
        "seed": seed,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="household", help="shipped name or .safetensors file")
    parser.add_argument("--games", type=int, default=256)
    parser.add_argument("--seed", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="few games")
    arguments = parser.parse_args()
    if Path(arguments.weights).suffix == ".safetensors":
        params, policy, _ = weights.load(arguments.weights)
    else:
        params, policy, _ = weights.load_pretrained(arguments.weights)
    games = 32 if arguments.quick else arguments.games
    print(describe_machine())
    print(json.dumps(measure(params, policy, games=games, seed=arguments.seed), indent=2))


if __name__ == "__main__":
    main()
