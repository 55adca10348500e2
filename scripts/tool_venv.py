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
    """Makes the environment where it is not there yet, or its lock has changed."""
    lock, stamp = ROOT / "locks" / f"{name}.txt", _folder(name) / "llamabda-stamp"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return
    print(f"making .venv-{name} with {what} (100 to 150 MB to download, once)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(_folder(name))], check=True)
    options = "--quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all:"
    command = [str(program(name, "python")), "-m", "pip", "install", *options.split(), "-r", str(lock)]
    if subprocess.run(command, check=False).returncode:
        raise ToolError(f"{what} cannot be installed: is the package registry reachable?")
    stamp.write_text(digest)


def program(name: str, program: str) -> Path:
    return _folder(name) / "bin" / program


def _folder(name: str) -> Path:
    return ROOT / f".venv-{name}"
