"""Whether Docker and compose are here: `python3 scripts/local/engine.py` says so before anything slow is done.

Only the standard library is used, and nothing of it that an old Python lacks.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence

ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}  # Docker's names, and Lambda's
_NOISE = "errors pretty printing info"


class StackError(Exception):
    """The stack cannot be made; the message says what would help."""


def compose_command() -> tuple[str, ...]:
    """ "docker compose" or "docker-compose", in words. StackError when there is no Docker engine, or no compose."""
    _check()
    commands = (("docker", "compose"), ("docker-compose",))
    found = next((one for one in commands if works([*one, "version"])), None)
    if found is None:
        raise StackError("neither `docker compose` nor `docker-compose` is there: install one of them")
    return found


def architecture() -> str:
    """Of the processors that containers run on here, as Lambda calls it."""
    asked = ["docker", "version", "--format", "{{.Server.Arch}}"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    if told not in ARCHITECTURES:
        raise StackError(f"images of functions are for {' and '.join(ARCHITECTURES)}; this Docker engine runs {told!r}")
    return ARCHITECTURES[told]


def works(command: Sequence[str]) -> bool:
    """Whether a command is there and ends well."""
    return (
        shutil.which(command[0]) is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def _check() -> None:
    if shutil.which("docker") is None:
        raise StackError("Docker is not installed: there is no command `docker`")
    done = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip() not in ("", _NOISE)]
    told = lines[-1] if lines else f"`docker info` ended with {done.returncode}"
    if "permission denied" in told.lower():
        raise StackError(f"this user may not use the Docker engine: join its group (docker), then log in anew ({told})")
    raise StackError(f"no Docker engine answers: start one ({told})")


def main() -> int:
    try:
        compose_command()
    except StackError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
