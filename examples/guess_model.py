"""Makes a model small enough to learn `guess.py` in minutes: it knows the words, not the game.

    python examples/guess_model.py guess-model

It is fitted to games in which the actions are random, except where the line of a skill says what to
do, or not to do: then that is done. So it plays at chance, and reads skills. Half a minute on two
cores.
"""

import argparse
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tokenizers
from guess import Guess

from reskill_jax.models import load_tokenizer, new_model, save_model

ACTIONS = ("go up", "go down", "say it")
LENGTH, BATCH, STEPS, SPEAKS = 192, 32, 250, 0.3
SHAPE = {
    **{"model_type": "llama", "hidden_size": 64, "intermediate_size": 192},
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4},
    **{"max_position_embeddings": 1024, "tie_word_embeddings": True},
}


def make_tokenizer(folder: Path) -> None:
    """One token for every word of the game."""
    texts = [text for seed in range(200) for text, _ in play(random.Random(seed))]
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))


def play(rng: random.Random):
    """A game as (text, whether it is an action) pieces, written as in training."""
    game = Guess().open(rng.choice(Guess().tasks("train")))
    said = f"Find the number.\n\n{game.reset()}"
    for _ in range(7):
        yield said, False
        allowed = list(ACTIONS)
        if rng.random() < SPEAKS:
            named = rng.choice(ACTIONS)
            negative = rng.random() < 0.3
            yield f"\nSkill: {'do not ' if negative else ''}{named}.", False
            allowed = [a for a in ACTIONS if a != named] if negative else [named]
        yield "\n> ", False
        action = rng.choice(allowed)
        yield action, True
        yield "\n", False
        outcome = game.step(action)
        if outcome.done:
            return
        said = outcome.observation


def batch_of(tokenizer, rng: random.Random):
    """[B, L] tokens, and [B, L] bool: those of actions."""
    tokens = np.zeros((BATCH, LENGTH), np.int32)
    chosen = np.zeros((BATCH, LENGTH), bool)
    for row in range(BATCH):
        at = 0
        for text, action in play(rng):
            ids = tokenizer.encode(text)[: LENGTH - at]
            tokens[row, at : at + len(ids)] = ids
            chosen[row, at : at + len(ids)] = action
            at += len(ids)
    return tokens, chosen


def main() -> None:
    """Makes the tokenizer, fits the model, writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    make_tokenizer(options.folder)
    tokenizer = load_tokenizer(options.folder)
    settings = SHAPE | {"vocab_size": tokenizer.vocab_size}
    loaded = new_model(options.folder, settings)
    optimizer = optax.adam(2e-3)

    def loss(params, tokens, chosen):
        hidden = loaded.model.forward(params, tokens)
        log_probs = jax.nn.log_softmax(loaded.model.logits(params, hidden[:, :-1]))
        picked = jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
        return -jnp.sum(jnp.where(chosen[:, 1:], picked, 0)) / jnp.sum(chosen[:, 1:])

    @jax.jit
    def step(params, state, tokens, chosen):
        value, grads = jax.value_and_grad(loss)(params, tokens, chosen)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    params, state, rng = loaded.params, optimizer.init(loaded.params), random.Random(0)
    for number in range(options.steps):
        params, state, value = step(params, state, *batch_of(tokenizer, rng))
        if number % 50 == 0 or number + 1 == options.steps:
            print(f"step {number + 1}/{options.steps}  loss {float(value):.3f}")
    save_model(options.folder, loaded._replace(params=params))


if __name__ == "__main__":
    main()
