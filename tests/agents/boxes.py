"""A world of boxes: the one that is named in a note holds the ball, if there is a note."""

from reskill_jax.worlds.world import Outcome, TaskSpec

COLOURS = ("red", "green", "blue")


class Boxes:
    """Three boxes; the ball is always in the green one, and nobody says so."""

    instruction = "Find the ball."

    def tasks(self, split):
        return [TaskSpec(f"{split}-{n}", f"room {n}: find the ball", "boxes") for n in range(100)]

    def open(self, task):
        return Room(task)


class Room:
    def __init__(self, task):
        self.opened = 0
        self.crashes = task.text.startswith("room 3:")

    def reset(self):
        return "You see three boxes."

    def step(self, action):
        if self.crashes:
            raise RuntimeError("the room is on fire")
        self.opened += 1
        won = action == "open green"
        text = "There is a ball." if won else "It is empty."
        return Outcome(text, success=won, done=won or self.opened == 1)

    def choices(self):
        return [f"open {colour}" for colour in COLOURS]

    def close(self):
        pass
