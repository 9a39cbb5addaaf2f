"""Processors and processes: meshes, where rows lie, graceful ends, what this machine is."""
