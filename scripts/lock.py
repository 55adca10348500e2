"""`make lock`: resolves the dependencies anew and writes every file of locks/. Needs the network.

What LOCKS names comes from one resolution of pyproject.toml, so that a package has one version in all of them. What
APART names is resolved by itself: tools that run beside this project want other versions than it, and llama.cpp is
built apart from the rest. All have hashes, and none has the address of an index.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = str(Path(sys.executable).with_name("uv"))
PYTHON = "3.11"  # the oldest that the locks are for

_FUNCTION = "--no-dev --group runtime --extra aws"
# by the file's name: what it holds of pyproject.toml
LOCKS = {
    # .venv: to run, with what `make local` needs; and to develop
    "local": "--no-dev --group build --group stack --extra local",
    "dev": "--group dev --extra local",
    # the images of the functions; that of ask has llama.cpp from its own lock
    "auth": f"{_FUNCTION} --extra auth",
    "ingest": f"{_FUNCTION} --extra opensearch --extra ingest",
    "ask": f"{_FUNCTION} --extra opensearch --extra ask",
    # what runs while images are made: models are prepared, this project is installed
    "models": "--no-dev --group image --extra models",
    "setuptools": "--only-group build",
    # the image of what stands in for AWS
    "moto": "--only-group moto",
    # embedding as published, and exporting: beside this project's own packages, and beside torch, which is in no lock
    "sentence-transformers": (
        "--no-dev --group torch-needs --extra export "
        "--prune torch --prune fastapi --prune pydantic-settings --prune pyjwt"
    ),
}
# by the file's name: what is asked for, and how
APART = {
    "sam": ("aws-sam-cli>=1.170",),
    "checks": ("cfn-lint>=1.58", "cfn-lint-serverless>=0.3.6", "checkov>=3"),
    "audit": ("pip-audit>=2.10", "cyclonedx-python-lib[json-validation]>=11"),
    "llama-build": ("cmake>=3.21", "ninja>=1.11", "scikit-build-core>=0.9.2"),
    "llama-cpp": ("llama-cpp-python>=0.3.36", "--no-deps"),
}
_EXPORT = (
    "export --quiet --frozen --format requirements-txt --no-emit-project --no-header --no-annotate "
    "--no-emit-package llama-cpp-python"
)
_COMPILE = (
    f"pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate --python-version {PYTHON}"
)


def main() -> int:
    print("resolving pyproject.toml", flush=True)
    _uv("lock", "--quiet", "--upgrade")
    try:
        for name, what in LOCKS.items():
            print(f"locks/{name}.txt", flush=True)
            _uv(*_EXPORT.split(), *what.split(), "--output-file", _file(name))
    finally:
        (ROOT / "uv.lock").unlink(missing_ok=True)
    for name, what in APART.items():
        print(f"locks/{name}.txt", flush=True)
        wanted = "\n".join(one for one in what if not one.startswith("--"))
        options = [one for one in what if one.startswith("--")]
        _uv(*_COMPILE.split(), *options, "--output-file", _file(name), "-", stdin=wanted)
    return 0


def _file(name: str) -> str:
    return str(Path("locks") / f"{name}.txt")


def _uv(*arguments: str, stdin: str = "") -> None:
    done = subprocess.run([UV, *arguments], cwd=ROOT, input=stdin, text=True, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"error: `uv {' '.join(arguments)}` failed")


if __name__ == "__main__":
    sys.exit(main())
