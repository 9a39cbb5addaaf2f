"""Rows of activations stay on the devices they were given to.

Without being told, XLA's partitioner may as well bring every row to every device, where a matrix is
split along the axis it sums over: all devices would then do all the work.
"""

from typing import Any

import flax.linen as nn
import jax

ROWS = "rows"  # logical axis; `flax.linen.logical_axis_rules` say what it is split over


def keep_rows(tree: Any, *, axis: int = 0) -> Any:
    """The arrays of a tree, their rows split as the rules in force say; without rules, unchanged.

    Args:
      tree: of arrays with N rows along `axis`; typed keys are left alone.
      axis: of the rows.
    """
    if not nn.get_logical_axis_rules():
        return tree

    def constrained(x: Any) -> Any:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        names = tuple(ROWS if place == axis else None for place in range(x.ndim))
        return nn.with_logical_constraint(x, names)

    return jax.tree.map(constrained, tree)
