"""Texts and sources in S3: what is missing, what is refused, what breaks off."""

from __future__ import annotations

import gzip
import hashlib

import pytest

from llamabda.adapters.s3 import TRIES, S3Objects, S3TextStore
from llamabda.errors import DependencyFailed, NotFound, TooLarge, UnsupportedMedia
from llamabda.types import GenerationKey
from tests.aws import TEXTS, Aws
from tests.aws_proxy import DROP, Asked, Given, proxied, s3_error

KEY = GenerationKey("t_" + "a" * 26, "notes/harbour", 3)
NAME = f"{KEY.tenant}/{hashlib.sha256(b'notes/harbour').hexdigest()}/3.txt.gz"


def texts(aws: Aws, bucket: str = TEXTS) -> S3TextStore:
    return S3TextStore(aws.client("s3", retries={"total_max_attempts": 1}), bucket, sleep=lambda _: None)


def objects(aws: Aws) -> S3Objects:
    return S3Objects(aws.client("s3", retries={"total_max_attempts": 1}), sleep=lambda _: None)


def put(aws: Aws, key: str, data: bytes) -> str | None:
    return aws.client("s3").put_object(Bucket=TEXTS, Key=key, Body=data).get("VersionId")


def test_a_text_is_a_gzip_file_that_anybody_can_read(aws):
    texts(aws).put(KEY, "ação\r\n" * 1_000)
    found = aws.client("s3").get_object(Bucket=TEXTS, Key=NAME)
    data = found["Body"].read()
    assert gzip.decompress(data).decode() == "ação\r\n" * 1_000
    assert len(data) < 200
    assert found["ContentType"] == "application/gzip"


def test_the_same_text_makes_the_same_object(aws):
    etags = []
    for _ in range(2):
        texts(aws).put(KEY, "harbour")
        etags.append(aws.client("s3").head_object(Bucket=TEXTS, Key=NAME)["ETag"])
    assert etags[0] == etags[1]


@pytest.mark.parametrize(
    "data", [b"", b"plain", gzip.compress(b"\xff"), gzip.compress(b"x" * 99)[:-9], b"\x1f\x8b\x08"]
)
def test_what_is_no_text_of_ours_is_a_failure_and_not_a_text(aws, data):
    put(aws, NAME, data)
    with pytest.raises(DependencyFailed, match="something else than a text"):
        texts(aws).get(KEY)


USES = {
    "put": lambda store: store.put(KEY, "x"),
    "get": lambda store: store.get(KEY),
    "delete": lambda store: store.delete([KEY]),
    "ping": lambda store: store.ping(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_bucket_that_is_not_there_is_named(aws, use):
    with pytest.raises(DependencyFailed, match=r"nobodys-bucket \(TEXT_BUCKET\).*not there") as failed:
        use(texts(aws, "nobodys-bucket"))
    assert failed.value.dependency == "texts"


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (s3_error("AccessDenied", 403), "ListBucket"),
        (s3_error("SlowDown", 503), "SlowDown"),
        (s3_error("InternalError", 500), "InternalError"),
        (s3_error("PermanentRedirect", 400), "AWS_REGION"),
        (s3_error("InvalidAccessKeyId", 403), "credentials"),
        (DROP, "the connection to it broke"),
    ],
)
def test_what_s3_does_not_do_is_a_dependency_that_failed(aws, use, reply, said):
    with proxied(aws, lambda asked: reply) as (place, _):
        with pytest.raises(DependencyFailed, match=said) as failed:
            use(texts(place))
        assert "never shown" not in failed.value.message


def test_a_moment_of_slowing_down_is_not_noticed(aws):
    with proxied(aws, lambda asked: s3_error("SlowDown", 503) if asked.number == 0 else None) as (place, _):
        store = S3TextStore(place.client("s3"), TEXTS)
        store.put(KEY, "x")
        assert store.get(KEY) == "x"


