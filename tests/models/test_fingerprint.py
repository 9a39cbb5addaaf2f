import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.models.fingerprint import fingerprint


def weights(dtype=jnp.float32):
    return {"a": jnp.arange(6, dtype=dtype).reshape(2, 3), "b": {"c": jnp.ones(4, dtype)}}


def test_equal_weights_have_one_name():
    assert fingerprint(weights()) == fingerprint(jax.tree.map(np.asarray, weights()))
    assert len(fingerprint(weights())) == 64


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(
    "change",
    [
        lambda w: w | {"a": w["a"].at[1, 2].add(1)},
        lambda w: w | {"a": w["a"][::-1]},  # the same numbers elsewhere
        lambda w: w | {"a": w["a"].reshape(3, 2)},
        lambda w: {"a": w["a"], "b": {"d": w["b"]["c"]}},
        lambda w: jax.tree.map(lambda x: x.astype(jnp.int32), w),
    ],
    ids=["a number", "an order", "a shape", "a name", "a type"],
)
def test_other_weights_have_another(dtype, change):
    assert fingerprint(change(weights(dtype))) != fingerprint(weights(dtype))


def test_places_do_not_matter():
    """Rows on eight devices are summed in another order."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    value = jax.random.normal(jax.random.key(0), (16, 5))
    there = jax.device_put(
        value, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    )
    assert fingerprint({"w": there}) == fingerprint({"w": value})
