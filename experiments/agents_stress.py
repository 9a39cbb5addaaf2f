"""Many processes report to one store, and writers are killed; nothing is lost or counted twice.

    python experiments/agents_stress.py                  # 4 processes, 200 episodes, 50 kills
    python experiments/agents_stress.py --kills 3 --episodes 48 --processes 2

First the processes share the work. Then, on a store of its own, one writer after another is killed
with SIGKILL at a random moment and the next one does everything anew, reporting again what may have
been reported. In the end the store is audited: integrity, counts, and every decision taken anew
from the reports by one process. Prints one line of JSON.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from reskill_jax.agents.trials import AgentEpisode, AgentStep, SkillTrials, TrialSettings
from reskill_jax.skills.skill import Skill, Trigger

SETTINGS = TrialSettings(
    group_size=4, step_episodes=16, gain=0.25, min_episodes=32, max_steps=8, cooldown=0
)
SKILLS = [Skill(f"skill-{n}", "Always.", f"do {n}.", Trigger("general")) for n in range(6)]
EFFECTS = {f"skill-{n}": effect for n, effect in enumerate((0.3, -0.3, 0.0, 0.2, -0.1, 0.1))}
WORKED, KILLED = 0, -signal.SIGKILL


def outcome(draw, seed: int) -> bool:
    """Follows from the draw alone, so that an episode played twice ends the same."""
    chance = 0.4 + sum(EFFECTS[skill.name] for skill in draw.skills)
    return random.Random(f"{seed}/{draw.task}/{draw.repetition}").random() < chance


def work(path: Path, jobs, seed: int) -> None:
    """Plays jobs, each a task and a repetition; what was played before is played again."""
    with SkillTrials(path, creator=None) as trials:
        for task, repetition in jobs:
            draw = trials.draw(task, repetition=repetition)
            steps = (AgentStep("look()", "x" * 2000, tuple(s.name for s in draw.skills)),)
            trials.report(AgentEpisode(draw.id, steps, outcome(draw, seed)))


def in_a_child(function, *arguments) -> int:
    """Starts a process that runs a function; returns its number."""
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 (told, and the process ends)
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return child


def status_of(child: int) -> int:
    """Waits for a process: its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def make(path: Path) -> None:
    """A new store with skills that wait for their trials."""
    with SkillTrials(path, settings=SETTINGS, creator=None) as trials:
        trials.propose(SKILLS)


def jobs_of(episodes: int) -> list[tuple[str, int]]:
    """Tasks of four repetitions each."""
    return [(f"task-{n // 4}", n % 4) for n in range(episodes)]


def audit(path: Path) -> None:
    """Prints what an audit finds, in a process of its own: this one must not start JAX."""
    from reskill_jax.agents.audit import find_problems

    with SkillTrials(path, creator=None) as trials:
        decided = [
            [line["step"], line["event"], line["operations"][0]["name"]]
            for line in trials.lifecycle()
            if line["event"] in ("accepted", "rejected")
        ]
        told = {
            "reports": dict(trials.status().reports),
            "draws": trials.status().draws,
            "steps": trials.status().step,
            "decided": decided,
            "problems": find_problems(trials),
        }
    path.with_suffix(".json").write_text(json.dumps(told))


def audited(path: Path) -> dict:
    """What `audit` says."""
    assert status_of(in_a_child(audit, path)) == WORKED
    return json.loads(path.with_suffix(".json").read_text())


def share(path: Path, processes: int, episodes: int, seed: int) -> dict:
    """Several processes at once; every one has the jobs of the others, too, in another order."""
    assert status_of(in_a_child(make, path)) == WORKED
    children = []
    for number in range(processes):
        jobs = jobs_of(episodes)[number::processes]
        twice = [job for job in jobs if random.Random(f"{seed}/{job}").random() < 0.2]
        children.append(in_a_child(work, path, [*jobs, *twice], seed))
    assert [status_of(child) for child in children] == [WORKED] * processes
    return audited(path)


def reported(path: Path) -> int:
    """Reports in a store."""
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
        return connection.execute("SELECT count(*) FROM reports").fetchone()[0]


def kill(path: Path, kills: int, episodes: int, seed: int) -> dict:
    """One writer after another is killed in the middle of its work; the last one may finish.

    Each is left alone until it has reported a few episodes, then it is killed within milliseconds:
    before, inside of or after one of its changes.
    """
    assert status_of(in_a_child(make, path)) == WORKED
    rng, jobs, done = random.Random(seed), jobs_of(episodes), 0
    while done < kills and (before := reported(path)) < episodes:
        child = in_a_child(work, path, jobs, seed)
        enough = before + rng.randint(0, 5)
        while reported(path) < min(enough, episodes):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        done += status_of(child) == KILLED
    assert status_of(in_a_child(work, path, jobs, seed)) == WORKED
    return audited(path) | {"kills": done}


def main() -> None:
    """Runs both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    # Imported once and inherited by every child; JAX is started by each child on its own.
    import reskill_jax.agents.audit  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        told = {
            "shared": share(
                Path(folder) / "shared.sqlite", chosen.processes, chosen.episodes, chosen.seed
            ),
            "killed": kill(
                Path(folder) / "killed.sqlite", chosen.kills, chosen.episodes, chosen.seed
            ),
        }
    told["whole"] = all(
        not part["problems"] and sum(part["reports"].values()) == chosen.episodes == part["draws"]
        for part in told.values()
    )
    print(json.dumps(told))


if __name__ == "__main__":
    main()
