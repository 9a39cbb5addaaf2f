"""What importing costs: the package and the command's help load no jax, no module a device."""

import pkgutil
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import reskill_jax

CORE = Path(reskill_jax.__file__).parent / "core"

EXTRAS = {  # what needs an extra
    *("reskill_jax.worlds.alfworld", "reskill_jax.agents.langgraph", "reskill_jax.agents.crewai"),
}


def run(code: str) -> str:
    """The output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_name_is_the_one_of_its_module():
    for name in reskill_jax.__all__:
        value = getattr(reskill_jax, name)
        assert value.__name__ == name
        assert value.__module__.startswith("reskill_jax.core.")
        assert vars(reskill_jax)[name] is value  # the second use costs nothing
    assert set(reskill_jax.__all__) <= set(dir(reskill_jax))


def test_what_needs_the_whole_package_is_there_too():
    for name, home in {"train": "training.loop", "load_model": "models.checkpoint"}.items():
        assert getattr(reskill_jax, name).__module__ == f"reskill_jax.{home}"
        assert name not in reskill_jax.__all__


def test_an_unknown_name_is_an_error():
    with pytest.raises(AttributeError, match="has no attribute 'whitten'"):
        _ = reskill_jax.whitten
    with pytest.raises(ImportError, match="whitten"):
        exec("from reskill_jax import whitten")


def test_importing_the_package_does_not_import_jax():
    loaded = run("import sys, reskill_jax; print(*sys.modules)").split()
    assert "reskill_jax" in loaded
    assert not {"jax", "chex", "numpy", "reskill_jax.core"} & set(loaded)


def test_star_and_plain_imports():
    code = "from reskill_jax import *\nfrom reskill_jax import whiten as w\n"
    assert run(code + "print(w is whiten, init_posterior(3).alpha)") == "True [1. 1. 1.]"


def test_mistakes_of_eval_do_not_import_jax():
    code = """
import contextlib, io, sys
from reskill_jax.cli import main
with contextlib.redirect_stderr(io.StringIO()):
    assert main(["eval", "nope"]) == main(["eval", "x", "--steps"]) == 2
print(*sys.modules)
"""
    assert not {"jax", "flax"} & set(run(code).split())


def test_listing_skills_does_not_import_jax(tmp_path):
    skill = "---\nname: a\ndescription: d\nmetadata: {trigger: general}\n---\nlook.\n"
    (tmp_path / "skills" / "a").mkdir(parents=True)
    (tmp_path / "skills" / "a" / "SKILL.md").write_text(skill)
    (tmp_path / "config.json").write_text('{"name": "x", "steps": 3}')
    code = f"""
import sys
from reskill_jax.cli import main
assert main(["skills", "list", {str(tmp_path)!r}]) == 0
print(*sys.modules)
"""
    listed, modules = run(code).split("\n")
    assert listed == "a  look.  [general]" and not {"jax", "flax"} & set(modules.split())


@pytest.mark.parametrize(
    "command",
    [
        *("train", "pretrain", "eval", "export", "report", "worlds", "doctor", "adapt", "tau-rec"),
        *("skills list", "skills show", "skills export"),
    ],
)
def test_help_of_no_command_imports_jax(command):
    code = f"""
import contextlib, io, sys
from reskill_jax.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main([*{command.split()!r}, "--help"])
print(*sys.modules)
"""
    loaded = set(run(code).split())
    assert "reskill_jax.cli.command" in loaded
    assert not {"jax", "flax", "optax", "scipy"} & loaded


def test_listing_worlds_does_not_import_jax():
    code = "import sys; from reskill_jax.cli import main; main(['worlds']); print(*sys.modules)"
    listed, modules = run(code).rsplit("\n", 1)
    assert "household" in listed and not {"jax", "flax"} & set(modules.split())


def test_help_takes_less_than_half_a_second():
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-m", "reskill_jax", "--help"], capture_output=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert done.returncode == 0 and b"doctor" in done.stdout and spent < 0.5


@pytest.mark.parametrize("words", [["--help"], ["skills", "--help"], ["--version"], ["trian"]])
def test_help_and_mistakes_do_not_import_jax(words):
    code = f"""
import contextlib, io, sys
from reskill_jax.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main({words!r})
print(*sys.modules)
"""
    loaded = run(code).split()
    assert "reskill_jax.cli" in loaded
    assert not {"jax", "numpy", "flax", "tyro", "rich"} & set(loaded)


def test_no_module_touches_a_device():
    names = [
        module.name
        for module in pkgutil.walk_packages(reskill_jax.__path__, "reskill_jax.")
        if module.name not in EXTRAS
    ]
    assert len(names) > 40
    code = f"""
import importlib
for name in {names!r}:
    importlib.import_module(name)
    from jax._src import xla_bridge
    assert not xla_bridge.backends_are_initialized(), name
print("done")
"""
    assert run(code) == "done"


def test_comparing_skills_for_agents_does_not_import_jax():
    loaded = run("import sys, reskill_jax.agents.trials; print(*sys.modules)").split()
    assert "reskill_jax.agents.trials" in loaded and not {"jax", "numpy"} & set(loaded)


def test_the_core_needs_jax_and_chex_alone():
    names = [f"reskill_jax.core.{module.name}" for module in pkgutil.iter_modules([str(CORE)])]
    assert len(names) >= 6
    code = f"""
import importlib, sys
import jax, chex
def packages():
    return {{name.split(".")[0] for name in sys.modules}}
before = packages()
for name in {names!r}:
    importlib.import_module(name)
print(*packages() - before)
"""
    assert set(run(code).split()) - set(sys.stdlib_module_names) == {"reskill_jax"}
