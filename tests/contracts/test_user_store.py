"""What every UserStore does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from llamabda.adapters.dynamodb.users import DynamoUserStore
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.users import SqliteUserStore
from llamabda.errors import Conflict, Forbidden
from llamabda.ports import UserStore
from llamabda.types import Invite, User
from tests.aws import USERS, Aws


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


def dynamodb(aws: Aws) -> Place:
    return Place(lambda: nullcontext(DynamoUserStore(aws.client("dynamodb"), USERS)))


@pytest.fixture(params=["sqlite", "dynamodb"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return sqlite(tmp_path) if request.param == "sqlite" else dynamodb(request.getfixturevalue("aws"))


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
INVITE = Invite(digest="d" * 64, tenant=ALICE.tenant, role="member", created_by="", expires_at=2_000.0)


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
    assert store.get("alice") == replace(ALICE, disabled=True, credentials=2)
    assert store.set_disabled("alice", False)
    assert list(store.list()) == [replace(ALICE, credentials=2), bob]  # enabling brings no credential back


def test_the_invites_of_a_disabled_user_are_withdrawn(store: UserStore):
    store.add(ALICE)
    store.add(replace(ALICE, username="bob"))
    for name in ("alice", "bob"):
        store.add_invite(replace(INVITE, digest=name, created_by=name))
    assert store.set_disabled("alice", True)
    assert store.invite("alice") is None
    assert store.invite("bob") is not None


def test_invites_stay_withdrawn_when_their_maker_is_enabled_again(store: UserStore):
    store.add(ALICE)
    store.add_invite(replace(INVITE, digest="early", created_by="alice"))
    store.set_disabled("alice", True)
    store.set_disabled("alice", False)
    store.add_invite(replace(INVITE, digest="late", created_by="alice"))
    assert store.invite("early") is None
    with pytest.raises(Forbidden):
        store.add(replace(ALICE, username="bob"), invite="early", now=1_000.0)
    assert store.get("bob") is None
    store.add(replace(ALICE, username="carol"), invite="late", now=1_000.0)
    assert store.get("carol") is not None


def test_a_new_password_withdraws_no_invite(store: UserStore):
    store.add(ALICE)
    invite = replace(INVITE, created_by="alice")
    store.add_invite(invite)
    store.set_password_hash("alice", "new", renew=True)
    assert store.invite(INVITE.digest) == invite
    store.add(replace(ALICE, username="bob"), invite=INVITE.digest, now=1_000.0)
    assert store.invite(INVITE.digest) is None


def test_the_maker_of_an_invite_is_a_conflict_as_anybody_else_is(store: UserStore):
    store.add(ALICE)
    store.add_invite(replace(INVITE, created_by="alice"))
    for digest in (INVITE.digest, "e" * 64):
        with pytest.raises(Conflict):
            store.add(ALICE, invite=digest, now=1_000.0)


@pytest.mark.parametrize("expires_at", [2_000.0, 1_800_000_000.123_456_7, 1e12])
def test_the_end_of_an_invite_comes_back_exactly(store: UserStore, expires_at: float):
    store.add_invite(replace(INVITE, expires_at=expires_at))
    found = store.invite(INVITE.digest)
    assert found == replace(INVITE, expires_at=expires_at)
    assert found is not None
    assert type(found.expires_at) is float


@pytest.mark.parametrize("username", ["", "x" * 5_000])
def test_a_name_that_nobody_can_have_is_nobodys(store: UserStore, username: str):
    assert store.get(username) is None
    assert not store.set_disabled(username, True)
    assert not store.set_password_hash(username, "new")
    with pytest.raises(Forbidden):
        store.add_invite(replace(INVITE, created_by=username or "x" * 5_000))


def test_more_users_than_one_reply_holds_are_listed(store: UserStore):
    # a reply of DynamoDB ends after a megabyte
    names = [f"user{number:02d}" for number in range(12)]
    for name in reversed(names):
        store.add(replace(ALICE, username=name, password_hash="x" * 100_000))
    assert [user.username for user in store.list()] == names


def test_a_password_hash_is_replaced(store: UserStore):
    store.add(ALICE)
    assert store.set_password_hash("alice", "new")
    assert store.get("alice") == replace(ALICE, password_hash="new")


def test_a_new_password_renews_the_credentials_only_where_it_is_told_to(store: UserStore):
    store.add(ALICE)
    assert store.set_password_hash("alice", "new", renew=True)
    assert store.get("alice") == replace(ALICE, password_hash="new", credentials=1)


def test_an_invite_is_used_up_by_the_user_who_comes_with_it(store: UserStore, place: Place):
    store.add_invite(INVITE)
    with place.open() as other:
        assert other.invite(INVITE.digest) == INVITE
    store.add(ALICE, invite=INVITE.digest, now=1_000.0)
    assert store.get("alice") == ALICE
    assert store.invite(INVITE.digest) is None
    with pytest.raises(Forbidden):
        store.add(replace(ALICE, username="bob"), invite=INVITE.digest, now=1_000.0)
    assert store.get("bob") is None


@pytest.mark.parametrize(("digest", "now"), [("e" * 64, 1_000.0), (INVITE.digest, 2_000.0)])
def test_an_unknown_and_an_expired_invite_bring_nobody_in(store: UserStore, digest: str, now: float):
    store.add_invite(INVITE)
    with pytest.raises(Forbidden):
        store.add(ALICE, invite=digest, now=now)
    assert list(store.list()) == []


def test_a_taken_name_leaves_the_invite(store: UserStore):
    store.add(ALICE)
    store.add_invite(INVITE)
    with pytest.raises(Conflict):
        store.add(ALICE, invite=INVITE.digest, now=1_000.0)
    assert store.invite(INVITE.digest) == INVITE


def test_of_many_threads_with_one_invite_exactly_one_comes_in(store: UserStore, place: Place):
    store.add_invite(INVITE)
    start = threading.Barrier(8)

    def contend(number: int) -> bool:
        with place.open() as own:
            start.wait()
            try:
                own.add(replace(ALICE, username=f"user{number}"), invite=INVITE.digest, now=1_000.0)
            except Forbidden:
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(contend, range(8))) == 1
    assert len(store.list()) == 1


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


def test_who_is_disabled_or_gone_cannot_invite(store: UserStore):
    store.add(replace(ALICE, disabled=True))
    for name in ("alice", "nobody"):
        with pytest.raises(Forbidden):
            store.add_invite(replace(INVITE, created_by=name))
    assert store.invite(INVITE.digest) is None


def test_a_hash_is_replaced_only_where_it_is_the_expected_one(store: UserStore):
    store.add(ALICE)
    assert not store.set_password_hash("alice", "mine", instead_of="another")
    assert store.set_password_hash("alice", "mine", instead_of=ALICE.password_hash)
    assert store.get("alice") == replace(ALICE, password_hash="mine")
