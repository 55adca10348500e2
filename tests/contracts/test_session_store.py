"""What every SessionStore does."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from llamabda.adapters.dynamodb.sessions import DynamoSessionStore
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.sessions import SqliteSessionStore
from llamabda.ports import SessionStore
from llamabda.types import Session
from tests.aws import USERS

MAKERS: dict[str, Callable[[pytest.FixtureRequest], SessionStore]] = {
    "sqlite": lambda request: SqliteSessionStore(Database(request.getfixturevalue("tmp_path") / "users.db")),
    "dynamodb": lambda request: DynamoSessionStore(request.getfixturevalue("aws").client("dynamodb"), USERS),
}
NOW = 1_800_000_000.0
LATER = NOW + 1_000


@pytest.fixture(params=MAKERS)
def store(request) -> SessionStore:
    return MAKERS[request.param](request)


def test_a_session_goes_on_with_each_new_token(store):
    store.add(Session("s", "alice", "one", LATER), now=NOW)
    assert store.rotate("s", "one", "two", expires_at=LATER, now=NOW).username == "alice"
    assert store.rotate("s", "two", "three", expires_at=LATER, now=NOW).username == "alice"


def test_a_token_that_is_used_twice_ends_its_session_and_no_other(store):
    store.add(Session("s", "alice", "one", LATER), now=NOW)
    store.add(Session("other", "alice", "x", LATER), now=NOW)
    assert store.rotate("s", "one", "two", expires_at=LATER, now=NOW).username == "alice"
    assert store.rotate("s", "one", "stolen", expires_at=LATER, now=NOW) is None
    assert store.rotate("s", "two", "three", expires_at=LATER, now=NOW) is None
    assert store.rotate("other", "x", "y", expires_at=LATER, now=NOW).username == "alice"


def test_an_unknown_session_is_nobodys(store):
    assert store.rotate("s", "one", "two", expires_at=LATER, now=NOW) is None


def test_a_token_expires_and_its_successor_does_so_later(store):
    store.add(Session("s", "alice", "one", NOW + 10), now=NOW)
    assert store.rotate("s", "one", "two", expires_at=NOW + 20, now=NOW + 9).username == "alice"
    assert store.rotate("s", "two", "three", expires_at=NOW + 40, now=NOW + 20) is None


def test_only_the_newest_token_can_end_a_session(store):
    store.add(Session("s", "alice", "one", LATER), now=NOW)
    store.end("s", "wrong")
    store.end("nothing", "one")
    assert store.rotate("s", "one", "two", expires_at=LATER, now=NOW).username == "alice"
    store.end("s", "two")
    assert store.rotate("s", "two", "three", expires_at=LATER, now=NOW) is None


def test_all_sessions_of_a_user_end_together(store):
    for name, user in (("a", "alice"), ("b", "alice"), ("c", "bob")):
        store.add(Session(name, user, "one", LATER), now=NOW)
    store.end_all("alice")
    alive = [n for n in "abc" if store.rotate(n, "one", "two", expires_at=LATER, now=NOW)]
    assert alive == ["c"]


def test_a_user_whose_sessions_were_ended_can_begin_others(store):
    store.end_all("alice")
    store.add(Session("s", "alice", "one", LATER), now=NOW)
    assert store.rotate("s", "one", "two", expires_at=LATER, now=NOW).username == "alice"
    store.end_all("alice")
    assert store.rotate("s", "two", "three", expires_at=LATER, now=NOW) is None


def test_of_a_hundred_uses_at_once_one_succeeds(store):
    store.add(Session("s", "alice", "one", LATER), now=NOW)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda n: store.rotate("s", "one", f"two-{n}", expires_at=LATER, now=NOW), range(100)))
    assert [session.username for session in found if session is not None] == ["alice"]


def test_a_session_keeps_the_credentials_that_it_began_with(store):
    store.add(Session("s", "alice", "one", LATER, credentials=3), now=NOW)
    for old, new in (("one", "two"), ("two", "three")):
        assert store.rotate("s", old, new, expires_at=LATER, now=NOW) == Session("s", "alice", new, LATER, 3)


def test_a_session_is_told_as_it_is_until_it_ends(store):
    assert store.get("s") is None
    session = Session("s", "alice", "one", LATER, credentials=3)
    store.add(session, now=NOW)
    assert store.get("s") == session
    rotated = store.rotate("s", "one", "two", expires_at=LATER + 1, now=NOW)
    assert store.get("s") == rotated == Session("s", "alice", "two", LATER + 1, 3)
    store.end_all("alice")
    assert store.get("s") is None
