"""Memory per device of a training step: a formula, and XLA's own account to check it.

    python experiments/memory.py            # the table, and the check: a few minutes
    python experiments/memory.py --quick    # the table alone

Qwen3-4B with the paper's 16 tasks x 8 rollouts on a v5e-16 and a v5p-8. The formula is checked
where XLA can be asked without such machines: the step is compiled for simulated CPU devices (never
run) with the same blocks but few of them, once whole and once with a frozen policy, which leaves
the rollout alone. In float32, because CPUs emulate bfloat16 with copies. Writes
experiments/results/memory.json and the tables in docs/scale.md.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results_page import table, write_section

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results" / "memory.json"
PAGE = ROOT / "docs" / "scale.md"
GB = 1e9
# Name, chips, GB of each, meshes to tell of (data, fsdp, tensor).
MACHINES = (
    ("v5e-16", 16, 16, ((1, 16, 1), (1, 8, 2), (1, 4, 4))),
    ("v5p-8", 4, 95, ((1, 4, 1), (1, 2, 2))),
)
CAPACITIES = (2048, 4096)
CHECKED = ((1, 8, 1), (1, 4, 2))  # meshes of eight devices
LAYERS = (2, 3)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What memory depends on. The defaults: Qwen3-4B, the paper's step."""

    vocabulary: int = 151936
    width: int = 2560
    layers: int = 36
    heads: int = 32
    kv_heads: int = 8
    head: int = 128
    mlp: int = 9728
    bytes: int = 2  # of an activation
    groups: int = 16
    group_size: int = 8
    capacity: int = 4096
    decisions: int = 250  # of a row: 50 turns of 5
    words: int = 151936  # that a decision chooses among
    divergence: bool = False
    rows_at_once: int = 4
    minibatches: int = 4

    @property
    def block(self) -> int:
        """Parameters of a block."""
        attention = self.width * self.head * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.width * self.mlp + 2 * self.width + 2 * self.head

    @property
    def parameters(self) -> int:
        """Of the whole, with tied embeddings."""
        return self.layers * self.block + self.vocabulary * self.width + self.width


def estimate(shape: Shape, mesh: tuple[int, int, int]) -> dict[str, float]:
    """Bytes per device: what is held all the time, and what each phase of a step adds to it."""
    data, fsdp, tensor = mesh
    rows = shape.groups * shape.group_size / (data * fsdp)
    share = 4 * shape.parameters / (fsdp * tensor)  # float32
    at_once = min(shape.rows_at_once, rows / shape.minibatches)
    cache = 2 * rows * shape.capacity * shape.layers * shape.kv_heads * shape.head * shape.bytes
    tokens = at_once * shape.capacity
    inside = shape.heads * shape.head * 4 + 2 * shape.width + 3 * shape.mlp / tensor
    decided = at_once * shape.decisions * shape.words
    return {
        # Parameters and two moments, and the starting policy if a divergence is asked for.
        "held": share * (4 if shape.divergence else 3),
        # Tokens, whether each is a skill's, and for every decision which words it chose among (a
        # bool each).
        "rows": 2 * rows * (5 * shape.capacity + shape.decisions * shape.words),
        # The rollout: parameters whole but for `tensor`, in the activations' type; keys and values.
        "gathered": shape.bytes * shape.parameters / tensor,
        "cache": cache / tensor,
        # The update: gradients of some rows and their sum; one block, whole; activations at the
        # borders of blocks, and within one; logits and their gradient.
        "gradients": 2 * share,
        "one block": (4 + shape.bytes) * shape.block / tensor,
        "activations": tokens * shape.bytes * (shape.layers * shape.width + 2 * inside),
        "logits": 3 * 4 * decided / tensor,
    }


def peak(parts: dict[str, float], *, frozen: bool = False) -> float:
    """Bytes: what is held, and the larger phase; the rollout alone if the policy is frozen."""
    rollout = parts["gathered"] + parts["cache"]
    update = sum(parts[name] for name in ("gradients", "one block", "activations", "logits"))
    return parts["held"] + parts["rows"] + (rollout if frozen else max(rollout, update))


# --- the check ------------------------------------------------------------------------------------


def compiled(layers: int, mesh: tuple[int, int, int], frozen: bool) -> dict[str, float]:
    """XLA's account of a step with so many blocks, per device (run in a process of its own)."""
    import jax
    import jax.numpy as jnp

    from reskill_jax.devices.shape import MeshShape
    from reskill_jax.models.config import DecoderConfig
    from reskill_jax.models.model import Decoder
    from reskill_jax.training import loop
    from reskill_jax.training.config import TrainConfig
    from reskill_jax.training.settings import Policy
    from reskill_jax.training.state import init_state
    from reskill_jax.worlds.household import symbols
    from reskill_jax.worlds.household.world import HouseholdWorld
    from reskill_jax.worlds.language import symbol_language

    shape = checked_shape(layers)
    shape_of_model = DecoderConfig(
        vocabulary=symbols.VOCABULARY_SIZE,
        width=shape.width,
        layers=layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_width=shape.head,
        mlp=shape.mlp,
        qk_norm=True,
        remat=True,
    )
    model = Decoder(shape_of_model)
    world = HouseholdWorld()
    policy = Policy((), model, symbol_language(world))
    config = TrainConfig(
        context_length=shape.capacity, mesh=MeshShape(*mesh), policy_until=0 if frozen else None
    )
    runner = loop.make_runner(config, world, policy)
    bank = loop.make_bank(config, world, [()])
    like = jax.eval_shape(lambda: init_state(config, model.init(jax.random.key(0)), bank))
    games = jax.ShapeDtypeStruct((config.groups,), jnp.int32)
    told = runner.step.lower(like, games).compile().memory_analysis()
    assert runner.shardings is not None
    held = [
        math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, sharding in zip(
            jax.tree.leaves((like.params, like.opt_state)),
            jax.tree.leaves((runner.shardings.params, runner.shardings.opt_state)),
            strict=True,
        )
    ]
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(like.params)),
        "held": sum(held),
        "arguments": told.argument_size_in_bytes,
        "temporaries": told.temp_size_in_bytes,
    }


