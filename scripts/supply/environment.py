"""The tools for this in an environment of their own: their pins are not ours."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-audit"
LOCK = ROOT / "locks" / "audit.txt"
STAMP = VENV / "llamabda-stamp"


class SupplyError(Exception):
    """It cannot be done; the message says what would help."""


def install() -> Path:
    """Makes .venv-audit where it is not there yet; its folder of commands."""
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    if not STAMP.is_file() or STAMP.read_text() != digest:
        print("making .venv-audit with pip-audit and the CycloneDX library (once)", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        options = "--quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all:"
        command = [str(VENV / "bin" / "python"), "-m", "pip", "install", *options.split(), "-r", str(LOCK)]
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            raise SupplyError("the tools cannot be installed: is the package registry reachable?")
        STAMP.write_text(digest)
    return VENV / "bin"
