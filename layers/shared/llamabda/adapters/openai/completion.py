"""Reads a completion while it is being written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from llamabda.adapters.openai.connection import Call, failed
from llamabda.adapters.openai.events import EventReader
from llamabda.adapters.openai.refusal import said
from llamabda.errors import DependencyFailed
from llamabda.types import FinishReason

USAGE_SECONDS = 1.0  # that are waited for the usage once the text is complete
MAX_TOKEN_CHARS = 64  # no vocabulary has longer tokens, but for runs of white space


class Completion:
    """The pieces of text of one reply. Reasoning is no answer: it is left out."""

    def __init__(self, call: Call, *, server: str, key: str, max_tokens: int) -> None:
        """`max_tokens` ends the text of a server that does not keep to it."""
        self._call = call
        self._server = server
        self._key = key
        self._left = max_tokens * MAX_TOKEN_CHARS  # characters
        self._pieces_left = 2 * max_tokens + 16  # a token is one piece, or a few when it is a part of a character
        self._reader = EventReader()
        self._pieces = self._streamed() if call.media_type == "text/event-stream" else self._at_once()
        self.count = 0  # pieces
        self.finish_reason: FinishReason | None = None
        self.usage: Mapping[str, object] = {}

    def next(self) -> str:
        """A piece of text; empty at the end. Errors: those of `Call.read`; DependencyFailed for what is malformed."""
        piece = next(self._pieces, "")
        if not piece:
            return ""
        self.count += 1
        self._pieces_left -= 1
        kept = piece[: self._left]
        self._left -= len(kept)
        if self._left <= 0 or self._pieces_left <= 0:
            self.finish_reason = "length"
            self._pieces = iter(())
        return kept

    def _streamed(self) -> Iterator[str]:
        try:
            while received := self._call.read():
                for data in self._events(received):
                    self._call.proceed()  # one read may bring a whole answer
                    if data.strip() == "[DONE]":
                        self.finish_reason = self.finish_reason or "stop"
                        return
                    document = self._document(data)
                    over = self.finish_reason is not None  # only the usage is still to come
                    piece = self._take(document, "delta")
                    if piece and not over:
                        yield piece
        except (TimeoutError, DependencyFailed):
            # once the answer is whole, nothing that follows can take it back
            if self.finish_reason is None:
                raise
        if self.finish_reason is None:
            raise failed(f"{self._server} ends its answer in the middle")

    def _at_once(self) -> Iterator[str]:
        """Of a server that does not stream."""
        if self._call.media_type != "application/json":
            raise failed(f"{self._server} answers with {self._call.media_type[:40]!r} and not with events or JSON")
        document = self._document(self._call.whole())
        if not document.get("choices"):
            raise failed(f"{self._server} sends an answer without choices")
        piece = self._take(document, "message")
        self.finish_reason = self.finish_reason or "stop"
        if piece:
            yield piece

    def _events(self, received: bytes) -> list[str]:
        try:
            return self._reader.feed(received)
        except ValueError as exc:
            raise failed(f"{self._server} sends events that cannot be read: {exc}") from exc

    def _document(self, data: str | bytes) -> dict[str, object]:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise failed(f"{self._server} sends an answer that is not a JSON object")
        if document.get("error"):
            raise failed(f"{self._server} gives up: {said(document, key=self._key)}")
        return document

    def _take(self, document: Mapping[str, object], part: str) -> str:
        """The text of a chunk; what it says of the end is kept."""
        usage = document.get("usage")
        if isinstance(usage, dict):
            self.usage = usage
        choices = document.get("choices")
        if choices is None or choices == []:
            return ""  # a usage, a ping
        if not isinstance(choices, list):
            raise failed(f"{self._server} sends choices that are no list")
        choice = choices[0]
        message = choice.get(part) if isinstance(choice, dict) else None
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(choice, dict) or not isinstance(text, str | None):
            raise failed(f"{self._server} sends an answer that holds no text")
        reason = choice.get("finish_reason")
        # some servers say "" or "null" as long as there is none
        if isinstance(reason, str) and reason not in ("", "null") and self.finish_reason is None:
            self.finish_reason = "length" if reason == "length" else "stop"
            self._call.hurry(USAGE_SECONDS)
        return text or ""


def tokens(usage: Mapping[str, object], name: str) -> int | None:
    """A count that a server gives; None when it gives none that can be believed."""
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None
