"""A checkpoint as the Hub has it, trained, resumed and written in the compiled household."""

import dataclasses
import functools
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from rich.console import Console

from reskill_jax import cli
from reskill_jax.cli.train import parse_train
from reskill_jax.devices.mesh import make_mesh
from reskill_jax.devices.shape import MeshShape
from reskill_jax.evaluation.export import export_model
from reskill_jax.evaluation.replay import ChoiceError, load_run
from reskill_jax.models import load_model
from reskill_jax.models.lora import merge
from reskill_jax.models.tensors import TensorFile
from reskill_jax.storage.checkpoint import CheckpointError
from reskill_jax.training import loop, pretraining
from reskill_jax.training import runner as runners
from reskill_jax.training.config import ModelConfig, replace
from reskill_jax.training.pretraining import PretrainConfig, SmallShape, pretrain
from reskill_jax.training.settings import TrainingError, load_policy
from reskill_jax.worlds import registry
from reskill_jax.worlds.household.world import HouseholdWorld

WORLD = HouseholdWorld()


@pytest.fixture(scope="module")
def settings(lab, checkpoint_folder):
    """A short run with a language model."""
    return replace(
        lab.config,
        model=ModelConfig(str(checkpoint_folder)),
        steps=2,
        max_turns=4,
        context_length=1600,
        seed=3,
        trial=dict(concurrent=1),
        eval_every=0,
        eval_tasks=4,
        checkpoint_every=1,
    )


@pytest.fixture(scope="module")
def run(lab, settings, tmp_path_factory):
    """name, changes -> the folder of a run; the programs it traced."""
    root = tmp_path_factory.mktemp("runs")

    def train(name, *, resume=False, observer=None, **changes):
        config = replace(settings, root=str(root), name=name, **changes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registry, "make_world", lab.make_world)
            console = Console(file=io.StringIO())
            return loop.train(config, resume=resume, console=console, observer=observer).folder

    return train


@pytest.fixture(scope="module")
def trained(run):
    traces, program = [], runners.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runners, "train_step", lambda *a, **k: traces.append(1) or program(*a, **k))
        return run("whole"), traces


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_language_model_trains_in_one_program(trained):
    folder, traces = trained
    metrics = lines(folder / "metrics.jsonl")
    assert len(metrics) == 2 and len(traces) == 1
    for line in metrics:
        assert line["invalid"] == 0 and line["turns"] > 0 and line["context_tokens"] > 300
        assert np.isfinite(line["loss"]) and line["entropy"] > 0
    assert max(line["grad_norm"] for line in metrics) > 0


def test_it_is_written_and_read_by_others(trained, checkpoint_folder, tmp_path):
    folder, _ = trained
    assert export_model(folder, tmp_path / "out") == tmp_path / "out"
    start, end = load_model(checkpoint_folder), load_model(tmp_path / "out")
    kept = load_run(folder).params
    jax.tree.map(np.testing.assert_array_equal, end.params, kept)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), start.params, end.params)
    assert max(jax.tree.leaves(moved)) > 1e-6
    assert end.tokenizer.encode("look") == start.tokenizer.encode("look")
    assert (tmp_path / "out" / "chat_template.jinja").is_file()
    with pytest.raises(ChoiceError, match="has trained no low-rank adapters"):
        export_model(folder, tmp_path / "adapters", adapters=True)


@pytest.mark.slow
def test_going_on_is_exact(run, trained):
    class Cut(Exception):
        pass

    def cut(step, *_):
        if step == 1:
            raise Cut

    with pytest.raises(Cut):
        run("cut", observer=cut)
    again = run("cut", resume=True)
    whole = trained[0]
    for one, other in zip(lines(whole / "metrics.jsonl"), lines(again / "metrics.jsonl")):
        timed = ("seconds", "compile_seconds")
        assert {k: v for k, v in one.items() if k not in timed} == {
            k: v for k, v in other.items() if k not in timed
        }
    jax.tree.map(np.testing.assert_array_equal, load_run(whole).params, load_run(again).params)


