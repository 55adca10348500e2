"""Each function as it begins on Lambda: its image, its memory, and the emulator of Lambda's runtime interface."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import httpx

from benchmarks.measure import OURS, Row, Samples, Unavailable
from benchmarks.plan import Plan
from scripts.local import sam, template
from scripts.local.engine import StackError, works

MB_PER_PROCESSOR = 1769  # of a function's memory
_MOST_PROCESSORS = 2.0  # those of ask, with its default memory, would be three
_INVOKE = "/2015-03-31/functions/function/invocations"
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}  # as the engine names them, and the emulator
_NOWHERE = "http://127.0.0.1:9"  # nothing that is measured asks another service for anything
_ENVIRONMENT = {
    "AWS_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_ENDPOINT_URL": _NOWHERE,
    "USERS_TABLE": "users",
    "CATALOG_TABLE": "catalog",
    "TEXT_BUCKET": "texts",
    "BUCKET": "documents",
    "QUEUE_URL": f"{_NOWHERE}/123456789012/work",
    "DEAD_LETTER_URL": f"{_NOWHERE}/123456789012/failed",
    "JWKS_URL": "s3://issuer/.well-known/jwks.json",
    "KMS_KEY_ID": "alias/bench",
    "OPENSEARCH_HOST": _NOWHERE,
}
_IMPORT = (
    "import time; began = time.perf_counter(); import llamabda_functions.{function}.app; "
    "print(time.perf_counter() - began)"
)
_EMBEDDER = "from llamabda.wiring import wanted_model; wiring_models.load_embedder(wanted_model())"
_GENERATOR = "wiring_models.load_generator()"
_LOAD = (
    "import time; began = time.perf_counter(); from llamabda import wiring_models; {work}; "
    "print(time.perf_counter() - began)"
)
_LISTENING_SECONDS = 20.0
_REQUEST_SECONDS = 120.0
_LOGGED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Function:
    """`models`: what it loads while the first requests come, in Python. `status`: what its cheap route answers."""

    name: str
    method: str
    path: str
    status: int
    models: tuple[str, ...] = ()

    @property
    def image(self) -> str:
        """As `sam build` names it."""
        return f"{self.name}function:{self.name}"

    @property
    def memory(self) -> int:
        """MB, as the template has it."""
        return int(template.read()["Parameters"][f"{self.name.capitalize()}Memory"]["Default"])

    @property
    def processors(self) -> float:
        return min(self.memory / MB_PER_PROCESSOR, _MOST_PROCESSORS, float(os.cpu_count() or 1))

    def limits(self) -> list[str]:
        return ["--memory", f"{self.memory}m", "--cpus", f"{self.processors:.2f}"]

    def event(self) -> dict[str, object]:
        """An HTTP API's, format 2.0, without a token."""
        return {
            "version": "2.0",
            "routeKey": f"{self.method} {self.path}",
            "rawPath": self.path,
            "rawQueryString": "",
            "headers": {"host": "bench.local", "content-type": "application/json"},
            "requestContext": {
                "http": {"method": self.method, "path": self.path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
                "requestId": "bench",
                "stage": "$default",
                "timeEpoch": int(time.time() * 1000),
            },
            "body": "{}",
            "isBase64Encoded": False,
        }


FUNCTIONS = (
    Function("auth", "GET", "/health", 200),
    Function("ingest", "GET", "/documents", 401, (_EMBEDDER,)),
    Function("ask", "POST", "/search", 401, (_EMBEDDER, _GENERATOR)),
)


@dataclass(slots=True)
class Found:
    """Milliseconds, one of each a round."""

    imported: list[float] = field(default_factory=list)
    init: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)
    models: list[float] = field(default_factory=list)


def run(plan: Plan) -> Iterator[Row]:
    emulator = _emulator()
    found = {function.name: Found() for function in FUNCTIONS}
    for function in FUNCTIONS:
        _measure(function, emulator, Found())  # the engine reads the image's files for the first time
    for number in range(plan.rounds):
        plan.say(f"cold start: round {number + 1} of {plan.rounds}")
        for function in FUNCTIONS if number % 2 == 0 else reversed(FUNCTIONS):
            _measure(function, emulator, found[function.name])
    for function in FUNCTIONS:
        yield from _rows(function, found[function.name])


def _rows(function: Function, found: Found) -> Iterator[Row]:
    where = f"{function.memory} MB, {function.processors:.2f} processors"
    asked = f"{function.method} {function.path}"
    named = {
        "importing the app": (found.imported, where),
        "init": (found.init, "as the emulator reports it: the interpreter, imports, settings"),
        "the first request": (
            found.first,
            f"{asked}, {function.status}; models load meanwhile" if found.models else asked,
        ),
        "the second request": (found.second, asked),
        "loading its models": (found.models, "in a process of its own, with the whole quota"),
    }
    for what, (values, note) in named.items():
        if values:
            yield Row("cold start", f"{function.name}: {what}", "ms", Samples(OURS, tuple(values)), note=note)


