"""A language model as the author of skills: stages, clients, and the thread beside training."""