def checked_shape(layers: int) -> Shape:
    """The blocks of Qwen3-4B, in the household's language, in float32."""
    return Shape(vocabulary=259, words=259, layers=layers, bytes=4, capacity=448, decisions=100)


def check(mesh: tuple[int, int, int], layers: int, frozen: bool) -> dict[str, Any]:
    """One program, by the formula and by XLA."""
    flags = (
        f"--xla_force_host_platform_device_count={math.prod(mesh)} "
        # As accelerators do it: in the order that keeps memory low, and every gradient summed and
        # split as soon as it is there, not all together in the end.
        "--xla_cpu_enable_concurrency_optimized_scheduler=false "
        "--xla_disable_hlo_passes=all-reduce-combiner,cpu-all-reduce-combiner"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    words = [sys.executable, __file__, "--child", json.dumps([layers, mesh, frozen])]
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    shape = checked_shape(layers)
    parts = estimate(shape, mesh)
    return {
        "mesh": mesh,
        "layers": layers,
        "frozen": frozen,
        "xla": json.loads(done.stdout.splitlines()[-1]),
        "formula": {
            "parameters": shape.parameters,
            "held": parts["held"],
            "temporaries": peak(parts, frozen=frozen) - parts["held"],
        },
    }


def qwen_held() -> dict[str, Any]:
    """The state of the whole of Qwen3-4B by `jax.eval_shape`, against the formula."""
    import jax

    from reskill_jax.models.config import DecoderConfig
    from reskill_jax.models.model import Decoder

    shape = Shape()
    told = DecoderConfig(
        vocabulary=shape.vocabulary, width=shape.width, layers=shape.layers, heads=shape.heads,
        kv_heads=shape.kv_heads, head_width=shape.head, mlp=shape.mlp, qk_norm=True,
        dtype="bfloat16", remat=True,
    )  # fmt: skip
    like = jax.eval_shape(lambda: Decoder(told).init(jax.random.key(0)))
    counted = sum(leaf.size for leaf in jax.tree.leaves(like))
    return {"parameters": counted, "formula parameters": shape.parameters}


# --- the page -------------------------------------------------------------------------------------


def report() -> str:
    """Memory per device of Qwen3-4B, by the formula."""
    rows = []
    for name, chips, room, meshes in MACHINES:
        for mesh in meshes:
            assert math.prod(mesh) == chips
            for capacity in CAPACITIES:
                parts = estimate(Shape(capacity=capacity), mesh)
                cells = [parts[key] for key in ("held", "gathered", "cache", "gradients")]
                cells += [parts["activations"] + parts["one block"] + parts["logits"]]
                total = peak(parts)
                rows.append(
                    [
                        f"{name}, {chips} x {room} GB",
                        "x".join(map(str, mesh)),
                        str(capacity),
                        *(f"{cell / GB:.1f}" for cell in (*cells, parts["rows"], total)),
                        "yes" if total < 0.9 * room * GB else "no",
                    ]
                )
    head = ["machine", "mesh", "tokens", "held", "gathered", "cache", "gradients"]
    return table([*head, "activations", "rows", "peak", "fits"], rows)


def report_check(found: dict[str, Any]) -> str:
    """The formula against XLA."""
    rows = []
    for told in found["checks"]:
        formula, xla = told["formula"], told["xla"]
        rows.append(
            [
                "x".join(map(str, told["mesh"])),
                str(told["layers"]),
                "rollout" if told["frozen"] else "whole step",
                *(f"{part / GB:.3f}" for part in (formula["held"], xla["held"], xla["arguments"])),
                *(f"{part['temporaries'] / GB:.2f}" for part in (formula, xla)),
                f"{xla['temporaries'] / formula['temporaries']:.2f}",
            ]
        )
    head = ["mesh", "blocks", "program", "held: formula", "eval_shape", "XLA arguments"]
    told = table([*head, "temporaries: formula", "XLA", "ratio"], rows)
    qwen = found["qwen"]
    same = "the same" if qwen["parameters"] == qwen["formula parameters"] else "NOT the same"
    return (
        f"{told}\n\nParameters of the whole of Qwen3-4B: {qwen['parameters']:,} by "
        f"`jax.eval_shape`, {same} by the formula."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; checks the formula unless asked not to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="no check, nothing written")
    options = parser.parse_args(arguments)
    print(report())
    if options.quick:
        return 0
    found: dict[str, Any] = {"qwen": qwen_held(), "checks": []}
    for mesh, layers, frozen in itertools.product(CHECKED, LAYERS, (False, True)):
        found["checks"].append(check(mesh, layers, frozen))
        print(json.dumps(found["checks"][-1]), flush=True)
    print(report_check(found))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    write_section(PAGE, "memory", report())
    write_section(PAGE, "memory-check", report_check(found))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(compiled(*json.loads(sys.argv[2]))))
    else:
        sys.exit(main())
