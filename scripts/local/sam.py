"""The SAM CLI in an environment of its own: its pins are not ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from scripts import tool_venv
from scripts.local import template
from scripts.local.account import CREDENTIALS
from scripts.local.compose import ROOT
from scripts.local.engine import StackError
from scripts.local.environment import cleaned

VENV = ROOT / ".venv-sam"
BUILT = ROOT / ".aws-sam" / "build"
LOCAL = BUILT / "local.json"
READY_SECONDS = 600  # for containers to start; models are in the images
QUIET = {"SAM_CLI_TELEMETRY": "0", "SAM_CLI_CONTAINER_CONNECTION_TIMEOUT": "120"}  # seconds


def install() -> None:
    """Makes .venv-sam where it is not there yet, or was moved."""
    try:
        tool_venv.install("sam", "the SAM CLI")
    except tool_venv.ToolError as exc:
        raise StackError(str(exc)) from exc


def build(architecture: str) -> None:
    """All images, as `sam build` alone makes them, for these processors (the template's Architecture)."""
    command = [_sam(), "build", "--parameter-overrides", f"Architecture={architecture}"]
    if subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode:
        raise StackError("`sam build` failed")
    # `sam local` looks at no conditions, and would start what is not there on one machine
    built = template.read(BUILT / "template.yaml")
    LOCAL.write_text(json.dumps(template.chosen(built, template.conditions(built, template.local_parameters()))))


def overrides(kind: str, architecture: str) -> str:
    """Of the template's parameters: those of samconfig.toml, which naming one more would put out of force, and that."""
    with (ROOT / "samconfig.toml").open("rb") as file:
        configured = tomllib.load(file)["local"][f"local_{kind.replace('-', '_')}"]["parameters"]
    return f"{configured['parameter_overrides']} Architecture={architecture}"


class Local:
    """A `sam local` server, in a process group of its own. `kind`: "start-api" or "start-lambda"."""

    def __init__(self, kind: str, port: int, variables: Path, log: Path, *more: str) -> None:
        self.log = log
        self.kind = kind
        self.address = f"http://127.0.0.1:{port}"
        # a configuration is looked for beside the template
        place = ("--template-file", str(LOCAL), "--config-file", str(ROOT / "samconfig.toml"), "--config-env", "local")
        given = (*place, "--port", str(port), "--env-vars", str(variables), *more)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [_sam(), "local", kind, *given],
                cwd=ROOT,
                env=environment(),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it takes connections."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        latest = time.monotonic() + READY_SECONDS
        while time.monotonic() < latest:
            answered = False
            try:
                with direct.open(self.address, timeout=5):
                    answered = True
            except urllib.error.HTTPError as exc:
                exc.close()
                answered = True
            except OSError:
                pass
            self.check()  # also after an answer, which may have been another server's
            if answered:
                return
            time.sleep(1)
        raise StackError(f"`sam local {self.kind}` was not ready within {READY_SECONDS} s:\n{self.told()}")

    def check(self) -> None:
        """StackError with its last lines when it has ended."""
        if not self.running():
            raise StackError(f"`sam local {self.kind}` ended; its last lines:\n{self.told()}")

    def told(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """It removes its containers when it is told to."""
        if not self.running():
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def write_variables(path: Path, functions: Sequence[str], environment: Mapping[str, str]) -> None:
    """What `--env-vars` takes."""
    path.write_text(json.dumps({function: dict(environment) for function in functions}, indent=1))


def _sam() -> str:
    return str(tool_venv.program("sam", "sam"))


def environment() -> dict[str, str]:
    """Of every `sam`: the user's own account and settings have no part in it."""
    return {**cleaned(os.environ), **CREDENTIALS, **QUIET}
