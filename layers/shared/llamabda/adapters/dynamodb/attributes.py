"""Items between plain values and DynamoDB's typed ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

# Attribute values: str, int, float, bool, bytes, None, and lists and mappings of them. A number comes back as an int
# when it is a whole one.
Item: TypeAlias = Mapping[str, Any]


def encode(item: Item) -> dict[str, Any]:
    """Attributes as DynamoDB's typed values."""
    return {name: _encoded(value) for name, value in item.items()}


def decode(attributes: Mapping[str, Any]) -> Item:
    return {name: _decoded(value) for name, value in attributes.items()}


def _encoded(value: object) -> dict[str, Any]:  # noqa: PLR0911 -- a case a type
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case int():
            return {"N": str(value)}
        case float() if math.isfinite(value):
            return {"N": repr(value)}  # the shortest text that is read as the same float
        case bytes():
            return {"B": value}
        case Mapping():
            return {"M": encode(value)}
        case list() | tuple():
            return {"L": [_encoded(part) for part in value]}
    raise TypeError(f"a {type(value).__name__} that DynamoDB cannot hold")


def _decoded(typed: Mapping[str, Any]) -> Any:
    ((kind, value),) = typed.items()
    match kind:
        case "N":
            return int(value) if re.fullmatch(r"-?\d+", value) else float(value)
        case "NULL":
            return None
        case "M":
            return decode(value)
        case "L":
            return [_decoded(part) for part in value]
    return value
