"""What the build argument EMBEDDER leads to, without torch: its packages are too large for a test."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

SCRIPT = ROOT / "scripts" / "image" / "embedder.py"
LOCK = ROOT / "locks" / "sentence-transformers.txt"
KNOWN = "sentence-transformers/all-MiniLM-L6-v2"  # in the cache of whoever runs tests


def _load():
    spec = importlib.util.spec_from_file_location("image_embedder", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


embedder = _load()


def run(*arguments, **environment):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize(
    "arguments", [("model", "tensorflow", "a-model"), ("packages", "tensorflow", "folder", "--lock", LOCK)]
)
def test_an_embedder_that_is_not_known_is_refused_with_those_that_are(arguments):
    done = run(*arguments)
    assert done.returncode != 0
    assert "EMBEDDER=tensorflow is not known: use onnx or sentence_transformers" in done.stderr


def test_onnx_adds_no_packages(tmp_path):
    done = run("packages", "onnx", tmp_path / "packages", "--lock", tmp_path / "none", PATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list((tmp_path / "packages").iterdir()) == []


def test_the_versions_of_the_lock_hold_for_what_torch_needs_too():
    lines = embedder.constraints(LOCK.read_text()).splitlines()
    names = {Requirement(line).name for line in lines}
    assert {"numpy", "sentence-transformers", "transformers", "tokenizers"} <= names
    assert "torch" not in names
    assert all(Requirement(line).specifier for line in lines)


@pytest.mark.parametrize(
    ("kind", "names", "said"),
    [
        ("onnx", ["no-such-model"], "unknown model 'no-such-model'"),
        ("sentence_transformers", ["no-such-model"], "unknown model 'no-such-model'"),
        ("onnx", ["."], "takes models of the catalogue"),
        ("onnx", [KNOWN, "no-such-model"], "unknown model 'no-such-model'"),
    ],
)
def test_a_model_that_cannot_be_put_into_an_image_is_refused(tmp_path, kind, names, said):
    names = [tmp_path if name == "." else name for name in names]
    done = run("model", kind, *names, **({} if KNOWN in names else {"LLAMABDA_CACHE": str(tmp_path / "cache")}))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