def broken_off(times: int):
    def cut(asked: Asked, given: Given) -> Given:
        short = asked.method == "GET" and asked.number < times
        return Given(given.status, given.body, given.headers, cut=len(given.body) // 2 if short else None)

    return cut


def test_an_object_that_breaks_off_is_read_again(aws):
    texts(aws).put(KEY, "harbour " * 99)
    put(aws, "source", b"harbour " * 99)
    with proxied(aws, after=broken_off(TRIES - 1)) as (place, seen):
        assert texts(place).get(KEY) == "harbour " * 99
        assert len(seen) == TRIES
    with proxied(aws, after=broken_off(TRIES - 1)) as (place, seen):
        assert objects(place).read(TEXTS, "source", limit=1_000).data == b"harbour " * 99
    with proxied(aws, after=broken_off(TRIES)) as (place, seen):
        with pytest.raises(DependencyFailed, match="broke off"):
            texts(place).get(KEY)
        assert len(seen) == TRIES


def deleting(*errors: tuple[str, str]) -> Given:
    found = "".join(f"<Error><Key>{key}</Key><Code>{code}</Code></Error>" for key, code in errors)
    return Given(200, f"<?xml version='1.0'?><DeleteResult>{found}</DeleteResult>".encode())


def test_keys_that_s3_did_not_get_to_are_deleted_again(aws):
    store = texts(aws)
    other = GenerationKey("t", "d", 1)
    for key in (KEY, other):
        store.put(key, "x")

    def half(asked: Asked, given: Given) -> Given:
        return deleting((NAME, "InternalError")) if asked.number == 0 else given

    with proxied(aws, after=half) as (place, seen):
        texts(place).delete([KEY, other])
        assert [NAME.encode() in asked.body for asked in seen] == [True, True]
        assert [b"t/" + hashlib.sha256(b"d").hexdigest().encode() in asked.body for asked in seen] == [True, False]


@pytest.mark.parametrize(("code", "asked_for"), [("InternalError", TRIES), ("AccessDenied", 1)])
def test_keys_that_stay_are_a_failure(aws, code, asked_for):
    with proxied(aws, lambda asked: deleting((NAME, code))) as (place, seen):
        with pytest.raises(DependencyFailed, match=f"1 objects were not deleted: {code}"):
            texts(place).delete([KEY, GenerationKey("t", "d", 1)])
        assert len(seen) == asked_for


@pytest.mark.parametrize("key", ["a.txt", "ação/b c+d%20.txt", "tenants/t/../x", "é" * 512])
def test_a_source_comes_with_what_is_known_of_it(aws, key):
    put(aws, key, b"\x00\xff harbour")
    found = objects(aws).read(TEXTS, key, limit=10)
    assert (found.data, found.version) == (b"\x00\xff harbour", None)
    assert found.etag == hashlib.md5(found.data).hexdigest()
    assert found.modified_at.tzinfo is not None


def test_an_object_of_just_the_limit_is_read_and_a_larger_one_is_not(aws):
    put(aws, "a", b"x" * 100)
    assert len(objects(aws).read(TEXTS, "a", limit=100).data) == 100
    with pytest.raises(TooLarge, match=f"s3://{TEXTS}/a has 100 bytes, more than 99"):
        objects(aws).read(TEXTS, "a", limit=99)
    put(aws, "empty", b"")
    assert objects(aws).read(TEXTS, "empty", limit=0).data == b""


def test_what_is_gone_is_not_found_and_a_version_stays(aws):
    client = aws.client("s3")
    client.put_bucket_versioning(Bucket=TEXTS, VersioningConfiguration={"Status": "Enabled"})
    first, second = put(aws, "a", b"one"), put(aws, "a", b"two")
    assert objects(aws).read(TEXTS, "a", version=first, limit=9).data == b"one"
    assert objects(aws).read(TEXTS, "a", limit=9).version == second
    marker = client.delete_object(Bucket=TEXTS, Key="a")["VersionId"]
    assert objects(aws).read(TEXTS, "a", version=second, limit=9).data == b"two"
    for version in (None, marker):
        with pytest.raises(NotFound, match=f"s3://{TEXTS}/a"):
            objects(aws).read(TEXTS, "a", version=version, limit=9)


@pytest.mark.parametrize(
    ("reply", "raised"),
    [
        (s3_error("NoSuchKey", 404), NotFound),
        (s3_error("NoSuchVersion", 404), NotFound),
        (s3_error("MethodNotAllowed", 405), NotFound),
        (s3_error("InvalidObjectState", 403), UnsupportedMedia),
        (s3_error("NoSuchBucket", 404), DependencyFailed),
        (s3_error("AccessDenied", 403), DependencyFailed),
        (DROP, DependencyFailed),
    ],
)
def test_what_s3_says_of_a_source_has_its_meaning(aws, reply, raised):
    with proxied(aws, lambda asked: reply) as (place, _), pytest.raises(raised):
        objects(place).read(TEXTS, "a", limit=9)
