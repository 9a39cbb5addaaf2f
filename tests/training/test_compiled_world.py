"""A compiled world of one's own, from the command line: pretrained, trained, evaluated."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from reskill_jax import cli
from reskill_jax.training.config import TrainConfig, replace, smallest
from reskill_jax.training.settings import TrainingError, check_kind
from reskill_jax.worlds.host_worlds import world_given
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.world import CompiledWorld, DemonstratedWorld, lacks

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = "--max-turns 4 --context-length 64"


@pytest.fixture(scope="module")
def vault():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import vault

        yield vault
    sys.modules.pop("vault", None)


def test_what_a_protocol_asks_for(vault):
    assert lacks(vault.Vault(), DemonstratedWorld) == lacks(HouseholdWorld(), CompiledWorld) == []
    assert lacks(object(), CompiledWorld)[:2] == ["language", "spoken"]
    assert lacks(object(), DemonstratedWorld)[-3:] == ["demonstrations", "player", "demonstrate"]


@pytest.mark.parametrize("split, materials", [("train", {0, 1}), ("seen", {0, 1}), ("unseen", {2})])
def test_doors_of_stone_are_unseen(vault, split, materials):
    make = jax.jit(jax.vmap(lambda key: vault.Vault().make(key, split)))
    doors = make(jax.random.split(jax.random.key(0), 64))
    assert set(doors.material.tolist()) == materials and set(doors.colour.tolist()) == set(range(4))


def played(vault, door, *actions):
    """The texts of an episode, whether it was won, and the choices that were offered."""
    world = vault.Vault()
    state, seen = jax.jit(world.reset)(door)
    texts, offered, won = [world.text(seen)], [], False
    for action in actions:
        cursor = world.begin(door, state)
        for symbol in world.words(action):
            allowed = jax.jit(world.allowed)(door, cursor)
            assert allowed[symbol] and not cursor.done
            offered.append(int(allowed.sum()))
            cursor = jax.jit(world.advance)(door, state, cursor, jnp.int32(symbol))
        assert cursor.done and world.text(world.action(door, cursor)) == action
        state, step = jax.jit(world.step)(door, state, cursor)
        texts.append(world.text(step.observation))
        won = bool(step.success & step.done) and float(step.reward) == 1
    return texts, won, offered


def test_a_door_opens_with_its_lever(vault):
    door = vault.Door(jnp.int32(2), jnp.int32(2))
    texts, won, offered = played(vault, door, "push", "pull first", "pull fourth", "push")
    assert texts == [
        "You stand before a door.\nYour task is to: open the green stone door.",
        *("Nothing happens.", "Nothing happens.", "It clicks.", "The door opens."),
    ]
    assert won and offered == [2, 2, 4, 2, 4, 2]
    assert vault.Vault().type_of(vault.Vault().task_of(texts[0])) == "green"
    assert vault.Vault().task_of(texts[0]) == "open the green stone door"


def test_settings_of_the_other_kind_of_world(vault):
    compiled, host = vault.Vault(), world_given(object())
    check_kind(smallest(), compiled)
    asked = replace(smallest(), evidence=dict(every=5))
    check_kind(asked, compiled)
    with pytest.raises(
        TrainingError, match=r"evidence.every must be 0 in a world on the host, got"
    ):
        check_kind(asked, host)
    shorter = replace(TrainConfig(), prompt=dict(overflow="drop_oldest"))
    check_kind(shorter, host)
    with pytest.raises(TrainingError, match=r"prompt.overflow = drop_oldest is for worlds on the"):
        check_kind(shorter, compiled)
    with pytest.raises(TrainingError, match=r"reward my:reward is for worlds on the host"):
        check_kind(replace(TrainConfig(), reward="my:reward"), compiled)


@pytest.fixture(scope="module")
def run(vault, tmp_path_factory):
    """A trained run, made by the commands of the example, small."""
    folder = tmp_path_factory.mktemp("vault")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = (
            "pretrain --world vault:Vault --preset small --name player --waves 2 --episodes 8 "
            f"--batch 4 --save-every 2 --shape.width 16 --shape.layers 1 --shape.mlp 16 {SMALL}"
        )
        assert cli.main(made.split()) == 0
        trained = (
            "train --config vault.yaml --steps 4 --groups 4 --group-size 4 --eval-every 2 "
            f"--eval-tasks 8 --minibatches 2 --trial.min-episodes 4 {SMALL}"
        )
        (folder / "vault.yaml").write_text((EXAMPLES / "vault.yaml").read_text())
        assert cli.main(trained.split()) == 0
        yield folder / "runs" / "vault"


@pytest.mark.slow
def test_a_run_is_evaluated_as_it_was(run, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    assert cli.main(["eval", "vault", "--output", str(run / "told.jsonl")]) == 0
    told = [json.loads(line) for line in (run / "told.jsonl").read_text().splitlines()]
    stored = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    end = {(line["split"], line["mode"]): line["success"] for line in stored if line["step"] == 4}
    assert {(line["split"], line["mode"]): line["success"] for line in told} == end
    assert len(end) == 4 and json.loads((run / "config.json").read_text())["world"] == "vault:Vault"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command, says",
    [
        ("eval vault --trials 2", "the world vault:Vault has no games that can be given as text"),
        ("eval vault --world household", "does not speak as the world household does"),
        ("train --world vault:Vault --prompt.overflow drop_oldest", "is for worlds on the host"),
        ("train --world vault:Vault", "tokens, but the language of this world has"),
        ("pretrain --world household_text", "the world household_text is on the host: models are"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(run, command, says, capsys, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    capsys.readouterr()
    assert cli.main(command.split()) != 0
    told = capsys.readouterr().err
    assert says in told and "Traceback" not in told and len(told.strip().splitlines()) == 1
