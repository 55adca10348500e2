"""The stack on one machine: what can be told of it without Docker, over programs that are played."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts import tool_venv
from scripts.local import ports, sam, stack
from scripts.local.engine import StackError
from scripts.local.environment import cleaned
from tests.programs import RECORDED, calls, program

SECONDS = 60  # for a program to do what it is told, at most


# -- ports


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("name", stack.PORTS)
def test_a_port_that_is_taken_is_named_with_what_sets_it(name, taken):
    given = {other: free() for other in stack.PORTS} | {name: taken}
    with pytest.raises(StackError, match=f"port {taken} is taken .*`{name}={taken + 100} make local`; `down` ends"):
        ports.check(given, "down")


def test_free_ports_are_taken_as_they_are():
    ports.check({"PORT": free()}, "down")


def test_a_port_where_connections_have_just_ended_is_free(taken):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # who closes first waits
            assert client.recv(1) == b""
    ports.check({"PORT": port}, "down")


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_what_is_no_port_is_said_to_be_none(port):
    with pytest.raises(StackError, match=f"AWS_PORT={port} is no port"):
        ports.check({"AWS_PORT": port}, "down")


def test_two_servers_do_not_get_one_port():
    port = free()
    with pytest.raises(StackError, match=f"PORT and LAMBDA_PORT are both {port}"):
        ports.check({"PORT": port, "LAMBDA_PORT": port}, "down")


def test_ports_come_from_the_environment_and_options_go_before_it():
    given = stack.parsed(["run", "--aws-port", "7"], {"PORT": "8", "AWS_PORT": "9", "LAMBDA_PORT": ""})
    assert (given.port, given.aws_port, given.lambda_port, given.opensearch_port) == (8, 7, 3001, 9201)


def test_what_is_no_number_is_refused_in_one_line(capsys):
    with pytest.raises(SystemExit):
        stack.parsed(["run"], {"PORT": "http"})
    assert "invalid int value: 'http'" in capsys.readouterr().err


def test_pytest_gets_what_stands_after_two_dashes():
    assert stack.parsed(["test", "--", "-k", "pdf", "-x"], {}).arguments == ["-k", "pdf", "-x"]


def test_a_stack_at_another_port_is_another_project():
    assert stack.project(3000) == "llamabda-local"
    assert stack.project(3100) == "llamabda-local-3100"


# -- the environment


def test_nothing_of_the_users_own_account_reaches_the_stack():
    given = {"AWS_PROFILE": "work", "AWS_SESSION_TOKEN": "secret", "AWS_ENDPOINT_URL": "x", "HOME": "/h"}
    assert {name for name in cleaned(given) if name.lower() != "no_proxy"} == {"HOME"}


def test_sam_runs_with_the_accounts_credentials_and_no_others(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    found = {name: value for name, value in sam.environment().items() if name.startswith("AWS_")}
    assert found == {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"no_proxy": "example.org, localhost"}, "example.org,localhost,127.0.0.1"),
        ({"NO_PROXY": "example.org"}, "example.org,127.0.0.1,localhost"),
        ({"no_proxy": "a", "NO_PROXY": "b"}, "a,127.0.0.1,localhost"),
    ],
)
def test_no_proxy_stands_before_this_machine(given, told):
    found = cleaned({"http_proxy": "http://proxy", **given})
    assert found["http_proxy"] == "http://proxy"
    assert (found["no_proxy"], found["NO_PROXY"]) == (told, told)
    assert cleaned(found) == found


# -- sam


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """As `make local` sees to it: what a shell starts in its background, children included, ignores Ctrl-C."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture
def local(tmp_path, monkeypatch) -> Iterator[Callable[..., sam.Local]]:
    """A server whose `sam` is the given program."""
    monkeypatch.setattr(tool_venv, "_folder", lambda name: tmp_path / "venv")
    monkeypatch.setattr(sam, "READY_SECONDS", SECONDS)
    made = []

    def start(body: str, port: int | None = None) -> sam.Local:
        program(tmp_path / "venv" / "bin" / "sam", body)
        made.append(sam.Local("start-api", port or free(), tmp_path / "variables.json", tmp_path / "api.log"))
        return made[-1]

    yield start
    for server in made:
        server.stop()


SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
try:
    HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), BaseHTTPRequestHandler).serve_forever()
except KeyboardInterrupt:
    print("was told to end", flush=True)
"""


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:1"])
def test_a_server_is_waited_for_until_it_answers_whatever_it_says(local, monkeypatch, proxy):
    if proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
    server = local(SERVER)
    server.wait()
    server.check()
    server.stop()
    assert not server.running()
    with pytest.raises(StackError, match=r"`sam local start-api` ended(.|\n)*was told to end"):
        server.check()


def test_the_answer_of_another_server_at_the_port_is_not_its_own(local):
    class Another(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server._process.wait(SECONDS)  # it finds the port taken, and ends
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Another) as another:
        thread = threading.Thread(target=another.serve_forever, args=(0.02,))
        server = local("import sys; sys.exit('the port is taken')", another.server_port)
        thread.start()
        try:
            with pytest.raises(StackError, match="the port is taken"):
                server.wait()
        finally:
            another.shutdown()
            thread.join()


def test_a_moved_environment_is_made_anew(monkeypatch, tmp_path):
    here = tool_venv.digest("sam")
    assert tool_venv.digest("sam") == here
    monkeypatch.setattr(tool_venv, "_folder", lambda name: tmp_path / name)
    assert tool_venv.digest("sam") != here


def test_what_runs_is_watched_and_its_end_told(local):
    server = local("print('no memory left', flush=True); input()")
    server._process.wait(SECONDS)
    pump = SimpleNamespace(running=lambda: True)
    with pytest.raises(StackError, match=r"start-api` ended(.|\n)*no memory left"):
        stack.watch(stack.Running(None, (server,), pump), 0)


def test_the_pump_is_watched_too():
    answers = iter([True, True, False])
    pump = SimpleNamespace(running=lambda: next(answers))
    with pytest.raises(StackError, match="has ended"):
        stack.watch(stack.Running(None, (), pump), 0)


# -- llama.cpp's wheel


def test_a_wheel_is_shared_at_once_and_only_once(tmp_path):
    built = tmp_path / "cache" / "key"
    built.mkdir(parents=True)
    (built / "a.whl").write_text("a")
    wheels = tmp_path / "wheels"
    stack.share(built, wheels)
    assert [path.relative_to(wheels).as_posix() for path in sorted(wheels.rglob("*"))] == ["key", "key/a.whl"]
    (wheels / "key" / "a.whl").write_text("is there")
    stack.share(built, wheels)
    assert (wheels / "key" / "a.whl").read_text() == "is there"


def test_a_copy_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    def broken(source: Path, target: Path) -> None:
        target.mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(stack.shutil, "copytree", broken)
    with pytest.raises(OSError, match="disk full"):
        stack.share(tmp_path / "key", tmp_path / "wheels")
    assert list((tmp_path / "wheels").iterdir()) == []


# -- all of it

# As `sam local` does, for what it is asked here: it answers, and invocations with nothing failed.
FUNCTIONS = f"""
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{{}}")
    do_GET = do_POST = answer
{RECORDED}
if "local" in sys.argv:
    try:
        HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
    except KeyboardInterrupt:
        pass
