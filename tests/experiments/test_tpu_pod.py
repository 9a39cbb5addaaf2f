"""The script that joins processes: which words are its own, and which are those of training."""

import jax
import pytest
import tpu_pod


@pytest.fixture
def joined(monkeypatch):
    """What `jax.distributed` and the command were called with."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *words: calls.append(words))
    monkeypatch.setattr(tpu_pod.cli, "main", lambda words: calls.append(words) or 7)
    return calls


def test_on_a_pod_nothing_has_to_be_said(joined, capsys):
    assert tpu_pod.main(["--name", "pod", "--resume", "--mesh.data", "4"]) == 7
    assert joined == [
        (None, None, None),
        ["train", "--name", "pod", "--resume", "--mesh.data", "4"],
    ]
    assert "1 processes, 8 devices" in capsys.readouterr().out


def test_elsewhere_processes_are_told_of_each_other(joined):
    own = ["--coordinator", "host:1", "--processes", "2", "--process", "1"]
    assert tpu_pod.main([*own, "--", "--preset", "tiny"]) == 7
    assert joined == [("host:1", 2, 1), ["train", "--preset", "tiny"]]