@pytest.mark.slow
def test_eight_devices_decide_as_one(run, trained):
    whole, split = trained[0], run("split", mesh=MeshShape(data=2, fsdp=2, tensor=2))
    for one, other in zip(lines(whole / "metrics.jsonl"), lines(split / "metrics.jsonl")):
        for name in ("success", "turns", "context_tokens", "truncated", "invalid", "skipped"):
            assert one[name] == other[name], name
        for name in ("loss", "entropy", "grad_norm"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-5)
    told = [lines(folder / "eval.jsonl") for folder in (whole, split)]
    assert told[0] == told[1]


@pytest.mark.slow
def test_adapters_alone_are_trained_kept_and_written(run, checkpoint_folder, tmp_path):
    model = ModelConfig(str(checkpoint_folder), lora_rank=2, lora_alpha=4.0)
    settings = dict(name="adapters", model=model, optimizer=dict(learning_rate=1e-2))
    folder = run(**settings)
    base, loaded = load_model(checkpoint_folder), load_run(folder)
    changed = merge(base.params, loaded.trained, scale=2.0)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, changed)
    assert float(jnp.abs(loaded.trained["layer_0"]["mlp"]["down"]["b"]).max()) > 0
    held = sum(path.stat().st_size for path in folder.glob("checkpoints/*2/arrays/**/*"))
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(base.params))
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(loaded.trained)) < whole / 3
    assert held < 6 * whole  # the bank's arms, no weights
    # With other weights below them they mean nothing.
    weights = checkpoint_folder / "model.safetensors"
    original = weights.read_bytes()
    try:
        weights.write_bytes(original[:-4] + b"\0\0\0\0")
        for use in (load_run, lambda _: run(**settings, steps=3, resume=True)):
            with pytest.raises(CheckpointError, match="trained on other weights than those in"):
                use(folder)
    finally:
        weights.write_bytes(original)
    # Merged, and as a PEFT folder, they are the same model.
    export_model(folder, tmp_path / "merged")
    export_model(folder, tmp_path / "peft", adapters=True)
    told = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (told["r"], told["lora_alpha"], told["peft_type"]) == (2, 4.0, "LORA")
    assert told["target_modules"] == sorted(
        f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")
    )
    with (
        TensorFile(tmp_path / "peft" / "adapter_model.safetensors") as adapters,
        TensorFile(checkpoint_folder / "model.safetensors") as old,
        TensorFile(tmp_path / "merged" / "model.safetensors") as new,
    ):
        adapted = 0
        for name in old.tensors:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            expected = old.read(name)
            if f"{stem}.lora_A.weight" in adapters.tensors:
                a, b = (np.array(adapters.read(f"{stem}.lora_{s}.weight")) for s in "AB")
                expected = expected + 2.0 * b @ a
                adapted += 1
            np.testing.assert_allclose(new.read(name), expected, atol=1e-6)
        assert adapted == 7 * base.model.config.layers


def test_how_a_model_is_spoken_to(checkpoint_folder, tmp_path):
    chat = load_policy(ModelConfig(str(checkpoint_folder)), WORLD)
    plain = load_policy(ModelConfig(str(checkpoint_folder), prompt="plain"), WORLD)
    decode = chat.loaded.tokenizer.decode
    assert decode(chat.language.frame.ask) == "<|end|>\n<|agent|>\n"
    assert decode(chat.language.frame.start).startswith("<|system|>\nYou are in a household")
    assert (
        decode(plain.language.frame.ask) == "\n>" and decode(plain.language.frame.answered) == "\n"
    )
    look, open_ = (WORLD.language.index(text) for text in (" look", "\nYou open the"))
    assert decode(chat.language.opening[look]) == "look"
    assert decode(plain.language.opening[look]) == " look"
    assert decode(plain.language.opening[open_]) == "You open the"


def test_every_device_gets_its_part_of_a_checkpoint(checkpoint_folder):
    mesh = make_mesh(MeshShape(fsdp=2, tensor=2))
    policy = load_policy(ModelConfig(str(checkpoint_folder)), WORLD, mesh=mesh)
    assert policy.params["embedding"].sharding.spec == PartitionSpec("tensor", "fsdp")
    plain = load_policy(ModelConfig(str(checkpoint_folder)), WORLD)
    jax.tree.map(np.testing.assert_array_equal, policy.params, plain.params)
    checked = load_policy(ModelConfig(str(checkpoint_folder)), WORLD, read_params=False)
    assert checked.params == {} and checked.language == plain.language


