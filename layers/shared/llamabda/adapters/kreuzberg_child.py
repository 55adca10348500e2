"""The process that parses files on behalf of `KreuzbergExtractor`, so that a hostile one takes down only this.

Reads requests from stdin and writes replies to what was stdout: a line of JSON, then as many bytes as it says.
    request  {"mime": ..., "size": n}                     + n bytes of the file
    reply    {"error": null | message, "size": n}         + n bytes of UTF-8 text
"""

from __future__ import annotations

import json
import os
import sys
from typing import BinaryIO

from llamabda.html_text import html_text

MAX_TEXT_BYTES = 50_000_000  # a bomb's text is refused here, before it fills the parent's memory


def main(memory: int) -> None:
    _limit(memory)
    requests, replies = sys.stdin.buffer, _private_stdout()
    while line := requests.readline():
        request = json.loads(line)
        text, error = _extract(requests.read(request["size"]), request["mime"])
        body = text.encode("utf-8", "replace")
        if len(body) > MAX_TEXT_BYTES:
            body, error = b"", f"its text has {len(body):,} bytes, more than the limit of {MAX_TEXT_BYTES:,}"
        replies.write(json.dumps({"error": error, "size": len(body)}).encode() + b"\n" + body)
        replies.flush()


def _extract(data: bytes, mime: str) -> tuple[str, str | None]:
    if mime == "text/html":
        return html_text(data.decode("utf-8", "replace")), None
    import kreuzberg

    # OCR would need models that are not here, and caches would outlive the documents
    plain = kreuzberg.ExtractionConfig(use_cache=False, disable_ocr=True, enable_quality_processing=False)
    try:
        text: str = kreuzberg.extract_bytes_sync(data, mime, plain).content
        if not text.strip() and mime == "application/pdf":
            # on very small pages kreuzberg takes everything for margin, unless it rebuilds the layout
            layout = kreuzberg.ExtractionConfig(use_cache=False, disable_ocr=True, output_format="markdown")
            text = kreuzberg.extract_bytes_sync(data, mime, layout).content
    except (kreuzberg.KreuzbergError, RuntimeError, ValueError, OSError, MemoryError) as exc:
        return "", str(exc) or type(exc).__name__
    return text, None


def _private_stdout() -> BinaryIO:
    """The reply pipe; whatever native code prints to stdout goes nowhere."""
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return replies


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:
        return  # not on Windows: the time limit remains
    for which, limit in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(which, (limit, limit))
        except (ValueError, OSError):
            continue  # macOS refuses some: the time limit remains


if __name__ == "__main__":
    main(int(sys.argv[1]))
