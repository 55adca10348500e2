"""Tools in environments of their own, since their pins are not ours: `.venv-<name>` from locks/<name>.txt."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class ToolError(Exception):
    """The tool cannot be had; the message says what to do."""


def install(name: str, what: str) -> None:
    """Makes the environment where it is not there yet, was moved, or its lock has changed. ToolError if it cannot."""
    wanted, stamp = digest(name), _folder(name) / "llamabda-stamp"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"making .venv-{name} with {what} (once)", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(_folder(name))], check=True)
    options = "--quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all:"
    command = [str(program(name, "python")), "-m", "pip", "install", *options.split(), "-r", str(_lock(name))]
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        raise ToolError(f"{what} cannot be installed: is the package registry reachable?")
    stamp.write_text(wanted)


def program(name: str, program: str) -> Path:
    return _folder(name) / "bin" / program


def digest(name: str) -> str:
    """Of what an environment is made of; programs in it name the place where it lies."""
    parts = (_lock(name).read_text("utf-8"), sys.version, str(_folder(name)))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _lock(name: str) -> Path:
    return ROOT / "locks" / f"{name}.txt"


def _folder(name: str) -> Path:
    return ROOT / f".venv-{name}"
