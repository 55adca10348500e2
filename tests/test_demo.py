"""`llamabda demo`, whole: the real server, the real models, the real samples."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llamabda.demo.client import Client, Refused
from llamabda.demo.steps import QUESTIONS, SAMPLES

SECONDS = 900  # the first run of a machine may have to download the models
pytestmark = pytest.mark.timeout(SECONDS + 60)

# Brings the loopback interface of a new network namespace up, which needs no tool, and becomes the command.
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING))
os.execv(sys.argv[1], sys.argv[1:])
"""
DEMO = [sys.executable, "-m", "llamabda", "demo"]


def environment(**more: str) -> dict[str, str]:
    """Ours without any setting of the developer's, but with their model cache."""
    kept = {"PATH", "HOME", "LLAMABDA_CACHE", "XDG_CACHE_HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}
    return {
        **{key: value for key, value in os.environ.items() if key in kept or key.lower().startswith(("pip_", "http"))},
        **more,
    }


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A demo from an empty folder; fetches the models if this machine has not got them."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(DEMO, cwd=folder, env=environment(), capture_output=True, text=True, timeout=SECONDS)
    return folder, done


def check_answers(output: str) -> None:
    for question in QUESTIONS:
        assert question in output
    assert "120 reais" in output
    assert "9 August 2013" in output
    assert "90 dias" in output
    cited = re.findall(r"^   \[\d+\] (\S+), characters \d+ to \d+, (.*):$", output, re.MULTILINE)
    assert {"member-handbook.md", "history.txt", "garantia.pdf"} <= {name for name, _ in cited}
    assert {verdict for _, verdict in cited} == {"verified"}
    assert output.count("milliseconds: ") == len(QUESTIONS)


def test_the_first_run_answers_three_questions_with_verified_citations(first_run):
    folder, done = first_run
    assert done.returncode == 0, done.stdout + done.stderr
    check_answers(done.stdout)
    assert all(f"   {name}" in done.stdout for name in SAMPLES)
    assert "registered 'demo'" in done.stdout
    assert f"llamabda serve --home {folder / '.demo'}" in done.stdout
    assert "\r" not in done.stdout + done.stderr


def test_the_generated_password_is_for_its_owner_only(first_run):
    file = first_run[0] / ".demo" / "password"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text()) >= 20
    assert file.read_text() not in first_run[1].stdout + first_run[1].stderr
    assert file.read_text() not in (first_run[0] / ".demo" / "server.log").read_text("utf-8")


def test_a_second_run_needs_no_network(first_run):
    folder, _ = first_run
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not permit `unshare -rn`, which takes the network away")
    offline = [unshare, "-rn", sys.executable, "-c", LOOPBACK_UP]
    probe = subprocess.run(
        [*offline, sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 2)"],
        capture_output=True,
        text=True,
    )
    assert "unreachable" in probe.stderr, "the network is still there"
    done = subprocess.run(
        [*offline, *DEMO],
        cwd=folder,
        # a proxy that the environment names must not be asked about the loopback address
        env=environment(http_proxy="http://192.0.2.1:3128", HTTP_PROXY="http://192.0.2.1:3128"),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check_answers(done.stdout)
    assert "is registered already" in done.stdout


def test_an_interruption_stops_the_server_too(first_run):
    folder, _ = first_run
    with subprocess.Popen(
        DEMO,
        cwd=folder,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # whoever runs these tests in the background may have had it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        port = 0
        for line in running.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+) is ready", line):
                port = int(found[1])
                running.send_signal(signal.SIGINT)
                break
        _, errors = running.communicate(timeout=SECONDS)
    assert port
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
        pass


def test_a_home_whose_password_is_lost_says_what_to_do(first_run, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(first_run[0] / ".demo", home)
    (home / "password").write_text("not the one it was")
    done = subprocess.run(
        [*DEMO, "--home", str(home)], env=environment(), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 5
    assert f"remove {home} to start afresh" in done.stderr


def test_a_server_that_cannot_start_is_reported_with_its_log(first_run, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "llamabda.db").write_bytes(b"this is no database " * 1000)
    done = subprocess.run(
        [*DEMO, "--home", str(home)], env=environment(), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 5
    assert "the end of" in done.stderr
    assert "Traceback" not in done.stdout


def test_the_lines_that_it_ends_with_work(first_run):
    """The commands that the demo prints, run as they stand."""
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    folder, done = first_run
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shown = done.stdout.split("Go on with these documents:")[1].split("or with your own:")[0]
    serve, rest = re.fullmatch(r"\s*(llamabda serve --home \S+)\n(.*)", shown, re.DOTALL).groups()
    script = rest.replace(":8000", f":{port}")
    command = [sys.executable, "-m", *serve.split(), "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.DEVNULL) as server:
        try:
            client = Client(f"http://127.0.0.1:{port}")
            wait_until_ready(client, server)
            answer = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=SECONDS)
        finally:
            server.terminate()
    assert "Henrique Sá" in answer.stdout, answer.stdout + answer.stderr
    assert '"answered":true' in answer.stdout


def wait_until_ready(client: Client, server: subprocess.Popen) -> None:
    from llamabda.errors import DependencyFailed

    while True:
        try:
            client.get("/health/ready")
            return
        except (Refused, DependencyFailed):
            assert server.poll() is None, "the server died"


def test_every_sample_is_part_of_the_package():
    folder = Path(sys.modules["llamabda"].__file__).parent / "samples"
    assert set(SAMPLES) == {path.name for path in folder.iterdir() if path.is_file()}
    assert {Path(name).suffix for name in SAMPLES} >= {".pdf", ".md"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 30_000
