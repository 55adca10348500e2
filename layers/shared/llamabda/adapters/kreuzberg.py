"""Reads files with kreuzberg, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from typing import IO

from llamabda.errors import ConfigurationError, DependencyFailed
from llamabda.file_kinds import Formatted, Plain, clean, identify, refused

# What the child may see of our environment: enough to start, no settings and no secrets.
_PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "LANG", "LC_ALL")


class KreuzbergExtractor:
    """Plain text and Markdown are decoded here and kept as they are, HTML and the rest are parsed in a child process.

    The child is used for many files, one at a time, and replaced when a file kills it, takes longer than `seconds` or
    needs more than `memory` bytes (Linux). It is started at the first file that needs it. Safe to share by threads.
    """

    def __init__(self, *, seconds: float = 60.0, memory: int = 1_500_000_000) -> None:
        if importlib.util.find_spec("kreuzberg") is None:
            raise ConfigurationError("reading files needs the package kreuzberg: install llamabda[ingest]")
        self._seconds = seconds
        self._memory = memory
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._end_child: Callable[[], object] = lambda: None

    def extract(self, data: bytes, *, name: str) -> str:
        """The text of a file. UnsupportedMedia, naming the file and why, when it cannot be read or holds no text."""
        found = identify(data, name=name)
        if isinstance(found, Plain):
            return found.text
        with self._lock:
            text, error = self._parse(found, name)
        if error is not None:
            raise refused(name, _plainly(error))
        # not the user's own characters but a parser's: line ends are made uniform
        text = clean(text.replace("\r\n", "\n").replace("\r", "\n")).strip()
        if not text:
            scan = found.mime == "application/pdf"
            raise refused(name, "it has no text layer (a scan?): run OCR on it first" if scan else "it holds no text")
        return text

    def close(self) -> None:
        """Ends the child; the next file starts a new one."""
        with self._lock:
            self._stop()

    def _parse(self, found: Formatted, name: str) -> tuple[str, str | None]:
        child = self._running()
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            child.kill()  # which ends the blocking read below

        timer = threading.Timer(self._seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            reply = _exchange(child, found)
        finally:
            timer.cancel()
        if reply is not None and not expired.is_set():
            return reply
        self._stop()
        if expired.is_set():
            raise refused(name, f"its parser took longer than {self._seconds:g} s")
        raise refused(name, f"its parser crashed, or needed more than {self._memory // 1_000_000} MB of memory")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._stop()
        command = [sys.executable, "-P", "-m", "llamabda.adapters.kreuzberg_child", str(self._memory)]
        environment = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        if path := environment.get("PYTHONPATH"):  # the child stands in another folder
            environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, path.split(os.pathsep)))
        try:
            self._child = subprocess.Popen(  # noqa: S603  (our own module, no shell)
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # native libraries are chatty
                env=environment,
                cwd=tempfile.gettempdir(),  # kreuzberg looks for a configuration file where it stands
            )
        except OSError as exc:
            message = f"the process that reads files could not be started: {exc.strerror}"
            raise DependencyFailed(message, dependency="extractor") from exc
        self._end_child = weakref.finalize(self, _end, self._child)
        return self._child

    def _stop(self) -> None:
        self._end_child()
        self._child = None


def _exchange(child: subprocess.Popen[bytes], found: Formatted) -> tuple[str, str | None] | None:
    """The text and the parser's complaint; None when the child died."""
    request, replies = _pipe(child.stdin), _pipe(child.stdout)
    try:
        request.write(json.dumps({"mime": found.mime, "size": len(found.data)}).encode() + b"\n")
        request.write(found.data)
        request.flush()
        line = replies.readline()
        if not line.endswith(b"\n"):
            return None
        head = json.loads(line)
        body = replies.read(head["size"])
    except (BrokenPipeError, ConnectionResetError):
        return None
    return (body.decode("utf-8", "replace"), head["error"]) if len(body) == head["size"] else None


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise AssertionError("the child is started with pipes")
    return pipe


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # what was left to write has no reader any more
    child.wait()


def _plainly(complaint: str) -> str:
    """A parser's message in a user's words."""
    lowered = complaint.lower()
    if "password" in lowered or "encrypt" in lowered:
        return "it is encrypted: save it without a password"
    if complaint.startswith("its text has "):
        return complaint
    return f"it is damaged, or not what its name says ({' '.join(complaint.split())[:150]})"
