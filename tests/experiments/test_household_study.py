"""The household study: what it runs, how it goes on, and its tables; tiny runs from end to end."""

import dataclasses
import json
import types
from pathlib import Path

import household_study
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from study import algorithms, jobs, measures, results, runs
from study.report_versions import proposals

from reskill_jax.creators.creator import Proposal
from reskill_jax.creators.rules.state import Record
from reskill_jax.models import decoder, weights
from reskill_jax.models.decoder import DecoderConfig
from reskill_jax.skills.skill import Bundle, Operation, Skill, Trigger
from reskill_jax.storage.run_folder import RunFolder
from reskill_jax.training import loop
from reskill_jax.training.config import TrainConfig
from reskill_jax.worlds import registry
from reskill_jax.worlds.household import symbols

POLICY = DecoderConfig(
    vocabulary=symbols.VOCABULARY_SIZE, width=16, layers=1, heads=2, kv_heads=1, mlp=16
)


def test_all_conditions_are_paired_and_comparable():
    planned = jobs.jobs_of("main", jobs.STUDY, [0, 1])
    assert len(planned) == 22 and len({job.name for job in planned}) == 22
    assert [job.seed for job in planned] == [0] * 11 + [1] * 11
    assert [job.condition for job in planned[:2]] == ["grpo", "reskill"]
    common = ("rooms", "max_turns", "context_length", "steps", "groups", "group_size", "optimizer")
    common += ("algorithm", "train_games", "eval_every", "eval_tasks", "temperature")
    for name in common:
        assert len({getattr(job.config, name) for job in planned}) == 1, name
    configs = {job.condition: job.config for job in planned if job.seed == 1}
    assert all(config.seed == 1 for config in configs.values())
    assert not configs["grpo"].skills and all(c.skills for n, c in configs.items() if n != "grpo")
    paper = configs["paper_rules"]
    assert paper.trial.scheme == "independent" and paper.trial.rule == "means"
    assert (paper.trial.concurrent, paper.creator.max_operations, paper.internalize) == (1, 3, 0.0)
    assert len(set(configs.values())) == 11
    half = jobs.STUDY.steps // 2
    assert configs["skills_first"].policy_steps == range(half, jobs.STUDY.steps)
    assert configs["policy_first"].policy_steps == range(half)
    for name, steps in (("skills_first", [0, half - 1]), ("policy_first", [half, 2 * half - 1])):
        proposing = [s for s in range(jobs.STUDY.steps) if configs[name].proposes(s)]
        assert [proposing[0], proposing[-1]] == steps


def test_other_studies():
    versions = jobs.jobs_of("versions", jobs.STUDY, [0])
    assert [job.condition for job in versions] == list(jobs.VERSIONS)
    assert all(job.versions for job in versions)
    frozen = jobs.jobs_of("frozen", jobs.FROZEN, [0])
    assert [job.variant["world"] for job in frozen] == ["small", "medium", "large"]
    assert all(not job.config.policy_steps for job in frozen)
    maps = jobs.jobs_of("map", jobs.STUDY, [0])
    assert len({job.name for job in maps}) == 2 * 9
    cells = {job.variant["cell"]: job.config for job in maps}
    default = cells.pop("default")
    for name, config in cells.items():
        changed = {
            field.name
            for field in dataclasses.fields(config)
            if getattr(config, field.name) != getattr(default, field.name)
        } - {"skills"}
        assert (
            changed
            == {
                "rate": {"optimizer"},
                "policy": {"model"},
                "rooms": {"rooms", "max_turns", "context_length"},
            }[name.split("-")[0]]
        )
    assert all(Path(c.model.path).is_file() for n, c in cells.items() if n.startswith("policy"))


def test_seeds():
    assert household_study.parse_seeds("0-2,7") == [0, 1, 2, 7]
    assert household_study.parse_seeds("4") == [4]


# --- around training: runs that are written down instead of made ----------------------------------


def written(config, *, resume, console, observer):
    """In place of `loop.train`: the logs of a run that wins every other game at its end."""
    assert not resume
    columns = ("context_tokens", "skill_tokens", "turns", "seconds", "entropy", "mixed_groups")
    line = dict.fromkeys((*columns, "truncated"), 2.0)
    mode = "bank" if config.skills else "none"
    with RunFolder.create(config.root, config.name, config) as run:
        for step in range(1, config.steps + 1):
            run.write_metrics({"step": step, "success": step / config.steps} | line)
        for step, split in ((s, split) for s in (0, config.steps) for split in results.SPLITS):
            told = {"step": step, "split": split, "mode": mode, "success": step / config.steps / 2}
            told |= {"episodes": 8, "by_task_type": {"heat": [1, 8]}}
            run.write_eval(told)
            if mode == "bank" and step == config.steps:  # at the end it is also played without
                run.write_eval(told | {"mode": "none"})
        run.write_lifecycle({"step": 1, "event": "unproposed", "operations": []})
    return loop.RunSummary(run.path, config.steps, ())


