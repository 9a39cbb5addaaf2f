"""How far a world's symbols, token by token, are from the way a tokenizer cuts the whole text.

    python experiments/language_agreement.py models/smollm2 [FILE...]

Tokenizers: a folder with a tokenizer.json or tokenizer.model, a SentencePiece model, a .tiktoken
file of Qwen or a tekken .json. For openings and observations of random play in the compiled
household: the share of messages whose symbols, spelled one by one, are the tokens that the
tokenizer gives the whole text; and how many more tokens there are.
"""

import argparse
import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from reskill_jax.models.pieces import SentencePieceTokenizer
from reskill_jax.models.tokenizer import from_ranks, load_tokenizer, read_tiktoken
from reskill_jax.worlds.household import pddl
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.reading import text_symbols
from reskill_jax.worlds.household.text_game import TextGame
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.language import Frame, token_language
from reskill_jax.worlds.playing import RandomPlayer

Encode = Callable[[str], list[int]]


def encoder(path: Path) -> Encode:
    """Text -> tokens, none of them added or recognised."""
    if path.is_dir():
        found = load_tokenizer(path)
        if found is None:
            raise SystemExit(f"{path}: there is no tokenizer")
        return lambda text: found.encode(text, control=False)
    if path.suffix == ".tiktoken":
        qwen = read_tiktoken(path)
        return lambda text: qwen.encode(text, control=False)
    if path.suffix == ".json":
        told = json.loads(path.read_text(encoding="utf-8"))
        size = told["config"]["default_vocab_size"] - told["config"]["default_num_special_tokens"]
        ranks = {base64.b64decode(one["token_bytes"]): one["rank"] for one in told["vocab"][:size]}
        made = from_ranks(ranks, told["config"]["pattern"], control={})
        return lambda text: made.encode(text, add_special_tokens=False).ids
    return SentencePieceTokenizer.load(path).encode


def messages(games: int, turns: int) -> dict[str, list[tuple[int, ...]]]:
    """Symbols of openings and observations of random play, each once."""
    world = HouseholdWorld()
    make = jax.jit(lambda key: world.make(key, "train"))
    openings, observations = set(), set()
    for number in range(games):
        game = jax.device_get(make(jax.random.key(number)))
        host = TextGame.from_pddl(pddl.write(game), task=sy.text(game.task))
        openings.add(tuple(text_symbols(host.intro)))
        player, seen = RandomPlayer(number), host.intro
        for _ in range(turns):
            seen, won = host.step(player.act(seen, host.admissible()))
            observations.add(tuple(text_symbols(seen)))
            if won:
                break
    return {"openings": sorted(openings), "observations": sorted(observations)}


def agreement(encode: Encode, found: dict[str, list[tuple[int, ...]]]) -> dict[str, float]:
    """Shares of messages with the same tokens, and by how much the table's are more on average."""
    world = HouseholdWorld()
    frame = Frame(answered=tuple(encode("\n"))[-1:])
    language = token_language(world, encode, frame, space=True)
    told: dict[str, float] = {"pairs that begin alike": _prefixes(language.symbols, world.spoken)}
    for name, texts in found.items():
        same, ours, theirs = 0, 0, 0
        for symbols in texts:
            text = sy.text(symbols)
            # Behind a line break, as in a prompt.
            whole = encode("\n" + text)[len(encode("\n")) :]
            spelled = language.spell(symbols, opening=True)
            same += spelled == whole
            ours, theirs = ours + len(spelled), theirs + len(whole)
        told[name] = same / len(texts)
        told[f"tokens of {name}"] = ours / theirs - 1
    return told


def _prefixes(spelled: Sequence[tuple[int, ...]], spoken: Sequence[int]) -> int:
    """Pairs of symbols of actions of which one's tokens begin the other's."""
    return sum(
        a != b and spelled[b][: len(spelled[a])] == spelled[a] for a in spoken for b in spoken
    )


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizers", nargs="+", type=Path)
    parser.add_argument("--games", type=int, default=100)
    parser.add_argument("--turns", type=int, default=20)
    options = parser.parse_args()
    found = messages(options.games, options.turns)
    counts = ", ".join(f"{len(texts)} {name}" for name, texts in found.items())
    print(f"{options.games} games of {options.turns} random commands: {counts}, all different\n")
    print("| tokenizer | openings, same tokens | observations | tokens more | begin alike |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for path in options.tokenizers:
        told = agreement(encoder(path), found)
        more = np.mean([told["tokens of openings"], told["tokens of observations"]])
        print(
            f"| {path.name} | {told['openings']:.1%} | {told['observations']:.1%} | {more:+.2%} | "
            f"{told['pairs that begin alike']} |"
        )


if __name__ == "__main__":
    main()
