"""Logs as JSON, a line each: made for machines that collect them."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_UNPRINTABLE = re.compile("[\ud800-\udfff]")


class JsonFormatter(logging.Formatter):
    """Time (RFC 3339, UTC), level, logger, message, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in RESERVED)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False, default=str)
        return _UNPRINTABLE.sub("\ufffd", text)


def configure(style: str, *, debug: bool = False) -> None:
    """Sends all logs to stderr, as "json" or "text"."""
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
