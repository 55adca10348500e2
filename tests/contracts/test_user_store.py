"""What every UserStore does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.users import SqliteUserStore
from llamabda.errors import Conflict
from llamabda.ports import UserStore
from llamabda.types import User


@dataclass(frozen=True)
class Place:
    """Somewhere that users are kept. `open` gives a store over it, as another thread or process would make one."""

    open: Callable[[], AbstractContextManager[UserStore]]


def sqlite(folder: Path) -> Place:
    @contextmanager
    def opened() -> Iterator[UserStore]:
        with closing(Database(folder / "users.db")) as database:
            yield SqliteUserStore(database)

    return Place(opened)


@pytest.fixture(params=[sqlite], ids=lambda make: make.__name__)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return request.param(tmp_path)


@pytest.fixture
def store(place: Place) -> Iterator[UserStore]:
    with place.open() as opened:
        yield opened


ALICE = User(
    username="alice",
    tenant="t_" + "a" * 26,
    role="member",
    password_hash="$argon2id$hash",
    disabled=False,
    created_at=datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
)


@pytest.mark.parametrize(
    "user",
    [
        ALICE,
        replace(ALICE, role="admin", disabled=True),
        replace(ALICE, username="maria.joão@exemplo.pt", tenant="shared"),
        replace(ALICE, username="\U00020000" * 64),
        replace(ALICE, created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        replace(ALICE, username="' OR 1=1 --", password_hash="%s ? :x"),
    ],
)
def test_a_user_comes_back_as_it_was_added(store: UserStore, place: Place, user: User):
    store.add(user)
    assert store.get(user.username) == user
    assert list(store.list()) == [user]
    with place.open() as other:
        assert other.get(user.username) == user


def test_times_come_back_in_utc(store: UserStore):
    store.add(replace(ALICE, created_at=ALICE.created_at.astimezone(timezone(timedelta(hours=-3)))))
    found = store.get("alice")
    assert found is not None
    assert found.created_at == ALICE.created_at
    assert found.created_at.utcoffset() == timedelta(0)


def test_a_missing_user_is_none(store: UserStore):
    assert store.get("alice") is None
    assert list(store.list()) == []


def test_a_taken_name_is_a_conflict_and_the_first_user_stays(store: UserStore):
    store.add(ALICE)
    with pytest.raises(Conflict, match="alice"):
        store.add(replace(ALICE, tenant="t_" + "b" * 26, password_hash="other"))
    assert list(store.list()) == [ALICE]


def test_names_are_compared_as_given(store: UserStore):
    store.add(ALICE)
    store.add(replace(ALICE, username="Alice"))
    assert store.get("ALICE") is None
    assert len(store.list()) == 2


def test_users_are_listed_in_order_of_name(store: UserStore):
    names = ["b", "\U0001d49c", "é", "a", "z", "_", "\uff41", "ab", "10", "9"]
    for name in names:
        store.add(replace(ALICE, username=name))
    assert [user.username for user in store.list()] == sorted(names)


def test_a_user_is_disabled_and_enabled_again(store: UserStore):
    store.add(ALICE)
    bob = replace(ALICE, username="bob")
    store.add(bob)
    assert store.set_disabled("alice", True)
    assert store.set_disabled("alice", True)  # already so: the user is there all the same
    assert store.get("alice") == replace(ALICE, disabled=True)
    assert store.set_disabled("alice", False)
    assert list(store.list()) == [ALICE, bob]


def test_a_password_hash_is_replaced(store: UserStore):
    store.add(ALICE)
    assert store.set_password_hash("alice", "new")
    assert store.get("alice") == replace(ALICE, password_hash="new")


def test_changes_to_a_missing_user_say_so_and_add_nobody(store: UserStore):
    assert not store.set_disabled("alice", True)
    assert not store.set_password_hash("alice", "new")
    assert list(store.list()) == []


def test_ping_answers(store: UserStore):
    store.ping()


def test_of_many_threads_that_add_one_name_exactly_one_wins(store: UserStore, place: Place):
    threads, names = 8, ["alice", "bob", "carol"]
    start = threading.Barrier(threads)

    def contend(number: int) -> list[str]:
        won = []
        with place.open() as own:
            start.wait()
            for name in names:
                try:
                    own.add(replace(ALICE, username=name, password_hash=str(number)))
                except Conflict:
                    continue
                won.append(name)
        return won

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(contend, range(threads)))
    assert sorted(name for won in results for name in won) == names
    for number, won in enumerate(results):
        for name in won:
            found = store.get(name)
            assert found is not None
            assert found.password_hash == str(number)
