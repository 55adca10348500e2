"""The SAM CLI in an environment of its own: its pins are not ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts import tool_venv
from scripts.local import template
from scripts.local.account import CREDENTIALS
from scripts.local.compose import ROOT, StackError

VENV = ROOT / ".venv-sam"
BUILT = ROOT / ".aws-sam" / "build"
LOCAL = BUILT / "local.json"
READY_SECONDS = 600  # for containers to start; models are in the images
QUIET = {"SAM_CLI_TELEMETRY": "0"}


def install() -> None:
    """Makes .venv-sam where it is not there yet."""
    try:
        tool_venv.install("sam", "the SAM CLI")
    except tool_venv.ToolError as exc:
        raise StackError(str(exc)) from exc


def build() -> None:
    """All images, as `sam build` alone makes them."""
    if subprocess.run([_sam(), "build"], cwd=ROOT, env=_environment(), check=False).returncode:
        raise StackError("`sam build` failed")
    # `sam local` looks at no conditions, and would start what is not there on one machine
    built = template.read(BUILT / "template.yaml")
    LOCAL.write_text(json.dumps(template.chosen(built, template.conditions(built, template.local_parameters()))))


class Local:
    """A `sam local` server, in a process group of its own."""

    def __init__(self, kind: str, port: int, variables: Path, log: Path, *more: str) -> None:
        self._log = log
        self.kind = kind
        self.address = f"http://127.0.0.1:{port}"
        command = [
            _sam(),
            "local",
            kind,
            "--template-file",
            str(LOCAL),
            "--config-file",  # else it is looked for beside the template
            str(ROOT / "samconfig.toml"),
            "--config-env",
            "local",
            "--port",
            str(port),
            "--env-vars",
            str(variables),
            *more,
        ]
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=_environment(), stdout=file, stderr=file, start_new_session=True
            )

    def wait(self) -> None:
        """Until it takes connections."""
        latest = time.monotonic() + READY_SECONDS
        while time.monotonic() < latest:
            if self._process.poll() is not None:
                raise StackError(f"`sam local {self.kind}` ended; its last lines:\n{self.told()}")
            try:
                with urllib.request.urlopen(self.address, timeout=5):  # noqa: S310  (this machine)
                    return
            except urllib.error.HTTPError:
                return  # it answers
            except OSError:
                time.sleep(1)
        raise StackError(f"`sam local {self.kind}` was not ready within {READY_SECONDS} s:\n{self.told()}")

    def told(self, lines: int = 15) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """It removes its containers when it is told to."""
        if not self.running():
            return
        os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def write_variables(path: Path, functions: Sequence[str], environment: Mapping[str, str]) -> None:
    """What `--env-vars` takes."""
    path.write_text(json.dumps({function: dict(environment) for function in functions}, indent=1))


def _sam() -> str:
    return str(tool_venv.program("sam", "sam"))


def _environment() -> dict[str, str]:
    return {**os.environ, **CREDENTIALS, **QUIET}
