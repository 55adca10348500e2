"""What is installed where: every lock is made by `make lock`, and they agree."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections import defaultdict

import pytest

from scripts import lock
from tests.conftest import ROOT

FILES = sorted(path.stem for path in (ROOT / "locks").glob("*.txt"))
EACH = pytest.mark.parametrize("name", FILES)


def pins(name: str) -> dict[str, frozenset[str]]:
    """The versions by package; some have one for older and one for newer Pythons."""
    found = defaultdict(set)
    text = (ROOT / "locks" / f"{name}.txt").read_text("utf-8")
    for package, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE):
        found[package].add(version)
    return {package: frozenset(versions) for package, versions in found.items()}


def test_every_lock_is_made_by_make_lock():
    assert sorted([*lock.LOCKS, *lock.APART]) == FILES


@pytest.mark.parametrize("name", sorted(lock.LOCKS))
def test_a_package_has_one_version_in_all_locks_of_this_project(name):
    mine = pins(name)
    others = {other: pins(other) for other in lock.LOCKS if other != name}
    differing = {
        package: {name: sorted(versions), other: sorted(held[package])}
        for other, held in others.items()
        for package, versions in mine.items()
        if package in held and held[package] != versions
    }
    assert differing == {}


@EACH
def test_a_lock_has_hashes_and_no_address(name):
    text = (ROOT / "locks" / f"{name}.txt").read_text("utf-8")
    assert pins(name)
    assert "://" not in text
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert [block for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("name", sorted(lock.LOCKS))
def test_what_a_lock_is_made_of_is_in_pyproject(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    words = lock.LOCKS[name].split()
    named = {"extra": project["project"]["optional-dependencies"], "group": project["dependency-groups"]}
    for option, what in itertools.pairwise(words):
        if option in ("--extra", "--group", "--only-group"):
            assert what in named[option.rpartition("-")[2]]
