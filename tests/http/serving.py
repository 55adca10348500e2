"""The local server as a process of its own, spoken to over a socket."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llamabda.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SERVE = """
from llamabda import wiring
from tests.fakes import WordEmbedder
wiring.load_embedder = lambda model: WordEmbedder()
from llamabda_functions.local.app import serve
serve(port=0)
"""


@dataclass
class Server:
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    port: int = 0
    drain: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_it_listens(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.search(r"running on http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
                self.drain = threading.Thread(target=self._drain, daemon=True)
                self.drain.start()
                return
        pytest.fail("the server did not start:\n" + "".join(self.lines))

    def _drain(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.drain is not None:
            self.drain.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def send(self, data: bytes) -> bytes:
        """Writes raw bytes, reads until the server closes or the reply is whole."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while part := connection.recv(65_536):
                received += part
        return received


def environment_of(home: Path, signing_key: Path, **more: str) -> dict[str, str]:
    """Whatever the developer's environment says does not count."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return kept | {
        "LLAMABDA_HOME": str(home),
        "SIGNING_KEY_FILE": str(signing_key),
        "MODEL_PATH": "",
        "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT)))),
        **more,
    }


@contextmanager
def serving(home: Path, environment: Mapping[str, str], script: str = SERVE) -> Iterator[Server]:
    """A server over `home` until the block ends; then it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=home, env=environment, stderr=subprocess.PIPE, text=True
    )
    started = Server(process)
    try:
        started.wait_until_it_listens()
        yield started
    finally:
        started.stop()
