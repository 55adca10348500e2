"""Which generations pass a metadata filter. Keys and values reach SQL as parameters only."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from llamabda.filters import And, Between, Filter, Has, Not, Or

_ALL = "SELECT number FROM generations WHERE tenant = ?"
_HAS = "SELECT number FROM metadata_terms WHERE tenant = ? AND term = ?"
_BETWEEN = "SELECT number FROM metadata_terms WHERE tenant = ? AND term >= ? AND term < ?"


def matching(db: sqlite3.Connection, tenant: str, filter: Filter) -> NDArray[np.int64]:
    """The numbers of a tenant's generations whose metadata passes, ascending, each once."""
    match filter:
        case Has(term):
            return _numbers(db, _HAS, tenant, term)
        case Between(low, high):
            return _numbers(db, _BETWEEN, tenant, low, high)
        case Not(part):
            return np.setdiff1d(_numbers(db, _ALL, tenant), matching(db, tenant, part), assume_unique=True)
        case And(parts):
            return _every(db, tenant, parts)
        case Or(parts):
            return reduce(np.union1d, [matching(db, tenant, part) for part in parts])


def _every(db: sqlite3.Connection, tenant: str, parts: Sequence[Filter]) -> NDArray[np.int64]:
    """What passes all parts. Those that say what is not come last: they only take from the others, which may be few."""
    without = [part.part for part in parts if isinstance(part, Not)]
    found: NDArray[np.int64] | None = None
    for part in parts:
        if not isinstance(part, Not):
            passing = matching(db, tenant, part)
            found = passing if found is None else np.intersect1d(found, passing, assume_unique=True)
            if not len(found):
                return found
    if found is None:
        found = _numbers(db, _ALL, tenant)
    for part in without:
        if not len(found):
            return found
        found = np.setdiff1d(found, matching(db, tenant, part), assume_unique=True)
    return found


def _numbers(db: sqlite3.Connection, query: str, *parameters: str) -> NDArray[np.int64]:
    return np.unique(np.fromiter((row[0] for row in db.execute(query, parameters)), np.int64))
