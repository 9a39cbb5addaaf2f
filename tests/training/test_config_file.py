"""Configuration files: what is applied, and what each mistake says."""

import dataclasses
import enum
import json
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reskill_jax.training.config import TrainConfig
from reskill_jax.training.config_file import (
    ConfigError,
    apply_config,
    nearest,
    read_config,
    read_stored_config,
)


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
        (
            {"optimizer": {"rate": 3}, "optimizer.rate": 4},
            "'optimizer.rate' is given twice",
        ),
        ({"horizon": float("inf")}, "'horizon' should be a number or null, is Infinity"),
        ({"optimizer.rate": float("nan")}, "'optimizer.rate' should be a finite number, is NaN"),
        ({"optimizer.rate": 10**400}, "'optimizer.rate' should be a finite number, is 1000000"),
        ({"optimizer.rate": True}, "'optimizer.rate' should be a number, is true"),
        ({"optimizer.rate": "nan"}, "'optimizer.rate' should be a number, is \"nan\""),
        ({"optimizer.rate": "1_000"}, "'optimizer.rate' should be a number, is \"1_000\""),
        ({"optimizer.rate": "10:30"}, "'optimizer.rate' should be a number, is \"10:30\""),
        ({"optimizer.rate": "010"}, "'optimizer.rate' should be a number, is \"010\""),
        ({"scheme": ["independent"]}, "'scheme' should be one of independent, stratified, is"),
        ({"steps": [[[[3]]]]}, "'steps' should be an integer, is [[[[3]]]]"),
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
        (file("d.json", "[" * 50_000 + "]" * 50_000), "d.json cannot be read: it is nested too"),
        (file("d.yaml", "a: &x [1]\nb: *x"), "aliases (*name) are not allowed"),
        (file("e.yaml", "a: 1\n" * 300_000), "e.yaml: a configuration has at most 1048576 bytes"),
        (file("c.txt", ""), "c.txt: a configuration ends in .json, .yaml or .yml"),
    ]:
        with pytest.raises(ConfigError) as error:
            read_config(path)
        assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 10:30", {"a": "10:30"}),  # 630 in YAML 1.1
        ("a: 1:2:3.5", {"a": "1:2:3.5"}),
        ("a: yes\nb: No\nc: on\nd: OFF", {"a": "yes", "b": "No", "c": "on", "d": "OFF"}),
        ("a: 010\nb: 0o10\nc: 0x10\nd: 0b1", {"a": "010", "b": "0o10", "c": "0x10", "d": "0b1"}),
        ("a: 1_000\nb: 1_0.5", {"a": "1_000", "b": "1_0.5"}),
        ("a: 2026-01-02\nb: 2026-01-02 03:04:05", {"a": "2026-01-02", "b": "2026-01-02 03:04:05"}),
        ("a: .inf\nb: -.INF\nc: .nan", {"a": ".inf", "b": "-.INF", "c": ".nan"}),
        ("a: =\n<<: {b: 1}", {"a": "=", "<<": {"b": 1}}),
        ("a: true\nb: False\nc: ~\nd:\n", {"a": True, "b": False, "c": None, "d": None}),
        ("a: 1e-3\nb: -1.5E+2\nc: .5\nd: 2.", {"a": 1e-3, "b": -150.0, "c": 0.5, "d": 2.0}),
        ("a: -7\nb: 0\nc: +3", {"a": -7, "b": 0, "c": 3}),
        ("a: '10'\nb: \"true\"\nc: |-\n  10", {"a": "10", "b": "true", "c": "10"}),
        ("yes: 1\n1: 2\n~: 3", {"yes": 1, "1": 2, "~": 3}),  # keys are texts
        ("\ufeffa: 1\r\nb:\r\n  c: [2,\r\n 3]\r\n", {"a": 1, "b": {"c": [2, 3]}}),
        ("# nothing\n", {}),
    ],
)  # fmt: skip
def test_yaml_is_read_as_another_form_of_json(tmp_path, text, expected):
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode())
    found = read_config(path)
    assert found == expected
    assert [type(v) for v in found.values()] == [type(v) for v in expected.values()]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "a: 1\nb: 2\na: 3", "'a' is given twice"),
        ("a.yaml", "x:\n  a: 1\n  a: 1", "'a' is given twice"),
        ("a.yaml", "x: [{a: 1, 'a': 1}]", "'a' is given twice"),
        ("a.json", '{"a": 1, "a": 1}', "'a' is given twice"),
        ("a.json", '{"x": [{"a": 1, "a": 2}]}', "'a' is given twice"),
        ("a.json", '{"a": NaN}', "NaN is no number"),
        ("a.json", '{"a": -Infinity}', "-Infinity is no number"),
        ("a.json", "null", "holds null, not a mapping"),
        ("a.json", "true", "holds true or false, not a mapping"),
        ("a.yaml", "12", "holds an integer, not a mapping"),
        ("a.yaml", "a: !!int '3'", "tags ('tag:yaml.org,2002:int') are not allowed"),
        ("a.yaml", "a: !!python/object/apply:os.system [ls]", "are not allowed"),
        ("a.yaml", "!x a: 3", "tags ('!x') are not allowed"),
        ("a.yaml", "? [a]\n: 3", "line 1 has a key that is no text"),
        ("a.yaml", "a: 1\n---\nb: 2", "expected a single document"),
        ("a.yaml", "a: " + "9" * 5000, "Exceeds the limit"),
        ("a.json", '{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ("a.yaml", "a: " + "[" * 21 + "]" * 21, "it is nested too deeply"),
        ("a.json", '{"a":' * 21 + "1" + "}" * 21, "it is nested too deeply"),
        ("a.json", "[" * 900 + "]" * 900, "it is nested too deeply"),
        ("a.yaml", "a: \0", "special characters are not allowed"),
    ],
)
def test_what_a_file_cannot_say(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as error:
        read_config(tmp_path / name)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_file_in_another_encoding(tmp_path):
    (tmp_path / "a.yaml").write_bytes("a: 1".encode("utf-16"))
    with pytest.raises(ConfigError, match="a.yaml cannot be read: it is not UTF-8"):
        read_config(tmp_path / "a.yaml")


TEXTS = st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF), max_size=6)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_json_says_the_same_in_a_yaml_file(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("same")
    for name in ("c.json", "c.yaml"):
        (folder / name).write_text(json.dumps(values))
        assert read_config(folder / name) == values


def test_odd_characters_of_a_key_are_shown_escaped():
    with pytest.raises(ConfigError) as error:
        apply_config(Config(), {"\x1e": 1}, where="c.json")
    assert r"unknown key '\x1e'" in str(error.value) and len(str(error.value).splitlines()) == 1


def test_nearest():
    assert nearest("learning-rate", ["learning_rate", "steps"]) == "learning_rate"
    assert nearest("zzz", ["steps"]) is None


def test_a_run_of_another_version_is_told_with_that_version(tmp_path):
    file = tmp_path / "config.json"
    old = {"name": "mine", "policy": "household"}
    file.write_text(json.dumps(old))
    with pytest.raises(ConfigError, match="unknown key 'policy'"):
        read_stored_config(file, TrainConfig())
    entries = [{"reskill_jax": "0.0.9", "commit": "abc"}, {"reskill_jax": "0.1.0", "commit": None}]
    file.write_text(json.dumps(old | {"provenance": entries}))
    says = r"unknown key 'policy'.*; the run was made by reskill_jax 0.1.0 \(commit \?\): use that"
    with pytest.raises(ConfigError, match=says) as caught:
        read_stored_config(file, TrainConfig())
    assert "\n" not in str(caught.value)
    file.write_text(json.dumps({"name": "mine", "provenance": entries}))
    assert read_stored_config(file, TrainConfig()).name == "mine"
