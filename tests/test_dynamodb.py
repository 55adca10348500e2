"""The table underneath: values, and what AWS does under load, when something is missing and when nobody is there."""

from __future__ import annotations

import json
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from llamabda.adapters.dynamodb.attempts import DynamoAttemptStore
from llamabda.adapters.dynamodb.attributes import decode, encode
from llamabda.adapters.dynamodb.calls import Key
from llamabda.adapters.dynamodb.sessions import DynamoSessionStore
from llamabda.adapters.dynamodb.table import (
    TRIES,
    Check,
    ConditionFailed,
    Delete,
    Put,
    Table,
    Update,
)
from llamabda.adapters.dynamodb.users import DynamoUserStore
from llamabda.errors import DependencyFailed
from llamabda.types import Invite, Session, User
from tests.aws import USERS, Aws
from tests.aws_proxy import DROP, Asked, Given, error, proxied

NOW = 1_800_000_000.0
ALICE = User("alice", "t_" + "a" * 26, "member", "$argon2id$never-shown", False, datetime(2026, 1, 2, tzinfo=UTC))
KEY = Key("p", "s")


def table(aws: Aws, name: str = USERS) -> Table:
    return Table(aws.client("dynamodb"), name, dependency="users", setting="USERS_TABLE", sleep=lambda _: None)


@pytest.mark.parametrize(
    "value",
    [
        "", "ção \U0001f600 \x00", 0, -1, 10**37, 0.1, NOW + 1 / 3, 1e-7, -1e100, True, False, None, b"", b"\xff\x00",
        [], ["a", 1, None, [2.5]], {"role": {"#x": ":y"}}, {},
    ],
)  # fmt: skip
def test_a_value_comes_back_as_it_was_put(aws, value):
    store = table(aws)
    store.write(Put(KEY, {"value": value}))
    assert store.get(KEY) == {"pk": "p", "sk": "s", "value": value}


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1, 2}])
def test_what_it_cannot_hold_is_refused(value):
    with pytest.raises(TypeError):
        encode({"value": value})


def test_bytes_and_numbers_are_typed_as_dynamodb_wants_them():
    item = {"a": "x", "b": 1, "c": 1.5, "d": True, "e": None, "f": b"y", "g": [1], "h": {"i": "j"}}
    kinds = {name: next(iter(typed)) for name, typed in encode(item).items()}
    assert kinds == {"a": "S", "b": "N", "c": "N", "d": "BOOL", "e": "NULL", "f": "B", "g": "L", "h": "M"}
    assert decode(encode(item)) == item


def test_writes_tell_what_was_and_what_is(aws):
    store = table(aws)
    assert store.write(Put(KEY, {"role": "a"})) is None
    assert store.write(Put(KEY, {"role": "b"})) == {"pk": "p", "sk": "s", "role": "a"}
    assert store.write(Update(KEY, "SET #role = :new ADD #count :one", values={"new": "c", "one": 1})) == {
        "pk": "p", "sk": "s", "role": "c", "count": 1,
    }  # fmt: skip
    assert store.write(Delete(KEY)) == {"pk": "p", "sk": "s", "role": "c", "count": 1}
    assert store.write(Delete(KEY)) is None
    assert store.get(KEY) is None


@pytest.mark.parametrize(
    "write",
    [
        Put(KEY, {"role": "b"}, "attribute_not_exists(#pk)"),
        Update(KEY, "SET #role = :new", "#role = :old", {"new": "c", "old": "x"}),
        Delete(KEY, "#role = :old", {"old": "x"}),
    ],
)
def test_a_condition_that_fails_shows_the_item_and_changes_nothing(aws, write):
    store = table(aws)
    store.write(Put(KEY, {"role": "a"}))
    with pytest.raises(ConditionFailed) as failed:
        store.write(write)
    assert failed.value.item == store.get(KEY) == {"pk": "p", "sk": "s", "role": "a"}
    with pytest.raises(ConditionFailed) as failed:
        store.write(
            replace(write, key=Key("p", "other"), condition="attribute_exists(#pk)", values={}, **changes(write))
        )
    assert failed.value.item is None


def changes(write: Put | Update | Delete) -> dict[str, object]:
    return {"change": "REMOVE #role"} if isinstance(write, Update) else {}


def test_a_transaction_is_whole_or_not_there(aws):
    store = table(aws)
    store.write(Put(KEY, {"role": "a"}))
    missing = "attribute_not_exists(#pk)"
    with pytest.raises(ConditionFailed) as failed:
        store.transact([Put(Key("p", "new"), {}, missing), Check(KEY, "#role = :x", {"x": "b"}), Delete(Key("p", "z"))])
    assert failed.value.items == {1: {"pk": "p", "sk": "s", "role": "a"}}
    assert store.get(Key("p", "new")) is None
    store.transact([Put(Key("p", "new"), {}, missing), Update(KEY, "SET #role = :x", "", {"x": "b"})])
    assert [item["sk"] for item in store.query("#pk = :p", {"p": "p"})] == ["new", "s"]


def test_pages_follow_on_one_another(aws):
    store = table(aws)
    for number in range(7):
        store.write(Put(Key("p", f"{number}"), {"odd": number % 2 == 1}))
    assert [item["sk"] for item in store.query("#pk = :p", {"p": "p"}, limit=2)] == list("0123456")
    found = store.query("#pk = :p AND #sk > :s", {"p": "p", "s": "2", "yes": True}, keep="#odd = :yes", forward=False)
    assert [item["sk"] for item in found] == ["5", "3"]


CONFLICT = error("TransactionConflictException")
CANCELLED = error(
    "TransactionCanceledException", CancellationReasons=[{"Code": "None"}, {"Code": "TransactionConflict"}]
)
TOO_FAST = error("TransactionCanceledException", CancellationReasons=[{"Code": "ThrottlingError"}, {"Code": "None"}])
FORBIDDEN = error("TransactionCanceledException", CancellationReasons=[{"Code": "ValidationError"}, {"Code": "None"}])


@pytest.mark.parametrize("reply", [CONFLICT, CANCELLED, TOO_FAST])
def test_what_met_another_transaction_is_tried_again_within_bounds(aws, reply):
    with proxied(aws, lambda asked: reply if asked.number < TRIES - 1 else None) as (place, seen):
        table(place).transact([Put(Key("p", "a"), {}), Put(Key("p", "b"), {})])
        assert len(seen) == TRIES
        # each with a token of its own: what was cancelled is not what is asked for now
        assert len({json.loads(asked.body)["ClientRequestToken"] for asked in seen}) == TRIES
    assert [item["sk"] for item in table(aws).query("#pk = :p", {"p": "p"})] == ["a", "b"]
    with proxied(aws, lambda asked: reply) as (place, seen):
        with pytest.raises(DependencyFailed, match=r"USERS_TABLE.*TransactWriteItems ended with Transaction"):
            table(place).transact([Put(Key("p", "a"), {}), Put(Key("p", "b"), {})])
        assert len(seen) == TRIES


def test_a_transaction_that_was_refused_is_not_tried_again(aws):
    with proxied(aws, lambda asked: FORBIDDEN) as (place, seen):
        with pytest.raises(DependencyFailed, match=r"TransactionCanceledException: .*pk and sk"):
            table(place).transact([Put(Key("p", "a"), {}), Put(Key("p", "b"), {})])
        assert len(seen) == 1


def test_a_transaction_whose_reply_was_lost_is_asked_for_with_the_same_token(aws):
    with proxied(aws, lambda asked: DROP if asked.number == 0 else None) as (place, seen):
        DynamoUserStore(place.client("dynamodb"), USERS).add(ALICE)
        assert len({json.loads(asked.body)["ClientRequestToken"] for asked in seen}) == 1
        assert len(seen) == 2


def test_a_rotation_whose_reply_was_lost_is_not_a_second_use(aws):
    store = DynamoSessionStore(aws.client("dynamodb"), USERS)
    store.add(Session("s", "alice", "one", NOW + 9), now=NOW)

    def lost(asked: Asked, given: Given) -> Given:
        return DROP if (asked.operation, asked.number) == ("UpdateItem", 0) else given

    with proxied(aws, after=lost) as (place, seen):
        shaky = DynamoSessionStore(place.client("dynamodb"), USERS)
        found = shaky.rotate("s", "one", "two", expires_at=NOW + 19, now=NOW)
        assert found == Session("s", "alice", "two", NOW + 19)
        assert sum(asked.operation == "UpdateItem" for asked in seen) == 2
    assert store.rotate("s", "two", "three", expires_at=NOW + 19, now=NOW) is not None


def test_what_is_read_is_never_older_than_what_was_written(aws):
    """moto has no replicas that lag, so it is what is asked for that counts."""
    reading = {"GetItem", "Query"}
    with proxied(aws) as (place, seen):
        for use in STORES.values():
            use(place.client("dynamodb"), USERS)
        asked = [json.loads(one.body) for one in seen if one.operation in reading]
        assert reading == {one.operation for one in seen} & reading
    assert all(one["ConsistentRead"] for one in asked)


def test_what_has_expired_is_told_though_the_table_still_has_it(aws):
    """DynamoDB deletes what has expired within days; moto, like it, not at once."""
    client = aws.client("dynamodb")
    sessions, users = DynamoSessionStore(client, USERS), DynamoUserStore(client, USERS)
    sessions.add(Session("s", "alice", "one", NOW), now=NOW - 10)
    users.add_invite(Invite("d", ALICE.tenant, "member", "", NOW))
    kept = {item["pk"]["S"]: item for item in client.scan(TableName=USERS)["Items"]}
    for name in ("session#s", "invite#d"):
        assert int(kept[name]["expires"]["N"]) > NOW
    assert sessions.rotate("s", "one", "two", expires_at=NOW + 9, now=NOW) is None
    found = users.invite("d")
    assert found is not None
    assert found.expires_at == NOW


def test_no_secret_and_no_address_is_in_the_table(aws):
    client = aws.client("dynamodb")
    DynamoAttemptStore(client, USERS).take("address:203.0.113.7", limit=3, window=60, now=time.time())
    assert "203.0.113" not in str(client.scan(TableName=USERS)["Items"])


def test_of_many_with_one_invite_one_comes_in_though_transactions_meet(aws):
    DynamoUserStore(aws.client("dynamodb"), USERS).add_invite(Invite("d", ALICE.tenant, "member", "", NOW))

    def come(number: int) -> bool:
        from llamabda.errors import Forbidden

        with proxied(aws, lambda asked: CANCELLED if asked.number == 0 and "Transact" in asked.operation else None) as (
            place,
            _,
        ):
            try:
                store = DynamoUserStore(place.client("dynamodb"), USERS)
                store.add(replace(ALICE, username=f"user{number}"), invite="d", now=NOW - 1)
            except Forbidden:
                return False
            return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(come, range(4))) == 1


STORES = {
    "users": lambda client, name: DynamoUserStore(client, name).ping(),
    "add": lambda client, name: DynamoUserStore(client, name).add(ALICE),
    "list": lambda client, name: DynamoUserStore(client, name).list(),
    "disable": lambda client, name: DynamoUserStore(client, name).set_disabled("alice", True),
    "invite": lambda client, name: DynamoUserStore(client, name).add_invite(Invite("d", "shared", "member", "", NOW)),
    "sessions": lambda client, name: DynamoSessionStore(client, name).add(Session("s", "a", "d", NOW), now=0),
    "rotate": lambda client, name: DynamoSessionStore(client, name).rotate("s", "o", "n", expires_at=NOW, now=0),
    "end_all": lambda client, name: DynamoSessionStore(client, name).end_all("alice"),
    "attempts": lambda client, name: DynamoAttemptStore(client, name).take("k", limit=1, window=1, now=NOW),
    "forget": lambda client, name: DynamoAttemptStore(client, name).forget("k"),
}


@pytest.mark.parametrize("use", STORES.values(), ids=STORES)
def test_a_table_that_is_not_there_is_named(aws, use):
    with pytest.raises(DependencyFailed, match=r"nobodys-table \(USERS_TABLE\).*no such table") as failed:
        use(aws.client("dynamodb"), "nobodys-table")
    assert "table" not in failed.value.public


# moto calls that reason of a transaction KeyError, AWS as FORBIDDEN above has it
@pytest.mark.parametrize("use", [use for name, use in STORES.items() if name != "add"])
def test_a_table_with_other_keys_says_which_are_wanted(aws, use):
    client = aws.client("dynamodb")
    client.create_table(
        TableName="other",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    with pytest.raises(DependencyFailed, match="pk and sk") as failed:
        use(client, "other")
    assert failed.value.__cause__ is None  # its text may hold values


@pytest.mark.parametrize("use", STORES.values(), ids=STORES)
def test_a_server_that_is_not_there_is_a_dependency_that_failed(aws, use):
    with proxied(aws) as (place, _):
        pass
    with pytest.raises(DependencyFailed, match="cannot be reached"):
        use(place.client("dynamodb", retries={"total_max_attempts": 1}), USERS)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (error("ProvisionedThroughputExceededException"), "ProvisionedThroughputExceededException"),
        (error("InternalServerError", 500), "InternalServerError"),
        (error("AccessDeniedException"), "give its role the permission"),
        (error("UnrecognizedClientException"), "credentials"),
        (error("ExpiredTokenException"), "credentials"),
        (Given(503, b"<html>no JSON</html>"), "failed"),
        (DROP, "the connection to it broke"),
    ],
)
def test_what_aws_says_is_told_by_its_name_and_not_by_its_words(aws, reply, said, caplog):
    caplog.set_level(logging.INFO)
    with proxied(aws, lambda asked: reply) as (place, _):
        store = DynamoUserStore(place.client("dynamodb", retries={"total_max_attempts": 1}), USERS)
        for use in (store.ping, lambda: store.add(ALICE), lambda: store.set_password_hash("a", "never-shown")):
            with pytest.raises(DependencyFailed, match=said) as failed:
                use()
            assert "never" not in failed.value.message
            assert failed.value.dependency == "users"
    assert "never-shown" not in caplog.text


def test_a_moment_of_throttling_is_not_noticed(aws):
    with proxied(aws, lambda asked: error("ThrottlingException") if asked.number == 0 else None) as (place, seen):
        DynamoUserStore(place.client("dynamodb"), USERS).add(ALICE)
        assert len(seen) == 2
    assert DynamoUserStore(aws.client("dynamodb"), USERS).get("alice") == ALICE


def test_without_credentials_it_says_so(aws, monkeypatch):
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = boto3.session.Session().client("dynamodb", region_name="eu-west-1", endpoint_url=aws.endpoint)
    with pytest.raises(DependencyFailed, match="no AWS credentials"):
        DynamoUserStore(client, USERS).ping()
