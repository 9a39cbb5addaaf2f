"""How rewards become an update of the policy."""
