"""What the README shows is run here, line by line, against a server with real models."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text("utf-8")
LLAMABDA = str(Path(sys.executable).with_name("llamabda"))
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    return {**os.environ, "LLAMABDA_HOME": str(home), "NO_PROXY": "127.0.0.1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def server(environment, tmp_path_factory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "server.log"
    command = [LLAMABDA, "serve", "--port", str(port)]
    with log.open("wb") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            _until_ready(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(20)


def _until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Polls readiness: the first run may still be fetching the models."""
    give_up = time.monotonic() + 240
    while time.monotonic() < give_up:
        assert process.poll() is None, log.read_text("utf-8")
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as reply:
                if json.load(reply)["checks"]["generator"]["status"] == "ok":
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    raise AssertionError(f"the server was not ready in time: {log.read_text('utf-8')}")


def shell(script: str, environment: dict[str, str]) -> str:
    script = script.replace(".venv/bin/llamabda", LLAMABDA)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_curl_lines_lead_to_a_cited_answer_that_can_be_checked(server, environment):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: the README's lines need it")
    script = "\n".join(block for block in BLOCKS if "curl" in block)
    assert script.count("curl") == 6
    script = script.replace("http://127.0.0.1:8000", server)
    out = shell(script, environment)
    decoder, at, objects = json.JSONDecoder(), 0, []
    while at < len(out) and out[at] == "{":
        value, at = decoder.raw_decode(out, at)
        objects.append(value)
    stream = re.match(r"(?:(?:event: .*\ndata: .*|: .*)\n\n)+", out[at:])
    assert stream is not None, out[at:]
    source = out[at + stream.end() :]
    events = re.findall(r"event: (.*)\ndata: (.*)", stream.group())
    registered, trained, reply = objects
    assert registered["username"] == "alice"
    assert trained["documents"][0]["id"] == "leave.md"
    assert trained["documents"][0]["state"] == "ready"
    assert reply["answered"]
    assert "31 March" in reply["answer"]
    assert events[-1][0] == "final_answer"
    streamed = json.loads(events[-1][1])
    assert (streamed["answer"], streamed["answered"]) == (reply["answer"], True)
    assert "".join(json.loads(data)["delta"] for name, data in events if name == "message") == reply["answer"]
    (citation, *_) = reply["citations"]
    assert source[citation["start"] : citation["end"]] == citation["text"]


def test_the_command_lines_run(server, environment):
    (script,) = (block for block in BLOCKS if "llamabda ingest" in block)
    out = shell(script, environment)
    assert "[1]" in out