@pytest.fixture
def call(tmp_path, monkeypatch):
    """The script with stand-in runs: (exit code, names of the runs that were made)."""
    made = []

    def train(config, **options):
        made.append(config.name)
        return written(config, **options)

    monkeypatch.setattr(loop, "train", train)

    def call(*arguments):
        made.clear()
        places = ["--folder", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
        options = ["--quick", "--workers", "0", "--seeds", "0", *places]
        return household_study.main([*options, *arguments]), list(made)

    call.root, call.results = tmp_path, tmp_path / "results" / "quick"
    return call


def test_what_is_there_is_not_made_again(call, capsys):
    assert call("--only", "grpo,reskill") == (0, ["grpo-0", "reskill-0"])
    assert call("--only", "grpo,reskill") == (0, [])
    assert call("--study", "map", "--only", "default") == (0, [])  # the same runs
    assert not list((call.root / "runs").rglob("config.json"))
    result = load(call, "main/reskill-0")
    assert result["metrics"]["step"] == list(range(1, jobs.QUICK.steps + 1))
    assert result["identity"]["config"]["steps"] == jobs.QUICK.steps
    assert results.final(result, "seen") == results.final(result, "unseen") == 0.5
    assert results.curve(result, "seen") == ([0, jobs.QUICK.steps], [0.0, 0.5])
    assert result["lifecycle"] == [] and result["measurements"] == []
    assert call("--report") == (0, [])
    assert "| GRPO | 1 |" in capsys.readouterr().out


def test_the_closed_loop_goes_to_the_page_about_evidence(call):
    assert call("--study", "blame") == (0, ["reskill-0", "attribution-0"])
    assert load(call, "blame/attribution-0")["identity"]["config"]["creator"]["blame"] == (
        "attribution"
    )
    page = (call.results / "docs" / "evidence.md").read_text()
    assert "household_study:blame" in page and "difference (1 pairs)" in page


def test_mistakes_and_failures_are_told(call, capsys, monkeypatch):
    assert call("--only", "grpo") == (0, ["grpo-0"])
    path = call.results / "main" / "grpo-0.json"
    text = path.read_text()
    path.write_text(text.replace(f'"steps": {jobs.QUICK.steps}', '"steps": 99'))
    assert call("--only", "grpo") == (1, [])
    assert f"steps = 99 instead of {jobs.QUICK.steps}; --redo" in capsys.readouterr().err
    assert call("--only", "grpo,rskill") == (1, [])
    assert "this study has no rskill; it has auto_accept," in capsys.readouterr().err
    path.unlink()
    monkeypatch.setattr(runs, "_read_run", lambda path: 1 / 0)
    assert call("--only", "grpo") == (1, ["grpo-0"])
    assert "FAILED" in capsys.readouterr().out and not path.exists()


# --- what is measured beside a run ----------------------------------------------------------------


class StandIn:
    """A life with a bank and proposals, as `measures.Versions` looks at them."""

    def __init__(self, skills, proposals, records):
        self.skills, self.proposals = skills, proposals
        self.creator = types.SimpleNamespace(history=records)
        self.served = {}


def test_every_proposal_is_compared_with_the_bank_it_would_change(tmp_path, monkeypatch):
    """Alone, whatever else is under test; adopted without a test, with the bank before."""
    one, two, three, four = (
        Skill(name, "always", "look.", Trigger("general"))
        for name in ("one", "two", "three", "four")
    )
    played = []

    def won(params, skills, parts, *, split, seed):
        played.append([skill.name for skill in skills])
        return np.arange(4) < len(skills)

    def record(number, step, skill, outcome="pending"):
        bundle = Bundle((Operation("ADD", skill.name, skill),))
        return Record(number, step, "bundle", bundle, (), (), 1.0, 9, outcome)

    def pending(of):
        return Proposal(of.id, "bundle", of.bundle, (), "", 1.0)

    monkeypatch.setattr(measures, "_won", won)
    versions = measures.Versions(tmp_path, every=100, games=4, version_games=4)
    state = types.SimpleNamespace(params=None)
    parts = types.SimpleNamespace(config=types.SimpleNamespace(eval_tasks=4))

    def after(step, *told):
        played.clear()
        versions(step, state, StandIn(*told), parts)
        return list(played)

    first, second = record(0, 3, two), record(1, 3, three)
    assert after(2, (one,), (None, None), ()) == []
    both = (pending(first), pending(second))
    assert after(3, (one,), both, (first, second)) == [
        ["one", "two"],
        ["one"],
        ["one", "three"],
    ]
    # One of them is accepted, another takes its place: the bank in use is what it is now.
    third = record(2, 4, four)
    told = (first, dataclasses.replace(second, outcome="accepted"), third)
    assert after(4, (one, three), (pending(first), pending(third)), told) == [
        ["one", "three", "four"],
        ["one", "three"],
    ]
    assert after(5, (one, three), (pending(first), pending(third)), told) == []
    adopted = record(3, 6, four, "accepted")
    assert after(6, (one, three, four), (None, None), (*told, adopted)) == [
        ["one", "three", "four"],
        ["one", "three"],
    ]
    lines = [json.loads(x) for x in (tmp_path / measures.VERSIONS).read_text().splitlines()]
    assert [(x["step"], x["trial"]) for x in lines] == [(3, 0), (3, 1), (4, 2), (6, 3)]
    assert all(x["gained"] == 1 and x["lost"] == 0 for x in lines)


# --- with training --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory, looking_world):
    """Calls the script with tiny runs in this process; what it trained is counted."""
    root = tmp_path_factory.mktemp("study")
    policy = root / "tiny.safetensors"
    weights.save(policy, decoder.init(jax.random.key(3), POLICY), {"made by": "tests"}, POLICY)
    trained = []
    quick = dataclasses.replace(
        jobs.QUICK,
        steps=12,
        eval_every=6,
        drift_every=6,
        eval_games=8,
        drift_games=8,
        changes=(
            ("creator", {"reservoir": 8}),
            ("trial", {"min_steps": 1, "min_episodes": 8, "max_steps": 2}),
            ("optimizer", {"final_learning_rate": TrainConfig().optimizer.learning_rate}),
        ),
    )
    train = loop.train

    def counted(config, **options):
        trained.append(config.name)
        return train(config, **options)

    def call(*arguments):
        trained.clear()
        with pytest.MonkeyPatch.context() as patch:
            made = lambda name, *, rooms: looking_world(spec=rooms)  # noqa: E731
            patch.setattr(registry, "make_world", made)
            patch.setattr(loop, "train", counted)
            patch.setattr(household_study, "QUICK", quick)
            options = ["--quick", "--workers", "0", "--seeds", "0", "--policy", str(policy)]
            options += ["--folder", str(root / "runs"), "--results", str(root / "results")]
            status = household_study.main([*options, *arguments])
        return status, list(trained)

    call.root, call.results = root, root / "results" / "quick"
    jax.config.update("jax_disable_most_optimizations", True)  # little to compute, much to compile
    yield call
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def finished(run):
    assert run("--study", "versions", "--only", "auto_accept,reskill") == (
        0,
        ["reskill-0", "auto_accept-0"],
    )
    assert run("--only", "grpo,reskill,auto_accept") == (0, ["grpo-0"])
    return run


def load(run, name):
    return json.loads((run.results / f"{name}.json").read_text())


@pytest.mark.slow
def test_a_second_call_makes_nothing_again(finished):
    assert finished("--only", "grpo,reskill,auto_accept") == (0, [])
    assert not list((finished.root / "runs").rglob("checkpoints"))


@pytest.mark.slow
def test_a_result(finished):
    plain, full = load(finished, "main/grpo-0"), load(finished, "main/reskill-0")
    for result in (plain, full):
        assert result["metrics"]["step"] == list(range(1, 13))
        assert result["identity"]["config"]["steps"] == 12
        assert 0 <= results.final(result, "unseen") <= 1
        assert results.step_seconds(result) > 0
        assert results.context_tokens(result) > 10
    assert results.curve(plain, "seen")[0] == results.curve(full, "seen")[0] == [0, 6, 12]
    # The same games before the first step, and 8 + 8 of each split at the end.
    assert [line["success"] for line in plain["evaluations"][:2]] == [
        line["success"] for line in full["evaluations"][:2]
    ]
    assert {(line["mode"], line["episodes"]) for line in plain["final"]} == {("none", 8)}
    assert {line["mode"] for line in full["final"]} == {"bank", "none"}
    assert plain["lifecycle"] == [] and full["measurements"] == []


@pytest.mark.slow
def test_versions_are_measured(finished):
    for name in ("reskill", "auto_accept"):
        result = load(finished, f"versions/{name}-0")
        events = [
            e for e in result["lifecycle"] if e["event"] in ("proposed", "retirement_started")
        ]
        measured = [line for line in result["measurements"] if line["kind"] == "proposal"]
        assert events and [e["trial"] for e in events] == [line["trial"] for line in measured]
        assert [e["step"] for e in events] == [line["step"] for line in measured]
        for line in result["measurements"]:
            won, other = line["won"]
            assert won - other == line["gained"] - line["lost"]
            assert line["games"] == (16 if line["kind"] == "proposal" else 8)
        told = proposals(result)
        assert len(told) == len(measured)
        if name == "auto_accept":
            assert all(one["accepted"] for one in told)
        else:  # trials in the compiled step, decided by the sequential test
            ended = [e for e in result["lifecycle"] if e["event"] in ("accepted", "rejected")]
            assert ended and all("within groups" in e["reason"] for e in ended)
    skills = [line for line in result["measurements"] if line["kind"] == "skill"]
    assert {line["step"] for line in skills} <= {6, 12} and skills


@pytest.mark.slow
def test_tables_and_figures(finished, capsys):
    assert finished("--report") == (0, [])
    assert finished("--report", "--study", "versions") == (0, [])
    told = capsys.readouterr().out
    assert "| GRPO | 1 |" in told and "| every proposal adopted |" in told
    page = (finished.results / "docs" / "results.md").read_text()
    assert "<!-- household_study:main -->" in page and "<!-- household_study:versions -->" in page
    for name in ("curves", "differences", "versions"):
        figure = finished.results / "docs" / "figures" / f"household_study_{name}.svg"
        assert f"figures/{figure.name}" in page and 0 < figure.stat().st_size < 150_000


@pytest.mark.slow
def test_results_of_other_settings_are_not_mixed_in(finished, capsys):
    path = finished.results / "main" / "grpo-0.json"
    before = path.read_text()
    path.write_text(before.replace('"steps": 12', '"steps": 13'))
    assert finished("--only", "grpo") == (1, [])
    assert "grpo-0.json was made with steps = 13 instead of 12; --redo" in capsys.readouterr().err
    path.write_text(before)


@pytest.mark.slow
def test_an_unknown_condition(finished, capsys):
    assert finished("--only", "grpo,rskill") == (1, [])
    assert "this study has no rskill; it has auto_accept," in capsys.readouterr().err


def test_runs_are_chosen_by_condition_and_by_cell():
    planned = jobs.jobs_of("map", jobs.STUDY, [0])
    names = [job.name for job in household_study.chosen(planned, ["rooms-large", "default"])]
    assert names == [
        *("default-grpo-0", "default-reskill-0", "rooms-large-grpo-0", "rooms-large-reskill-0")
    ]
    assert len(household_study.chosen(planned, ["reskill"])) == len(planned) / 2


@pytest.mark.slow
def test_a_run_that_another_study_made_is_not_made_again(finished):
    assert finished("--study", "map", "--only", "default") == (0, [])
    borrowed, made = load(finished, "map/default-grpo-0"), load(finished, "main/grpo-0")
    assert borrowed["variant"] == {"cell": "default"} and borrowed["study"] == "map"
    assert borrowed["evaluations"] == made["evaluations"]
    other = dataclasses.replace(jobs.QUICK, steps=3)
    assert not runs.borrow(jobs.jobs_of("map", other, [0])[0], finished.results)
    for path in (finished.results / "map").iterdir():  # other tests count what is made
        path.unlink()


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_not_kept(finished, capsys):
    path = finished.results / "main" / "grpo-0.json"
    before = path.read_text()
    path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_read_run", lambda path: 1 / 0)
        assert finished("--only", "grpo") == (1, ["grpo-0"])
    assert "FAILED" in capsys.readouterr().out and not path.exists()
    # Its run was complete: what is left of it is read without training a step again.
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_check_finite", lambda *_: steps.append(1))
        assert finished("--only", "grpo") == (0, ["grpo-0"])
    assert steps == []
    again = json.loads(path.read_text())
    assert again["metrics"]["success"] == json.loads(before)["metrics"]["success"]


# --- algorithms -----------------------------------------------------------------------------------


def test_every_algorithm_at_equal_rollouts():
    planned = algorithms.algorithm_jobs(jobs.STUDY, [10], {"ppo": 1e-4})
    assert len({job.name for job in planned}) == len(planned) == 2 * 8 + 2
    assert len({job.config.groups * job.config.group_size for job in planned}) == 1
    for job in planned:
        config = job.config
        assert config.skills == (job.condition == "reskill")
        ppo = config.algorithm.kind == "ppo"
        assert config.group_size == (1 if ppo else 8)
        assert config.optimizer.learning_rate == (1e-4 if ppo else 5e-5)
        if config.skills:
            assert config.trial.evidence != "within_group" or not ppo
    rates = algorithms.rate_jobs(jobs.STUDY, [20, 21])
    assert len({job.name for job in rates}) == len(rates) == 8 * 5 * 2
    assert not any(job.config.skills for job in rates)


def test_rates_are_chosen_before_algorithms_are_compared(call, capsys):
    made = ("--study", "rates", "--only", "dpo,ppo")
    assert call(*made) == (0, [f"{k}-{r}-grpo-0" for k in ("ppo", "dpo") for r in RATES])
    path = call.results / "rates" / "dpo-0.0001-grpo-0.json"
    better = json.loads(path.read_text())
    for line in better["evaluations"]:
        line["success"] = 0.9
    path.write_text(json.dumps(better))
    assert algorithms.chosen_rates(call.results)["dpo"] == 1e-4
    some = ("--study", "algorithms", "--only", "dpo,ppo-evaluation")
    assert call(*some) == (0, ["dpo-reskill-0", "ppo-evaluation-reskill-0"])  # one is there
    told = capsys.readouterr().out
    assert "| dpo | 0.0001 | 90.0 | 50.0 | -40.0 | " in told and "| ppo-evaluation | " in told
    page = (call.results / "docs" / "algorithms.md").read_text()
    assert "household_study:rates" in page and "household_study:algorithms" in page
    result = load(call, "algorithms/dpo-reskill-0")
    assert result["identity"]["config"]["algorithm"] == {"kind": "dpo", "beta": 0.1}


def test_what_skills_add_over_all_algorithms(call, capsys):
    made = call("--study", "algorithms")[1]
    assert len(made) == 2 * 8 + 2
    assert "algorithms, one value a seed: +0.0 points; played" in capsys.readouterr().out
    for kind, ended in (("ppo", 1.0), ("dpo", 0.1)):  # the other six gain nothing
        path = call.results / "algorithms" / f"{kind}-reskill-0.json"
        better = json.loads(path.read_text())
        for line in better["evaluations"]:
            line["success"] = ended if line["mode"] == "bank" else 0.5
        path.write_text(json.dumps(better))
    call("--study", "algorithms", "--report")
    told = capsys.readouterr().out
    assert "a seed: +1.2 points; played without the skills +0.0." in told
    (call.results / "algorithms" / "gspo-grpo-0.json").unlink()
    call("--study", "algorithms", "--report")
    assert "one value a seed: – points" in capsys.readouterr().out


def test_the_memory_of_the_step(tmp_path):
    """What is given is counted once where the result takes its place."""

    def told(**options):
        runner = types.SimpleNamespace(
            config=jobs.QUICK.config(),
            step=jax.jit(lambda state, games: state + jnp.sort(games)[::-1], **options),
            games=lambda numbers: jnp.ones(numbers),
            numbers=lambda step: 1000,
        )
        observer = measures.Memory(tmp_path)
        observer(0, jnp.zeros(1000), None, runner)
        assert not (tmp_path / measures.MEMORY).exists()
        observer(runner.config.steps, jnp.zeros(1000), None, runner)
        text = (tmp_path / measures.MEMORY).read_text()
        (tmp_path / measures.MEMORY).unlink()
        return json.loads(text)

    plain, donated = told(), told(donate_argnums=0)
    assert plain["temporaries"] == donated["temporaries"] >= 4000
    assert plain["peak"] == plain["temporaries"] + 3 * 4000
    assert donated["peak"] == plain["peak"] - 4000


RATES = ("2.5e-05", "5e-05", "0.0001", "0.0002", "0.0004")


def test_an_algorithm_is_what_it_is_with_all_of_its_settings():
    """Results from before there were others are of GRPO, with the settings it had then."""
    old = {"clip_low": 0.2, "clip_high": 0.2, "kl_weight": 0.0, "scale_by_std": True}
    now = dataclasses.asdict(jobs.STUDY.config().algorithm)
    assert jobs.explicit(old | {"whiten": False}) == jobs.explicit(now)
    assert jobs.explicit(jobs.explicit(now)) == jobs.explicit(now)
    assert jobs.explicit(old | {"clip_high": 0.3}) != jobs.explicit(now)
