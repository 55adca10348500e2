"""Making the environment: what can be told without the network."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "scripts" / "bootstrap.py"


@pytest.fixture
def bootstrap(tmp_path, monkeypatch):
    """The script over a project of its own, with locks of two sets and no network."""
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "a project"
    (root / "locks").mkdir(parents=True)
    (root / "locks/local.txt").write_text("a==1 \\\n    --hash=sha256:00\nb==2 ; python_version < '4'\n")
    (root / "locks/dev.txt").write_text("a==1\nb==2\nc==3\n")
    (root / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(module, "VENV", root / ".venv")
    monkeypatch.setattr(module, "STAMP", root / ".venv/llamabda-stamp.json")
    monkeypatch.setattr(module, "PYTHON", root / ".venv/bin/python")
    return module


def made(bootstrap, stamp):
    bootstrap.PYTHON.parent.mkdir(parents=True)
    bootstrap.PYTHON.symlink_to(sys.executable)
    bootstrap.STAMP.write_text(stamp)


@pytest.mark.parametrize("version", [(3, 8, 1), (3, 10, 12), (2, 7, 18)])
def test_an_old_python_is_told_what_to_do(bootstrap, version):
    with pytest.raises(bootstrap.BootstrapError, match=r"3\.11 or later is needed(.|\n)*PYTHON="):
        bootstrap.check_python(version)


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 13, 2), (4, 0, 0)])
def test_a_new_python_is_taken(bootstrap, version):
    bootstrap.check_python(version)


@pytest.mark.parametrize("output", ["ensurepip is not available", "No module named venv"])
def test_a_python_without_venv_names_debians_package(bootstrap, output):
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"apt-get install python{version}-venv" in bootstrap.venv_advice(output)


def test_other_troubles_with_venv_are_shown(bootstrap):
    assert "disk is full" in bootstrap.venv_advice("disk is full")


@pytest.mark.parametrize("changed", ["locks/local.txt", "pyproject.toml"])
def test_the_digest_changes_with_what_is_installed(bootstrap, changed):
    before = bootstrap.digest("local", "key")
    with (bootstrap.ROOT / changed).open("a") as file:
        file.write("# more\n")
    assert bootstrap.digest("local", "key") != before


def test_the_digest_changes_with_the_wheel_the_set_and_the_interpreter(bootstrap, monkeypatch):
    digests = {bootstrap.digest("local", "key"), bootstrap.digest("local", "other"), bootstrap.digest("dev", "key")}
    monkeypatch.setattr(bootstrap, "environment_identity", lambda: ("/usr/bin/python9", "9.9"))
    assert len({*digests, bootstrap.digest("local", "key")}) == 4


def test_the_digest_does_not_change_with_the_other_sets_lock(bootstrap):
    before = bootstrap.digest("local", "key")
    (bootstrap.ROOT / "locks/dev.txt").write_text("a==1\nb==2\nd==4\n")
    assert bootstrap.digest("local", "key") == before


def test_the_set_for_development_covers_the_one_for_running(bootstrap):
    assert bootstrap.covers("dev") == ["local", "dev"]
    assert bootstrap.covers("local") == ["local"]


def test_a_set_with_another_version_of_a_package_covers_nothing_else(bootstrap):
    (bootstrap.ROOT / "locks/dev.txt").write_text("a==1\nb==3\n")
    assert bootstrap.covers("dev") == ["dev"]


def test_the_locks_of_this_project_cover_each_other(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap, "ROOT", ROOT)
    assert bootstrap.covers("dev") == ["local", "dev"]
    assert "setuptools" in bootstrap.pins((ROOT / "locks/local.txt").read_text())


def test_a_matching_stamp_ends_at_once(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap, "builder", Builder)
    made(bootstrap, json.dumps({"local": bootstrap.digest("local", "key")}))
    monkeypatch.setattr(bootstrap, "pip", None)
    monkeypatch.setattr(bootstrap, "make_venv", None)
    bootstrap.bootstrap("local")
    with pytest.raises(TypeError):  # the other set is not there: it would have been made
        bootstrap.bootstrap("dev")


class Builder:
    """A wheel that was built before."""

    class BuildError(Exception): ...

    def wheel_key(self):
        return "key"

    def cache_folder(self):
        return None

    def find(self, _cache):
        return "wheel"

    def wheel(self, _cache, _say):
        return "wheel"


@pytest.mark.parametrize("stamp", ["", "{", "[]", "null"])
def test_a_broken_stamp_counts_as_none(bootstrap, stamp):
    made(bootstrap, stamp)
    assert bootstrap.installed() == {}


def test_a_stamp_counts_for_nothing_when_the_interpreter_is_gone(bootstrap):
    made(bootstrap, json.dumps({"local": "x"}))
    assert bootstrap.installed() == {"local": "x"}
    bootstrap.PYTHON.unlink()
    bootstrap.PYTHON.symlink_to("/nowhere/python")
    assert bootstrap.installed() == {}


def test_an_installation_that_fails_leaves_no_stamp(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap, "builder", Builder)
    made(bootstrap, json.dumps({"local": "old"}))
    monkeypatch.setattr(bootstrap, "make_venv", lambda: None)

    def pip(what, *arguments, total=0):
        raise bootstrap.BootstrapError("no network")

    monkeypatch.setattr(bootstrap, "pip", pip)
    with pytest.raises(bootstrap.BootstrapError):
        bootstrap.bootstrap("local")
    assert bootstrap.installed() == {}


def test_a_whole_run_installs_by_hash_and_stamps(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap, "builder", Builder)
    made(bootstrap, "{}")
    calls = []
    monkeypatch.setattr(bootstrap, "make_venv", lambda: None)
    monkeypatch.setattr(bootstrap, "pip", lambda what, *arguments, total=0: calls.append(arguments))
    bootstrap.bootstrap("dev")
    assert "--require-hashes" in calls[0]
    assert all("--no-deps" in call for call in calls)
    assert set(bootstrap.installed()) == {"local", "dev"}


def test_a_half_made_environment_is_not_usable(bootstrap):
    made(bootstrap, "{}")
    assert not bootstrap.usable()


def test_another_set_is_a_usage_error():
    done = subprocess.run([sys.executable, str(SCRIPT), "everything"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "local|dev" in done.stderr
