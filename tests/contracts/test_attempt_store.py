"""What every AttemptStore does."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from llamabda.adapters.dynamodb.attempts import DynamoAttemptStore
from llamabda.adapters.sqlite.attempts import SqliteAttemptStore
from llamabda.adapters.sqlite.database import Database
from llamabda.ports import AttemptStore
from tests.aws import USERS

MAKERS: dict[str, Callable[[pytest.FixtureRequest], AttemptStore]] = {
    "sqlite": lambda request: SqliteAttemptStore(Database(request.getfixturevalue("tmp_path") / "users.db")),
    "dynamodb": lambda request: DynamoAttemptStore(request.getfixturevalue("aws").client("dynamodb"), USERS),
    "dynamodb, small items": lambda request: DynamoAttemptStore(
        request.getfixturevalue("aws").client("dynamodb"), USERS, shelf=2
    ),
}
NOW = 1_800_000_000.0


@pytest.fixture(params=MAKERS)
def store(request) -> AttemptStore:
    return MAKERS[request.param](request)


def take(store: AttemptStore, key: str = "k", *, at: float = 0.0, limit: int = 3, window: float = 60.0) -> float:
    return store.take(key, limit=limit, window=window, now=NOW + at)


def test_beyond_the_limit_it_tells_how_long_to_wait(store):
    assert [take(store, at=at) for at in (0, 10, 20)] == [0.0, 0.0, 0.0]
    assert take(store, at=30) == pytest.approx(30)
    assert take(store, "another") == 0.0


def test_the_wait_is_never_longer_than_the_window(store):
    """Of two guesses the one that looked at the clock first may be counted last."""
    assert take(store, at=0.1, limit=1, window=900.0) == 0.0
    assert take(store, at=0.0, limit=1, window=900.0) == 900.0
    assert all(take(store, str(n), at=n / 7, limit=1, window=900.0) == 0.0 for n in range(50))
    assert all(take(store, str(n), at=n / 7, limit=1, window=900.0) <= 900.0 for n in range(50))


def test_refused_attempts_do_not_count(store):
    for at in (0, 10, 20, 30, 40, 50):
        take(store, at=at)
    assert take(store, at=60.5) == 0.0
    assert take(store, at=60.6) == pytest.approx(9.4)


def test_the_window_slides_so_that_no_window_ever_holds_more(store):
    allowed = [at for at in range(0, 300, 5) if take(store, at=at) == 0.0]
    assert all(sum(start < at <= start + 60 for at in allowed) <= 3 for start in range(-60, 300))
    assert len(allowed) == 15


def test_what_is_given_back_or_forgotten_does_not_count(store):
    for at in (0, 1, 2):
        take(store, at=at)
    store.give_back("k")
    assert take(store, at=3) == 0.0
    assert take(store, at=4) > 0
    store.forget("k")
    assert [take(store, at=5) for _ in range(3)] == [0.0, 0.0, 0.0]
    store.forget("unknown")
    store.give_back("unknown")


def test_more_attempts_than_one_item_holds_are_counted(store):
    assert [take(store, limit=11, at=n / 10) for n in range(11)] == [0.0] * 11
    assert take(store, limit=11, at=2) == pytest.approx(58)
    store.give_back("k")
    assert take(store, limit=11, at=3) == 0.0
    assert take(store, limit=11, at=3) == pytest.approx(57)
    store.forget("k")
    assert [take(store, limit=11, at=4) for _ in range(12)][-2:] == [0.0, 60.0]


def test_of_two_hundred_at_once_no_more_than_the_limit_are_counted(store):
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: take(store, limit=10), range(200)))
    assert found.count(0.0) == 10
