"""Hostile input: what strangers may hand to the library, and what must not happen then."""
