"""Pretrains the small household policy on demonstrations made on the device.

    python experiments/pretrain_household.py --folder runs/pretrain --ship household.safetensors
    python experiments/pretrain_household.py --quick          # a minute, to see it work

Each wave generates fresh episodes, sorts them by length (so that short ones are not padded to the
longest) and takes one optimizer step per batch. Interrupted, the same command goes on from the last
saved wave; every wave's randomness follows from the seed and its number alone. `--start` begins
with the parameters of another policy: a name of shipped weights, or a file that `--ship` wrote.
`--ship` sharpens the policy (its logits are divided by `sharpen`, folded into the last norm),
measures it and writes it with its provenance. `--pass-by`, `--forget` and so on set the habits of
the player that is imitated.
"""

import argparse
import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from measure_household import measure
from safetensors.numpy import load_file, save_file

from reskill_jax.devices.machine import describe_machine
from reskill_jax.models import decoder, weights
from reskill_jax.models.decoder import DecoderConfig
from reskill_jax.models.sampling import masked_log_probs
from reskill_jax.rollouts import transcript as transcripts
from reskill_jax.rollouts.transcript import Transcript
from reskill_jax.training.demonstrations import demonstrate
from reskill_jax.worlds.household.expert import Habits
from reskill_jax.worlds.household.generator import RoomSpec
from reskill_jax.worlds.household.symbols import VOCABULARY_SIZE


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """Settings. Those of the shipped weights stand in their provenance, household.json."""

    width: int = 64
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 192
    horizon: int = 24
    capacity: int = 512
    waves: int = 280
    episodes: int = 512  # a wave
    batch: int = 32
    learning_rate: float = 2.5e-3
    final_learning_rate: float = 5e-5
    warmup: int = 200  # optimizer steps
    weight_decay: float = 0.01
    clip: float = 1.0
    unmasked_share: float = 0.1  # of the loss: without the mask of admissible commands
    sharpen: float = 0.65  # temperature folded into the weights that are shipped
    seed: int = 0
    habits: Habits = Habits()  # of the player


class Learner(NamedTuple):
    """What pretraining changes."""

    params: Any
    opt_state: Any


def policy_config(config: Pretraining) -> DecoderConfig:
    """The shape of the decoder."""
    return DecoderConfig(
        vocabulary=VOCABULARY_SIZE,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        mlp=config.mlp,
    )


def loss_fn(params, rows: Transcript, *, config: DecoderConfig, unmasked_share: float):
    """Mean negative log-likelihood of the learnable decisions of a batch of rows."""
    hidden = decoder.forward(params, rows.tokens, config=config)
    at = jnp.take_along_axis(hidden, rows.position[:, :, None], axis=1)
    logits = decoder.logits(params, at, config=config)
    choice = jax.vmap(transcripts.choices)(rows)
    used = jnp.arange(rows.position.shape[1]) < rows.count[:, None]
    weight = rows.weight * used
    total = jnp.maximum(weight.sum(), 1.0)
    listed = jax.nn.one_hot(rows.support, config.vocabulary, dtype=bool).any(axis=2)
    allowed = listed | ~used[:, :, None]

    def mean_nll(log_probs):
        chosen = jnp.take_along_axis(log_probs, choice[:, :, None], axis=-1)[..., 0]
        return -jnp.sum(jnp.where(weight > 0, chosen, 0.0) * weight) / total

    masked_log_prob = masked_log_probs(logits, allowed)
    masked = mean_nll(masked_log_prob)
    unmasked = mean_nll(jax.nn.log_softmax(logits))
    best = jnp.argmax(masked_log_prob, axis=-1) == choice
    agreement = jnp.sum(best * weight) / total
    return masked + unmasked_share * unmasked, (masked, unmasked, agreement)


def make_programs(config: Pretraining):
    """The compiled functions: initial learner, a wave of episodes, one optimizer step."""
    spec = RoomSpec()
    steps = config.waves * (config.episodes // config.batch)
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.learning_rate, config.warmup),
            optax.linear_schedule(
                config.learning_rate, config.final_learning_rate, max(1, steps - config.warmup)
            ),
        ],
        [config.warmup],
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(schedule, b2=0.98, weight_decay=config.weight_decay),
    )
    shape = policy_config(config)

    @jax.jit
    def episodes(wave):
        play = functools.partial(
            demonstrate,
            spec=spec,
            habits=config.habits,
            horizon=config.horizon,
            capacity=config.capacity,
        )
        key = jax.random.fold_in(jax.random.key(config.seed), wave)
        return jax.vmap(play)(jax.random.split(key, config.episodes))

    @functools.partial(jax.jit, donate_argnums=0)
    def train(learner: Learner, rows: Transcript):
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (_, aux), grads = grad_fn(
            learner.params, rows, config=shape, unmasked_share=config.unmasked_share
        )
        updates, opt_state = optimizer.update(grads, learner.opt_state, learner.params)
        return Learner(optax.apply_updates(learner.params, updates), opt_state), aux

    def init() -> Learner:
        params = decoder.init(jax.random.key(config.seed + 1), shape)
        return Learner(params, optimizer.init(params))

    return init, episodes, train


