"""Where the command keeps compiled programs, and what never stands in its way."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from reskill_jax.devices import compilation_cache
from reskill_jax.devices.compilation_cache import cache_folder, keep_compiled_programs

HOME = {"HOME": "/home/me"}
XDG = {"XDG_CACHE_HOME": "/caches"}


@pytest.mark.parametrize(
    ("environment", "system", "expected"),
    [
        (HOME, "linux", "/home/me/.cache/reskill_jax"),
        (HOME | XDG, "linux", "/caches/reskill_jax"),
        (XDG, "linux", "/caches/reskill_jax"),
        (HOME | {"XDG_CACHE_HOME": ""}, "linux", "/home/me/.cache/reskill_jax"),
        (HOME | {"XDG_CACHE_HOME": "not/absolute"}, "linux", "/home/me/.cache/reskill_jax"),
        (HOME, "darwin", "/home/me/Library/Caches/reskill_jax"),
        ({"LOCALAPPDATA": "/local"}, "win32", "/local/reskill_jax"),
        ({}, "linux", None),
        ({"HOME": ""}, "linux", None),
        ({"HOME": "here"}, "darwin", None),
        ({}, "win32", None),
    ],
)
def test_the_folder_is_the_users(environment, system, expected):
    found = cache_folder(environment, system=system)
    assert (None if found is None else found.parent) == (expected and Path(expected))


def test_one_variable_decides():
    for word in ("off", "OFF", " none ", "0", "false", "no"):
        assert cache_folder(HOME | {"RESKILL_COMPILATION_CACHE": word}) is None
    for word in ("", "on", "1", "True"):
        assert cache_folder(HOME | {"RESKILL_COMPILATION_CACHE": word}) == cache_folder(HOME)
    chosen = cache_folder(HOME | {"RESKILL_COMPILATION_CACHE": "some/place"})
    assert chosen == Path("some/place")
    chosen = cache_folder({"RESKILL_COMPILATION_CACHE": "~/place"})
    assert chosen == Path("~/place").expanduser()


def test_processors_that_share_a_home_share_no_programs():
    one, other = (cache_folder(HOME, processor=name) for name in ("avx2", "avx2 avx512f"))
    assert one != other and one.parent == other.parent
    assert cache_folder(HOME, processor="avx2") == one


@pytest.fixture
def untold(monkeypatch):
    """JAX as if nobody had told it where to keep programs."""
    before = (
        jax.config.jax_compilation_cache_dir,
        jax.config.jax_persistent_cache_min_compile_time_secs,
    )
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    monkeypatch.delenv("RESKILL_COMPILATION_CACHE", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield monkeypatch
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])


def test_the_folder_is_made_for_its_owner_alone(untold, tmp_path):
    untold.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    folder = keep_compiled_programs()
    assert folder.parent == tmp_path / "caches" / "reskill_jax" and folder.is_dir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and list(folder.iterdir()) == []
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_persistent_cache_min_compile_time_secs < 1
    assert keep_compiled_programs() is None  # it is told already


def test_what_jax_was_told_stays(untold, tmp_path):
    untold.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    assert keep_compiled_programs() is None
    assert jax.config.jax_compilation_cache_dir == "elsewhere"
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert keep_compiled_programs() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["a file in the way", "no home", "read-only"])
def test_a_folder_that_cannot_be_written_is_in_nobodys_way(untold, tmp_path, where, capsys):
    (tmp_path / "file").write_text("")
    untold.delenv("XDG_CACHE_HOME", raising=False)
    untold.setenv("HOME", str(tmp_path / "file"))
    if where == "no home":
        untold.delenv("HOME")
    if where == "read-only":  # as root, permissions are no obstacle

        def refused(*_, **__):
            raise OSError(30, "Read-only file system")

        untold.setenv("HOME", str(tmp_path))
        untold.setattr(compilation_cache.tempfile, "TemporaryFile", refused)
    assert keep_compiled_programs() is None
    assert jax.config.jax_compilation_cache_dir is None
    assert capsys.readouterr() == ("", "")


def test_a_folder_that_somebody_named_and_cannot_be_written_is_told(untold, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    untold.setenv("RESKILL_COMPILATION_CACHE", str(tmp_path / "file"))
    assert keep_compiled_programs() is None
    told = capsys.readouterr().err
    assert told.startswith("reskill: RESKILL_COMPILATION_CACHE: ") and told.count("\n") == 1


def test_several_processes_and_damage(tmp_path):
    """Two processes at once fill one folder; a third finds its programs, whole or damaged."""
    code = (
        "import sys; from reskill_jax.devices.compilation_cache import keep_compiled_programs\n"
        "import jax\n"
        "folder = keep_compiled_programs()\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "print(jax.jit(lambda x: x * 2 + 1)(20), len(list(folder.glob('*-cache'))))\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )

    def told(process):
        out, _ = process.communicate()
        assert process.returncode == 0
        return out.split()

    assert [told(process)[0] for process in (start(), start())] == ["41", "41"]
    (folder,) = (tmp_path / "reskill_jax").iterdir()
    kept = sorted(folder.glob("*-cache"))
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
    assert told(start())[0] == "41"
