"""What messages of the queue say."""

from __future__ import annotations

import json

import pytest

from llamabda import events
from llamabda.errors import InvalidInput
from llamabda.events import Nonsense, ObjectCreated, ObjectDeleted, Sweep, Work
from llamabda.types import GenerationKey

TENANT = "t_" + "a" * 26
KEY = GenerationKey(TENANT, "s3:a/ção.txt", 7)


def bridge(kind="Object Created", key="a b+c%41.txt", **item) -> dict:
    return {
        "version": "0",
        "source": "aws.s3",
        "detail-type": kind,
        "detail": {"bucket": {"name": "docs"}, "object": {"key": key, "sequencer": "00a1", **item}},
    }


def record(name="ObjectCreated:Put", key="a+b%2Bc%2541.txt", **item) -> dict:
    return {
        "eventSource": "aws:s3",
        "eventName": name,
        "s3": {"bucket": {"name": "docs"}, "object": {"key": key, "sequencer": "00A1", **item}},
    }


def said(message: object) -> list[object]:
    return [one.event for one in events.parse(message if isinstance(message, str) else json.dumps(message))]


@pytest.mark.parametrize("message", [bridge(), {"Records": [record()]}, {"Records": [record("s3:ObjectCreated:Copy")]}])
def test_keys_of_event_bridge_are_as_they_are_and_those_of_s3_encoded(message):
    assert said(message) == [ObjectCreated("docs", "a b+c%41.txt", "00A1")]


@pytest.mark.parametrize(
    ("message", "version"),
    [
        (bridge("Object Deleted"), None),
        (bridge("Object Deleted", **{"version-id": "v1"}), "v1"),
        ({"Records": [record("ObjectRemoved:Delete")]}, None),
        ({"Records": [record("ObjectRemoved:Delete", versionId="v1")]}, "v1"),
        ({"Records": [record("ObjectRemoved:DeleteMarkerCreated", versionId="v1")]}, None),
    ],
)
def test_the_end_of_one_version_is_told_from_the_end_of_an_object(message, version):
    assert said(message) == [ObjectDeleted("docs", "a b+c%41.txt", "00A1", version)]


def test_a_delete_marker_ends_an_object_whatever_version_it_has():
    message = bridge("Object Deleted", **{"version-id": "v2"})
    message["detail"]["deletion-type"] = "Delete Marker Created"
    assert said(message) == [ObjectDeleted("docs", "a b+c%41.txt", "00A1")]


def test_of_several_records_each_stands_alone():
    message = {"Records": [record(), "nonsense", record("ObjectRestore:Completed"), record(key="b", versionId="v")]}
    found = events.parse(json.dumps(message))
    assert [type(one.event) for one in found] == [ObjectCreated, Nonsense, Nonsense, ObjectCreated]
    for one in found:
        assert events.parse(one.body) == [one]


def test_the_test_event_says_nothing():
    assert said({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "docs"}) == []


def test_own_messages_come_back_as_they_went():
    assert said(events.work(KEY)) == [Work(KEY)]
    assert said(events.sweep()) == [Sweep()]


@pytest.mark.parametrize("body", [events.work(KEY), json.dumps(bridge()), json.dumps({"Records": [record()]})])
def test_what_is_tried_again_says_the_same_and_how_often(body):
    (first,) = events.parse(body)
    (second,) = events.parse(events.again(first, attempt=2))
    (third,) = events.parse(events.again(second, attempt=3))
    assert first.attempt == 1
    assert (second.event, second.attempt) == (first.event, 2)
    assert (third.event, third.attempt) == (first.event, 3)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "neither an S3 event nor work"),
        ('{"Records": []}', "neither an S3 event nor work"),
        ('{"llamabda": "dance"}', "'dance', which is unknown"),
        ('{"llamabda": "work", "tenant": "t", "id": "d", "generation": 0}', "generation is not a whole number"),
        ('{"llamabda": "work", "tenant": "t", "id": "d", "generation": true}', "generation is not a whole number"),
        ('{"llamabda": "work", "tenant": "", "id": "d", "generation": 1}', "no 'tenant'"),
        ('{"llamabda": "again", "attempt": 0, "event": {}}', "holds none"),
        ('{"llamabda": "again", "attempt": 2, "event": []}', "holds none"),
        (json.dumps(bridge("Object Restore Completed")), "'Object Restore Completed'"),
        (json.dumps({"source": "aws.s3", "detail-type": "Object Created"}), "no object 'detail'"),
        (json.dumps(bridge(key="")), "no 'key'"),
        (json.dumps(bridge(key="é" * 513)), "more than 1024 bytes"),
        (json.dumps(bridge(sequencer="12 34")), "'12 34' is no hexadecimal number"),
        (json.dumps(bridge(sequencer=["00"])), "is no hexadecimal number"),
    ],
)
def test_nonsense_is_told_why_and_kept_as_it_came(body, why):
    (found,) = events.parse(body)
    assert isinstance(found.event, Nonsense)
    assert why in found.event.why
    assert found.body == body


@pytest.mark.parametrize(
    ("key", "tenant"),
    [
        ("a.txt", "shared"),
        ("folder/tenants/x.txt", "shared"),
        ("tenants.txt", "shared"),
        (f"tenants/{TENANT}/a.txt", TENANT),
        (f"tenants/{TENANT}/deep/a.txt", TENANT),
    ],
)
def test_an_object_belongs_to_the_tenant_whose_folder_it_is_in(key, tenant):
    assert events.owner(key) == tenant


@pytest.mark.parametrize(
    "key",
    ["tenants/", "tenants/a.txt", "tenants//a.txt", "tenants/shared/a.txt", f"tenants/{TENANT}", f"tenants/{TENANT}/"],
)
def test_what_lies_below_tenants_and_is_nobodys_does_not_become_everybodys(key):
    with pytest.raises(InvalidInput, match="tenants/<tenant"):
        events.owner(key)
