"""Does skill evolution beside GRPO pay? Conditions compared at equal rollouts and steps.

    python experiments/household_study.py --quick               # minutes: is everything in place?
    python experiments/household_study.py                       # the main comparison
    python experiments/household_study.py --study versions      # what single versions are worth
    python experiments/household_study.py --study frozen        # skills alone
    python experiments/household_study.py --study map           # when it pays
    python experiments/household_study.py --study main --report # tables and figures alone

On a GPU add `--workers 0`: runs follow each other in one process, which has the device to itself.

Every run is one JSON file in experiments/results/household_study/<study>/; those that exist are not
made again, so a study can be interrupted and goes on where it was. Runs of one seed play the same
games in all conditions, and every run is evaluated on the same games. Runs are worked off seed by
seed, plain GRPO and the full method first, so that what there is can be compared at any time.
"""

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import study_measures as measures
import study_report
from rich.console import Console

from reskill_jax.machine import describe_machine
from reskill_jax.training import loop
from reskill_jax.training.checkpoint import steps as checkpoint_steps
from reskill_jax.training.config import PRESETS, TrainConfig
from reskill_jax.worlds.household.generator import RoomSpec

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "household_study"


class StudyError(ValueError):
    """A study that cannot go on; the message is one line."""


@dataclasses.dataclass(frozen=True)
class World:
    """Rooms, and what an episode in them may take."""

    rooms: RoomSpec
    horizon: int
    capacity: int


def _rooms(receptacles: int, fewest: int, objects: int, least: int) -> RoomSpec:
    return RoomSpec(receptacles, fewest, objects, least)


_TINY = PRESETS["tiny"]()
WORLDS = {
    "tiny": World(_TINY.rooms, _TINY.horizon, _TINY.capacity),  # to try things out
    "small": World(RoomSpec(), TrainConfig().horizon, TrainConfig().capacity),
    "medium": World(_rooms(16, 12, 20, 12), 26, 640),
    "large": World(_rooms(26, 20, 34, 22), 36, 960),
}


@dataclasses.dataclass(frozen=True)
class Study:
    """What all conditions share: change the difficulty here, for all alike."""

    world: World = WORLDS["small"]
    worlds: tuple[str, ...] = ("small", "medium", "large")  # of the studies frozen and map
    policies: tuple[str, ...] = ("early", "habitual")  # of the map: files in experiments/policies
    rates: tuple[float, ...] = (1e-4, 3e-4)  # of the map: learning rates
    policy: str = "household"
    steps: int = 40
    groups: int = TrainConfig().groups
    group_size: int = TrainConfig().group_size
    minibatches: int = TrainConfig().minibatches
    learning_rate: float = TrainConfig().learning_rate
    final_learning_rate: float = TrainConfig().final_learning_rate
    eval_every: int = 10
    eval_games: int = 128  # per evaluation and split
    final_games: int = 512  # at the end, the above included
    checkpoint_every: int | None = None  # None: only at the end
    changes: tuple[tuple[str, Any], ...] = ()  # further fields of TrainConfig
    drift_every: int = 10  # steps between measurements of every skill in the bank
    drift_games: int = 256  # for each of them
    version_games: int = 512  # for each version that is proposed

    def config(self, **changes: Any) -> TrainConfig:
        """The configuration of a run."""
        shared = dict(
            rooms=self.world.rooms,
            horizon=self.world.horizon,
            capacity=self.world.capacity,
            policy=self.policy,
            steps=self.steps,
            groups=self.groups,
            group_size=self.group_size,
            minibatches=self.minibatches,
            learning_rate=self.learning_rate,
            final_learning_rate=self.final_learning_rate,
            eval_every=self.eval_every,
            eval_tasks=self.eval_games,
            checkpoint_every=self.checkpoint_every or self.steps,
        )
        return dataclasses.replace(TrainConfig(), **shared | dict(self.changes) | changes)


STUDY = Study()
FROZEN = dataclasses.replace(STUDY, eval_every=5)
QUICK = Study(
    world=WORLDS["tiny"],
    worlds=("tiny",),
    policies=(),
    rates=(1e-4,),
    steps=_TINY.steps,
    groups=_TINY.groups,
    group_size=_TINY.group_size,
    minibatches=_TINY.minibatches,
    eval_every=2,
    eval_games=8,
    final_games=16,
    changes=tuple(
        (name, getattr(_TINY, name))
        for name in ("reservoir", "min_trial_steps", "min_trial_episodes", "max_trial_steps")
    ),
    drift_every=2,
    drift_games=8,
    version_games=16,
)


