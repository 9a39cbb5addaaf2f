"""What a run keeps: its folder, its checkpoints, the mirror of both, where it came from."""
