"""What the rest of the library asks of a world: compiled, or on the host.

A world on the host has tasks and opens sessions, which are stepped with texts. Any object with
these methods is one.

A compiled world speaks in symbols: fixed texts, numbered. Symbol 0 is padding. Its functions are
pure, take ONE task and are vmapped by the caller. Actions are spelled symbol by symbol: `begin`,
`allowed` and `advance` until the cursor is done, which it is as soon as the action is certain;
`action` tells all of its symbols, and `step` carries it out.

V symbols of the language, Li, La, Lo symbols of an introduction, an action, an observation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from reskill_jax.skills.skill import Skill

from .vocabulary import ActionVocabulary

if TYPE_CHECKING:  # who steps a session needs no JAX
    import chex

    from .alfworld_games import GameRecord

__all__ = [
    "PAD",
    "CompiledWorld",
    "DemonstratedWorld",
    "GameReader",
    "HostWorld",
    "LoadedGames",
    "Outcome",
    "Session",
    "Shown",
    "Step",
    "TaskSpec",
    "compiled_of",
    "lacks",
]

PAD = 0
"""The symbol that fills up texts of compiled worlds."""


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """A task of a world on the host.

    Attributes:
      id: identifies it within its world.
      text: what is to be done, which skills' conditions are matched with. If what a session begins
        with does not say it, it stands in front.
      kind: of task, for figures by kind; "" = there are no kinds.
      data: whatever `open` needs; it can be pickled.
    """

    id: str
    text: str
    kind: str = ""
    data: Any = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an action leads to.

    Attributes:
      observation: what the agent is told.
      reward: what the policy learns from; None = 1 in the turn in which the task is solved, else 0.
      success: whether the task is solved now. What the last outcome of an episode says counts, in
        trials of skills and in figures.
      done: whether the episode is over.
    """

    observation: str
    reward: float | None = None
    success: bool = False
    done: bool = False


class Session(Protocol):
    """One episode in progress."""

    def reset(self) -> str:
        """What the agent is told first."""
        ...

    def step(self, action: str) -> Outcome:
        """Carries an action out."""
        ...

    def choices(self) -> Sequence[str] | None:
        """The actions that are possible now; None = any text."""
        ...

    def close(self) -> None:
        """Gives back what the session holds."""
        ...


class HostWorld(Protocol):
    """A world in Python, or behind a process.

    It may also have `instruction` (a text that the model is told before its first episode), and
    `splits` with other names than "train", "seen" and "unseen".
    """

    def tasks(self, split: str) -> Sequence[TaskSpec]:
        """The tasks of a split, always the same."""
        ...

    def open(self, task: TaskSpec) -> Session:
        """A session of a task."""
        ...


class Step(NamedTuple):
    """What an action leads to."""

    observation: chex.Array  # [Lo] int32 symbols, PAD behind
    reward: chex.Array  # [] float32
    success: chex.Array  # [] bool: the task is solved
    done: chex.Array  # [] bool: the episode is over


def compiled_of(world: Any) -> CompiledWorld | None:
    """The compiled world that a world is, or that says the same in symbols; None = neither."""
    return getattr(world, "compiled", None) if hasattr(world, "open") else world


def lacks(world: Any, protocol: type) -> list[str]:
    """Names that a protocol of this module asks for and an object does not have."""
    kinds = reversed(protocol.__mro__)
    names = (name for kind in kinds for name in vars(kind) if not name.startswith("_"))
    return [name for name in names if not hasattr(world, name)]