def paper_rules() -> dict[str, Any]:
    """The rules about skills of the preset `paper`; the optimizer's settings stay those of all."""
    of_the_optimizer = ("name", "learning_rate", "final_learning_rate", "kl_weight", "whiten")
    paper, default = PRESETS["paper"](), TrainConfig()
    return {
        field.name: getattr(paper, field.name)
        for field in dataclasses.fields(paper)
        if field.name not in of_the_optimizer
        and getattr(paper, field.name) != getattr(default, field.name)
    }


# In the order of the queue. Each: the study's settings -> fields of TrainConfig.
CONDITIONS: dict[str, Callable[[Study], dict[str, Any]]] = {
    "grpo": lambda s: {"skills": False},
    "reskill": lambda s: {},
    "auto_accept": lambda s: {"auto_accept": True},
    "fixed_bank": lambda s: {"bank": "good", "skills_until": 0},
    "skills_first": lambda s: {"policy_from": s.steps // 2, "skills_until": s.steps // 2},
    "policy_first": lambda s: {"policy_until": s.steps // 2, "skills_from": s.steps // 2},
    "paper_rules": lambda s: paper_rules(),
    "no_assertions": lambda s: {"assertions": False},
    "uniform": lambda s: {"assignment": "uniform"},
    # The discount decides only where posterior means decide.
    "no_discount": lambda s: paper_rules() | {"discount": "none"},
    "last_step": lambda s: paper_rules() | {"discount": "last_step"},
}
VERSIONS = ("reskill", "auto_accept", "no_assertions")


@dataclasses.dataclass(frozen=True)
class Job:
    """One run."""

    study: str
    condition: str
    seed: int
    settings: Study
    config: TrainConfig  # without name and root
    variant: dict[str, str] = dataclasses.field(default_factory=dict)  # e.g. world, policy
    versions: bool = False  # measure single versions as well

    @property
    def name(self) -> str:
        """Of the run folder and the result."""
        return "-".join([*self.variant.values(), self.condition, str(self.seed)])


def cells_of(settings: Study) -> dict[str, Study]:
    """The map: one thing at a time is changed."""
    cells = {"default": settings}
    for rate in settings.rates:
        changed = dataclasses.replace(settings, learning_rate=rate, final_learning_rate=rate)
        cells[f"rate {rate:g}"] = changed
    for name in settings.policies:
        path = str(ROOT / "policies" / f"{name}.safetensors")
        cells[f"policy {name}"] = dataclasses.replace(settings, policy=path)
    for name in settings.worlds:
        if WORLDS[name] != settings.world:
            cells[f"rooms {name}"] = dataclasses.replace(settings, world=WORLDS[name])
    return cells


def jobs_of(study: str, settings: Study, seeds: Sequence[int]) -> list:
    """All runs of a study, in the order in which they are worked off."""

    def job(condition, seed, settings=settings, variant=None, versions=False, **changes):
        changes = CONDITIONS[condition](settings) | changes
        config = settings.config(seed=seed, **changes)
        return Job(study, condition, seed, settings, config, variant or {}, versions)

    def in_world(name: str) -> Study:
        return dataclasses.replace(settings, world=WORLDS[name])

    if study == "main":
        return [job(condition, seed) for seed in seeds for condition in CONDITIONS]
    if study == "versions":
        return [job(name, seed, versions=True) for seed in seeds for name in VERSIONS]
    if study == "frozen":
        return [
            job("reskill", seed, in_world(name), {"world": name}, policy_until=0)
            for seed in seeds
            for name in settings.worlds
        ]
    if study == "map":
        return [
            job(condition, seed, cell, {"cell": name.replace(" ", "-")})
            for seed in seeds
            for name, cell in cells_of(settings).items()
            for condition in ("grpo", "reskill")
        ]
    raise StudyError(f"there is no study {study}")


# --- one run --------------------------------------------------------------------------------------


def weights_digest(policy: str) -> str:
    """SHA-256 of a policy's weights file: results of other weights are not mixed in."""
    if policy.endswith(".safetensors"):
        data = Path(policy).read_bytes()
    else:
        data = resources.files("reskill_jax.policy").joinpath(policy + ".safetensors").read_bytes()
    return hashlib.sha256(data).hexdigest()


def identity(job: Job) -> dict[str, Any]:
    """What a result must have been made with to stand for a job."""
    config = dataclasses.asdict(job.config)
    for name in ("name", "root", "policy"):
        del config[name]
    told = {"config": config, "weights": weights_digest(job.config.policy)}
    told |= {"final_games": job.settings.final_games}
    if job.versions:
        names = ("drift_every", "drift_games", "version_games")
        told["measures"] = {name: getattr(job.settings, name) for name in names}
    return json.loads(json.dumps(told))


def result_path(job: Job, results: Path) -> Path:
    """Where the result of a job lies."""
    return results / job.study / f"{job.name}.json"


def is_done(job: Job, results: Path, *, redo: bool = False) -> bool:
    """Whether the result of a job exists.

    Raises:
      StudyError: it does, but it was made with other settings (unless it is to be made again).
    """
    path = result_path(job, results)
    if not path.is_file():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))["identity"]
    if found == identity(job):
        return True
    if redo:
        return False
    raise StudyError(
        f"{path} was made with {_difference(found, identity(job))}; --redo replaces it"
    )


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    def flat(value: Any, name: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {name: value}
        return {k: v for key in value for k, v in flat(value[key], f"{name}.{key}").items()}

    one, other = flat(found), flat(wanted)
    told = [
        f"{name.rsplit('.', 1)[-1]} = {str(one.get(name))[:20]} instead of "
        f"{str(other.get(name))[:20]}"
        for name in sorted(set(one) | set(other))
        if one.get(name) != other.get(name)
    ]
    return ", ".join(told[:3]) + (" and more" if len(told) > 3 else "")


def run_job(job: Job, *, folder: Path, results: Path) -> Path:
    """Trains, or goes on with an interrupted run, and writes the result; its folder is removed."""
    config = dataclasses.replace(job.config, root=str(folder / job.study), name=job.name)
    path = Path(config.root) / config.name
    resume = _can_go_on(path, config)
    if not resume and path.exists():
        shutil.rmtree(path)
    observers = [measures.FinalGames(path, job.settings.final_games)]
    if job.versions:
        observers.append(
            measures.Versions(
                path,
                every=job.settings.drift_every,
                games=job.settings.drift_games,
                version_games=job.settings.version_games,
            )
        )

    def observer(step, state, life, parts):
        for one in observers:
            one(step, state, life, parts)

    began = time.perf_counter()
    with open(os.devnull, "w") as nowhere:
        summary = loop.train(
            config, resume=resume, console=Console(file=nowhere), observer=observer
        )
    result = {
        "study": job.study,
        "condition": job.condition,
        "seed": job.seed,
        "variant": job.variant,
        "identity": identity(job),
        "policy": Path(config.policy).name,
        **_read_run(path),
        "skills": [_short(skill.to_dict()) for skill in summary.skills],
        "seconds": round(time.perf_counter() - began, 1),
        "resumed": resume,
        "machine": describe_machine(),
        "version": version(),
    }
    target = result_path(job, results)
    _write(target, result)
    main = result_path(dataclasses.replace(job, study="main"), results)
    if job.study == "versions" and not main.is_file():  # the same run, without what was measured
        plain = dataclasses.replace(job, study="main", versions=False)
        _write(main, result | {"study": "main", "identity": identity(plain), "measurements": []})
    shutil.rmtree(path)
    return target


def _can_go_on(path: Path, config: TrainConfig) -> bool:
    """Whether an interrupted run of exactly this configuration has got somewhere."""
    told = path / "config.json"
    if not told.is_file() or max(checkpoint_steps(path / "checkpoints"), default=0) == 0:
        return False
    return json.loads(told.read_text()) == json.loads(json.dumps(dataclasses.asdict(config)))


def _read_run(path: Path) -> dict[str, Any]:
    def lines(name: str) -> list[dict[str, Any]]:
        log = path / name
        if not log.exists():
            return []
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]

    metrics = lines("metrics.jsonl")
    columns = ("success", "context_tokens", "skill_tokens", "turns", "seconds", "entropy")
    columns = (*columns, "mixed_groups", "truncated")
    events = []
    for line in lines("lifecycle.jsonl"):
        if line["event"] == "unproposed":
            continue
        line["operations"] = [
            {**o, "skill": _short(o["skill"])} if o.get("skill") else o for o in line["operations"]
        ]
        events.append({k: v for k, v in line.items() if k != "posterior"})
    return {
        "metrics": {
            "step": [line["step"] for line in metrics],
            **{name: [_round(line[name]) for line in metrics] for name in columns},
        },
        "evaluations": [
            {k: line[k] for k in ("step", "split", "mode", "success", "episodes", "by_task_type")}
            for line in lines("eval.jsonl")
        ],
        "lifecycle": events,
        "final": lines(measures.FINAL),
        "measurements": lines(measures.VERSIONS),
    }


