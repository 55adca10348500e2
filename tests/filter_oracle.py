"""What a filter means, written down a second time and in another way: over the metadata itself, value by value."""

from __future__ import annotations

import operator
from collections.abc import Mapping

from hypothesis import strategies as st

COMPARE = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}


def passes(filter: Mapping[str, object], metadata: Mapping[str, object]) -> bool:
    return all(_entry(key, wanted, metadata) for key, wanted in filter.items())


def _entry(key: str, wanted: object, metadata: Mapping[str, object]) -> bool:
    if key == "$and":
        return all(passes(part, metadata) for part in wanted)
    if key == "$or":
        return any(passes(part, metadata) for part in wanted)
    value = metadata.get(key)
    elements = value if isinstance(value, list) else [value]
    operators = wanted if isinstance(wanted, Mapping) else {"$eq": wanted}
    return all(_operator(name, operand, value, elements) for name, operand in operators.items())


def _operator(name: str, operand: object, value: object, elements: list[object]) -> bool:
    if name == "$exists":
        return (value is not None) == operand
    if name == "$ne":
        return not any(_same(element, operand) for element in elements)
    if name == "$in":
        return any(_same(element, one) for element in elements for one in operand)
    if name == "$eq":
        return any(_same(element, operand) for element in elements)
    return any(_kind(e) == _kind(operand) and COMPARE[name](_value(e), _value(operand)) for e in elements)


def _same(element: object, operand: object) -> bool:
    return _kind(element) is not None and _kind(element) == _kind(operand) and _value(element) == _value(operand)


def _kind(value: object) -> str | None:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


def _value(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    return value


KEYS = st.sampled_from(["a", "b", "1:a", "ção", "e", "x y", "n"])
TEXTS = st.sampled_from(
    ["", "a", "ab", "b", "B", "2026-01-02", "2026-11-22", "é", "z\u0001", "\U0001f600", "\uffff", "1"]
)
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 0.5, -0.5, 1e300, -1e300, 5e-324, -5e-324, 2**53, 2**53 + 1, 10**400, -(10**400)]),
    st.floats(allow_nan=False, allow_infinity=False),
)
ORDERED = st.one_of(TEXTS, NUMBERS)
SCALARS = st.one_of(ORDERED, st.booleans())
VALUES = st.one_of(SCALARS, st.none(), st.lists(st.one_of(SCALARS, st.none()), max_size=3), st.just({"a": 1}))
METADATA = st.dictionaries(KEYS, VALUES, max_size=4)
OPERATORS = st.one_of(
    st.fixed_dictionaries({"$eq": SCALARS}),
    st.fixed_dictionaries({"$ne": SCALARS}),
    st.fixed_dictionaries({"$in": st.lists(SCALARS, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
    st.dictionaries(st.sampled_from(sorted(COMPARE)), ORDERED, min_size=1, max_size=3),
)
CONDITIONS = st.dictionaries(KEYS, st.one_of(SCALARS, OPERATORS), min_size=1, max_size=2)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.dictionaries(
        st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=2
    ),
    max_leaves=5,
)
