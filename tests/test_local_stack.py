"""The stack on one machine: what can be told of it without Docker, over programs that are played."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.local import compose as composing
from scripts.local import engine, ports, sam, stack
from scripts.local.compose import Compose
from scripts.local.engine import StackError
from scripts.local.environment import cleaned
from tests.conftest import ROOT

SECONDS = 60  # for a program to do what it is told, at most


def program(path: Path, body: str) -> None:
    """Puts a Python program where a command is looked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(0o755)


@pytest.fixture
def commands(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """Makes commands; those of this machine are not found."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return lambda name, body: program(folder / name, body)


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


# -- Docker and compose


def test_docker_that_is_not_installed_is_said_to_be_missing(commands):
    with pytest.raises(StackError, match="Docker is not installed"):
        engine.compose_command()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Cannot connect to the Docker daemon at unix:///x", "no Docker engine answers: start one (Cannot connect to"),
        ("ERROR: permission denied while trying to connect", "this user may not use the Docker engine"),
        ("", "no Docker engine answers: start one (`docker info` ended with 1)"),
    ],
)
def test_what_stands_in_the_way_of_docker_is_told_apart(commands, said, told):
    lines = f"a warning\n{said}\nerrors pretty printing info\n" if said else ""
    commands("docker", f"import sys; sys.stderr.write({lines!r}); sys.exit(1)")
    with pytest.raises(StackError) as caught:
        engine.compose_command()
    assert str(caught.value).startswith(told)
    assert said in str(caught.value)


def test_compose_is_looked_for_under_both_names(commands):
    commands("docker", "import sys; sys.exit(sys.argv[1] == 'compose')")
    with pytest.raises(StackError, match="neither `docker compose` nor `docker-compose`"):
        engine.compose_command()
    commands("docker-compose", "")
    assert engine.compose_command() == ("docker-compose",)
    commands("docker", "")
    assert engine.compose_command() == ("docker", "compose")


def test_the_engine_is_asked_for_before_anything_is_installed():
    for target in ("local", "e2e"):
        recipe = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        first, second, *_ = recipe.splitlines()
        assert "scripts/local/engine.py" in first
        assert "scripts/bootstrap.py" in second


@pytest.mark.parametrize(("docker", "template"), [("amd64", "x86_64"), ("arm64", "arm64")])
def test_images_are_built_for_the_engines_processors(commands, docker, template):
    commands("docker", f"print({docker!r})")
    assert engine.architecture() == template
    assert sam.overrides("start-api", template).endswith(f" Architecture={template}")
    assert "KnnEngine=lucene" in sam.overrides("start-lambda", template)


def test_other_processors_are_refused(commands):
    commands("docker", "print('riscv64')")
    with pytest.raises(StackError, match="amd64 and arm64; this Docker engine runs 'riscv64'"):
        engine.architecture()


# Writes what it was called with, and whether the terminal reaches it, beside itself.
COMPOSE = """
import json, os, pathlib, sys
here = pathlib.Path(__file__).with_suffix(".json")
calls = json.loads(here.read_text()) if here.exists() else []
names = ("AWS_PORT", "OPENSEARCH_PORT", "LLAMABDA_NETWORK")
calls.append([sys.argv[1:], os.getsid(0) == os.getpid(), {name: os.environ.get(name) for name in names}])
here.write_text(json.dumps(calls))
"""


def calls(commands_folder: Path, name: str) -> list[list]:
    return json.loads((commands_folder / f"{name}.json").read_text())


def test_compose_is_told_the_ports_and_the_network(commands, tmp_path, monkeypatch):
    commands("docker", "")
    commands("docker-compose", COMPOSE)
    monkeypatch.setenv("AWS_PORT", "1")
    Compose(("docker-compose",), "llamabda-local-7", {"AWS_PORT": "5", "OPENSEARCH_PORT": "6"}).build("aws")
    ((arguments, _, told),) = calls(tmp_path / "commands", "docker-compose")
    assert arguments == ["-f", str(ROOT / composing.FILE), "-p", "llamabda-local-7", "build", "aws"]
    assert told == {"AWS_PORT": "5", "OPENSEARCH_PORT": "6", "LLAMABDA_NETWORK": "llamabda-local-7"}


def test_taking_down_is_out_of_reach_of_the_terminal(commands, tmp_path):
    commands("docker", COMPOSE + "print('c1', 'c2')")
    commands("docker-compose", COMPOSE)
    Compose(("docker-compose",), "p").down(data=True)
    listed, removed = calls(tmp_path / "commands", "docker")
    (down,) = calls(tmp_path / "commands", "docker-compose")
    assert "network=p" in listed[0]
    assert removed[0] == ["rm", "--force", "c1", "c2"]
    assert down[0][-3:] == ["down", "--remove-orphans", "--volumes"]
    assert all(apart for _, apart, _ in (listed, removed, down))


def test_what_cannot_be_taken_down_is_said(commands):
    commands("docker", "")
    commands("docker-compose", "import sys; sys.exit(3)")
    with pytest.raises(StackError, match=r"may be left: `docker-compose -f \S+ -p p down --remove-orphans` failed"):
        Compose(("docker-compose",), "p").down(data=False)


def test_the_last_lines_of_an_unhealthy_container_are_kept(commands, tmp_path):
    commands("docker", "print('false', 'unhealthy')")
    said = """
import sys
if "logs" in sys.argv:
    print("started")
    sys.stderr.write("vm.max_map_count is too low\\n")
"""
    commands("docker-compose", COMPOSE + said)
    with pytest.raises(StackError) as caught:
        Compose(("docker-compose",), "p").up("opensearch")
    assert "opensearch did not become healthy" in str(caught.value)
    assert "started" in str(caught.value)
    assert "vm.max_map_count is too low" in str(caught.value)
    logs = calls(tmp_path / "commands", "docker-compose")[-1][0]
    assert logs[-3:] == ["--tail", "20", "opensearch"]


# -- sam


@pytest.fixture
def local(tmp_path, monkeypatch) -> Iterator[Callable[..., sam.Local]]:
    """A server whose `sam` is the given program."""
    monkeypatch.setattr(sam, "VENV", tmp_path / "venv")
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
    here = sam.digest()
    assert sam.digest() == here
    monkeypatch.setattr(sam, "VENV", tmp_path)
    assert sam.digest() != here


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


# -- signals

# Tells each step; ends when it is told to by a line, or by a signal.
ENDING = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from scripts.local import signals
signals.interrupt()
try:
    print("ready", flush=True)
    sys.stdin.readline()
    print("not interrupted", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.readline()
    print("down", flush=True)
"""


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_ends_it_and_no_other_disturbs_the_ending(first, second):
    command = [sys.executable, "-c", ENDING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, first))
        assert process.stdout.readline() == "interrupted\n"
        process.send_signal(getattr(signal, second))
        out, _ = process.communicate("\n", SECONDS)
    assert (out, process.returncode) == ("down\n", 0)


def test_nohup_is_heard():
    def unhung() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with subprocess.Popen(
        [sys.executable, "-c", ENDING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=unhung
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate("\n", SECONDS)
    assert out == "not interrupted\n"


def test_a_closed_terminal_does_not_break_the_ending(tmp_path):
    ended = tmp_path / "ended"
    script = f"""
import pathlib, sys, time
sys.path.insert(0, {str(ROOT)!r})
from scripts.local import signals
signals.interrupt()
try:
    print("ready", flush=True)
    time.sleep({SECONDS})
except KeyboardInterrupt:
    print("ending ...", flush=True)
    pathlib.Path({str(ended)!r}).write_text("in order")
"""
    master, terminal = os.openpty()

    def controlling() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=terminal, stdout=terminal, stderr=terminal, preexec_fn=controlling
    )
    os.close(terminal)
    assert b"ready" in os.read(master, 100)
    os.close(master)  # the window is closed: SIGHUP
    assert process.wait(SECONDS) == 0
    assert ended.read_text() == "in order"


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