def _short(skill: dict[str, Any]) -> dict[str, Any]:
    return {name: skill[name] for name in ("name", "action", "trigger")}


def _round(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


def _write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result) + "\n", encoding="utf-8")
    partial.replace(path)


def version() -> str:
    """The version of this project, as git tells it."""
    command = ["git", "describe", "--always", "--dirty", "--tags"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


# --- all runs -------------------------------------------------------------------------------------


def _work(core: int | None, waiting, done, folder: Path, results: Path) -> None:
    """A worker process: takes jobs until there are none."""
    if core is not None:
        os.sched_setaffinity(0, {core})  # before XLA starts its threads
    parent = os.getppid()
    while (job := waiting.get()) is not None and os.getppid() == parent:
        done.put((job, *_attempt(job, folder, results)))


def _attempt(job: Job, folder: Path, results: Path) -> tuple[float, str | None]:
    """Seconds, and what went wrong: one run that fails does not end the study."""
    began = time.perf_counter()
    try:
        run_job(job, folder=folder, results=results)
    except Exception:
        return time.perf_counter() - began, traceback.format_exc()
    return time.perf_counter() - began, None


def run_all(jobs: Sequence[Job], *, workers: int, folder: Path, results: Path) -> int:
    """Runs jobs, and tells about each; returns how many failed.

    Args:
      jobs: in this order.
      workers: processes, each on a core of its own and with a single thread: two runs side by side
        are quicker than one after the other on two cores. 0: in this process, with all cores.
      folder: of unfinished runs. results: of finished ones.
    """
    failed, began = 0, time.perf_counter()
    for number, (job, seconds, error) in enumerate(_finished(jobs, workers, folder, results), 1):
        spent = time.perf_counter() - began
        left = spent / number * (len(jobs) - number)
        print(
            f"[{number}/{len(jobs)}] {job.study} {job.name}: "
            + (f"{seconds:.0f} s" if error is None else f"FAILED\n{error}")
            + f"; {spent / 60:.0f} min so far, about {left / 60:.0f} to go",
            flush=True,
        )
        failed += error is not None
    return failed


def _finished(jobs: Sequence[Job], workers: int, folder: Path, results: Path) -> Iterator[tuple]:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT.parent / ".cache" / "jax"))
    if workers == 0:
        for job in jobs:
            yield job, *_attempt(job, folder, results)
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if "multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    context = multiprocessing.get_context("spawn")
    waiting, done = context.Queue(), context.Queue()
    for job in jobs:
        waiting.put(job)
    cores = sorted(os.sched_getaffinity(0))
    processes = []
    for number in range(min(workers, len(jobs))):
        arguments = (cores[number % len(cores)], waiting, done, folder, results)
        processes.append(context.Process(target=_work, args=arguments, daemon=True))
        waiting.put(None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("household_study: ended"))
    try:
        for process in processes:
            process.start()
        for _ in jobs:
            yield _next(done, processes)
        for process in processes:
            process.join()
    finally:  # Ctrl-C or an end from outside: what is left of the runs is begun again
        for process in processes:
            process.terminate()
        waiting.cancel_join_thread()  # else jobs that nobody takes would keep this process alive


