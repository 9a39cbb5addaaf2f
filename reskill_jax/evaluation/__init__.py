"""Playing what a run has learned, in the compiled world and in other engines."""
