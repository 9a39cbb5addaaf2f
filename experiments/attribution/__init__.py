"""Planted failures in the household, and who finds their cause."""
