"""What the READMEs show is run here, line by line, each against a server with real models and a home of its own."""

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
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

LLAMABDA = str(Path(sys.executable).with_name("llamabda"))


@dataclass(frozen=True)
class Readme:
    """One of the READMEs, and what its lines lead to."""

    name: str
    username: str
    doc_id: str
    answer: str  # a part of it
    embedder: str | None  # that the quick start sets; None: the default

    @property
    def text(self) -> str:
        return (ROOT / self.name).read_text("utf-8")

    @property
    def blocks(self) -> list[str]:
        return re.findall(r"^```sh\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)


ENGLISH = Readme("README.md", "alice", "leave.md", "31 March", None)
PORTUGUESE = Readme("README.pt-BR.md", "maria", "ferias.md", "31 de março", "cnmoro/portuguese-multilingual-e5-small")


@pytest.fixture(scope="module", params=[ENGLISH, PORTUGUESE], ids=lambda readme: readme.name)
def readme(request) -> Readme:
    return request.param


@pytest.fixture(scope="module")
def environment(readme, tmp_path_factory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    found = {**os.environ, "LLAMABDA_HOME": str(home), "NO_PROXY": "127.0.0.1", "PYTHONUNBUFFERED": "1"}
    # the line that is shown writes it into .env
    shown = re.findall(r"^echo '(EMBED_MODEL_NAME)=(.*)' >> .env$", readme.text, re.MULTILINE)
    assert [name for _, name in shown] == ([] if readme.embedder is None else [readme.embedder])
    return {**found, **dict(shown)}


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
    give_up = time.monotonic() + 600
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


def test_the_curl_lines_lead_to_a_cited_answer_that_can_be_checked(readme, server, environment):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: the README's lines need it")
    script = "\n".join(block for block in readme.blocks if "curl" in block)
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
    assert registered["username"] == readme.username
    assert trained["documents"][0]["id"] == readme.doc_id
    assert trained["documents"][0]["state"] == "ready"
    assert trained["notices"] == []
    assert reply["answered"]
    assert readme.answer in reply["answer"]
    assert events[-1][0] == "final_answer"
    streamed = json.loads(events[-1][1])
    assert (streamed["answer"], streamed["answered"]) == (reply["answer"], True)
    assert "".join(json.loads(data)["delta"] for name, data in events if name == "message") == reply["answer"]
    (citation, *_) = reply["citations"]
    assert source[citation["start"] : citation["end"]] == citation["text"]


def test_the_command_lines_run(readme, server, environment):
    (script,) = (block for block in readme.blocks if "llamabda ingest" in block)
    out = shell(script, environment)
    assert "[1]" in out


def test_the_lines_that_change_the_model_run_beside_the_server(readme, server, environment):
    (script,) = (block for block in readme.blocks if "llamabda reindex" in block)
    shell(script, environment)
    found = shell('.venv/bin/llamabda search "citations" --json', {**environment, **model_of(script)})
    assert json.loads(found)["hits"]
    with urllib.request.urlopen(f"{server}/health/ready", timeout=30) as reply:
        assert json.load(reply)["checks"]["embedder"]["status"] == "ok"


def model_of(script: str) -> dict[str, str]:
    return dict(re.findall(r"^export (EMBED_MODEL_NAME)=(\S+)", script, re.MULTILINE))


def table(text: str, first: str) -> list[str]:
    """The rows of a table, from the one that begins so."""
    return text[text.index(f"| {first}") :].split("\n\n", 1)[0].splitlines()


def without(code: str, text: str) -> str:
    """A README without its blocks of code of this kind; "" is every kind."""
    return re.sub(rf"^```{code}.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


COMMAND = re.compile(r"\b(?:make [a-z]+|llamabda (?:(?:docs|keys|models|users)\s)?[a-z]+)(?=[\s`])")
NAME = re.compile(r"[`\"]\$?([a-z]+(?:_[a-z]+)+|[A-Z]+(?:_[A-Z]+)*)[`\"=:]")
# What must be the same in every language; of what stands in sentences the order may differ.
PARTS = {
    "sections": lambda text: re.findall(r"^(#+) ", without("", text), re.MULTILINE),
    "paragraphs, lists and tables": lambda text: len(without("", text).split("\n\n")),
    "blocks of code": lambda text: re.findall(r"^```(\w+)\n", text, re.MULTILINE),
    "settings": lambda text: [row.split("|")[1] for row in table(text, "`LLAMABDA_HOME`")],
    "operations": lambda text: re.findall(r"(?:GET|POST|DELETE) [^`]*`", "\n".join(table(text, "`GET /health`"))),
    "commands": lambda text: sorted({" ".join(found.split()) for found in COMMAND.findall(text)}),
    "names": lambda text: sorted(set(NAME.findall(text))),
    "links": lambda text: [link for link in re.findall(r"\]\(([^)]*)\)", text) if not link.startswith("README")],
    "numbers outside the examples": lambda text: sorted(re.findall(r"\b\d+\b", without("sh", text))),
}


@pytest.mark.parametrize("part", PARTS)
def test_both_readmes_tell_the_same(part):
    english, portuguese = (PARTS[part](readme.text) for readme in (ENGLISH, PORTUGUESE))
    assert english
    assert english == portuguese


def test_each_readme_leads_to_the_other():
    for here, there in ((ENGLISH, PORTUGUESE), (PORTUGUESE, ENGLISH)):
        assert f"]({there.name})" in here.text.split("\n\n")[1]
