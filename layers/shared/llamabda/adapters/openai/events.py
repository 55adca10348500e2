"""Server-sent events (the HTML standard, section 9.2), as far as chat completions use them: their data."""

from __future__ import annotations

MAX_EVENT_BYTES = 1_000_000


class EventReader:
    """Takes bytes as they come, cut anywhere, and gives the data of each event that is whole."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, received: bytes) -> list[str]:
        """ValueError when an event is too long."""
        self._rest += received
        events = []
        while (end := self._rest.find(b"\n", self._searched)) >= 0:
            line = bytes(self._rest[:end]).removesuffix(b"\r")
            del self._rest[: end + 1]
            self._searched = 0
            if line:
                self._take(line.removeprefix(b"\xef\xbb\xbf"))
            elif self._data:
                events.append(b"\n".join(self._data).decode("utf-8", "replace"))
                self._data, self._size = [], 0
        self._searched = len(self._rest)
        self._check(len(self._rest))
        return events

    def _take(self, line: bytes) -> None:
        """Other fields and comments say nothing that we need."""
        name, _, value = line.partition(b":")
        if name == b"data":
            self._size += len(value)
            self._check(0)
            self._data.append(value.removeprefix(b" "))

    def _check(self, more: int) -> None:
        if self._size + more > MAX_EVENT_BYTES:
            raise ValueError(f"an event is longer than {MAX_EVENT_BYTES} bytes")
