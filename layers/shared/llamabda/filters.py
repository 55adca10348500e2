"""Metadata filters: which documents may be found at all, as a small tree over terms that every index can hold.

What a filter means, for all indexes alike:

- `{"year": 2026, "lang": {"$in": ["en", "pt"]}}`: all named keys must fit. A key names an entry of the metadata, as it
  is written; entries inside of objects cannot be asked for.
- A bare value means `$eq`. `$eq` and `$in` are exact: case counts, the number 1 is not the text "1", and 1 is 1.0.
  Where the metadata holds a list, one fitting element is enough.
- `$ne` is the opposite of `$eq`: it fits documents without the key, too.
- `$gt`, `$gte`, `$lt` and `$lte` compare numbers with numbers, and texts with texts by code points, so that dates like
  `2026-11-22` stand in order. Each operator of one key is asked for itself: of a list, each may fit another element.
- `$exists`: whether the key is there with anything but null.
- `$and` and `$or` take lists of filters.

Numbers are doubles, as in JavaScript: whole numbers beyond 2**53 are the same as their neighbours.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from llamabda.errors import InvalidInput
from llamabda.types import Metadata

MAX_CONDITIONS = 100  # of one filter, all levels together; an element of $in counts as one
MAX_DEPTH = 8
MAX_KEY_CHARS = 256

# Types are told apart by a letter, so that each type's terms are one range: from its letter up to the next letter.
_EXISTS, _BOOL, _NUMBER, _TEXT = "e", "b", "n", "s"
_LEAST = "\0"  # what follows a text first


@dataclass(frozen=True, slots=True)
class Has:
    """Documents that hold this term."""

    term: str


@dataclass(frozen=True, slots=True)
class Between:
    """Documents that hold a term `low <= term < high`, by code points (which is the order of UTF-8's bytes, too)."""

    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Filter, ...]


Filter: TypeAlias = Has | Between | Not | And | Or


@dataclass(frozen=True, slots=True)
class Scope:
    """Which chunks a search may find, and how many by words and by vector at most."""

    limit: int
    filter: Filter | None = None  # None: all


Loc: TypeAlias = tuple[str | int, ...]


def terms(metadata: Metadata) -> frozenset[str]:
    """The terms under which metadata is found."""
    found: set[str] = set()
    for key, value in metadata.items():
        if value is None:
            continue
        prefix = _prefix(key)
        found.add(prefix + _EXISTS)
        for element in value if isinstance(value, list | tuple) else (value,):
            if isinstance(element, bool | int | float | str):
                found.add(prefix + _code(element))
    return frozenset(found)


def parse(value: object, *, loc: Loc = ("body", "filter")) -> Filter:
    """The filter that a JSON value describes. InvalidInput, with the path to the place, when it describes none."""
    return _Parser().filter(value, loc, 1)


class _Parser:
    def __init__(self) -> None:
        self._conditions = 0

    def filter(self, value: object, loc: Loc, depth: int) -> Filter:
        if not isinstance(value, Mapping):
            raise InvalidInput('a filter is an object like {"year": {"$gte": 2025}}', loc=loc, value=_shown(value))
        if not value:
            raise InvalidInput("an empty filter says nothing: leave it out", loc=loc)
        if depth > MAX_DEPTH:
            raise InvalidInput(f"nested deeper than {MAX_DEPTH} levels", loc=loc)
        return _all([self._entry(str(key), part, (*loc, str(key)), depth) for key, part in value.items()])

    def _entry(self, key: str, value: object, loc: Loc, depth: int) -> Filter:
        if key in ("$and", "$or"):
            if not isinstance(value, list) or not value:
                raise InvalidInput(f"{key} takes a list of one filter or more", loc=loc, value=_shown(value))
            parts = tuple(self.filter(part, (*loc, at), depth + 1) for at, part in enumerate(value))
            return And(parts) if key == "$and" else Or(parts)
        if key.startswith("$"):
            known = ", ".join(("$and", "$or"))
            raise InvalidInput(f"{key[:100]} stands where a metadata key, {known} is expected", loc=loc)
        if not 0 < len(key) <= MAX_KEY_CHARS:
            raise InvalidInput(f"a metadata key has 1 to {MAX_KEY_CHARS} characters", loc=(*loc[:-1], key[:100]))
        prefix = _prefix(key)
        if not isinstance(value, Mapping):
            return self._operator(prefix, "$eq", value, loc)
        if not value:
            raise InvalidInput(f"name an operator: {', '.join(OPERATORS)}", loc=loc)
        return _all([self._operator(prefix, str(name), operand, (*loc, str(name))) for name, operand in value.items()])

    def _operator(self, prefix: str, name: str, operand: object, loc: Loc) -> Filter:
        make = OPERATORS.get(name)
        if make is None:
            message = f"{name[:100]!r} is no operator: use one of {', '.join(OPERATORS)}"
            raise InvalidInput(message, loc=(*loc[:-1], name[:100]))
        self._conditions += len(operand) if isinstance(operand, list) else 1
        if self._conditions > MAX_CONDITIONS:
            raise InvalidInput(f"more than {MAX_CONDITIONS} conditions", loc=loc)
        return make(prefix, operand, loc)


