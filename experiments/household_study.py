"""Does skill evolution beside GRPO pay? Conditions compared at equal rollouts and steps.

    python experiments/household_study.py --quick               # minutes: is everything in place?
    python experiments/household_study.py                       # the main comparison
    python experiments/household_study.py --study versions      # what single versions are worth
    python experiments/household_study.py --study frozen        # skills alone
    python experiments/household_study.py --study map           # when it pays
    python experiments/household_study.py --study rates         # a learning rate for each algorithm
    python experiments/household_study.py --study algorithms    # with and without skills
    python experiments/household_study.py --study fresh         # does it hold on seeds never used?
    python experiments/household_study.py --study fresh --fresh 8   # ... and on eight more
    python experiments/household_study.py --study fresh --keep FOLDER      # policies are kept
    python experiments/household_study.py --study published --keep FOLDER --games FILE
                                                                # ... and play published games
    python experiments/household_study.py --study blame         # proposals weighed in two ways
    python experiments/household_study.py --study main --report # tables and figures alone

On a GPU add `--workers 0`: runs follow each other in one process, which has the device to itself.

Every run is one JSON file in experiments/results/household_study/<study>/; those that exist are not
made again, so a study can be interrupted and goes on where it was. A run that belongs to two
studies is made once. Runs of one seed play the same games in all conditions, and every run is
evaluated on the same games. Runs are worked off seed by seed, plain GRPO and the full method first,
so that what there is can be compared at any time.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from study import published, report
from study.algorithms import algorithm_jobs, chosen_rates, rate_jobs
from study.jobs import (
    BLAME,
    COMPARED,
    FIRST_FRESH,
    FRESH,
    FROZEN,
    QUICK,
    STUDY,
    Job,
    StudyError,
    jobs_of,
)
from study.runs import borrow, is_done
from study.workers import run_all

ROOT = Path(__file__).resolve().parent
STUDIES = (
    *("main", "versions", "frozen", "map", "rates", "algorithms", "fresh", "blame"),
    published.NAME,
)
RESULTS = ROOT / "results" / "household_study"


def parse_seeds(text: str) -> list[int]:
    """ "0-3,7" -> [0, 1, 2, 3, 7]."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def unused_seed(results: Path) -> int:
    """The first seed that no result in a folder, and no other study, was made with."""
    used = [int(path.stem.rpartition("-")[2]) for path in results.glob("*.json")]
    return max([FIRST_FRESH, *[seed + 1 for seed in used]])


def chosen(jobs: Sequence[Job], words: Sequence[str]) -> list[Job]:
    """The jobs of these conditions, and those in these worlds or cells of the map.

    Raises:
      StudyError: a word that names none of them.
    """
    named = [{job.condition, *job.variant.values()} for job in jobs]
    if unknown := set(words) - set().union(*named):
        known = ", ".join(sorted(set().union(*named)))
        raise StudyError(f"this study has no {', '.join(sorted(unknown))}; it has {known}")
    return [job for job, names in zip(jobs, named) if names & set(words)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", choices=STUDIES, default="main")
    parser.add_argument("--quick", action="store_true", help="tiny runs, results apart")
    parser.add_argument("--only", help="conditions, worlds or cells, separated by commas")
    parser.add_argument(
        "--seeds",
        help="default: 1000-1015 (fresh), 3000-3007 (blame), 4000-4003 (algorithms), 10-17 "
        "(main), 10-13 (versions), 20 (rates), 10-12 (the others)",
    )
    parser.add_argument("--fresh", type=int, help="as many seeds that no result has used yet")
    parser.add_argument("--keep", type=Path, help="folder for trained policies and their skills")
    parser.add_argument("--games", type=Path, help="published games, as `reskill eval` reads them")
    parser.add_argument("--policy", help="shipped name or .safetensors file")
    parser.add_argument(
        "--workers", type=int, default=2, help="processes of one core each; 0: none"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/study"), help="of unfinished runs"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=ROOT.parent / "docs")
    parser.add_argument("--report", action="store_true", help="only tables and figures")
    parser.add_argument("--redo", action="store_true", help="replace results of other settings")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing of a study and reports it."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.quick:
        options.folder, options.results = options.folder / "quick", options.results / "quick"
        options.docs = options.results / "docs"
    playing = options.study == published.NAME
    if playing and not options.report and None in (options.games, options.keep):
        parser.error(f"--study {published.NAME} needs --games and --keep")
    failed = 0
    try:
        if playing and not options.report:
            published.play_all(options.keep, options.games, options.results)
        elif not playing:
            failed = _train(options)
        print(report.write(options.study, options.results, options.docs), flush=True)
    except StudyError as error:
        print(f"household_study: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


def _train(options: argparse.Namespace) -> int:
    """Makes the runs of a study that are missing; returns how many failed."""
    study, results = options.study, options.results
    of_study = {"frozen": FROZEN, "fresh": FRESH, "blame": BLAME, "algorithms": COMPARED}
    settings = QUICK if options.quick else of_study.get(study, STUDY)
    if options.policy:
        settings = dataclasses.replace(settings, policy=options.policy)
    # Seeds below 10 were spent on choosing the settings.
    seeds = {"fresh": f"{FIRST_FRESH}-{FIRST_FRESH + 15}", "main": "10-17", "versions": "10-13"}
    seeds |= {"rates": "20", "algorithms": "4000-4003", "blame": "3000-3007"}
    seeds = seeds.get(study, "10-12")
    seeds = parse_seeds(options.seeds or ("0-1" if options.quick else seeds))
    if options.fresh:
        first = unused_seed(results / study)
        seeds = list(range(first, first + options.fresh))
    if study == "rates":
        jobs = rate_jobs(settings, seeds)
    elif study == "algorithms":
        jobs = algorithm_jobs(settings, seeds, chosen_rates(results))
    else:
        jobs = jobs_of(study, settings, seeds)
    only = options.only or ("grpo,reskill" if options.quick and study == "main" else None)
    if only:
        jobs = chosen(jobs, only.split(","))
    if options.report:
        return 0
    missing = [job for job in jobs if not is_done(job, results, redo=options.redo)]
    missing = [job for job in missing if not borrow(job, results)]
    print(f"{study}: {len(missing)} of {len(jobs)} runs to make", flush=True)
    if not missing:
        return 0
    return run_all(
        missing,
        workers=options.workers,
        folder=options.folder,
        results=results,
        keep=options.keep,
    )


if __name__ == "__main__":
    sys.exit(main())
