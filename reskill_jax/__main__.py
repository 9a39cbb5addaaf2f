"""`python -m reskill_jax` is the command `reskill`."""

import sys

from reskill_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