def _equal(prefix: str, operand: object, loc: Loc) -> Filter:
    return Has(prefix + _code(_scalar(operand, loc)))


def _unequal(prefix: str, operand: object, loc: Loc) -> Filter:
    return Not(_equal(prefix, operand, loc))


def _one_of(prefix: str, operand: object, loc: Loc) -> Filter:
    if not isinstance(operand, list) or not operand:
        raise InvalidInput("$in takes a list of one value or more", loc=loc, value=_shown(operand))
    return Or(tuple(_equal(prefix, element, (*loc, at)) for at, element in enumerate(operand)))


def _exists(prefix: str, operand: object, loc: Loc) -> Filter:
    if not isinstance(operand, bool):
        raise InvalidInput("$exists takes true or false", loc=loc, value=_shown(operand))
    there = Has(prefix + _EXISTS)
    return there if operand else Not(there)


def _range(make: Callable[[str, str, str], Between]) -> Callable[[str, object, Loc], Filter]:
    def parsed(prefix: str, operand: object, loc: Loc) -> Filter:
        if isinstance(operand, bool) or not isinstance(operand, int | float | str):
            raise InvalidInput(f"{loc[-1]} takes a number or a text", loc=loc, value=_shown(operand))
        kind = _TEXT if isinstance(operand, str) else _NUMBER
        return make(prefix + kind, prefix + _code(operand), prefix + chr(ord(kind) + 1))

    return parsed


OPERATORS: Mapping[str, Callable[[str, object, Loc], Filter]] = {
    "$eq": _equal,
    "$ne": _unequal,
    "$in": _one_of,
    "$gt": _range(lambda first, at, beyond: Between(at + _LEAST, beyond)),
    "$gte": _range(lambda first, at, beyond: Between(at, beyond)),
    "$lt": _range(lambda first, at, beyond: Between(first, at)),
    "$lte": _range(lambda first, at, beyond: Between(first, at + _LEAST)),
    "$exists": _exists,
}


def _scalar(operand: object, loc: Loc) -> bool | int | float | str:
    if isinstance(operand, bool | int | float | str):
        return operand
    hint = '; for "is not there" use {"$exists": false}' if operand is None else ""
    raise InvalidInput(f"a value is a text, a number, true or false{hint}", loc=loc, value=_shown(operand))


def _all(parts: Sequence[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _prefix(key: str) -> str:
    return f"{len(key)}:{key}"  # the length first: no key's terms can pass for another's


def _code(value: bool | float | str) -> str:
    """A value's type and the value, in an order that is the values' own within a type."""
    if isinstance(value, bool):
        return _BOOL + str(int(value))
    if isinstance(value, str):
        return _TEXT + value
    try:
        number = float(value) + 0.0  # -0.0 is 0.0
    except OverflowError:
        number = float("inf") if value > 0 else float("-inf")
    (bits,) = struct.unpack(">Q", struct.pack(">d", number))
    # IEEE 754 doubles stand in order of their bits once the sign is turned, and all bits where it is set
    ordered = bits ^ (0xFFFF_FFFF_FFFF_FFFF if bits >> 63 else 1 << 63)
    return f"{_NUMBER}{ordered:016x}"


def _shown(value: object) -> object:
    return value if isinstance(value, bool | int | float | str) else None
