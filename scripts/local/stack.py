"""The bundle on one machine: `make local` and `make e2e`.

Builds the images, starts what stands in for the cloud, makes what the template describes, runs the functions in their
containers and feeds them from the queue. Ctrl-C takes everything down.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # scripts are not installed

from scripts.local import account, sam
from scripts.local.compose import NETWORK, ROOT, Compose, StackError
from scripts.local.pump import Pump

FUNCTIONS = ("AuthFunction", "IngestFunction", "AskFunction")


@dataclass(frozen=True, slots=True)
class Running:
    """The stack, and the servers of its functions."""

    account: account.Account
    servers: tuple[sam.Local, ...]


@contextmanager
def stack(port: int, lambda_port: int, aws_port: int, **settings: str) -> Iterator[Running]:
    """Everything, until the block ends. `settings`: of the functions, beside those that the account gives."""
    compose = Compose.find(NETWORK)
    sam.install()
    _share_wheel()
    say("building the images of the functions (the first time: llama.cpp is compiled, some minutes)")
    sam.build()
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="llamabda-local-")))
        say("starting OpenSearch and what stands in for AWS")
        compose.down(data=True)  # an index of a former account is nobody's
        ends.callback(compose.down, data=True)
        compose.build("aws")
        compose.up("opensearch", "aws")
        say("making tables, buckets, queues and the key")
        made = account.make(f"http://127.0.0.1:{aws_port}")
        variables = folder / "variables.json"
        sam.write_variables(variables, FUNCTIONS, {**made.environment(), **settings})
        say("starting the functions")
        api = sam.Local("start-api", port, variables, folder / "api.log")
        ends.callback(api.stop)
        functions = sam.Local("start-lambda", lambda_port, variables, folder / "lambda.log")
        ends.callback(functions.stop)
        api.wait()
        functions.wait()
        called = account.client("lambda", functions.address)
        pump = Pump(made.client("sqs"), made.queue("WorkQueue"), called, "IngestFunction", say)
        pump.start()
        ends.callback(pump.stop)
        yield Running(made, (api, functions))


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
        target = ROOT / "llama-layer-build" / "wheels" / Path(found).parent.name
        if not target.is_dir():
            shutil.copytree(Path(found).parent, target)


def _run(given: argparse.Namespace) -> int:
    with stack(given.port, given.lambda_port, given.aws_port) as running:
        made, address = running.account, f"http://127.0.0.1:{given.port}"
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

  AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION={account.REGION} \\
    aws --endpoint-url {made.endpoint} s3 cp FILE s3://{made.bucket}/

Ctrl-C ends everything.""")
        while True:
            time.sleep(3600)


def _test(given: argparse.Namespace) -> int:
    with stack(given.port, given.lambda_port, given.aws_port) as running:
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


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("run", "test", "invoke"))
    parser.add_argument("arguments", nargs="*", help="of `test`: for pytest; of `invoke`: the event's file")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or 3000))
    parser.add_argument("--lambda-port", type=int, default=int(os.environ.get("LAMBDA_PORT") or 3001))
    parser.add_argument("--aws-port", type=int, default=int(os.environ.get("AWS_PORT") or 5005))
    given = parser.parse_args()
    for one in (signal.SIGINT, signal.SIGTERM):  # in the background of a shell the first is switched off
        signal.signal(one, _interrupted)
    try:
        return {"run": _run, "test": _test, "invoke": _invoke}[given.command](given)
    except StackError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("everything is down")
        return 130 if given.command == "test" else 0


if __name__ == "__main__":
    sys.exit(main())
