"""Algorithms and creators of one's own: handed to `train`, named on the command line, resumed."""

import io
import json

import pytest
from rich.console import Console

from reskill_jax import cli
from reskill_jax.evaluation.replay import load_run
from reskill_jax.storage.checkpoint import CheckpointError
from reskill_jax.training import loop
from reskill_jax.training.config import TrainConfig, replace
from reskill_jax.training.lifecycle import begin_library
from reskill_jax.training.own import OwnPartError, algorithm_for, naming
from reskill_jax.training.runner import algorithm_of, make_runner
from reskill_jax.training.sections import (
    AlgorithmConfig,
    CreatorConfig,
    ModelConfig,
    OptimizerConfig,
    SessionConfig,
    TrialConfig,
)
from reskill_jax.worlds import registry
from reskill_jax.worlds.sessions.serve import WorldNameError

from . import guess_worlds, own_parts

OWN = own_parts.__name__

UPWARDS, PERSISTENT = own_parts.Upwards(push=0.5, clip_high=0.3), own_parts.Persistent()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Ended(Exception):
    """The end of a run in its middle."""


@pytest.fixture(scope="module")
def run(checkpoint_folder, tmp_path_factory):
    """A run with both, resumed in its middle."""
    config = TrainConfig(
        name="own",
        root=str(tmp_path_factory.mktemp("runs")),
        model=ModelConfig(str(checkpoint_folder)),
        world=f"{guess_worlds.__name__}:Guess",
        steps=4,
        groups=2,
        group_size=4,
        max_turns=2,
        context_length=240,
        optimizer=OptimizerConfig(minibatches=1),
        trial=TrialConfig(concurrent=1, min_steps=1, min_episodes=4, max_steps=1),
        creator=CreatorConfig(cooldown=0),
        sessions=SessionConfig(workers=0, patience=0.5),
        eval_every=0,
        eval_tasks=2,
        checkpoint_every=1,
    )

    def train(**options):
        return loop.train(config, console=Console(file=io.StringIO()), **options)

    def stop(step, *_):
        if step == 2:
            raise Ended

    with pytest.raises(Ended):
        train(algorithm=UPWARDS, creator=PERSISTENT, observer=stop)
    return train, train(algorithm=UPWARDS, creator=PERSISTENT, resume=True)


@pytest.mark.slow
def test_they_are_what_trains_and_proposes(run):
    _, summary = run
    metrics = lines(summary.folder / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3, 4]
    proposed = [e for e in lines(summary.folder / "lifecycle.jsonl") if e["event"] == "proposed"]
    names = [event["operations"][0]["name"] for event in proposed]
    assert len(names) > 1 and names == [f"look-{n}" for n in range(len(names))]  # memory is kept
    stored = json.loads((summary.folder / "config.json").read_text())
    assert stored["algorithm"]["kind"] == f"{OWN}:Upwards"
    assert stored["algorithm"]["clip_high"] == 0.3
    assert stored["creator"]["kind"] == f"{OWN}:Persistent"


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_classes_alone(run):
    train, _ = run
    for given, told in (
        ({}, f'algorithm.kind (checkpoint "{OWN}:Upwards", now "grpo")'),
        ({"algorithm": UPWARDS}, f'creator.kind (checkpoint "{OWN}:Persistent", now "rules")'),
        (
            {"algorithm": own_parts.Upwards(push=0.5), "creator": PERSISTENT},
            "algorithm.clip_high (checkpoint 0.3, now 0.2)",
        ),
        (
            {"algorithm": own_parts.Upwards(clip_high=0.3), "creator": PERSISTENT},
            "Upwards(scale_by_std=True, whiten=False, clip_low=0.2, clip_high=0.3, kl_weight=0.0, "
            "aggregation='token', push=0.5)",
        ),
    ):
        with pytest.raises(CheckpointError) as error:
            train(resume=True, **given)
        assert told in str(error.value)


@pytest.mark.slow
def test_what_was_learned_is_read_without_them(run, monkeypatch):
    _, summary = run
    monkeypatch.delattr(own_parts, "Upwards")
    monkeypatch.delattr(own_parts, "Persistent")
    assert load_run(summary.folder).step == 4


def test_equal_ones_share_the_compiled_step(lab):
    one, two, other = (
        make_runner(lab.config, lab.world, lab.policy, algorithm=own_parts.Upwards(push=push))
        for push in (0.5, 0.5, 0.7)
    )
    assert one.step is two.step and one.step is not other.step
    assert one.algorithm == two.algorithm == own_parts.Upwards(push=0.5)