"""
DOCKER = RECORDED + "print({'version': 'arm64', 'inspect': 'true healthy'}.get(sys.argv[1], ''))"


@pytest.fixture
def played(commands, tmp_path, monkeypatch, aws_server) -> dict[str, int]:
    """Every program that a stack needs is played; ports for it, where moto answers already."""
    commands("docker", DOCKER)
    commands("sam", FUNCTIONS)
    monkeypatch.setattr(tool_venv, "_folder", lambda name: tmp_path / "venv")
    monkeypatch.setattr(sam, "BUILT", sam.ROOT)
    monkeypatch.setattr(sam, "LOCAL", tmp_path / "local.json")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "bin").symlink_to(tmp_path / "commands")
    monkeypatch.setattr(sam, "install", lambda: None)
    monkeypatch.setattr(stack, "_share_wheel", lambda: None)
    monkeypatch.setattr(stack.signals, "ignore", lambda: None)
    given = {name: free() for name in stack.PORTS}
    return given | {"AWS_PORT": int(aws_server.rpartition(":")[2])}


def test_a_taken_port_ends_it_before_anything_is_built_or_taken_down(played, tmp_path):
    with pytest.raises(StackError, match=f"port {played['AWS_PORT']} is taken"), stack.stack(played):
        pass
    assert calls(tmp_path, "sam") == []
    asked = [call[0] for call in calls(tmp_path, "docker")]
    assert [words[:2] for words in asked] == [["info"], ["compose", "version"], ["version", "--format"]]


def test_all_of_it_is_built_started_watched_and_taken_down(played, tmp_path, monkeypatch, aws):
    monkeypatch.setattr(ports, "check", lambda given, removal: None)  # moto is there already
    network = f"llamabda-local-{played['PORT']}"
    said, done = [], threading.Event()

    def say(line: str) -> None:
        said.append(line)
        if "1 of 1 messages done" in line:
            done.set()

    monkeypatch.setattr(stack, "say", say)
    with stack.stack(played) as running:
        running.check()
        running.account.client("sqs").send_message(QueueUrl=running.account.queue("WorkQueue"), MessageBody="{}")
        assert done.wait(SECONDS), said
        assert all(server.log.is_file() for server in running.servers)
    assert said[-1] == "ending ..."
    assert not any(server.running() for server in running.servers)
    assert not running.pump.running()
    composed = [call for call in calls(tmp_path, "docker") if call[0][:2] == ["compose", "-f"]]
    assert [call[0][5] for call in composed] == ["down", "build", "up", "ps", "ps", "down"]
    assert composed[-1][2]["LLAMABDA_NETWORK"] == network
    assert composed[-1][2]["OPENSEARCH_PORT"] == str(played["OPENSEARCH_PORT"])
    built, *servers = (call[0] for call in calls(tmp_path, "sam"))
    assert built == ["build", "--parameter-overrides", "Architecture=arm64"]
    assert {words[1] for words in servers} == {"start-api", "start-lambda"}
    for words in servers:
        assert words[words.index("--docker-network") + 1] == network
        assert words[-1].endswith(" Architecture=arm64")


# -- how it ends


@pytest.fixture
def main(monkeypatch) -> Callable[..., int]:
    """`stack.py run`, where running is the given function."""

    def run(running: Callable[[object], int]) -> int:
        monkeypatch.setattr(stack, "_run", running)
        monkeypatch.setattr(sys, "argv", ["stack.py", "run"])
        monkeypatch.setattr(stack.signals, "interrupt", lambda: None)
        monkeypatch.setattr(stack.signals, "ignore", lambda: None)
        monkeypatch.setattr(os, "environ", dict(os.environ))
        return stack.main()

    return run


def test_it_is_said_that_everything_is_down_when_it_is(main, capsys):
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    assert main(interrupted) == 0
    assert "everything is down" in capsys.readouterr().out


def test_it_is_not_said_that_everything_is_down_when_it_is_not(main, capsys):
    def left(_: object) -> int:
        try:
            try:
                raise StackError("the container opensearch did not become healthy")
            finally:
                raise KeyboardInterrupt
        finally:
            raise StackError("containers may be left")

    assert main(left) == 1
    out, err = capsys.readouterr()
    assert "everything is down" not in out
    assert err.splitlines() == [
        "error: the container opensearch did not become healthy",
        "error: containers may be left",
    ]