def _next(done, processes):
    """The next message of a worker; an error if all have died without one."""
    while True:
        try:
            return done.get(timeout=5)
        except queue.Empty:
            if not any(process.is_alive() for process in processes):
                raise StudyError("the worker processes ended unexpectedly") from None


def parse_seeds(text: str) -> list[int]:
    """ "0-3,7" -> [0, 1, 2, 3, 7]."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing of a study and reports it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", choices=("main", "versions", "frozen", "map"), default="main")
    parser.add_argument("--quick", action="store_true", help="tiny runs, results apart")
    parser.add_argument("--only", help="conditions, separated by commas")
    parser.add_argument("--seeds", help="e.g. 10-17 (main), 10-13 (versions, frozen), 10-12 (map)")
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
    options = parser.parse_args(arguments)
    settings = {"frozen": FROZEN}.get(options.study, STUDY)
    folder, results, docs = options.folder, options.results, options.docs
    if options.quick:
        settings, folder, results = QUICK, folder / "quick", results / "quick"
        docs = results / "docs"
    if options.policy:
        settings = dataclasses.replace(settings, policy=options.policy)
    # Seeds below 10 were spent on choosing the settings.
    seeds = {"main": "10-17", "map": "10-12"}.get(options.study, "10-13")
    seeds = parse_seeds(options.seeds or ("0-1" if options.quick else seeds))
    only = options.only or ("grpo,reskill" if options.quick and options.study == "main" else None)
    try:
        jobs = jobs_of(options.study, settings, seeds)
        if only:
            wanted = only.split(",")
            if unknown := set(wanted) - set(CONDITIONS):
                raise StudyError(f"no such condition: {', '.join(sorted(unknown))}")
            jobs = [job for job in jobs if job.condition in wanted]
        failed = 0
        if not options.report:
            missing = [job for job in jobs if not is_done(job, results, redo=options.redo)]
            print(f"{options.study}: {len(missing)} of {len(jobs)} runs to make", flush=True)
            if missing:
                failed = run_all(missing, workers=options.workers, folder=folder, results=results)
        print(study_report.write(options.study, results, docs), flush=True)
    except StudyError as error:
        print(f"household_study: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
