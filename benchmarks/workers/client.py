"""The parent's side of a worker."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.measure import Unavailable

_ROOT = Path(__file__).resolve().parent.parent.parent


class Worker:
    """A child process that runs `benchmarks.workers.<module>`. Use as a context manager."""

    def __init__(self, python: Path, module: str, *, threads: int) -> None:
        self._module = module
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 -- closed in close
        environment = os.environ | {
            "PYTHONPATH": str(_ROOT),
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",  # models come from folders: nobody asks a hub
            "TRANSFORMERS_VERBOSITY": "error",
        }
        self._process = subprocess.Popen(
            [str(python), "-m", f"benchmarks.workers.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=environment,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def call(self, do: str, **arguments: object) -> Any:
        """Sends one command and waits for its answer. Unavailable, with the worker's last words, when it died."""
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the pipes were asked for above")
        try:
            process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Unavailable(f"{self._module} stopped at {do!r}: {self._last_words()}")
        return json.loads(line)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _last_words(self) -> str:
        self._process.wait(10)
        self._errors.seek(0)
        lines: Iterable[str] = (line.strip() for line in self._errors)
        return next((line for line in reversed(list(lines)) if line), f"exit code {self._process.returncode}")