def save(path: Path, learner: Learner, wave: int) -> None:
    """Writes the whole learner, the new file complete before the old one goes."""
    leaves = {f"{i:04d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(learner))}
    partial = path.with_suffix(".partial")
    save_file(leaves, partial, metadata={"wave": str(wave)})
    partial.replace(path)


def restore(path: Path, learner: Learner) -> tuple[Learner, int]:
    """The learner of a saved wave, and the wave's number."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        wave = int(file.metadata()["wave"])
    saved = load_file(path)
    leaves, treedef = jax.tree.flatten(learner)
    if len(saved) != len(leaves):
        raise ValueError(f"{path} holds another model; give another --folder")
    restored = [jnp.asarray(saved[f"{i:04d}"]) for i in range(len(leaves))]
    return jax.tree.unflatten(treedef, restored), wave


def params_of(start: str) -> Any:
    """Parameters of a finished policy, by shipped name or file, as they were before sharpening."""
    load = weights.load if start.endswith(".safetensors") else weights.load_pretrained
    params, _, provenance = load(start)
    sharpened = provenance["settings"]["sharpen"]
    return params | {"final_norm": params["final_norm"] * sharpened}


def pretrain(config: Pretraining, folder: Path, start: str | None) -> Learner:
    """All waves, from the last saved one on; `start` gives the parameters before the first."""
    folder.mkdir(parents=True, exist_ok=True)
    init, episodes, train = make_programs(config)
    learner, first = init(), 0
    if start is not None:
        learner = learner._replace(params=jax.tree.map(jnp.asarray, params_of(start)))
    if (folder / "learner.safetensors").exists():
        learner, first = restore(folder / "learner.safetensors", learner)
        print(f"going on from wave {first}", flush=True)
    log = (folder / "log.jsonl").open("a")
    started = time.time()
    for wave in range(first, config.waves):
        played = episodes(wave)
        if not bool(jnp.all(played.admissible)):
            raise AssertionError(f"wave {wave}: the player chose an inadmissible command")
        rows = jax.tree.map(np.asarray, played.transcript)
        order = np.argsort(rows.length, kind="stable").reshape(-1, config.batch)
        random = np.random.default_rng((config.seed, wave))
        sums = np.zeros(3)
        for batch in random.permutation(order):
            part = Transcript(*(field[batch] for field in rows))
            width = min(config.capacity, -(-int(part.length.max()) // 64) * 64)
            decisions = min(part.position.shape[1], -(-int(part.count.max()) // 72) * 72)
            part = part._replace(
                tokens=part.tokens[:, :width],
                position=np.minimum(part.position[:, :decisions], width - 1),
                support=part.support[:, :decisions],
                turn=part.turn[:, :decisions],
                log_prob=part.log_prob[:, :decisions],
                weight=part.weight[:, :decisions],
            )
            learner, aux = train(learner, part)
            sums += np.asarray(jax.device_get(aux))
        masked, unmasked, agreement = sums / len(order)
        line = {
            "wave": wave,
            "masked": round(float(masked), 4),
            "unmasked": round(float(unmasked), 4),
            "agreement": round(float(agreement), 4),
            "player_success": round(float(played.won.mean()), 3),
            "tokens": float(rows.length.mean()),
            "longest": int(rows.length.max()),
            "seconds": round(time.time() - started, 1),
        }
        log.write(json.dumps(line) + "\n")
        log.flush()
        if wave % 5 == 0 or wave + 1 == config.waves:
            print(line, flush=True)
        if (wave + 1) % 10 == 0 or wave + 1 == config.waves:
            save(folder / "learner.safetensors", learner, wave + 1)
    return learner


def ship(
    learner: Learner,
    config: Pretraining,
    path: Path,
    *,
    command: str,
    games: int,
    start: str | None = None,
) -> None:
    """Sharpens, measures and writes the weights with their provenance."""
    params = dict(learner.params)
    params["final_norm"] = params["final_norm"] / config.sharpen
    scores = measure(params, policy_config(config), games=games)
    print(json.dumps(scores, indent=2))
    settings = dataclasses.asdict(config)
    habits = settings.pop("habits")._asdict()
    provenance = {
        "command": command,
        "settings": settings,
        "data": "demonstrations generated on the device from the seed: a habitual player that "
        "obeys directives, in rooms of the train split; object-place combinations of the unseen "
        "split and the held-out directives never occur",
        "habits": habits,
        "start": start or "random parameters",
        "episodes": config.waves * config.episodes,
        "machine": describe_machine(),
        "scores": scores,
    }
    weights.save(path, params, provenance, policy_config(config))


def main() -> None:
    """Pretrains, measures and ships, as asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = dataclasses.asdict(Pretraining())
    for name, default in (defaults | defaults.pop("habits")._asdict()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--folder", type=Path, default=Path("runs/pretrain"))
    parser.add_argument("--start", help="shipped name or .safetensors file to begin with")
    parser.add_argument("--ship", type=Path, help="the .safetensors file to write at the end")
    parser.add_argument("--games", type=int, default=512, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="a minute's run, to see it work")
    arguments = vars(parser.parse_args())
    folder, quick = arguments.pop("folder"), arguments.pop("quick")
    path, games, start = arguments.pop("ship"), arguments.pop("games"), arguments.pop("start")
    habits = Habits(*(arguments.pop(name) for name in Habits._fields))
    config = Pretraining(**arguments, habits=habits)
    if quick:
        config = dataclasses.replace(config, waves=2, episodes=64, width=32, layers=1, warmup=2)
        folder = folder / "quick"
    print(f"{describe_machine()}\n{config}")
    learner = pretrain(config, folder, start)
    if path is not None:
        command = " ".join(["python", *sys.argv])
        ship(learner, config, path, command=command, games=32 if quick else games, start=start)


if __name__ == "__main__":
    main()
