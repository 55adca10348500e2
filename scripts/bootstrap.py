#!/usr/bin/env python3
"""Makes `.venv` ready: `python3 scripts/bootstrap.py local` (to run) or `dev` (to test as well).

Installs locks/<which>.txt with hashes, the llama.cpp wheel (built once, see llama-layer-build) and this project. Only
the standard library is used. A second run compares a stamp and ends at once, without the network. A half-made or moved
environment is made anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "llamabda-stamp.json"
PYTHON = VENV / "bin" / "python"
MINIMUM = (3, 11)
SETS = ("local", "dev")

T = TypeVar("T")


class BootstrapError(Exception):
    """The environment cannot be made; the message says what to do."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@cache
def builder() -> ModuleType:
    """llama-layer-build/build_wheel.py: its folder's name cannot be imported."""
    path = ROOT / "llama-layer-build" / "build_wheel.py"
    spec = importlib.util.spec_from_file_location("build_wheel", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_wheel"] = module
    spec.loader.exec_module(module)
    return module


def check_python(version: tuple[int, ...]) -> None:
    if version[:2] < MINIMUM:
        wanted, found = ".".join(map(str, MINIMUM)), ".".join(map(str, version[:3]))
        raise BootstrapError(
            f"Python {wanted} or later is needed, {sys.executable} is {found}.\n"
            "Name another one: make demo PYTHON=python3.12"
        )


# -- the stamp


def digest(which: str, wheel_key: str) -> str:
    """Changes whenever what `which` installs changes, or the environment would not work any more."""
    content = hashlib.sha256()
    for path in (ROOT / "locks" / f"{which}.txt", ROOT / "pyproject.toml"):
        content.update(path.read_bytes() + b"\0")
    # a virtual environment works at its place and with its interpreter only
    content.update("\0".join((wheel_key, str(ROOT), *environment_identity())).encode("utf-8", "surrogateescape"))
    return content.hexdigest()


def environment_identity() -> tuple[str, str]:
    return os.path.realpath(sys.executable), f"{sys.version_info.major}.{sys.version_info.minor}"


def installed() -> dict[str, str]:
    """Which sets the environment holds, with their digests; nothing when it is half-made."""
    try:
        stamp = json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(stamp, dict) or not PYTHON.exists():
        return {}
    return {str(name): str(value) for name, value in stamp.items()}


def pins(text: str) -> dict[str, str]:
    """The pinned versions of a lock file, by package."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE))


def covers(which: str) -> list[str]:
    """The sets that are there once `which` is: a set whose every pin it holds comes with it."""
    texts = {name: (ROOT / "locks" / f"{name}.txt").read_text("utf-8") for name in SETS}
    have = pins(texts[which]).items()
    return [name for name in SETS if pins(texts[name]).items() <= have]


# -- making it


def make_venv() -> None:
    """A fresh environment, or the one that is there when it still works with this interpreter."""
    if usable():
        return
    if VENV.exists() or VENV.is_symlink():
        say("  the old .venv does not work any more: making a new one")
        if VENV.is_symlink():
            VENV.unlink()
        else:
            shutil.rmtree(VENV)
    say(f"  making .venv with Python {sys.version.split()[0]}")
    done = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BootstrapError(venv_advice(done.stdout + done.stderr))


def venv_advice(output: str) -> str:
    if "ensurepip" in output or "No module named venv" in output:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        return (
            "this Python has no venv or ensurepip module, which Debian and Ubuntu ship apart: "
            f"apt-get install {package} (or python3-venv)"
        )
    return f"no virtual environment can be made at {VENV}:\n{output.strip()}"


def usable() -> bool:
    """Whether .venv has a working pip of this interpreter's version, and has not been moved here."""
    code = "import sys, pip; print(sys.version_info[:2], sys.prefix)"
    try:
        done = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == f"{sys.version_info[:2]} {VENV}" and _scripts_are_ours()


def _scripts_are_ours() -> bool:
    """A moved environment's scripts still name the old place."""
    try:
        return str(VENV) in (VENV / "bin" / "pip").read_text("utf-8", "replace").partition("\nimport")[0]
    except OSError:
        return False


def pip(what: str, *arguments: str, total: int = 0) -> None:
    """Runs the environment's pip, telling how far it is; retries when the registry does not answer."""
    llama = builder()
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", *arguments]
    for pause in (*llama.RETRY_SECONDS, None):
        code, lines = _watched(command, what, total)
        if code == 0:
            return
        silent = llama.unreachable(lines)
        if silent and pause is not None:
            say(f"  the package registry does not answer, trying again in {pause} s")
            time.sleep(pause)
            continue
        tail = "\n".join(f"    {line}" for line in llama.telling(lines)[-4:])
        if silent:
            raise BootstrapError(
                "the package registry cannot be reached. Check the network and the settings of pip (index, proxy, "
                f"certificates), then run this again. pip's last lines:\n{tail}"
            )
        raise BootstrapError(f"{what} could not be installed. pip's last lines:\n{tail}")


def _watched(command: list[str], what: str, total: int) -> tuple[int, list[str]]:
    lines: list[str] = []
    count, told = 0, time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith(("Collecting ", "Requirement already")):
                count += 1
                if total and time.monotonic() - told > 1:
                    told = time.monotonic()
                    say(f"  {what}: {min(count, total)} of at most {total} found, now {line.split()[1].split('==')[0]}")
            elif line.startswith("Installing collected"):
                say(f"  {what}: writing them to .venv")
    return process.returncode, lines


def bootstrap(which: str) -> None:
    llama = builder()
    key = llama.wheel_key()
    if installed().get(which) == digest(which, key):
        return
    began = time.monotonic()
    lock = ROOT / "locks" / f"{which}.txt"
    total = len(pins(lock.read_text("utf-8")))
    compiled = llama.find(llama.cache_folder()) is None
    say(
        f"Preparing .venv ({which}): {total} packages, some 300 MB to download"
        + (", and llama.cpp has to be compiled, which takes 2-4 minutes, once." if compiled else ".")
    )
    if compiled:
        _built(llama.check_compiler)  # before anything slow
    make_venv()
    STAMP.unlink(missing_ok=True)
    hashed = ("--require-hashes", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off")
    pip("packages", *hashed, "-r", str(lock), total=total)
    wheel = _built(lambda: llama.wheel(llama.cache_folder(), lambda line: say(f"  {line}")))
    pip("llama.cpp", "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel))
    say("  installing this project")
    pip("this project", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--editable", str(ROOT))
    partial = STAMP.with_suffix(".partial")
    partial.write_text(json.dumps({name: digest(name, key) for name in covers(which)}), "utf-8")
    partial.replace(STAMP)
    say(f"Ready after {time.monotonic() - began:.0f} s.")


def _built(step: Callable[[], T]) -> T:
    try:
        return step()
    except builder().BuildError as exc:
        raise BootstrapError(str(exc)) from exc


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in SETS:
        say(f"usage: bootstrap.py {'|'.join(SETS)}")
        return 2
    try:
        check_python(sys.version_info[:3])
        bootstrap(arguments[0])
    except (BootstrapError, OSError) as exc:
        say(f"error: {exc}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; run it again to go on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