def test_what_is_false_as_a_condition_is_taken_all_the_same(lab):
    class Forgetful(own_parts.Persistent):
        def __len__(self):
            return 0

    algorithm, creator = own_parts.Empty(push=0.5), Forgetful()
    made = make_runner(lab.config, lab.world, lab.policy, algorithm=algorithm, creator=creator)
    assert not algorithm and made.algorithm is algorithm
    assert not creator and made.creator is creator
    assert begin_library(lab.config, lab.world, creator).creator == creator.init(lab.config.seed)


def test_named_on_the_command_line(lab, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "make_world", lab.make_world)
    (tmp_path / "c.yaml").write_text(
        f"steps: 1\nmax_turns: 4\ncontext_length: 120\ngroups: 2\ngroup_size: 4\nname: own\n"
        f"model.path: {lab.config.model.path}\noptimizer.minibatches: 2\neval_tasks: 4\n"
        "rooms: {receptacles: 6, min_receptacles: 5, objects: 5, min_objects: 4}\n"
        "trial: {min_steps: 1, min_episodes: 4, max_steps: 2}\n"
    )
    words = ["train", "--config", "c.yaml", "--algorithm", f"{OWN}:Upwards"]
    seen = []
    monkeypatch.setattr(
        loop, "train", lambda config, **_: seen.append(config) or exit_of(KeyboardInterrupt)
    )
    assert cli.main([*words, "--clip-high", "0.3", f"--creator={OWN}:Persistent"]) == 130
    (config,) = seen
    assert algorithm_for(config) == own_parts.Upwards(clip_high=0.3)
    assert config.creator.kind == f"{OWN}:Persistent"
    capsys.readouterr()
    for wrong, told in (
        ("--algorithm nowhere:X", "the algorithm nowhere:X: cannot import nowhere"),
        ("--algorithm own_parts:X", "the algorithm own_parts:X: own_parts has no X"),
        ("--algorithm own_parts:UPPER", "own_parts has no UPPER"),
        ("--algorithm own_parts:Needy", "own_parts:Needy cannot be made (TypeError"),
        ("--algorithm own_parts:Fours --group-size 6", "group_size must be a multiple of 4"),
        ("--algorithm own_parts:Halfway", "has no rows_together, logs, targets, weights, loss"),
        ("--algorithm own_parts:Upwards --beta 0.1", "algorithm.beta has no effect"),
        ("--algorithm own_parts", "or MODULE:CLASS, got 'own_parts'"),
        ("--creator own_parts:Halfway", "the creator own_parts:Halfway has no observe, propose,"),
        ("--creator own_parts:jnp.pi", "the creator own_parts:jnp.pi is no class"),
        ("--creator own", "creator.kind must be one of rules, llm, self, replay, or MODULE:CLASS"),
    ):
        words = wrong.replace("own_parts", OWN).split()
        assert cli.main(["train", "--config", "c.yaml", *words]) == 2
        err = capsys.readouterr().err.replace(OWN, "own_parts")
        assert told in err and err.count("\n") == 1, err
    assert len(seen) == 1


def exit_of(error):
    raise error


def test_what_is_handed_in_has_to_be_complete():
    config = TrainConfig()
    for given, told in (
        (own_parts.Upwards, "Upwards is a class; give a value: Upwards()"),
        (own_parts.Halfway(), f"{OWN}:Halfway has no"),
        (own_parts.Mutable(), f"{OWN}:Mutable is not hashable; make it a frozen dataclass"),
    ):
        with pytest.raises(OwnPartError, match="the algorithm") as error:
            naming(config, given, None)
        assert told in str(error.value)
    with pytest.raises(OwnPartError, match=f"the creator {OWN}:Halfway has no observe"):
        naming(config, None, own_parts.Halfway())
    assert naming(config, None, None) is config
    assert naming(config, UPWARDS, None).algorithm.aggregation == "token"
    with pytest.raises(ValueError, match="aggregation must be one of token, sequence, constant"):
        AlgorithmConfig(aggregation="sum")


def test_an_algorithm_of_ones_own_is_imported_when_it_is_needed():
    named = replace(TrainConfig(), algorithm=AlgorithmConfig("nowhere:X", clip_low=0.1))
    with pytest.raises(WorldNameError, match="cannot import nowhere"):
        algorithm_of(named)
