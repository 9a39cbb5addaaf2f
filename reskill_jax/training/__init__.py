"""Training: the compiled step, the loop around it, checkpoints and run folders."""
