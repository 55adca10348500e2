"""The bundle on one machine: `make local` and `make e2e`.

Builds the images, starts what stands in for the cloud, makes what the template describes, runs the functions in their
containers and feeds them from the queue. Ctrl-C takes everything down.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from botocore.exceptions import BotoCoreError, ClientError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # scripts are not installed

from scripts.local import account, engine, ports, sam, signals
from scripts.local.compose import NETWORK, ROOT, Compose
from scripts.local.engine import StackError
from scripts.local.environment import cleaned
from scripts.local.pump import Pump

FUNCTIONS = ("AuthFunction", "IngestFunction", "AskFunction")
# by the variable that sets each; `make opensearch` has 9200
PORTS = {"PORT": 3000, "LAMBDA_PORT": 3001, "AWS_PORT": 5005, "OPENSEARCH_PORT": 9201}
WATCH_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Running:
    """The stack: the servers of its functions, and what feeds them."""

    account: account.Account
    servers: tuple[sam.Local, ...]
    pump: Pump

    def check(self) -> None:
        """StackError when a part of it has ended by itself."""
        for server in self.servers:
            server.check()
        if not self.pump.running():
            raise StackError("what brings messages to the ingest function has ended; what it said last stands above")


@contextmanager
def stack(given: Mapping[str, int], **settings: str) -> Iterator[Running]:
    """Everything, until the block ends. `given`: a port for each of PORTS. `settings`: of the functions, beside those
    that the account gives."""
    variables = {name: str(given[name]) for name in ("AWS_PORT", "OPENSEARCH_PORT")}
    compose = Compose.find(project(given["PORT"]), variables)
    architecture = engine.architecture()
    ports.check(given, compose.shown("down", "--volumes"))  # before it takes down what may be another stack's
    sam.install()
    _share_wheel()
    say("building the images of the functions (the first time: llama.cpp is compiled, some minutes)")
    sam.build(architecture)
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="llamabda-local-")))
        try:
            yield _started(given, compose, architecture, folder, settings, ends)
        finally:
            signals.ignore()
            say("ending ...")


def _started(
    given: Mapping[str, int],
    compose: Compose,
    architecture: str,
    folder: Path,
    settings: Mapping[str, str],
    ends: ExitStack,
) -> Running:
    say("starting OpenSearch and what stands in for AWS")
    compose.down(data=True)  # an index of a former account is nobody's
    ends.callback(compose.down, data=True)
    compose.build("aws")
    compose.up("opensearch", "aws")
    say("making tables, buckets, queues and the key")
    made = account.make(f"http://127.0.0.1:{given['AWS_PORT']}")
    variables = folder / "variables.json"
    sam.write_variables(variables, FUNCTIONS, {**made.environment(), **settings})
    say("starting the functions")
    servers = []
    for kind, port in (("start-api", given["PORT"]), ("start-lambda", given["LAMBDA_PORT"])):
        more = ("--docker-network", compose.project, "--parameter-overrides", sam.overrides(kind, architecture))
        server = sam.Local(kind, port, variables, folder / f"{kind}.log", *more)
        ends.callback(server.stop)
        servers.append(server)
    for server in servers:
        server.wait()
    called = account.client("lambda", servers[-1].address)
    pump = Pump(made.client("sqs"), made.queue("WorkQueue"), called, "IngestFunction", say)
    pump.start()
    ends.callback(pump.stop)
    return Running(made, tuple(servers), pump)


def project(port: int) -> str:
    """Of compose, and the network's name: a stack at another port is another one, which runs beside the first."""
    return NETWORK if port == PORTS["PORT"] else f"{NETWORK}-{port}"


def watch(running: Running, seconds: float = WATCH_SECONDS) -> NoReturn:
    """Until a part of it ends by itself, which is a StackError; looks every so many `seconds`."""
    while True:
        running.check()
        time.sleep(seconds)


def say(line: str) -> None:
    print(line, flush=True)


