"""Worlds by name."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .host_worlds import MadeWorld, reward_of_module, world_given, world_of_module
from .settings import BEGINNER, Habits, RoomSpec
from .world import CompiledWorld

__all__ = ["WORLDS", "WorldEntry", "WorldError", "make_named_world", "make_world", "missing"]

COMPILED = ("household",)
RETRIEVER = "RESKILL_RETRIEVER"  # environment variable
CHAT_USER, CHAT_KEY = "RESKILL_CHAT_USER", "RESKILL_CHAT_KEY"  # environment variables


class WorldError(ValueError):
    """A world that cannot be played; the message says why and what to do."""


class WorldEntry(NamedTuple):
    """A world that comes with the package."""

    about: str  # one line
    needs: tuple[str, ...] = ()  # modules that have to be there
    programs: tuple[str, ...] = ()  # programs that have to be there
    install: str = ""  # how to get them
    games: str = ""  # what --games is to it; "" = nothing


WORLDS: Mapping[str, WorldEntry] = {
    "household": WorldEntry("ALFWorld's household, compiled: games of our generator, no engine"),
    "household_text": WorldEntry(
        "the same games played as text, through the interface of worlds on the host",
        games="a games file, optional",
    ),
    "alfworld": WorldEntry(
        "ALFWorld's household in the real engine",
        ("alfworld",),
        install='pip install "reskill-jax[alfworld]"',
        games="a games file or a folder of ALFWorld data, optional; else ALFWORLD_DATA, or games "
        "of our generator",
    ),
    "scienceworld": WorldEntry(
        "ScienceWorld: the paper's two tasks and two unseen ones, success at a score above 70",
        ("scienceworld",),
        ("java",),
        'pip install "reskill-jax[scienceworld]" and a Java runtime (default-jre-headless)',
    ),
    "phantomwiki": WorldEntry(
        "questions about a made-up world, searched with BM25: a stand-in that runs offline",
        games="a folder that pw-generate wrote (package phantom-wiki, Python 3.12)",
    ),
    "tau_rec": WorldEntry(
        "films recommended under rules, to a scripted user, by choosing from a menu",
        games="a folder of tau-Rec's data, for evaluation; else films and tasks of our own",
    ),
    "tau_rec_calls": WorldEntry(
        "the same with tool calls and messages in free text",
        games="as of tau_rec; RESKILL_CHAT_USER=ADDRESS,MODEL has a language model as the user",
    ),
    "search": WorldEntry(
        "search question answering with the paper's protocol",
        games=f"a JSONL file of questions; {RETRIEVER} is the address of the retriever",
    ),
}
"""Name of a world that comes with the package -> what it is and what it needs."""


def make_world(name: str, *, rooms: RoomSpec, habits: Habits = BEGINNER) -> CompiledWorld:
    """A compiled world by its name.

    Args:
      name: one of `COMPILED`.
      rooms: sizes of the household's rooms. habits: of the player that it shows to imitate.

    Raises:
      WorldError: there is no such world.
    """
    if name not in COMPILED:
        raise WorldError(f"there is no compiled world {name!r}; there are: {', '.join(COMPILED)}")
    from .household.world import HouseholdWorld

    return HouseholdWorld(spec=rooms, habits=habits)


def make_named_world(
    name: str, *, rooms: RoomSpec, seed: int, games: str | None, reward: str | None = None
) -> CompiledWorld | MadeWorld:
    """A world by its name, or MODULE:CLASS: compiled, or on the host.

    Args:
      name: of `WORLDS`, or MODULE:CLASS.
      rooms: sizes of generated rooms. seed: of the run, which generated games follow from.
      games: where its tasks lie; None = its own.
      reward: MODULE:FUNCTION of a finished episode of a world on the host; None = what sessions
        give.

    Raises:
      WorldError, WorldNameError: there is no such world, or something that it needs is missing.
      GamesError: its games cannot be read.
    """
    if name in COMPILED:
        return make_world(name, rooms=rooms)
    entry = WORLDS.get(name)
    if entry is None:
        made = world_of_module(name)
    else:
        if absent := missing(entry):
            raise WorldError(f"the world {name} needs {', '.join(absent)}: {entry.install}")
        made = world_given(_MAKERS[name](rooms, seed, games))
    if reward is None or not isinstance(made, MadeWorld):
        return made
    return made._replace(reward=reward_of_module(reward))


def missing(entry: WorldEntry) -> list[str]:
    """Modules and programs that a world needs and that are not installed."""
    absent = [name for name in entry.needs if importlib.util.find_spec(name) is None]
    return absent + [name for name in entry.programs if shutil.which(name) is None]


def _text_games(engine: Any) -> Callable[[RoomSpec, int, str | None], Any]:
    def make(rooms: RoomSpec, seed: int, games: str | None) -> Any:
        from .text_games import TextGames

        found: str | Path | None = games
        if games is None and engine == "alfworld" and os.environ.get("ALFWORLD_DATA"):
            found = Path(os.environ["ALFWORLD_DATA"])
        return TextGames(engine=engine, rooms=rooms, seed=seed, games=found)

    return make


def _science(rooms: RoomSpec, seed: int, games: str | None) -> Any:
    from .scienceworld import ScienceWorld

    return ScienceWorld()


def _phantom(rooms: RoomSpec, seed: int, games: str | None) -> Any:
    from .search import PhantomWiki

    if games is None:
        raise WorldError("the world phantomwiki needs --games FOLDER, written by pw-generate")
    return PhantomWiki(games)


def _search(rooms: RoomSpec, seed: int, games: str | None) -> Any:
    from .search import Retriever, SearchQA

    address = os.environ.get(RETRIEVER)
    if games is None or not address:
        raise WorldError(
            f"the world search needs --games FILE, its questions, and {RETRIEVER}, the address of "
            "its retriever"
        )
    return SearchQA(games, Retriever(address))


def _tau_rec(speech: Any) -> Callable[[RoomSpec, int, str | None], Any]:
    def make(rooms: RoomSpec, seed: int, games: str | None) -> Any:
        from .tau_rec import TauRecError, TauRecWorld
        from .tau_rec.chat import ChatClient, ChatError

        address, _, model = os.environ.get(CHAT_USER, "").rpartition(",")
        try:
            user = None
            if speech == "calls" and address:
                user = ChatClient(address, model, key=os.environ.get(CHAT_KEY), temperature=1.0)
            return TauRecWorld(games, speech=speech, chat_user=user)
        except TauRecError as error:
            raise WorldError(f"--games {error}") from error
        except ChatError as error:
            raise WorldError(f"{CHAT_USER}: {error}") from error

    return make


_MAKERS: Mapping[str, Callable[[RoomSpec, int, str | None], Any]] = {
    "household_text": _text_games("household"),
    "alfworld": _text_games("alfworld"),
    "scienceworld": _science,
    "phantomwiki": _phantom,
    "search": _search,
    "tau_rec": _tau_rec("menu"),
    "tau_rec_calls": _tau_rec("calls"),
}
