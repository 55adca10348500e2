"""A child `llamabda serve`: its memory and its answer times with 10k chunks, over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from benchmarks.home import EMBEDDED
from benchmarks.measure import OURS, Row, Samples, Unavailable
from benchmarks.plan import ROOT, Plan, own_python

UNLIMITED = {"RATE_LIMIT_ADDRESS": "0", "RATE_LIMIT_USER": "0"}  # all of a benchmark's clients share one address
_POLL_SECONDS = 0.01
_MB = 1e6


class Server:
    """`llamabda serve` on a free port. Use as a context manager."""

    def __init__(self, environment: Mapping[str, str], *, folder: Path) -> None:
        self._port = _free_port()
        self._log = (folder / "server.log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [str(own_python().with_name("llamabda")), "serve"],
            env=dict(environment) | UNLIMITED | {"HOST": "127.0.0.1", "PORT": str(self._port)},
            cwd=folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=60, trust_env=False)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.client.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def wait_for(self, path: str, limit: float) -> None:
        """Until it answers 200. Unavailable when the server ends or `limit` seconds pass."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Unavailable(f"the server ended before {path} answered: {self._last_words()}")
            try:
                if self.client.get(path).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(_POLL_SECONDS)
        raise Unavailable(f"{path} did not answer 200 within {limit:.0f} s: {self._last_words()}")

    def wait_until_ready(self) -> None:
        """Until every part is loaded, the language model too, which readiness does not ask for.

        Unavailable when one failed, or is not there after minutes: then there would be nothing to measure.
        """
        self.wait_for("/health/ready", 300)
        end = time.monotonic() + 300
        while True:
            checks = self.client.get("/health/ready").json()["checks"]
            states = {name: check["status"] for name, check in checks.items()}
            if all(state in ("ok", "none") for state in states.values()):
                return
            if "failed" in states.values() or time.monotonic() > end:
                raise Unavailable(f"the server is not whole: {states}; {self._last_words()}")
            time.sleep(_POLL_SECONDS)

    def post(self, path: str, body: Mapping[str, object], token: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = self.client.post(path, json=body, headers=headers)
        if answer.is_error:
            raise Unavailable(f"{path} answered {answer.status_code}: {answer.text[:200]}")
        return answer.json()

    def memory(self) -> dict[str, float]:
        """MB (10^6 bytes): resident, resident without files, proportional, and the highest resident so far."""
        folder = Path("/proc") / str(self.process.pid)
        status = _kilobytes(folder / "status")
        rollup = _kilobytes(folder / "smaps_rollup")
        return {
            "rss": status["VmRSS"] * 1024 / _MB,
            "anonymous": status["RssAnon"] * 1024 / _MB,
            "pss": rollup["Pss"] * 1024 / _MB,
            "peak": status["VmHWM"] * 1024 / _MB,
        }

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return lines[-1] if lines else "it said nothing"


def run(plan: Plan) -> list[Row]:
    size, count = (1_000, 5) if plan.quick else (10_000, 20)
    with tempfile.TemporaryDirectory(prefix="llamabda-bench-") as name:
        environment = os.environ | {"LLAMABDA_HOME": str(Path(name) / "home")}
        plan.say(f"server: preparing a home with {size} chunks")
        prepare(environment, size)
        with Server(environment, folder=Path(name)) as server:
            server.wait_until_ready()
            server.post("/auth/register", {"username": "bench", "password": "bench-password"})
            login = server.post("/auth/login", {"username": "bench", "password": "bench-password"})
            token = str(login["access_token"])
            plan.say(f"server: asking {count} questions")
            asked = plan.corpus.answerable(count, documents=min(EMBEDDED, len(plan.corpus.documents)))
            searched = [_timed(server, "/search", {"query": question}, token)[0] for question in asked]
            extracts, replies = (
                [_timed(server, "/ask/question", {"question": question, "mode": mode}, token) for question in asked]
                for mode in ("extractive", "auto")
            )
            memory = server.memory()
    label = f"{size // 1000}k chunks"
    note = ", ".join(f"{kind} {memory[kind]:.0f}" for kind in ("pss", "anonymous", "peak"))
    return [
        Row(
            "server",
            f"resident memory after {3 * count} requests, {label}",
            "MB",
            _ours([memory["rss"]]),
            aim="<= 700 MB",
            note=note,
        ),
        Row("server", f"POST /search, {label}", "ms", _ours(searched)),
        Row("server", f"POST /ask/question, extractive, {label}", "ms", _ours([time for time, _ in extracts])),
        Row(
            "server",
            f"POST /ask/question, auto, {label}",
            "ms",
            _ours([time for time, _ in replies]),
            note=_kinds(replies),
        ),
    ]


def _timed(server: Server, path: str, body: Mapping[str, object], token: str) -> tuple[float, Mapping[str, Any]]:
    """(milliseconds, the answer)."""
    start = time.perf_counter()
    answer = server.post(path, body, token)
    return (time.perf_counter() - start) * 1e3, answer


def _kinds(replies: Sequence[tuple[float, Mapping[str, Any]]]) -> str:
    answered = sum(bool(reply["answered"]) for _, reply in replies)
    written = sum(int(reply["usage"]["completion_tokens"]) for _, reply in replies)
    slowest = max(time for time, _ in replies)
    return f"{answered} of {len(replies)} answered, {written} tokens generated, slowest {slowest:.0f} ms"


def _ours(values: list[float]) -> Samples:
    return Samples(OURS, tuple(values))


def prepare(environment: Mapping[str, str], size: int) -> None:
    """In a process of its own: settings are read once per process, and the home is not ours."""
    command = [sys.executable, "-m", "benchmarks.home", str(size)]
    done = subprocess.run(command, env=dict(environment), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"the home could not be prepared: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


def _kilobytes(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text("ascii", errors="replace").splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) == 3 and row[2] == "kB"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
