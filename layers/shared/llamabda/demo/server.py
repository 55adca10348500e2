"""A server process of the demo's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from llamabda.demo.client import Client, Refused
from llamabda.errors import DependencyFailed

READY_SECONDS = 300.0  # loading is a matter of seconds; more than this is a hang
POLL_SECONDS = 0.1
STOP_SECONDS = 20.0  # the server lets requests under way finish
LOG_LINES = 15  # shown when it dies


class DemoServer:
    """Runs `llamabda serve` on a free port of the loopback address, inside a `with`."""

    def __init__(self, home: Path) -> None:
        self.log = home / "server.log"
        self._home = home
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> DemoServer:
        command = [sys.executable, "-m", "llamabda", "serve", "--host", "127.0.0.1", "--port", str(self._port)]
        environment = {**os.environ, "LLAMABDA_HOME": str(self._home), "PYTHONUNBUFFERED": "1"}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  (our own command, no shell)
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops it in order
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def wait(self, client: Client, report: Callable[[str], None]) -> str:
        """Until the server is ready; says what is still missing whenever that changes. DependencyFailed with the end
        of its log when it dies, does not get ready, or reports a failure."""
        began = time.monotonic()
        said = ""
        while time.monotonic() - began < READY_SECONDS:
            if self._process is None or self._process.poll() is not None:
                raise DependencyFailed(f"the server died while starting; {self._tail()}", dependency="server")
            state = _readiness(client)
            if state.get("status") in ("ok", "degraded") and "loading" not in _summary(state):
                return _summary(state)  # the language model is optional to the server, the demo waits for it
            if state.get("status") == "failed":
                message = f"the server cannot get ready: {_summary(state)}; {self._tail()}"
                raise DependencyFailed(message, dependency="server")
            if (now := _summary(state)) != said:
                said = now
                report(f"   waiting: {said} ({time.monotonic() - began:.1f} s)")
            time.sleep(POLL_SECONDS)
        raise DependencyFailed(
            f"the server was not ready after {READY_SECONDS:.0f} s; {self._tail()}", dependency="server"
        )

    def _tail(self) -> str:
        lines = self.log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
        return "\n  ".join([f"the end of {self.log}:", *lines])


def _readiness(client: Client) -> dict[str, object]:
    try:
        found = client.get("/health/ready")
    except Refused as refused:
        try:
            found = json.loads(refused.detail)
        except ValueError:
            found = {"status": f"HTTP {refused.status}"}
    except DependencyFailed:
        found = {"status": "the server is starting"}
    return found if isinstance(found, dict) else {"status": "unreadable"}


def _summary(state: dict[str, object]) -> str:
    checks = state.get("checks")
    if not isinstance(checks, dict):
        return str(state.get("status", "unknown"))
    return ", ".join(f"{name} {check.get('status')}" for name, check in checks.items() if isinstance(check, dict))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
