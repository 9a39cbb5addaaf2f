"""Skills for agents that are never trained here: in other frameworks, loops and trainers."""
