import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from reskill_jax.worlds.host_worlds import (
    eval_tasks,
    reward_of_module,
    world_given,
    world_of_module,
)
from reskill_jax.worlds.sessions.serve import WorldNameError
from reskill_jax.worlds.world import TaskSpec

MODULE = """
class World:
    def tasks(self, split):
        return []

    def open(self, task):
        return None


def reward(episode):
    return 2.0


class Rewards:
    @staticmethod
    def none(episode):
        return 0.0


class Lazy:
    def __getattr__(self, name):
        raise ImportError(f"{name} is\\nnot installed")


number, lazy = 3, Lazy()
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the current folder, which is not where modules are found."""
    (tmp_path / "my_rewards.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("def f(:\n")
    (tmp_path / "my_ending.py").write_text("import sys\nsys.exit('no\\narguments')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "my_rewards"
    for name in ("my_rewards", "my_broken", "my_ending"):
        sys.modules.pop(name, None)


# --- worlds and rewards by name ------------------------------------------------------------------


def test_a_world_of_a_module_is_there_for_processes_and_for_a_thread(module):
    made = world_of_module(f"{module}:World")
    assert made.source.name == f"{module}:World" and made.source.world is made.world
    assert made.source.crosses and made.reward is None


def test_a_compiled_world_of_a_module(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "examples"))
    import vault

    assert world_of_module("vault:Vault") == vault.Vault()
    monkeypatch.delattr(vault.Vault, "task_of")
    monkeypatch.delattr(vault.Vault, "banks")
    with pytest.raises(WorldNameError, match="no compiled world: it has no task_of, banks"):
        world_of_module("vault:Vault")
    monkeypatch.undo()
    monkeypatch.setattr(vault.Vault, "__hash__", None)
    with pytest.raises(WorldNameError, match="vault:Vault cannot be hashed: .* frozen=True"):
        world_of_module("vault:Vault")


def test_a_world_that_was_handed_in_is_not_named():
    world = Splits(train=3)
    made = world_given(world)
    assert made.world is made.source.world is world and made.source.name is None


def test_a_reward_is_looked_for_in_the_current_folder(module):
    assert reward_of_module(f"{module}:reward")(None) == 2.0
    assert reward_of_module(f"{module}:Rewards.none")(None) == 0.0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("reward", "the reward reward: something of your own is named MODULE:NAME"),
        (":reward", "something of your own is named MODULE:NAME"),
        ("my_rewards:", "something of your own is named MODULE:NAME"),
        ("my_absent:reward", "cannot import my_absent (ModuleNotFoundError: No module named"),
        (".my_rewards:reward", "cannot import .my_rewards (TypeError"),
        ("my_broken:reward", "cannot import my_broken (SyntaxError"),
        ("my_ending:reward", "cannot import my_ending (SystemExit: no arguments)"),
        ("my_rewards:rewards", "the reward my_rewards:rewards: my_rewards has no rewards"),
        ("my_rewards:Rewards.some", "my_rewards has no Rewards.some"),
        ("my_rewards:lazy.x", "cannot import my_rewards (ImportError: x is not installed)"),
        ("my_rewards:number", "the reward my_rewards:number is no function"),
    ],
)
def test_a_reward_that_cannot_be_had_is_told_in_one_line(module, name, told):
    with pytest.raises(WorldNameError) as raised:
        reward_of_module(name)
    assert told in str(raised.value) and "\n" not in str(raised.value)


# --- the tasks of an evaluation ------------------------------------------------------------------


def task(name):
    return TaskSpec(name, f"Do {name}.")


class Splits:
    """A world with so many tasks in its splits; it raises about any other split."""

    error = KeyError

    def __init__(self, **counts):
        self.found = {
            split: [task(f"{split}-{i}") for i in range(count)] for split, count in counts.items()
        }

    def tasks(self, split):
        if split not in self.found:
            raise self.error(split)
        return self.found[split]

    def open(self, task):
        raise AssertionError("nobody plays")


def names(tasks):
    return [found.id for found in tasks]


def test_the_first_tasks_of_a_split():
    world = Splits(train=5, seen=5, unseen=2)
    assert names(eval_tasks(world, "seen", 3)) == ["seen-0", "seen-1", "seen-2"]
    assert names(eval_tasks(world, "unseen", 3)) == ["unseen-0", "unseen-1"]
    assert names(eval_tasks(world, "train", 1)) == ["train-0"]