class CompiledWorld(Protocol):
    """A world that is played inside the compiled step. Hashable: it is a static argument."""

    def __hash__(self) -> int: ...

    # --- sizes and texts ---

    @property
    def language(self) -> tuple[str, ...]:
        """[V] text of every symbol."""
        ...

    @property
    def spoken(self) -> tuple[int, ...]:
        """Symbols that actions consist of."""
        ...

    @property
    def instruction(self) -> str:
        """What a language model is told before its first episode; "" = nothing."""
        ...

    @property
    def prompt(self) -> str:
        """Text of the symbol that asks for an action in plain text."""
        ...

    @property
    def skill_header(self) -> str:
        """Text of the symbol that opens the line of a skill."""
        ...

    @property
    def unknown(self) -> int:
        """The symbol of words that the language lacks."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits of tasks."""
        ...

    @property
    def task_types(self) -> tuple[str, ...]:
        """Names of the kinds of tasks; () = there are none."""
        ...

    @property
    def affordances(self) -> tuple[str, ...]:
        """Names of what may be possible in a state, [K] of `affords`."""
        ...

    @property
    def introduction_length(self) -> int:
        """Li."""
        ...

    @property
    def action_length(self) -> int:
        """La."""
        ...

    @property
    def observation_length(self) -> int:
        """Lo."""
        ...

    @property
    def decisions_per_turn(self) -> int:
        """Most symbols of an action that are chosen among several."""
        ...

    # --- pure functions of arrays ---

    def make(self, key: chex.PRNGKey, split: Any) -> Any:
        """A task of a split: of its name, or its index, which may be traced."""
        ...

    def task_text(self, task: Any) -> chex.Array:
        """[Lt] int32 symbols of the task, PAD behind."""
        ...

    def task_type(self, task: Any) -> chex.Array:
        """[] int32, index into `task_types`."""
        ...

    def reset(self, task: Any) -> tuple[Any, chex.Array]:
        """The first state, and the introduction [Li]."""
        ...

    def affords(self, task: Any, state: Any) -> chex.Array:
        """[K] bool: what is possible in a state."""
        ...

    def begin(self, task: Any, state: Any) -> Any:
        """A cursor before the first symbol of an action; it has a field `done` [] bool."""
        ...

    def allowed(self, task: Any, cursor: Any) -> chex.Array:
        """[V] bool: symbols that can come next."""
        ...

    def advance(self, task: Any, state: Any, cursor: Any, symbol: chex.Array) -> Any:
        """The cursor behind one more symbol."""
        ...

    def action(self, task: Any, cursor: Any) -> chex.Array:
        """[La] int32 symbols of a finished action, PAD behind."""
        ...

    def step(self, task: Any, state: Any, cursor: Any) -> tuple[Any, Step]:
        """The state after a finished action, and what it leads to."""
        ...

    # --- words, on the host ---

    def text(self, symbols: Sequence[int]) -> str:
        """The text of symbols, without white space in front."""
        ...

    def words(self, sentence: str) -> list[int]:
        """The symbols of a sentence such as a skill's action."""
        ...

    def read(self, text: str) -> list[int]:
        """The symbols of what an engine says; words that the language lacks are `unknown`."""
        ...

    def lacking(self, sentence: str) -> list[str]:
        """The words of a sentence that the language lacks."""
        ...

    def task_of(self, introduction: str) -> str:
        """The task in the text of an introduction."""
        ...

    def type_of(self, task: str) -> str:
        """The kind of a task as its words tell it."""
        ...

    @property
    def actions(self) -> ActionVocabulary:
        """The words of actions, from which skills are made."""
        ...

    @property
    def banks(self) -> Mapping[str, tuple[Skill, ...]]:
        """Skills that come with the world, by name."""
        ...


# --- what a compiled world may have beside ---


class Shown(NamedTuple):
    """A turn that is shown, to be imitated."""

    lines: chex.Array  # [J, Ls] int32 symbols read before it, as skills' are; all PAD = not there
    action: chex.Array  # [La] int32 symbols, PAD behind
    weight: chex.Array  # [] float32 of its decisions in the loss; 0 = they are not learned


class DemonstratedWorld(CompiledWorld, Protocol):
    """A compiled world that shows how it is played, which models are pretrained on."""

    @property
    def demonstrations(self) -> str:
        """What is shown, in a sentence: it is kept with the models that learned from it."""
        ...

    def player(self, key: chex.PRNGKey) -> Any:
        """Who plays an episode: what stays the same in all of its turns."""
        ...

    def demonstrate(self, key: chex.PRNGKey, task: Any, state: Any, player: Any) -> Shown:
        """What a player reads and does in a state."""
        ...


class LoadedGames(NamedTuple):
    """Games given as text, n of them, as tasks of a compiled world."""

    world: CompiledWorld  # of the sizes that they need
    tasks: Any  # numpy arrays [n, ...]
    record: list[int]  # [n] which of those given each is
    words: list[tuple[str, ...]]  # [n] texts that the language lacks, one for each `unknown`
    errors: dict[int, str]  # of those given -> why it cannot be played


@runtime_checkable
class GameReader(CompiledWorld, Protocol):
    """A compiled world whose games can be given as text."""

    def load_games(self, records: Sequence[GameRecord]) -> LoadedGames:
        """Reads games.

        Raises:
          GamesError: none of them can be played.
        """
        ...

    def game_record(self, task: Any, *, name: str, split: str) -> GameRecord:
        """A task of numpy arrays as text."""
        ...
