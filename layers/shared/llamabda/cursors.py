"""Cursors of listings that go by text: where the last page ended, in characters that an address can hold. Pure."""

from __future__ import annotations

import base64
import binascii

from llamabda.errors import InvalidInput


def encode(last: str) -> str:
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def decode(cursor: str) -> str:
    """InvalidInput when it is none."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as exc:
        raise foreign(cursor) from exc


def foreign(cursor: str) -> InvalidInput:
    """Of a cursor that no listing returned."""
    message = f"cursor {cursor[:100]!r} is not one that a listing returned"
    return InvalidInput(message, loc=("query", "cursor"), value=cursor)
