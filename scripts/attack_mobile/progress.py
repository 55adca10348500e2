"""How far it is, on the standard error: a bar that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TextIO

WIDTH = 30
STEP = 0.1  # of the whole, between two plain lines


@dataclass(slots=True)
class Progress:
    what: str
    total: int  # 0: not known
    out: TextIO = field(default_factory=lambda: sys.stderr)
    done: int = 0
    _shown: float = -1.0

    def add(self, count: int) -> None:
        self.done += count
        self._show()

    def say(self, line: str) -> None:
        """A line of its own, the bar after it."""
        if self.out.isatty():
            self.out.write("\r\x1b[K")
        self.out.write(line + "\n")
        self.out.flush()
        if self.out.isatty() and self._shown >= 0:
            self._show()

    def close(self) -> None:
        if self.out.isatty() and self._shown >= 0:
            self.out.write("\n")
            self.out.flush()

    def _show(self) -> None:
        share = min(1.0, self.done / self.total) if self.total else 0.0
        count = f"{self.done:,} of {self.total:,}" if self.total else f"{self.done:,}"
        if self.out.isatty():
            bar = "#" * round(WIDTH * share)
            self.out.write(f"\r\x1b[K{self.what} [{bar:.<{WIDTH}}] {count}")
            self._shown = share
        elif self._shown < 0 or share >= self._shown + STEP or (self.total and self.done >= self.total):
            self.out.write(f"{self.what}: {count}\n")
            self._shown = share
        self.out.flush()