def _share_wheel() -> None:
    """The wheel of llama.cpp that was built for .venv serves the image, too."""
    found = subprocess.run(
        [sys.executable, str(ROOT / "llama-layer-build" / "build_wheel.py"), "--find"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    if found:
        share(Path(found).parent, ROOT / "llama-layer-build" / "wheels")


def share(folder: Path, wheels: Path) -> None:
    """Copies a folder into `wheels`, where it is not yet: at once, so that nothing that is half there is ever taken."""
    target = wheels / folder.name
    if target.is_dir():
        return
    wheels.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=wheels) as beside:
        shutil.copytree(folder, Path(beside) / folder.name)
        try:
            (Path(beside) / folder.name).rename(target)
        except OSError:
            if not target.is_dir():  # somebody else was as fast
                raise


def _run(given: argparse.Namespace) -> int:
    with stack(_ports(given)) as running:
        made, address = running.account, f"http://127.0.0.1:{given.port}"
        logs = "\n".join(f"  tail -f {server.log}" for server in running.servers)
        say(f"""
Llamabda answers at {address}

  curl -s {address}/auth/register -H 'Content-Type: application/json' -d '{{"username":"alice","password":"secret123"}}'
  curl -s {address}/auth/login -H 'Content-Type: application/json' -d '{{"username":"alice","password":"secret123"}}'
  export TOKEN=...   # access_token
  curl -s {address}/training/train -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
    -d '{{"texts":["The harbour office opens at eight."]}}'
  curl -s {address}/ask/question -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
    -d '{{"question":"When does the harbour office open?"}}'

Files that are put into the bucket {made.bucket} are ingested:

  AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local .venv/bin/python -c '
  import boto3
  s3 = boto3.client("s3", endpoint_url="{made.endpoint}", region_name="{account.REGION}")
  s3.upload_file("README.md", "{made.bucket}", "README.md")'

What the functions say:

{logs}

Ctrl-C ends everything.""")
        watch(running)


def _test(given: argparse.Namespace) -> int:
    with stack(_ports(given)) as running:
        environment = {
            **os.environ,
            "LLAMABDA_E2E": f"http://127.0.0.1:{given.port}",
            "LLAMABDA_E2E_AWS": running.account.endpoint,
        }
        command = [sys.executable, "-m", "pytest", "-q", "tests/e2e", *given.arguments]
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        for server in running.servers if code else ():
            say(f"the last lines of `sam local {server.kind}`:\n{server.told(100)}")
        return code


def _ports(given: argparse.Namespace) -> dict[str, int]:
    return {name: getattr(given, name.lower()) for name in PORTS}


def _invoke(given: argparse.Namespace) -> int:
    """Gives one event to its function."""
    if len(given.arguments) != 1:
        raise StackError("say which event: make invoke EVENT=events/created.json")
    try:
        event = json.loads(Path(given.arguments[0]).read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise StackError(f"{given.arguments[0]} is no event: {exc}") from exc
    functions = account.client("lambda", f"http://127.0.0.1:{given.lambda_port}")
    try:
        reply = functions.invoke(FunctionName=function_of(event), Payload=json.dumps(event))
    except (BotoCoreError, ClientError) as exc:
        raise StackError(
            f"the functions do not answer at port {given.lambda_port}: run `make local` first ({exc})"
        ) from exc
    say(json.dumps(json.loads(reply["Payload"].read() or b"null"), indent=2, ensure_ascii=False))
    return 1 if reply.get("FunctionError") else 0


def function_of(event: dict[str, Any]) -> str:
    """The one that an event is for, by its template name."""
    path = event.get("rawPath")
    if path is None or path.startswith(("/training", "/documents", "/chunks", "/source")):
        return "IngestFunction"
    return "AskFunction" if path.startswith(("/ask", "/search", "/health/ready")) else "AuthFunction"


def parsed(arguments: list[str], environment: Mapping[str, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("run", "test", "invoke"))
    parser.add_argument("arguments", nargs="*", help="of `test`: for pytest, after --; of `invoke`: the event's file")
    for name, port in PORTS.items():
        option = f"--{name.lower().replace('_', '-')}"
        parser.add_argument(option, type=int, default=environment.get(name) or str(port), help=f"{name}, {port}")
    return parser.parse_args(arguments)


def main() -> int:
    given = parsed(sys.argv[1:], os.environ)
    kept = cleaned(os.environ)
    os.environ.clear()
    os.environ.update(kept)
    signals.interrupt()
    try:
        return {"run": _run, "test": _test, "invoke": _invoke}[given.command](given)
    except StackError as exc:
        errors: list[BaseException] = [exc]
        while (former := errors[-1].__context__) is not None:  # what led to an ending that then failed as well
            errors.append(former)
        for error in reversed(errors):
            if isinstance(error, StackError):
                print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if given.command == "invoke":
            return 130
        say("everything is down")
        return 130 if given.command == "test" else 0


if __name__ == "__main__":
    sys.exit(main())
