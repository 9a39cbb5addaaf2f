"""What a run was made with."""

import datetime
import json
import platform
import subprocess

import jax
import pytest

from reskill_jax.storage.provenance import commit_of, provenance
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.config_file import ConfigError, apply_config, read_config


def git(folder, *words):
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(folder)]
    done = subprocess.run([*command, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    package = tmp_path / "project" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "first")
    return package


def test_an_entry_is_plain_and_complete():
    entry = provenance(step=3)
    assert json.loads(json.dumps(entry)) == entry
    assert (entry["step"], entry["python"]) == (3, platform.python_version())
    assert entry["versions"].keys() >= {"jax", "flax", "optax", "orbax-checkpoint"}
    assert entry["versions"]["jax"] == jax.__version__
    started = datetime.datetime.fromisoformat(entry["started"])
    assert started.utcoffset() == datetime.timedelta(0)
    assert jax.devices()[0].platform in entry["device"] and entry["processes"] == 1


def test_the_commit_of_a_checkout(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert commit_of(checkout) == commit
    (checkout.parent / "notes.txt").write_text("none of the package's business")
    assert commit_of(checkout) == commit
    (checkout / "__init__.py").write_text("changed = True")
    assert commit_of(checkout) == commit + "+"


def test_a_package_that_belongs_to_no_checkout(checkout, tmp_path):
    assert commit_of(tmp_path) is None
    # An environment inside of another project's checkout.
    installed = checkout / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert commit_of(installed) is None


def test_without_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit_of(checkout) is None


def test_the_configuration_of_a_run_is_one_for_others(tmp_path):
    """Readers pass over what a run adds to it, at the top alone."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"seed": 4, "provenance": [provenance(step=0)]}))
    assert apply_config(TrainConfig(), read_config(path), where="") == TrainConfig(seed=4)
    path.write_text(json.dumps({"rooms": {"provenance": []}}))
    with pytest.raises(ConfigError, match="unknown key 'rooms.provenance'"):
        apply_config(TrainConfig(), read_config(path), where="")
