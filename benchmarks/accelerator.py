"""How near language models come to what the device can do: compiling, gradient, decoding, a step.

    python benchmarks/accelerator.py [--quick] [--model models/smollm2] [--seconds 480]

One JSON line per figure, with the device and, where there is one, the ratio to a roof that is
measured in the same run: the rate of a large matrix product, and of reading memory. On a CPU the
shapes are small, and so they are with --quick. What does not fit into the time is left out, and
said so. `--model` names a checkpoint that plays a whole step of the household.
"""

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.devices.machine import describe_machine
from reskill_jax.models.config import DecoderConfig
from reskill_jax.models.model import Decoder
from reskill_jax.training.config import ModelConfig, household, replace
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.training.runner import games_of_step, make_runner
from reskill_jax.training.settings import load_policy
from reskill_jax.training.state import init_state
from reskill_jax.worlds.registry import make_world


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured with."""

    dtype: Literal["float32", "bfloat16"]
    matrix: int  # rows and columns of the matrix product
    read: int  # numbers that are read for the memory's rate
    shape: DecoderConfig  # of the gradient and of decoding
    depths: tuple[int, int]  # whose compiling is compared
    rows: int
    tokens: int
    decoding_rows: int
    context: int
    groups: int  # of a household step
    group_size: int
    turns: int


QWEN3_1_7B = DecoderConfig(
    vocabulary=151_936,
    width=2048,
    layers=28,
    heads=16,
    kv_heads=8,
    head_width=128,
    mlp=6144,
    qk_norm=True,
    tie_embeddings=True,
    dtype="bfloat16",
    remat=True,
)
SMALL = DecoderConfig(
    vocabulary=1024,
    width=128,
    layers=12,
    heads=4,
    kv_heads=2,
    mlp=384,
    qk_norm=True,
    remat=True,
)
LARGE_SIZES = Sizes("bfloat16", 8192, 1 << 30, QWEN3_1_7B, (4, 28), 8, 2048, 128, 1024, 16, 8, 30)
SMALL_SIZES = Sizes("float32", 1024, 1 << 25, SMALL, (4, 28), 2, 256, 8, 256, 2, 2, 2)


def timed(function: Callable[..., Any], *arguments: Any, repeats: int = 5) -> float:
    """Median seconds of a compiled function, after a call that does not count."""
    jax.block_until_ready(function(*arguments))
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def compile_seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Seconds that lowering and compiling take."""
    began = time.perf_counter()
    jax.jit(function).lower(*arguments).compile()
    return time.perf_counter() - began


def matrix_rate(sizes: Sizes) -> float:
    """Operations a second of a matrix product."""
    x = jnp.ones((sizes.matrix, sizes.matrix), sizes.dtype)
    return 2 * sizes.matrix**3 / timed(jax.jit(lambda x: x @ x), x)


def memory_rate(sizes: Sizes) -> float:
    """Bytes a second of reading."""
    x = jnp.ones(sizes.read, jnp.int8 if sizes.dtype == "bfloat16" else jnp.float32)
    return x.nbytes / timed(jax.jit(lambda x: jnp.max(x)), x)


def mean_loss(params: Any, tokens: jax.Array, *, model: Decoder) -> jax.Array:
    """Something of the hidden states that needs all of the parameters but the embedding's rows."""
    return jnp.mean(jnp.square(model.forward(params, tokens).astype(jnp.float32)))


def gradient_of(config: DecoderConfig) -> Callable[..., Any]:
    """(params, tokens) -> gradient."""
    return jax.grad(functools.partial(mean_loss, model=Decoder(config)))


def shapes_of(config: DecoderConfig, dtype: Any = jnp.float32) -> Any:
    """The parameters as shape structs."""
    like = jax.eval_shape(lambda: Decoder(config).init(jax.random.key(0)))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), like)


def filled(like: Any) -> Any:
    """Small numbers in the shapes of a tree."""
    return jax.tree.map(lambda x: jnp.full(x.shape, 0.01, x.dtype), like)


def operations(config: DecoderConfig, rows: int, tokens: int) -> float:
    """Of a gradient without what is computed twice: 6 a parameter and token, and the attention."""
    block = sum(
        leaf.size
        for name, part in shapes_of(config).items()
        if name not in ("embedding", "unembedding")
        for leaf in jax.tree.leaves(part)
    )
    attention = 6 * config.layers * config.heads * config.head_dim * tokens
    return rows * tokens * (6.0 * block + attention)


def compiling(sizes: Sizes) -> dict[str, Any]:
    """Compiling the gradient at two depths."""
    tokens = jax.ShapeDtypeStruct((sizes.rows, sizes.tokens), jnp.int32)
    seconds = []
    for depth in sizes.depths:
        config = dataclasses.replace(sizes.shape, layers=depth)
        seconds.append(compile_seconds(gradient_of(config), shapes_of(config), tokens))
    few, many = seconds
    return {"layers": sizes.depths, "seconds": seconds, "ratio": many / few}


