"""docker-compose.local.yml, by whichever compose command is there."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.local.engine import StackError, compose_command

ROOT = Path(__file__).resolve().parents[2]
FILE = "docker-compose.local.yml"
NETWORK = "llamabda-local"  # of the whole stack; `make opensearch` alone has its own, and its own data
SECONDS = 600  # from a started container to a healthy one
LOG_LINES = 20  # of a container that fails


@dataclass(frozen=True, slots=True)
class Compose:
    """`command`: "docker compose" or "docker-compose", in words. `project`: names what it makes, and its network.
    `variables`: what the file leaves open."""

    command: tuple[str, ...]
    project: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, project: str = "", variables: Mapping[str, str] | None = None) -> Compose:
        """StackError when there is no Docker engine, or no compose."""
        return cls(compose_command(), project, variables or {})

    def shown(self, *arguments: str) -> str:
        """The command as somebody would type it."""
        return " ".join([*self.command, "-f", FILE, *self._named(), *arguments])

    def up(self, *services: str) -> None:
        """Starts these, and waits until all are healthy."""
        if self._run("up", "--detach", *services):
            raise StackError(f"`{self.shown('up', *services)}` failed")
        for service in services:
            asked = [*self._base(), "ps", "--all", "-q", service]
            listed = subprocess.run(asked, env=self._environment(), capture_output=True, text=True, check=True)
            if not _healthy(listed.stdout.strip()):
                told = self._told(service)
                raise StackError(f"the container {service} did not become healthy; its last lines:\n{told}")

    def build(self, service: str) -> None:
        if self._run("build", service):
            raise StackError(f"the image of {service} cannot be built")

    def down(self, *, data: bool) -> None:
        """Ends and removes all, functions that joined the network too. `data`: their volumes as well.

        Ctrl-C in the terminal does not reach it. StackError when something is left.
        """
        if self.project:
            joined = ["docker", "ps", "--all", "--quiet", "--filter", f"network={self.project}"]
            listed = subprocess.run(joined, capture_output=True, text=True, check=False, start_new_session=True)
            if containers := listed.stdout.split():
                removal = ["docker", "rm", "--force", *containers]
                subprocess.run(removal, capture_output=True, check=False, start_new_session=True)
        arguments = ("down", "--remove-orphans", *(["--volumes"] if data else []))
        if self._run(*arguments, apart=True):
            raise StackError(f"containers may be left: `{self.shown(*arguments)}` failed")

    def _told(self, service: str) -> str:
        """What it said last: once it is removed nobody can ask."""
        asked = [*self._base(), "logs", "--no-color", "--tail", str(LOG_LINES), service]
        done = subprocess.run(
            asked, env=self._environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        return done.stdout.decode("utf-8", "replace").rstrip()

    def _run(self, *arguments: str, apart: bool = False) -> int:
        """`apart`: out of reach of what the terminal sends."""
        command = [*self._base(), *arguments]
        return subprocess.run(command, env=self._environment(), check=False, start_new_session=apart).returncode

    def _environment(self) -> dict[str, str]:
        named = {"LLAMABDA_NETWORK": self.project} if self.project else {}
        # the builder that `sam build` uses as well: it needs no plugin, and both take what the other has made
        return {"DOCKER_BUILDKIT": "0", "COMPOSE_PROGRESS": "plain", **os.environ, **self.variables, **named}

    def _base(self) -> list[str]:
        return [*self.command, "-f", str(ROOT / FILE), *self._named()]

    def _named(self) -> list[str]:
        return ["-p", self.project] if self.project else []


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
