"""Configuration files: what is applied, and what each mistake says."""

import dataclasses
import enum
import json
from pathlib import Path
from typing import Literal

import pytest

from reskill_jax.training.config_file import ConfigError, apply_config, nearest, read_config


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


@dataclasses.dataclass(frozen=True)
class Optimizer:
    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self):
        if self.rate <= 0:
            raise ValueError("rate must be > 0")


@dataclasses.dataclass(frozen=True)
class Config:
    name: str = "x"
    steps: int = 60
    scheme: Literal["independent", "stratified"] = "stratified"
    optimizer: Optimizer = Optimizer()
    horizon: float | None = None
    splits: tuple[str, ...] = ("seen",)
    greedy: bool = False
    weights: Path | None = None
    size: Size = Size.SMALL


def apply(**values):
    return apply_config(Config(), values, where="c.json")


def test_values_are_applied_and_converted():
    config = apply(
        steps=5,
        optimizer={"rate": 1, "betas": [0.5, 1]},
        horizon="1e-3",
        splits=["seen", "unseen"],
        weights="a/b",
        size="LARGE",
        scheme="independent",
        greedy=True,
    )
    assert config == Config(
        steps=5,
        optimizer=Optimizer(1.0, (0.5, 1.0)),
        horizon=1e-3,
        splits=("seen", "unseen"),
        weights=Path("a/b"),
        size=Size.LARGE,
        scheme="independent",
        greedy=True,
    )
    assert isinstance(config.optimizer.rate, float) and isinstance(config.splits, tuple)
    assert apply() == Config()
    assert apply(horizon=None) == Config()
    assert apply(**{"optimizer.rate": 0.5, "optimizer.betas": [1, 2]}).optimizer.rate == 0.5


def test_a_whole_configuration_comes_back_from_json():
    config = Config(optimizer=Optimizer(0.1), splits=("a", "b"), size=Size.LARGE)
    values = json.loads(json.dumps(dataclasses.asdict(config), default=lambda e: e.value))
    assert apply_config(Config(), values, where="x") == config


@pytest.mark.parametrize(
    "values,message",
    [
        ({"stepz": 3}, "c.json: unknown key 'stepz'; did you mean 'steps'?"),
        ({"optimizer": {"rat": 3}}, "unknown key 'optimizer.rat'; did you mean 'optimizer.rate'?"),
        ({"optimizer.rat": 3}, "unknown key 'optimizer.rat'; did you mean 'optimizer.rate'?"),
        ({"qqqq": 3}, "unknown key 'qqqq'; (name, steps, scheme, "),
        ({7: 3}, "unknown key '7'"),
        ({"steps": "many"}, "'steps' should be an integer, is \"many\""),
        ({"steps": 1.5}, "'steps' should be an integer, is 1.5"),
        ({"steps": True}, "'steps' should be an integer, is true"),
        ({"greedy": 1}, "'greedy' should be true or false, is 1"),
        ({"name": 3}, "'name' should be a text, is 3"),
        ({"horizon": "long"}, "'horizon' should be a number or null, is \"long\""),
        ({"scheme": "foo"}, "'scheme' should be one of independent, stratified, is \"foo\""),
        ({"size": "HUGE"}, "'size' should be one of SMALL, LARGE"),
        ({"splits": "seen"}, "'splits' should be a list, is \"seen\""),
        ({"splits": [1]}, "'splits'[0] should be a text, is 1"),
        ({"optimizer": {"betas": [1]}}, "'optimizer.betas' should be a list of 2, is [1]"),
        ({"optimizer": 3}, "'optimizer' should be a mapping, is 3"),
        ({"optimizer": {"rate": -1}}, "c.json: rate must be > 0"),
        ({"optimizer": 3, "optimizer.rate": 3}, "'optimizer' is given twice"),
    ],
)
def test_mistakes_are_named_in_one_line(values, message):
    with pytest.raises(ConfigError) as error:
        apply_config(Config(), values, where="c.json")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files(tmp_path):
    def file(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    assert read_config(file("a.json", '{"a": 1}')) == {"a": 1}
    assert read_config(file("a.yaml", "a: 1\nb: {c: [2]}")) == {"a": 1, "b": {"c": [2]}}
    assert read_config(file("empty.yml", "")) == {}
    for path, message in [
        (tmp_path / "none.json", "none.json: there is no such file"),
        (file("b.json", "{"), "b.json cannot be read: Expecting property name"),
        (file("b.yaml", "a: [1"), "b.yaml cannot be read: "),
        (file("c.json", "[1]"), "c.json holds a list, not a mapping"),
        (file("d.json", "[" * 50_000), "d.json cannot be read: it is nested too deeply"),
        (file("d.yaml", "a: &x [1]\nb: *x"), "aliases (*name) are not allowed"),
        (file("e.yaml", "a: 1\n" * 300_000), "e.yaml: a configuration has at most 1048576 bytes"),
        (file("c.txt", ""), "c.txt: a configuration ends in .json, .yaml or .yml"),
    ]:
        with pytest.raises(ConfigError) as error:
            read_config(path)
        assert message in str(error.value) and "\n" not in str(error.value)


def test_odd_characters_of_a_key_are_shown_escaped():
    with pytest.raises(ConfigError) as error:
        apply_config(Config(), {"\x1e": 1}, where="c.json")
    assert r"unknown key '\x1e'" in str(error.value) and len(str(error.value).splitlines()) == 1


def test_nearest():
    assert nearest("learning-rate", ["learning_rate", "steps"]) == "learning_rate"
    assert nearest("zzz", ["steps"]) is None
