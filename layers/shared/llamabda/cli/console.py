"""Where a command writes: results to stdout, progress and complaints to stderr."""

from __future__ import annotations

import io
import json
import shutil
import sys
import textwrap
import time
import unicodedata
from typing import Any

from llamabda import rendering
from llamabda.errors import LlamabdaError

QUIET_SECONDS = 5.0  # between two lines of progress where they cannot overwrite each other


def visible(text: str) -> str:
    """Without control characters: a document must not be able to steer the terminal."""
    return "".join(
        " " if char == "\t" else "\ufffd" if unicodedata.category(char) in ("Cc", "Cf", "Cs") and char != "\n" else char
        for char in text
    )


class Console:
    """`json`: results are printed as JSON, for programs."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._terminal = sys.stderr.isatty()
        self._progress_at = 0.0
        self._progress_open = False
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a name that is no Unicode must not stop a listing

    def result(self, text: str = "") -> None:
        """A line of the result, for people."""
        self._end_progress()
        sys.stdout.write(visible(text) + "\n")

    def piece(self, text: str) -> None:
        """A part of a line of the result, shown at once."""
        self._end_progress()
        sys.stdout.write(visible(text))
        sys.stdout.flush()

    def data(self, value: Any) -> None:
        """The result, for programs."""
        self._end_progress()
        sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")

    def note(self, text: str) -> None:
        """A line that is no result."""
        self._end_progress()
        sys.stderr.write(visible(text) + "\n")
        sys.stderr.flush()

    def progress(self, text: str) -> None:
        """How far it is: one line that changes on a terminal, a line now and then elsewhere."""
        text = visible(text).replace("\n", " ")
        now = time.monotonic()
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r{text[:width]}\x1b[K")
            sys.stderr.flush()
            self._progress_open = True
        elif now - self._progress_at >= QUIET_SECONDS:
            self._progress_at = now
            self.note(text)

    def failure(self, error: LlamabdaError) -> None:
        if self.json:
            self.data(rendering.problem(error))
        self.note(f"llamabda: {error.message}")

    def quote(self, text: str, *, indent: str = "    ") -> None:
        """A passage, wrapped to the terminal."""
        width = max(40, min(100, shutil.get_terminal_size().columns))
        for paragraph in visible(text).splitlines():
            lines = textwrap.wrap(paragraph, width=width, initial_indent=indent, subsequent_indent=indent)
            for line in lines or [""]:
                self.result(line)

    def flush(self) -> None:
        self._end_progress()
        sys.stdout.flush()

    def _end_progress(self) -> None:
        if self._progress_open:
            sys.stderr.write("\n")
            self._progress_open = False
