"""Steps per second of the household world, and of the real ALFWorld engine in the same run.

Random admissible play in rooms of our own generator, small and large. A compiled step finds the
admissible commands, draws one, carries it out, writes the answer as symbols and judges the goal;
1,024 games advance together. The real engine plays the same kind of games, written as problem
files, one at a time, as it does in ALFWorld (its time to load a game is left out).

    python benchmarks/household.py [--quick] [--batch 1024]
"""

import argparse
import functools
import json
import random
import time

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.devices.machine import describe_machine
from reskill_jax.worlds import alfworld
from reskill_jax.worlds.household import commands, engine, generator, pddl
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.types import Command

ROOMS = {
    "small": generator.RoomSpec(receptacles=12, min_receptacles=8, objects=16, min_objects=8),
    "large": generator.LARGE,
}


def draw(salt, mask):
    """Index of a pseudo-random entry that is set; a hash, so that the world is what is timed."""
    index = jnp.arange(mask.shape[0], dtype=jnp.uint32)
    noise = (index + salt.astype(jnp.uint32)) * jnp.uint32(2654435761)
    noise = (noise ^ (noise >> 15)) * jnp.uint32(2246822519)
    noise = ((noise ^ (noise >> 13)) & ~jnp.uint32(255)) | index
    return (jnp.min(jnp.where(mask, noise, ~jnp.uint32(0))) & 255).astype(jnp.int32)


def random_command(game, state, salt):
    """A random admissible command: the verb first, then its arguments."""
    admissible = commands.admissible(game, state)
    verb = draw(salt, admissible.verbs)
    first = draw(salt + 7919, admissible.first[verb])
    second = commands.second_arguments(game, state, verb, first)
    drawn = jnp.where(jnp.any(second), draw(salt + 104729, second), -1)
    return Command(verb, jnp.where(verb <= sy.HELP, -1, first), drawn)


def compiled_speed(spec: generator.RoomSpec, *, batch: int, steps: int, repeats: int) -> dict:
    """Best and median steps per second of the compiled world, and seconds to compile."""
    width = engine.observation_capacity(spec.receptacles, spec.objects, shared=1)
    make = jax.jit(jax.vmap(functools.partial(generator.generate, spec=spec)))
    games = jax.block_until_ready(make(jax.random.split(jax.random.key(0), batch)))

    def play(games, salt):
        def step(states, t):
            def one(game, state, i):
                command = random_command(game, state, (i * 31 + t) * 1009 + salt)
                state, seen, length = engine.step(game, state, command, max_symbols=width)
                return state, (seen, length, engine.won(game, state))

            return jax.vmap(one)(games, states, jnp.arange(batch))

        return jax.lax.scan(step, games.start, jnp.arange(steps))[1]

    start = time.perf_counter()
    compiled = jax.jit(play).lower(games, jnp.int32(0)).compile()
    compile_seconds = time.perf_counter() - start
    seen, length, _ = jax.device_get(compiled(games, jnp.int32(0)))
    nothing = np.mean(seen[..., 0] == sy.symbol("\nNothing happens."))
    if nothing:
        raise AssertionError(f"{nothing:.2%} of the random commands were not admissible")
    seconds = []
    for i in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(games, jnp.int32(i + 1)))
        seconds.append(time.perf_counter() - start)
    return {
        "steps_per_second": batch * steps / float(np.median(seconds)),
        "best": batch * steps / min(seconds),
        "compile_seconds": compile_seconds,
        "symbols_per_answer": float(np.mean(length)),
    }


def real_speed(spec: generator.RoomSpec, *, games: int, steps: int) -> dict:
    """Steps per second of the real engine in random admissible play."""
    rng = random.Random(0)
    make = jax.jit(functools.partial(generator.generate, spec=spec))
    played, stepping, loading = 0, 0.0, 0.0
    for i in range(games):
        game = jax.tree.map(np.asarray, make(jax.random.key(i)))
        problem, task = pddl.write(game), sy.text(game.task)
        start = time.perf_counter()
        with alfworld.AlfworldGame(problem, task=task) as real:
            loading += time.perf_counter() - start
            for _ in range(steps):
                command = rng.choice(real.admissible())
                start = time.perf_counter()
                real.step(command)
                stepping += time.perf_counter() - start
                played += 1
    return {"steps_per_second": played / stepping, "load_seconds": loading / games}


def main() -> None:
    """Runs and prints the comparison; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps and games")
    parser.add_argument("--batch", type=int, default=1024, help="games that advance together")
    arguments = parser.parse_args()
    steps, repeats = (20, 3) if arguments.quick else (50, 10)
    print(describe_machine())
    report = {"batch": arguments.batch}
    for name, spec in ROOMS.items():
        row = compiled_speed(spec, batch=arguments.batch, steps=steps, repeats=repeats)
        print(
            f"{name} rooms (R={spec.receptacles}, O={spec.objects}): "
            f"{row['steps_per_second']:,.0f} steps/s (best {row['best']:,.0f}), "
            f"compiled in {row['compile_seconds']:.1f} s"
        )
        report[name] = {"compiled": row}
        if not alfworld.installed():
            print('  real engine: not installed (pip install "reskill-jax[alfworld]")')
            continue
        real = real_speed(
            spec, games=1 if arguments.quick else 3, steps=10 if arguments.quick else 30
        )
        ratio = row["steps_per_second"] / real["steps_per_second"]
        print(f"  real engine: {real['steps_per_second']:.1f} steps/s; ratio {ratio:,.0f}")
        report[name] |= {"real": real, "ratio": ratio}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
