"""Reads JSON request bodies strictly (RFC 8259, narrowed as RFC 7493 does), so that routes meet only plain values."""

from __future__ import annotations

import json
from typing import NoReturn

from llamabda.errors import InvalidInput, LlamabdaError

MAX_DEPTH = 32  # levels of arrays and objects; ours need 4, metadata a few more


class NotJson(LlamabdaError):
    """The bytes are not one JSON value. The message never holds a part of them beyond a property's name."""

    code = "not_json"


def parse(body: bytes) -> object:
    """The value of a body. NotJson when it is none; InvalidInput for a string that is no text, and for deep nesting."""
    if not body.strip():
        raise NotJson("the body is empty: send a JSON object")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise NotJson(f"the body is not UTF-8 text: byte {exc.start} cannot be read") from exc
    try:
        value: object = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique
        )
    except json.JSONDecodeError as exc:
        raise NotJson(f"the body is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}") from exc
    except RecursionError as exc:
        raise NotJson(f"the body nests deeper than {MAX_DEPTH} levels") from exc
    except ValueError as exc:  # int() refuses thousands of digits
        raise NotJson("the body holds a number with too many digits") from exc
    _check(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise NotJson(f"the body is not JSON: {name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise NotJson("the body holds a number beyond the range of a double")
    return number


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise NotJson(f"the property {name[:100]!r} occurs twice in one object")
        found[name] = value
    return found


def _check(root: object) -> None:
    """Walks without recursion, so that depth costs nothing."""
    pending: list[tuple[object, tuple[str | int, ...]]] = [(root, ("body",))]
    while pending:
        value, loc = pending.pop()
        if isinstance(value, str):
            _check_text(value, loc)
        elif isinstance(value, dict | list):
            if len(loc) > MAX_DEPTH:
                raise InvalidInput(f"nested deeper than {MAX_DEPTH} levels", loc=loc[:4])
            if isinstance(value, dict):
                for name in value:
                    _check_text(name, loc)
            items = value.items() if isinstance(value, dict) else enumerate(value)
            pending.extend((item, (*loc, key)) for key, item in items if isinstance(item, str | dict | list))


def _check_text(text: str, loc: tuple[str | int, ...]) -> None:
    if "\0" in text:
        raise InvalidInput("holds the character U+0000: remove it", loc=loc)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise InvalidInput("holds half of a surrogate pair, which is no character: remove it", loc=loc) from exc