def _measure(function: Function, emulator: Path, found: Found) -> None:
    found.imported.append(1000 * _timed(function, _IMPORT.format(function=function.name)))
    if function.models:
        found.models.append(1000 * _timed(function, _LOAD.format(work="; ".join(function.models))))
    with Container(function, emulator) as container:
        for _ in range(2):
            container.ask()
        init, first, second = container.reported()
    found.init.append(init)
    found.first.append(first)
    found.second.append(second)


def _timed(function: Function, code: str) -> float:
    """Seconds that a program prints in a fresh container."""
    return float(
        _docker(
            *("run", "--rm", "--network", "none", *function.limits(), *_variables(_ENVIRONMENT)),
            *("--entrypoint", "python", function.image, "-c", code),
        )
    )


class Container:
    """One instance of a function behind the emulator. Use as a context manager. `options`: more of `docker run`."""

    def __init__(self, function: Function, emulator: Path, *options: str) -> None:
        self._function = function
        self._id = _docker(
            *("run", "--detach", "--publish", "127.0.0.1::8080", "--volume", f"{emulator}:/emulator:ro"),
            *(*function.limits(), *options, *_variables(_ENVIRONMENT), "--entrypoint", "/emulator", function.image),
            *("python", "-m", "awslambdaric", f"llamabda_functions.{function.name}.entry.handler"),
        ).strip()

    def __enter__(self) -> Container:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        _docker("rm", "--force", self._id)

    def ask(self) -> None:
        """One request. Unavailable when it is not answered as it should be."""
        published = _docker("port", self._id, "8080").split()[0].rpartition(":")[2]
        latest = time.monotonic() + _LISTENING_SECONDS
        while True:
            try:
                with httpx.Client(trust_env=False, timeout=_REQUEST_SECONDS) as client:
                    reply = client.post(f"http://127.0.0.1:{published}{_INVOKE}", json=self._function.event())
                break
            except (httpx.NetworkError, httpx.RemoteProtocolError) as exc:  # it does not listen yet
                if time.monotonic() > latest:
                    raise Unavailable(
                        f"{self._function.image} does not listen: {exc}; it said:\n{self._log()}"
                    ) from exc
                time.sleep(0.05)
        status = reply.json().get("statusCode")
        if status != self._function.status:
            raise Unavailable(
                f"{self._function.image} answered {reply.text[:300]} and not {self._function.status}:\n{self._log()}"
            )

    def reported(self) -> tuple[float, float, float]:
        """Milliseconds of the start and of both requests, as the emulator tells. Unavailable when it told otherwise."""
        latest = time.monotonic() + _LOGGED_SECONDS
        while (times := reported(self._log())) is None:  # the line about a request comes after the reply
            if time.monotonic() > latest:
                raise Unavailable(f"the emulator reported no start and two requests, but:\n{self._log()}")
            time.sleep(0.05)
        return times

    def _log(self) -> str:
        done = subprocess.run(["docker", "logs", self._id], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr


def reported(log: str) -> tuple[float, float, float] | None:
    """Milliseconds of one start and two requests in the emulator's log; None when they are not all there, or more."""
    starts = re.findall(r"INIT REPORT\(durationMs: ([\d.]+)\)", log)
    requests = re.findall(r"INVOKE RTDONE\(status: success,.*duration: ([\d.]+)ms\)", log)
    if len(starts) != 1 or len(requests) != 2:
        return None
    return float(starts[0]), float(requests[0]), float(requests[1])


def _emulator() -> Path:
    """The emulator that the SAM CLI carries. Unavailable without an engine or images."""
    if not works(["docker", "info"]):
        raise Unavailable("no Docker engine answers: start one")
    for function in FUNCTIONS:
        if not works(["docker", "image", "inspect", function.image]):
            raise Unavailable(f"there is no image {function.image}: `make e2e` or `sam build` makes it")
    described = _docker("image", "inspect", "--format", "{{.Architecture}}", FUNCTIONS[0].image).strip()
    try:
        sam.install()
    except StackError as exc:
        raise Unavailable(str(exc)) from exc
    name = f"aws-lambda-rie-{_ARCHITECTURES.get(described, described)}"
    found = next(sam.VENV.glob(f"lib/python3.*/site-packages/samcli/local/rapid/{name}"), None)
    if found is None:
        raise Unavailable(f"the SAM CLI in {sam.VENV.name} holds no emulator {name}")
    return found


def _variables(environment: Mapping[str, str]) -> Sequence[str]:
    return [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]


def _docker(*command: str) -> str:
    done = subprocess.run(["docker", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"`docker {command[0]}` failed: {done.stderr.strip()[-500:]}")
    return done.stdout
