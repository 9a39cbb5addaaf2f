"""A kitchen in which an egg is to be fetched from a closed fridge, for the examples with agents."""


class Pantry:
    """One episode. `act` carries a command out and says what is possible next.

    Attributes:
      won: whether the egg was taken.
      turns: commands so far; after `most` of them nothing more happens.
    """

    task = "Take the egg. It is in the fridge."

    def __init__(self, most: int = 8):
        self.at, self.open, self.won, self.turns, self.most = "door", False, False, 0, most

    @property
    def done(self) -> bool:
        """Whether the episode is over."""
        return self.won or self.turns >= self.most

    def possible(self) -> list[str]:
        """The commands that can be given now."""
        commands = [f"go to {place}" for place in ("fridge", "table") if place != self.at]
        if self.at == "fridge":
            commands += ["close fridge", "take egg"] if self.open else ["open fridge"]
        return [*commands, "look around"]

    def begin(self) -> str:
        """What the agent is told first."""
        return f"{self.task}\n{self._list()}"

    def act(self, command: str) -> str:
        """Carries a command out."""
        if self.done:
            return "It is over. Say: done"
        self.turns += 1
        if command not in self.possible():
            return f"That does not work.\n{self._list()}"
        if command.startswith("go to "):
            self.at = command.removeprefix("go to ")
            told = f"You are at the {self.at}."
            if self.at == "fridge":
                told += " The fridge is open." if self.open else " The fridge is closed."
        elif command.endswith("fridge"):
            self.open = command == "open fridge"
            told = "You open the fridge. There is an egg." if self.open else "You close the fridge."
        elif command == "take egg":
            self.won, told = True, "You take the egg."
        else:
            told = "You look around and see a kitchen."
        return f"{told} It is over. Say: done" if self.done else f"{told}\n{self._list()}"

    def _list(self) -> str:
        return "Possible: " + "; ".join(self.possible())
