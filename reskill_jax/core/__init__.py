"""Pure functions on arrays; they import jax and chex only."""