def gradient(sizes: Sizes, peak: float) -> dict[str, Any]:
    """The gradient of whole sequences."""
    config = sizes.shape
    params = filled(shapes_of(config))
    tokens = jnp.ones((sizes.rows, sizes.tokens), jnp.int32)
    seconds = timed(jax.jit(gradient_of(config)), params, tokens, repeats=3)
    rate = operations(config, sizes.rows, sizes.tokens) / seconds
    return {"rows": sizes.rows, "tokens": sizes.tokens, "seconds": seconds, "of peak": rate / peak}


def decoding(sizes: Sizes, roof: float) -> dict[str, Any]:
    """One token for every row of a filled cache, in the memory that has to be read for it."""
    config, model = sizes.shape, Decoder(sizes.shape)
    params = filled(shapes_of(config, jnp.dtype(config.dtype)))
    rows = sizes.decoding_rows
    cache = model.init_cache(rows, sizes.context + 8)
    cache = cache._replace(lengths=jnp.full(rows, sizes.context, jnp.int32))
    tokens, counts = jnp.ones((rows, 1), jnp.int32), jnp.ones(rows, jnp.int32)

    @functools.partial(jax.jit, donate_argnums=1)
    def four(params, cache):
        """Several in a loop, as in a rollout; rows stay as long as they are."""

        def body(_, carry):
            cache, _ = carry
            hidden, new = model.extend(params, cache, tokens, counts)
            return new._replace(lengths=cache.lengths), hidden

        start = jnp.zeros((rows, config.width), config.dtype)
        return jax.lax.fori_loop(0, 4, body, (cache, start))

    cache, hidden = four(params, cache)
    jax.block_until_ready(hidden)
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        cache, hidden = four(params, cache)
        jax.block_until_ready(hidden)
        taken.append((time.perf_counter() - began) / 4)
    seconds = float(np.median(taken))
    size = jnp.dtype(config.dtype).itemsize
    held = 2 * config.layers * config.kv_heads * config.head_dim * sizes.context * rows * size
    blocks = sum(x.nbytes for name, p in params.items() if "embed" not in name for x in _leaves(p))
    return {
        "rows": rows,
        "context": sizes.context,
        "seconds a token": seconds,
        "of the memory's rate": (held + blocks) / seconds / roof,
    }


def _leaves(tree: Any) -> list[jax.Array]:
    return jax.tree.leaves(tree)


def household_step(sizes: Sizes, folder: str) -> dict[str, Any]:
    """A whole step of the household with a checkpoint."""
    config = replace(
        household(),
        model=ModelConfig(folder, dtype=sizes.dtype),
        groups=sizes.groups,
        group_size=sizes.group_size,
        optimizer=dict(minibatches=min(4, sizes.groups)),
        max_turns=sizes.turns,
        context_length=2048 if sizes.turns > 10 else 900,
        trial=dict(min_episodes=sizes.groups * sizes.group_size),
        eval_tasks=1,
    )
    world = make_world(config.world, rooms=config.rooms)
    policy = load_policy(config.model, world)
    runner = make_runner(config, world, policy)
    state = init_state(config, policy.params, make_bank(config, world, [()]))
    games = runner.games(games_of_step(config, 0))
    began = time.perf_counter()
    step = runner.step.lower(state, games).compile()
    compiled, taken = time.perf_counter() - began, []
    for number in range(3):
        games = runner.games(games_of_step(config, number))
        began = time.perf_counter()
        state, metrics, _ = step(state, games)
        jax.block_until_ready(state)
        taken.append(time.perf_counter() - began)
    return {
        "rollouts": f"{sizes.groups} x {sizes.group_size}",
        "turns": float(metrics.turns),
        "context tokens": float(metrics.context_tokens),
        "compile seconds": compiled,
        "seconds": float(np.median(taken)),
    }


def figures(sizes: Sizes, folder: str | None) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Names, and what measures them, in the order of what they need."""
    roofs: dict[str, float] = {}

    def peak() -> dict[str, Any]:
        roofs["peak"] = matrix_rate(sizes)
        return {"TFLOP/s": roofs["peak"] / 1e12}

    def roof() -> dict[str, Any]:
        roofs["memory"] = memory_rate(sizes)
        return {"GB/s": roofs["memory"] / 1e9}

    yield "matrix product", peak
    yield "reading memory", roof
    if folder is not None:
        yield "household step", lambda: household_step(sizes, folder)
    yield "decoding", lambda: decoding(sizes, roofs["memory"])
    yield "gradient", lambda: gradient(sizes, roofs["peak"])
    yield "compiling the gradient", lambda: compiling(sizes)


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes")
    parser.add_argument("--model", help="folder of a checkpoint; without it no household step")
    parser.add_argument("--seconds", type=float, default=480, help="no figure is begun after them")
    parser.add_argument("--json", type=Path, help="append the lines here, too")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_compilation_cache", False)
    small = options.quick or jax.default_backend() == "cpu"
    sizes = SMALL_SIZES if small else LARGE_SIZES
    about = {"device": jax.devices()[0].device_kind, "machine": describe_machine()}
    began = time.perf_counter()
    for name, measure in figures(sizes, options.model):
        if time.perf_counter() - began > options.seconds:
            found: dict[str, Any] = {"left out": "the time is over"}
        else:
            found = measure()
        line = json.dumps({"figure": name, **found, **about})
        print(line, flush=True)
        if options.json is not None:
            with options.json.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
