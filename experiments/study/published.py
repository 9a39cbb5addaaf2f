"""Published games: how policies that the study trained play games that a user gives.

Every game is played once, greedily, by the compiled rollout, with the skills that the run ended
with and without any. One JSON file a policy: `<results>/published/<condition>-<seed>.json`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reskill_jax.devices.machine import describe_machine
from reskill_jax.evaluation.compiled_play import play_compiled
from reskill_jax.evaluation.replay import REAL_CAPACITY, REAL_TURNS
from reskill_jax.models import weights
from reskill_jax.models.model import Decoder
from reskill_jax.models.weights import WeightsError
from reskill_jax.skills.skill import Skill
from reskill_jax.skills.skillmd import import_skills
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.training.sections import TrialConfig
from reskill_jax.worlds.alfworld_games import GameRecord, read_games
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.language import symbol_language

from .jobs import FRESH_CONDITIONS, StudyError
from .results import BASELINE
from .runs import version, write_json

START = "start"  # the policy that all runs begin with
NAME = "published"


def play_all(keep: Path, games: Path, results: Path) -> None:
    """Plays the games with every policy in a folder that has not played them yet.

    Args:
      keep: of policies and their skills, as `--keep` leaves them: <condition>-<seed>/.
      games: whatever `read_games` reads.
      results: gets published/.

    Raises:
      StudyError: no policy, or results of other games.
    """
    records = list(read_games(games))
    digest = _digest(records)
    found = sorted(path.parent for path in keep.glob("*/policy.safetensors"))
    if not found:
        raise StudyError(f"no policies in {keep}; a study with --keep {keep} leaves them there")
    for folder in [None, *found]:
        condition, seed = (START, 0) if folder is None else _named(folder)
        target = results / NAME / f"{condition}-{seed}.json"
        if target.is_file():
            if json.loads(target.read_text(encoding="utf-8"))["games"] != digest:
                raise StudyError(f"{target} was made with other games than those of {games}")
            continue
        write_json(target, _play(folder, condition, seed, records) | {"games": digest})
        print(f"{NAME}: {target.stem}", flush=True)


def _named(folder: Path) -> tuple[str, int]:
    condition, _, seed = folder.name.rpartition("-")
    if condition not in FRESH_CONDITIONS or not seed.isdigit():
        raise StudyError(f"{folder} is not called as a run of the study: <condition>-<seed>")
    return condition, int(seed)


def _digest(records: Sequence[GameRecord]) -> str:
    text = json.dumps([list(record) for record in records])
    return hashlib.sha256(text.encode()).hexdigest()


def _play(
    folder: Path | None, condition: str, seed: int, records: Sequence[GameRecord]
) -> dict[str, Any]:
    try:
        if folder is None:
            params, shape, _ = weights.load_pretrained(TrainConfig().model.path)
        else:
            params, shape, _ = weights.load(folder / "policy.safetensors")
    except WeightsError as error:
        raise StudyError(str(error)) from error
    banks: dict[str, Sequence[Skill]] = {"none": ()}
    if condition not in (START, BASELINE):
        skills = folder / "skills" if folder is not None else None
        banks["bank"] = import_skills(skills) if skills is not None and skills.is_dir() else ()
    config, world = TrainConfig(trial=TrialConfig(concurrent=1)), HouseholdWorld()
    lines = []
    for mode, skills in banks.items():
        episodes = play_compiled(
            params,
            Decoder(shape),
            symbol_language(world),
            make_bank(config, world, [skills]),
            records,
            world=world,
            arm=0 if skills else -1,
            max_turns=REAL_TURNS,
            context_length=REAL_CAPACITY,
        )
        won, played = Counter(), Counter()
        for record, episode in zip(records, episodes, strict=True):
            played[record.split] += episode.valid
            won[record.split] += episode.won
        lines += [
            {"split": split, "mode": mode, "episodes": played[split], "successes": won[split]}
            for split in sorted(played)
        ]
    return {
        "condition": condition,
        "seed": seed,
        "turns": REAL_TURNS,
        "lines": lines,
        "machine": describe_machine(),
        "version": version(),
    }
