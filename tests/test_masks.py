"""What is evaluated of a filter, and what is remembered: over a real database."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from llamabda import filters
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.filtering import matching
from llamabda.adapters.sqlite.index import SqliteIndex
from llamabda.adapters.sqlite.masks import Masks
from llamabda.filters import And, Filter, Has
from llamabda.types import Chunk


@pytest.fixture
def index(tmp_path) -> tuple[SqliteIndex, Database]:
    """Six documents with n from 0 to 5."""
    database = Database(tmp_path / "i.db")
    found = SqliteIndex(database, cache=tmp_path / "cache", dim=2)
    chunks = [Chunk("t", f"{n}", 1, 0, 0, 5, "apple", "f" * 64, {"n": n}) for n in range(6)]
    found.add(chunks, np.tile(np.array([1, 0], np.float32), (6, 1)))
    return found, database


def queries(index: SqliteIndex, database: Database, masks: Masks, *wanted: Filter) -> list[str]:
    """What SQLite is asked about metadata while masks are made."""
    asked: list[str] = []
    with database.read() as db:
        shards = index._current(db, ["t"])
        db.set_trace_callback(asked.append)
        for one in wanted:
            masks.of(db, shards, one)
        db.set_trace_callback(None)
    return [query for query in asked if "number" in query]


def parsed(filter: Mapping[str, object]) -> Filter:
    return filters.parse(filter)


def test_a_filter_is_evaluated_once(index):
    masks, wanted = Masks(), parsed({"n": {"$gte": 3}})
    assert len(queries(*index, masks, wanted, wanted)) == 1
    assert queries(*index, masks, parsed({"n": {"$gte": 3}})) == []


def test_a_part_that_is_known_is_not_evaluated_anew(index):
    masks, wanted = Masks(), parsed({"n": {"$gte": 3}})
    queries(*index, masks, wanted)
    assert len(queries(*index, masks, And((wanted, Has("x"))))) == 1


def test_nothing_is_evaluated_once_nothing_can_pass(index):
    _, database = index
    nobody = And((parsed({"n": 77}), *(parsed({"n": {"$ne": n}}) for n in range(30)), parsed({"n": {"$gte": 0}})))
    assert len(queries(*index, Masks(), nobody)) == 1
    with database.read() as db:
        assert matching(db, "t", nobody).tolist() == []


def test_what_is_not_is_taken_from_what_passed_so_far(index):
    """Thirty $ne read all documents' numbers once, and none when something else tells which documents count."""
    none_of = tuple(parsed({"n": {"$ne": n}}) for n in range(10, 40))
    every = "FROM generations"
    assert sum(every in query for query in queries(*index, Masks(), And(none_of))) == 1
    assert sum(every in query for query in queries(*index, Masks(), And((*none_of, parsed({"n": 3}))))) == 0


@pytest.mark.parametrize("bounds", [{"most_filters": 1}, {"most_bytes": 6}], ids=str)
def test_the_oldest_mask_makes_room(index, bounds):
    masks, one, two = Masks(**bounds), parsed({"n": 1}), parsed({"n": 2})
    assert len(queries(*index, masks, one, one, two, two, one)) == 3


def test_a_mask_of_another_version_is_not_taken(index):
    found, database = index
    masks, wanted = Masks(), parsed({"n": {"$gte": 3}})
    queries(found, database, masks, wanted)
    with database.read() as db:
        before = found._current(db, ["t"])
        (old,) = masks.of(db, before, wanted) or []
    found.add([Chunk("t", "new", 1, 0, 0, 5, "apple", "f" * 64, {"n": 9})], np.array([[1, 0]], np.float32))
    with database.read() as db:
        # a shard that was seen before, in a transaction that sees more: never under the newer version's name
        (stale,) = masks.of(db, before, wanted) or []
        (new,) = masks.of(db, found._current(db, ["t"]), wanted) or []
    assert sum(part.sum() for part in old) == sum(part.sum() for part in stale) == 3
    assert sum(part.sum() for part in new) == 4