@pytest.mark.parametrize("error", [KeyError, ValueError, UnicodeError])
def test_a_world_with_other_splits_is_asked_for_those(error):
    world = Splits(train=2, test=2)
    world.error = error
    assert names(eval_tasks(world, "seen", 9)) == ["train-0", "train-1"]
    assert names(eval_tasks(world, "unseen", 9)) == ["test-0", "test-1"]


@pytest.mark.parametrize("split", ["test", "valid", "dev", "validation"])
def test_what_a_split_of_new_tasks_may_be_called(split):
    assert names(eval_tasks(Splits(**{split: 1}), "unseen", 9)) == [f"{split}-0"]


def test_a_split_of_its_own_name_goes_before_others():
    world = Splits(train=1, seen=1, test=1, unseen=1, valid=1)
    assert names(eval_tasks(world, "seen", 9)) == ["seen-0"]
    assert names(eval_tasks(world, "unseen", 9)) == ["unseen-0"]
    assert names(eval_tasks(Splits(dev=1, test=1), "unseen", 9)) == ["test-0"]


def test_an_empty_split_is_passed_over():
    assert names(eval_tasks(Splits(unseen=0, test=2), "unseen", 9)) == ["test-0", "test-1"]


def test_no_tasks_are_an_answer():
    assert eval_tasks(Splits(train=3), "unseen", 9) == []
    assert eval_tasks(Splits(train=3, unseen=0), "unseen", 9) == []
    assert eval_tasks(Splits(), "seen", 9) == []
    assert eval_tasks(Splits(other=2), "other", 9) == [task("other-0"), task("other-1")]


def test_a_world_that_says_which_splits_it_has_is_not_asked_for_others():
    world = Splits(train=1, unseen=1, test=1)
    world.splits = ("train", "test")
    world.error = AssertionError
    assert names(eval_tasks(world, "seen", 9)) == ["train-0"]
    assert names(eval_tasks(world, "unseen", 9)) == ["test-0"]
    world.splits = ("train",)
    assert eval_tasks(world, "unseen", 9) == []


@pytest.mark.parametrize("error", [KeyError, ValueError])
def test_an_error_about_a_split_that_is_there_is_not_hidden(error):
    world = Splits(train=1)
    world.splits, world.error = ("train", "unseen"), error
    with pytest.raises(error):
        eval_tasks(world, "unseen", 9)


@pytest.mark.parametrize("error", [OSError, AttributeError, RuntimeError, TypeError])
def test_other_errors_are_not_hidden(error):
    world = Splits(train=1)
    world.error = error
    with pytest.raises(error):
        eval_tasks(world, "seen", 9)


def test_a_world_that_answers_none_for_a_split_it_does_not_know():
    class Getting(Splits):
        def tasks(self, split):
            return self.found.get(split)

    assert names(eval_tasks(Getting(test=1), "unseen", 9)) == ["test-0"]
    assert eval_tasks(Getting(test=1), "seen", 9) == []


class Lazy(Sequence):
    """Very many tasks, which are made when they are asked for."""

    def __init__(self, most):
        self.most, self.made = most, 0

    def __len__(self):
        return 1 << 20

    def __getitem__(self, index):
        assert 0 <= index < self.most, "more than was asked for"
        self.made += 1
        return task(str(index))


def test_a_lazy_sequence_is_not_listed():
    tasks = Lazy(4)
    world = Splits()
    world.found["seen"] = tasks
    assert names(eval_tasks(world, "seen", 4)) == ["0", "1", "2", "3"]
    assert tasks.made == 4


def test_a_sequence_without_an_end_of_its_own_ends_with_its_length():
    class Counted:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return task(str(index))

    world = Splits()
    world.found["seen"] = Counted()
    assert names(eval_tasks(world, "seen", 9)) == ["0", "1", "2"]


def test_of_a_generator_the_first_tasks_are_taken():
    class Generating(Splits):
        asked = 0

        def tasks(self, split):
            for found in super().tasks(split):
                self.asked += 1
                yield found

    world = Generating(train=1000, test=2)
    assert names(eval_tasks(world, "seen", 2)) == ["train-0", "train-1"] and world.asked == 2
    assert names(eval_tasks(world, "unseen", 9)) == ["test-0", "test-1"]
    assert eval_tasks(Generating(train=0), "seen", 9) == []


def test_tasks_that_are_none_at_all():
    world = Splits()
    world.found["seen"] = 7
    with pytest.raises(TypeError, match="int"):
        eval_tasks(world, "seen", 9)
