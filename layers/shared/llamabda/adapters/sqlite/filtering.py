"""Which generations pass a metadata filter. Keys and values reach SQL as parameters only."""

from __future__ import annotations

import sqlite3
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
            return reduce(np.intersect1d, [matching(db, tenant, part) for part in parts])
        case Or(parts):
            return reduce(np.union1d, [matching(db, tenant, part) for part in parts])


def _numbers(db: sqlite3.Connection, query: str, *parameters: str) -> NDArray[np.int64]:
    return np.unique(np.fromiter((row[0] for row in db.execute(query, parameters)), np.int64))
