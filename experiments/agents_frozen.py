"""A frozen agent that obeys skills, played through LangGraph: are the right ones found and adopted?

    python experiments/agents_frozen.py --output experiments/results/agents_frozen.json
    python experiments/agents_frozen.py --draw experiments/results/agents_frozen.json

The kitchen of examples/pantry.py, whose best skills are known: open the fridge when you have gone
there, take the egg when it is open. A scripted model does what advice says, else anything possible;
it never changes. The rules propose from what the episodes show. A harmful skill ("close fridge",
right after opening something) is brought at the beginning.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from study.statistics import t_interval

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

WINDOW = 32  # episodes of a point of the curves: a step
HARMFUL = "close-after-opening"


def run(seed: int, episodes: int) -> dict:
    """One store, from nothing."""
    import dataclasses

    from langgraph_agent import SETTINGS, Obedient, play

    from reskill_jax.agents.audit import find_problems
    from reskill_jax.agents.langgraph import SkillMiddleware
    from reskill_jax.agents.trials import SkillTrials
    from reskill_jax.skills.skill import Skill, Trigger

    harmful = Skill(
        HARMFUL, "Right after opening.", "close fridge.", Trigger("action_pattern", "^open")
    )
    settings = dataclasses.replace(SETTINGS, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        with SkillTrials(Path(folder) / "store.sqlite", settings=settings) as trials:
            trials.propose([harmful], origin="by hand")
            skills, model = SkillMiddleware(trials), Obedient(seed=seed)
            for number in range(episodes):
                play(skills, model, number)
            lines = list(trials.episodes())
            events = [
                {"episode": line["step"] * WINDOW, "event": line["event"]}
                | {"name": line["operations"][0]["name"], "difference": line["difference"][1]}
                for line in trials.lifecycle()
                if line["event"] in ("accepted", "rejected")
            ]
            return {
                "seed": seed,
                "won": [int(line["success"]) for line in lines],
                "events": events,
                "bank": [[skill.name, skill.action] for skill in trials.skills],
                "problems": find_problems(trials),
            }


def interval(values: list[float]) -> list[float | None]:
    """The mean over seeds and Student's 95 % interval, within 0 and 1; None for a single seed."""
    low, high = np.clip(t_interval(values), 0, 1)  # keeps nan
    numbers = (statistics.fmean(values), float(low), float(high))
    return [None if math.isnan(x) else round(x, 4) for x in numbers]


def summary(runs: list[dict]) -> dict:
    """Figures over seeds."""
    actions = [{action for _, action in one["bank"]} for one in runs]
    adopted = [
        next((e["episode"] for e in one["events"] if e["event"] == "accepted"), None)
        for one in runs
    ]
    harmful = [
        next(
            (e for e in one["events"] if e["name"] == HARMFUL),
            {"event": "undecided", "episode": None},
        )
        for one in runs
    ]
    last = [statistics.fmean(one["won"][-2 * WINDOW :]) for one in runs]
    return {
        "first_two_steps": interval([statistics.fmean(one["won"][: 2 * WINDOW]) for one in runs]),
        "last_two_steps": interval(last),
        "last_two_steps_by_seed": [round(share, 4) for share in last],
        "opens_the_fridge": sum("open fridge." in found for found in actions),
        "takes_the_egg": sum("take egg." in found or "take." in found for found in actions),
        "first_adopted_at_episode": adopted,
        "harmful": [one["event"] for one in harmful],
        "harmful_decided_at_episode": [one["episode"] for one in harmful],
        "accepted": [sum(e["event"] == "accepted" for e in one["events"]) for one in runs],
        "rejected": [sum(e["event"] == "rejected" for e in one["events"]) for one in runs],
        "audits_clean": all(one["problems"] == [] for one in runs),
    }


def draw(path: Path) -> None:
    """Prints the summary, and draws the curves as docs/figures/agents_frozen.svg."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    runs = json.loads(path.read_text())["runs"]
    print(json.dumps(summary(runs)))
    curves = [
        [statistics.fmean(one["won"][at : at + WINDOW]) for at in range(0, len(one["won"]), WINDOW)]
        for one in runs
    ]
    episodes = [(n + 1) * WINDOW for n in range(len(curves[0]))]
    points = [interval([curve[n] for curve in curves]) for n in range(len(episodes))]
    figure, axes = pyplot.subplots(figsize=(6.4, 3.4), layout="constrained")
    for curve in curves:
        axes.plot(episodes, curve, color="0.8", linewidth=0.8)
    means, low, high = zip(*points)
    if len(runs) > 1:
        axes.fill_between(episodes, low, high, color="C0", alpha=0.25)
    axes.plot(episodes, means, color="C0", label=f"mean of {len(runs)} seeds, 95 %")
    axes.set(xlabel="episodes reported", ylabel="success", ylim=(0, 1.02))
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(ROOT / "docs" / "figures" / "agents_frozen.svg", metadata={"Date": None})


def main() -> None:
    """Plays, or draws what was played."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=384)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--draw", type=Path)
    chosen = parser.parse_args()
    if chosen.draw is not None:
        draw(chosen.draw)
        return
    runs = []
    for seed in range(chosen.seeds):
        runs.append(run(seed, chosen.episodes))
        print(seed, runs[-1]["bank"], runs[-1]["events"], flush=True)
    told = {"summary": summary(runs), "runs": runs}
    if chosen.output is not None:
        chosen.output.write_text(json.dumps(told) + "\n")
    print(json.dumps(told["summary"]))


if __name__ == "__main__":
    main()
