"""The wheel holds the whole project and works from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"  # a copy: building leaves files behind
    tree.mkdir()
    for name in ("functions", "layers"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(folder), str(tree)], check=True, capture_output=True)
    (built,) = folder.glob("llamabda-*.whl")
    return built


def test_the_wheel_holds_every_module_and_sample(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    sources = {"llamabda": ROOT / "layers" / "shared" / "llamabda", "llamabda_functions": ROOT / "functions"}
    wanted = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in sources.items()
        for path in folder.rglob("*")
        if path.is_file() and (path.suffix == ".py" or path.parent.name == "samples" or path.name == "py.typed")
    }
    assert wanted - held == set()


def test_the_installed_command_works_from_any_folder(wheel, tmp_path):
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    code = (
        "import llamabda, llamabda_functions.local.app as local; from llamabda.cli import main;"
        "print(llamabda.__file__, local.__file__); main(['docs', 'list', '--json'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(target), "LLAMABDA_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    where, listing = done.stdout.split("\n", 1)
    assert where.count(str(target)) == 2
    assert '"documents": []' in listing
