"""Sessions of worlds on the host: where they run, and how their answers come back."""
