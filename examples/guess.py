"""A world of one's own: a hidden number from 1 to 9. Move the guess up and down, then say it.

In this folder:

    python guess_model.py guess-model     # a small model that knows these words
    reskill train --config guess.yaml
"""

import random

from reskill_jax.worlds.world import Outcome, TaskSpec


class Guess:
    """Three actions, one rule each: too low, go up; too high, go down; right, say it."""

    def tasks(self, split):
        """200 hidden numbers of a split, always the same."""
        numbers = random.Random(split)
        return [
            TaskSpec(f"{split}-{n}", "Find the number.", data=numbers.randint(1, 9))
            for n in range(200)
        ]

    def open(self, task):
        """One game."""
        return Game(task.data)


class Game:
    """One hidden number; the guess begins in the middle."""

    def __init__(self, number):
        self.number, self.guess = number, 5

    def reset(self):
        return self.told()

    def step(self, action):
        if action == "say it":
            won = self.guess == self.number
            return Outcome("Yes!" if won else "No.", success=won, done=True)
        if action not in self.choices():
            return Outcome(f"There is: {', '.join(self.choices())}.")
        self.guess += 1 if action == "go up" else -1
        return Outcome(self.told())

    def choices(self):
        return ["go up", "go down", "say it"]

    def told(self):
        low, high = self.guess < self.number, self.guess > self.number
        how = "too low" if low else "too high" if high else "right"
        return f"Your guess is {self.guess}. It is {how}."