def test_a_language_model_has_room(checkpoint_folder, tmp_path):
    words = ["--model", str(checkpoint_folder)]
    assert parse_train(words).config.context_length == 2048
    assert parse_train([*words, "--context-length", "900"]).config.context_length == 900
    assert parse_train([]).config.context_length == 448
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"model": {"path": str(checkpoint_folder)}}))
    assert parse_train(["--config", str(file)]).config.context_length == 2048
    file.write_text(json.dumps({"model.path": str(checkpoint_folder), "context_length": 700}))
    assert parse_train(["--config", str(file)]).config.context_length == 700


def test_models_that_cannot_play(checkpoint_folder, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes((checkpoint_folder / name).read_bytes())
    with pytest.raises(TrainingError, match="has no chat template; --model.prompt plain"):
        load_policy(ModelConfig(str(folder), prompt="chat"), WORLD)
    assert load_policy(ModelConfig(str(folder)), WORLD).language.frame.answered == (10,)
    (folder / "chat_template.jinja").write_text("{{ messages")
    with pytest.raises(TrainingError, match="bare: the chat template cannot be used"):
        load_policy(ModelConfig(str(folder)), WORLD)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TrainingError, match="bare has no tokenizer in its folder"):
        load_policy(ModelConfig(str(folder)), WORLD)


# --- pretraining ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory, lab):
    return PretrainConfig(
        root=str(tmp_path_factory.mktemp("pretrained")),
        fresh=True,
        shape=SmallShape(width=16, layers=1, heads=2, kv_heads=1, mlp=16),
        rooms=lab.config.rooms,
        max_turns=4,
        context_length=128,
        waves=3,
        episodes=16,
        batch=8,
        learning_rate=1e-2,
        warmup=1,
        sharpen=0.5,
        save_every=1,
    )


@pytest.mark.slow
def test_a_small_policy_is_pretrained_and_goes_on_exactly(small, monkeypatch):
    fit = functools.partial(pretrain, console=Console(file=io.StringIO()))
    whole = fit(dataclasses.replace(small, name="whole"))
    play_wave = pretraining._wave

    def cut(*arguments):
        if arguments[-1] == 2:
            raise RuntimeError("the machine is gone")
        return play_wave(*arguments)

    monkeypatch.setattr(pretraining, "_wave", cut)
    with pytest.raises(RuntimeError):
        fit(dataclasses.replace(small, name="cut"))
    monkeypatch.undo()
    again = fit(dataclasses.replace(small, name="cut"), resume=True)
    told = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in lines(path)]
        for path in (whole.parent / "metrics.jsonl", again.parent / "metrics.jsonl")
    ]
    assert told[0] == told[1] and [line["step"] for line in told[0]] == [1, 2, 3]
    assert told[0][0]["masked"] > told[0][2]["masked"] > 0
    assert whole.read_bytes() == again.read_bytes()
    policy = load_policy(ModelConfig(str(whole)), WORLD)
    assert policy.model.config.width == 16
    about = json.loads(whole.with_suffix(".json").read_text())["provenance"]
    assert about["settings"]["sharpen"] == 0.5 and about["start"] == "random parameters"


@pytest.mark.slow
def test_a_language_model_is_pretrained_from_the_command_line(
    checkpoint_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = f"pretrain --model {checkpoint_folder} --max-turns 2 --context-length 1000 --waves 1"
    words += " --episodes 8 --batch 4 --warmup 0 --learning-rate 1e-2 --model.lora-rank 2"
    assert cli.main(words.split()) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "model  runs/pretrain/model"
    old, new = load_model(checkpoint_folder), load_model("runs/pretrain/model")
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), old.params, new.params)
    assert moved["embedding"] == 0 and moved["layer_0"]["mlp"]["down"] > 0
    assert cli.main(words.split()) == 1
    assert "continue it with --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, says",
    [
        ("--preset huge", "there is no preset 'huge'; there are: model, small"),
        ("--episodes 10", "10 episodes do not split into batches of 8"),
        ("--waves 0", "waves must be at least 1, got 0"),
        ("--model nowhere/there", "the model nowhere/there: there is no such folder"),
    ],
)
def test_mistakes_of_pretraining_are_one_line(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["pretrain", *words.split()]) in (1, 2)
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
