"""Episodes: what was read and written, and how it is played in compiled worlds."""
