"""The worker's side: answers JSON lines on stdin with JSON lines on stdout. Standard library only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping


def serve(commands: Mapping[str, Callable[..., object]]) -> None:
    """Runs until stdin ends. A command that raises ends the process: its traceback is on stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # libraries that print to stdout must not garble the answers
        for line in sys.stdin:
            request = json.loads(line)
            answer = commands[request.pop("do")](**request)
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def memory() -> dict[str, float]:
    """Resident memory of this process in MB (10^6 bytes)."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        rows = dict(line.split(":", 1) for line in status)
    return {"rss": int(rows["VmRSS"].split()[0]) * 1024 / 1e6}
