"""Programs that are played where a command is looked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def program(path: Path, body: str) -> None:
    """Puts a Python program where a command is looked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(0o755)


@pytest.fixture
def commands(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """Makes commands; those of this machine are not found."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return lambda name, body: program(folder / name, body)


# Writes what it was called with, and whether the terminal reaches it, beside itself.
RECORDED = """
import json, os, pathlib, sys
names = ("AWS_PORT", "OPENSEARCH_PORT", "LLAMABDA_NETWORK")
call = [sys.argv[1:], os.getsid(0) == os.getpid(), {name: os.environ.get(name) for name in names}]
with pathlib.Path(__file__).with_suffix(".jsonl").open("a") as file:
    file.write(json.dumps(call) + chr(10))
"""


def calls(folder: Path, name: str) -> list[list]:
    """Of a command that is RECORDED: its arguments, whether it was out of the terminal's reach, its environment."""
    found = folder / "commands" / f"{name}.jsonl"
    return [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []
