"""What stands in for AWS keeps what AWS keeps."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from tests.aws import CATALOG


def item(name: str, value: int) -> dict:
    return {"pk": {"S": name}, "sk": {"S": "s"}, "n": {"N": str(value)}}


def put(name: str, value: int, **more) -> dict:
    return {"Put": {"TableName": CATALOG, "Item": item(name, value), **more}}


def key(name: str) -> dict:
    return {"TableName": CATALOG, "Key": {"pk": {"S": name}, "sk": {"S": "s"}}}


def test_a_transaction_that_fails_changes_nothing(aws):
    client = aws.client("dynamodb")
    for name in ("changed", "put", "deleted", "other"):
        client.put_item(TableName=CATALOG, Item=item(name, 1))
    before = client.scan(TableName=CATALOG)["Items"]
    add = {"UpdateExpression": "ADD n :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}
    actions = [
        {"Update": {**key("changed"), **add}},
        {"Update": {**key("made"), **add}},
        put("put", 2),
        put("new", 2),
        {"Delete": key("deleted")},
        put("other", 2, ConditionExpression="attribute_not_exists(pk)"),
    ]
    with pytest.raises(ClientError) as caught:
        client.transact_write_items(TransactItems=actions)
    assert [reason["Code"] for reason in caught.value.response["CancellationReasons"]][-1] == "ConditionalCheckFailed"
    assert client.scan(TableName=CATALOG)["Items"] == before
    client.transact_write_items(TransactItems=actions[:-1])
    found = {one["pk"]["S"]: one["n"]["N"] for one in client.scan(TableName=CATALOG)["Items"]}
    assert found == {"changed": "2", "made": "1", "put": "2", "new": "2", "other": "1"}
