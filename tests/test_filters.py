"""Metadata filters: what they mean, and what is said about malformed ones."""

from __future__ import annotations

import pytest
from hypothesis import given

from llamabda.errors import InvalidInput
from llamabda.filters import MAX_CONDITIONS, MAX_DEPTH, And, Between, Filter, Has, Not, Or, parse, terms
from tests import filter_oracle as oracle


def holds(filter: Filter, found: frozenset[str]) -> bool:
    match filter:
        case Has(term):
            return term in found
        case Between(low, high):
            return any(low <= term < high for term in found)
        case Not(part):
            return not holds(part, found)
        case And(parts):
            return all(holds(part, found) for part in parts)
        case Or(parts):
            return any(holds(part, found) for part in parts)


@given(oracle.FILTERS, oracle.METADATA)
def test_a_filter_over_terms_means_what_it_says_about_the_values(filter, metadata):
    assert holds(parse(filter), terms(metadata)) == oracle.passes(filter, metadata)


@given(oracle.ORDERED, oracle.ORDERED)
def test_terms_stand_in_the_order_of_their_values(one, other):
    fits = holds(parse({"k": {"$lt": other}}), terms({"k": one}))
    assert fits == oracle.passes({"k": {"$lt": other}}, {"k": one})


@pytest.mark.parametrize(
    ("filter", "metadata", "fits"),
    [
        ({"year": 2026}, {"year": 2026}, True),
        ({"year": 2026}, {"year": 2026.0}, True),
        ({"year": 2026}, {"year": "2026"}, False),
        ({"year": 1}, {"year": True}, False),
        ({"tag": "a"}, {"tag": ["b", "a"]}, True),
        ({"tag": {"$ne": "a"}}, {"tag": ["b", "a"]}, False),
        ({"tag": {"$ne": "a"}}, {}, True),
        ({"tag": {"$exists": True}}, {"tag": None}, False),
        ({"tag": {"$exists": True}}, {"tag": []}, True),
        ({"tag": {"$exists": True}}, {"tag": {"inner": 1}}, True),
        ({"tag": {"$exists": False}}, {"other": 1}, True),
        ({"day": {"$gte": "2026-11-01", "$lt": "2026-12-01"}}, {"day": "2026-11-22"}, True),
        ({"day": {"$gte": "2026-11-01", "$lt": "2026-12-01"}}, {"day": "2026-12-01"}, False),
        ({"n": {"$gt": 1, "$lt": 1}}, {"n": [0, 2]}, True),
        ({"n": {"$gt": -5}}, {"n": -4.5}, True),
        ({"n": {"$lt": "5"}}, {"n": 4}, False),
        ({"tag": "Straße"}, {"tag": "strasse"}, False),
        ({"$or": [{"a": 1}, {"b": 2}], "c": 3}, {"b": 2, "c": 3}, True),
        ({"$or": [{"a": 1}, {"b": 2}], "c": 3}, {"b": 2}, False),
    ],
)
def test_the_written_semantics(filter, metadata, fits):
    assert holds(parse(filter), terms(metadata)) is fits
    assert oracle.passes(filter, metadata) is fits


def test_no_key_passes_for_another():
    assert not terms({"a": "b"}) & terms({"ab": ""}) - terms({"x": 1})
    assert not holds(parse({"1:a": {"$exists": True}}), terms({"a": 1}))


@pytest.mark.parametrize(
    ("filter", "loc", "says"),
    [
        ({}, (), "empty filter"),
        ([], (), "an object"),
        ("year", (), "an object"),
        ({"year": {}}, ("year",), "name an operator"),
        ({"year": {"$regex": "x"}}, ("year", "$regex"), "use one of"),
        ({"year": {"gte": 1}}, ("year", "gte"), "use one of"),
        ({"year": None}, ("year",), "$exists"),
        ({"year": [1]}, ("year",), "a text, a number"),
        ({"year": {"$eq": {"a": 1}}}, ("year", "$eq"), "a text, a number"),
        ({"year": {"$gt": True}}, ("year", "$gt"), "a number or a text"),
        ({"year": {"$gte": None}}, ("year", "$gte"), "a number or a text"),
        ({"year": {"$in": []}}, ("year", "$in"), "one value or more"),
        ({"year": {"$in": 3}}, ("year", "$in"), "a list"),
        ({"year": {"$in": [1, None]}}, ("year", "$in", 1), "$exists"),
        ({"year": {"$exists": "yes"}}, ("year", "$exists"), "true or false"),
        ({"$and": []}, ("$and",), "one filter or more"),
        ({"$or": {"a": 1}}, ("$or",), "a list"),
        ({"$or": [{"a": 1}, {"b": {"$foo": 1}}]}, ("$or", 1, "b", "$foo"), "no operator"),
        ({"$not": {"a": 1}}, ("$not",), "a metadata key"),
        ({"": 1}, ("",), "1 to 256"),
        ({"k": {"$in": list(range(MAX_CONDITIONS + 1))}}, ("k", "$in"), "more than"),
    ],
)
def test_a_malformed_filter_is_refused_with_the_place(filter, loc, says):
    with pytest.raises(InvalidInput, match=says.replace("$", r"\$")) as refused:
        parse(filter)
    assert refused.value.loc == ("body", "filter", *loc)


def test_depth_is_bounded():
    filter: dict[str, object] = {"a": 1}
    for _ in range(MAX_DEPTH):
        filter = {"$and": [filter]}
    with pytest.raises(InvalidInput, match="deeper"):
        parse(filter)
