"""docker-compose.local.yml, by whichever compose command is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = "docker-compose.local.yml"
NETWORK = "llamabda-local"  # of the whole stack; `make opensearch` alone has its own, and its own data
SECONDS = 180  # from a started container to a healthy one


class StackError(Exception):
    """The stack cannot be made; the message says what would help."""


@dataclass(frozen=True, slots=True)
class Compose:
    """`command`: "docker compose" or "docker-compose", in words. `project`: names what it makes, and its network."""

    command: tuple[str, ...]
    project: str = ""

    @classmethod
    def find(cls, project: str = "") -> Compose:
        """StackError when there is no Docker engine, or no compose."""
        if not works(["docker", "info"]):
            raise StackError("no Docker engine answers: start one")
        commands = (("docker", "compose"), ("docker-compose",))
        found = next((one for one in commands if works([*one, "version"])), None)
        if found is None:
            raise StackError("neither `docker compose` nor `docker-compose` is there: install one of them")
        return cls(found, project)

    def shown(self, *arguments: str) -> str:
        """The command as somebody would type it."""
        return " ".join([*self.command, "-f", FILE, *self._named(), *arguments])

    def up(self, *services: str) -> None:
        """Starts these, and waits until all are healthy."""
        if self._run("up", "--detach", *services):
            raise StackError(f"`{self.shown('up', *services)}` failed")
        for service in services:
            asked = [*self._base(), "ps", "-q", service]
            listed = subprocess.run(asked, env=self._environment(), capture_output=True, text=True, check=True)
            if not _healthy(listed.stdout.strip()):
                raise StackError(
                    f"the container {service} did not become healthy: `{self.shown('logs', service)}` tells why"
                )

    def build(self, service: str) -> None:
        if self._run("build", service):
            raise StackError(f"the image of {service} cannot be built")

    def down(self, *, data: bool) -> None:
        """Ends and removes all, functions that joined the network too. `data`: their volumes as well."""
        joined = ["docker", "ps", "--all", "--quiet", "--filter", f"network={self.project}"]
        containers = subprocess.run(joined, capture_output=True, text=True, check=False).stdout.split()
        if self.project and containers:
            subprocess.run(["docker", "rm", "--force", *containers], capture_output=True, check=False)
        self._run("down", "--remove-orphans", *(["--volumes"] if data else []))

    def _run(self, *arguments: str) -> int:
        return subprocess.run([*self._base(), *arguments], env=self._environment(), check=False).returncode

    def _environment(self) -> dict[str, str]:
        named = {"LLAMABDA_NETWORK": self.project} if self.project else {}
        return {"DOCKER_BUILDKIT": "0", "COMPOSE_PROGRESS": "plain", **os.environ, **named}

    def _base(self) -> list[str]:
        return [*self.command, "-f", str(ROOT / FILE), *self._named()]

    def _named(self) -> list[str]:
        return ["-p", self.project] if self.project else []


def works(command: Sequence[str]) -> bool:
    """Whether a command is there and ends well."""
    return (
        shutil.which(command[0]) is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def _healthy(container: str) -> bool:
    """Waits for the container's own health check; False when it ends before, or takes too long."""
    asked = ["docker", "inspect", "--format", "{{.State.Running}} {{.State.Health.Status}}", container]
    latest = time.monotonic() + SECONDS
    while time.monotonic() < latest:
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
        if told == ["true", "healthy"]:
            return True
        if told[:1] != ["true"]:
            return False
        time.sleep(1)
    return False
