"""What a server says when it does not do what it was asked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from llamabda.adapters.openai.connection import Call, failed
from llamabda.errors import Busy, LlamabdaError

READ_SECONDS = 2.0  # for the reason: the status alone says enough
MAX_REASON = 200  # characters
RETRY_SECONDS, MAX_RETRY_SECONDS = 5, 60
BUSY = (429, 503)  # llama-server gives 503 while it loads its model

_UNPRINTABLE = re.compile(r"[^ -~\u00a1-\ud7ff\ue000-\ufffd]+")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status that is not 200; `reason` is the server's own word for it, short and without our key."""

    server: str
    status: int
    reason: str
    retry_after: int  # seconds, the server's word or our guess
    rest: int  # seconds that the server wants to be left alone; 0 where it does not say

    @property
    def is_overflow(self) -> bool:
        """Whether the prompt was too long: llama-server, vLLM and others say it in different words."""
        return self.status in (400, 413, 422) and "context" in self.reason.lower()

    @property
    def names_stream_options(self) -> bool:
        return self.status in (400, 422) and "stream_options" in self.reason

    @property
    def means_absent(self) -> bool:
        """Whether there is no such endpoint, and nothing is wrong but that."""
        return self.status in (400, 404, 405, 410, 422, 500, 501)

    def error(self) -> LlamabdaError:
        if self.status in BUSY:
            return busy(self.retry_after)
        advice = {
            401: "; check GENERATOR_API_KEY",
            403: "; check GENERATOR_API_KEY",
            404: "; check GENERATOR_MODEL, and GENERATOR_URL, which mostly ends in /v1",
        }.get(self.status, "")
        if 300 <= self.status < 400:
            advice = "; redirects are not followed: give the final address as GENERATOR_URL"
        said = f": {self.reason}" if self.reason else ""
        return failed(f"{self.server} answers with status {self.status}{said}{advice}")


def busy(seconds: int) -> Busy:
    return Busy(
        f"the language model's server is busy: try again in {seconds} s, or ask with mode extractive",
        retry_after=seconds,
    )


def refusal(call: Call, *, server: str, key: str) -> Refusal:
    call.hurry(READ_SECONDS)
    try:
        reason = reason_of(call.whole(), key=key)
    except (TimeoutError, LlamabdaError):
        reason = ""
    finally:
        call.close()
    asked = call.retry_after
    # else it may be a date
    rest = min(MAX_RETRY_SECONDS, int(asked)) if asked.isascii() and asked.isdigit() and len(asked) < 9 else 0
    return Refusal(server, call.status, reason, rest or RETRY_SECONDS, rest if call.status in BUSY else 0)


def reason_of(body: bytes, *, key: str) -> str:
    """The message of an error document; empty for anything else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return said(document, key=key)


def said(document: object, *, key: str) -> str:
    """{"error": {"message"}}, {"error": text}, {"message"} or {"detail"}, on one line."""
    if not isinstance(document, dict):
        return ""
    error = document.get("error", document)
    if isinstance(error, dict):
        words = [error.get(name) for name in ("message", "detail", "type", "code")]
        text = " ".join(word for word in words if isinstance(word, str))
    else:
        text = error if isinstance(error, str) else ""
    if key:
        text = text.replace(key, "***")  # some servers repeat what they were sent
    return _UNPRINTABLE.sub(" ", text)[:MAX_REASON]
