"""Texts and sources in S3."""

from __future__ import annotations

import gzip
import hashlib
import random
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from llamabda import time_left
from llamabda.aws_failures import code, translated
from llamabda.errors import DependencyFailed, NotFound, TooLarge, UnsupportedMedia
from llamabda.types import GenerationKey, StoredObject

T = TypeVar("T")

DELETED_AT_ONCE = 1_000  # S3's limit
TRIES = 4
FIRST_PAUSE = 0.05  # seconds; doubled each time, and drawn from zero to the whole
_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "404", "MethodNotAllowed"})  # the last: a delete marker's version
_NO_BUCKET = "NoSuchBucket"
_NOWHERE = _MISSING | {_NO_BUCKET}
_PASSING = frozenset({"InternalError", "SlowDown", "ServiceUnavailable", "OperationAborted", "RequestTimeout"})
# Without ListBucket S3 hides what is missing behind a refusal.
_ALLOW = "give the role of this process GetObject, PutObject and DeleteObject on its objects, and ListBucket on it"
_ADVICE = {"AccessDenied": _ALLOW, "AllAccessDisabled": _ALLOW}


class _Broken(Exception):
    """An object's bytes stopped coming."""


class S3TextStore:
    """The TextStore port over a bucket of its own. `client`: boto3's for S3.

    An object is the gzip of a text's UTF-8, at <tenant>/<SHA-256 of the document's id>/<generation>.txt.gz: read from
    its end, a key has one meaning, and it stays below S3's 1,024 bytes however long the id is. Every failure is a
    DependencyFailed.
    """

    def __init__(
        self, client: Any, bucket: str, *, setting: str = "TEXT_BUCKET", sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._what = f"the bucket {bucket} ({setting})"
        self._sleep = sleep

    def put(self, key: GenerationKey, text: str) -> None:
        data = gzip.compress(text.encode("utf-8"), compresslevel=6, mtime=0)
        with self._translated():
            # not as a content encoding: what stands between may take that off
            self._client.put_object(Bucket=self._bucket, Key=_name(key), Body=data, ContentType="application/gzip")

    def get(self, key: GenerationKey) -> str | None:
        name = _name(key)
        with self._translated():
            data = _again(lambda: self._read(name), self._what, "texts", self._sleep)
        if data is None:
            return None
        try:
            if not data:
                raise EOFError  # which gzip takes for an empty text
            return gzip.decompress(data).decode("utf-8")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as exc:
            raise DependencyFailed(
                f"{self._what} holds something else than a text at {name} ({type(exc).__name__})", dependency="texts"
            ) from None

    def delete(self, keys: Iterable[GenerationKey]) -> None:
        names = list(dict.fromkeys(map(_name, keys)))
        for first in range(0, len(names), DELETED_AT_ONCE):
            self._delete(names[first : first + DELETED_AT_ONCE])

    def ping(self) -> None:
        """Raises DependencyFailed when the bucket cannot be read."""
        with self._translated():
            self._read("ping")

    def _read(self, name: str) -> bytes | None:
        return _content(self._client, self._bucket, name, _MISSING)

    def _delete(self, names: list[str]) -> None:
        """Keys that S3 did not get to are tried again; what it refuses is a failure, when all others are gone."""
        refused: dict[str, str] = {}
        for tries in range(1, TRIES + 1):
            with self._translated():
                wanted = {"Objects": [{"Key": name} for name in names], "Quiet": True}
                reply = self._client.delete_objects(Bucket=self._bucket, Delete=wanted)
            errors = {error.get("Key", ""): error.get("Code", "unknown") for error in reply.get("Errors", ())}
            refused |= {name: why for name, why in errors.items() if why not in _PASSING}
            names = [name for name, why in errors.items() if why in _PASSING]
            if not names:
                break
            if tries < TRIES:
                _pause(tries, self._sleep)
        left = {**refused, **{name: errors[name] for name in names}}
        if left:
            reasons = ", ".join(sorted(set(left.values())))
            advice = next((_ADVICE[why] for why in left.values() if why in _ADVICE), "")
            raise DependencyFailed(
                f"{self._what} failed: {len(left)} objects were not deleted: {reasons}{advice and f': {advice}'}",
                dependency="texts",
            )

    def _translated(self) -> Any:
        return translated(self._what, dependency="texts", advice=_ADVICE)


class S3Objects:
    """Objects of any bucket, as sources of documents. `client`: boto3's for S3."""

    def __init__(self, client: Any, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._sleep = sleep

    def read(self, bucket: str, key: str, *, version: str | None = None, limit: int) -> StoredObject:
        """The whole object, or that version of it.

        NotFound when it is gone; TooLarge when it has more than `limit` bytes, which are then not read;
        UnsupportedMedia when it is archived; DependencyFailed for everything else.
        """
        what = f"the bucket {bucket}"
        with translated(what, dependency="source", advice=_ADVICE):
            return _again(lambda: self._read(bucket, key, version, limit), what, "source", self._sleep)

    def _read(self, bucket: str, key: str, version: str | None, limit: int) -> StoredObject:
        place = f"s3://{bucket}/{key}"
        try:
            reply = self._client.get_object(Bucket=bucket, Key=key, **({"VersionId": version} if version else {}))
        except ClientError as exc:
            if code(exc) in _MISSING:
                raise NotFound(f"{place} is not there (any more)") from None
            if code(exc) == "InvalidObjectState":
                raise UnsupportedMedia(f"{place} is archived: restore it, then upload it again") from None
            raise
        with closing(reply["Body"]) as body, _whole():
            size = reply["ContentLength"]
            if size > limit:
                raise TooLarge(f"{place} has {size} bytes, more than {limit}")
            return StoredObject(
                body.read(),
                etag=reply["ETag"].strip('"'),
                version=_version(reply),
                content_type=reply.get("ContentType", ""),
                modified_at=reply["LastModified"],
            )


class S3Documents:
    """Small JSON documents in a bucket, of which some are published from there. `client`: boto3's for S3.

    Every failure is a DependencyFailed that names the bucket.
    """

    def __init__(self, client: Any, bucket: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._bucket = bucket
        self._sleep = sleep

    def put(self, path: str, content: bytes, *, cached: int) -> None:
        """`cached`: seconds for which whoever reads it may keep it; 0: it is nobody else's."""
        control = f"public, max-age={cached}" if cached else "no-store"
        with self._translated():
            self._client.put_object(
                Bucket=self._bucket, Key=path, Body=content, ContentType="application/json", CacheControl=control
            )

    def get(self, path: str) -> bytes | None:
        """None when there is no such object, or no such bucket."""
        with self._translated():
            return _again(
                lambda: _content(self._client, self._bucket, path, _NOWHERE),
                f"the bucket {self._bucket}",
                "issuer",
                self._sleep,
            )

    def written(self, path: str) -> int | None:
        """When `put` last did so, in epoch seconds; None when it is not there."""
        with self._translated():
            try:
                reply = self._client.head_object(Bucket=self._bucket, Key=path)
            except ClientError as exc:
                if code(exc) in _NOWHERE:
                    return None
                raise
        return int(reply["LastModified"].timestamp())

    def delete(self, path: str) -> None:
        """Whether or not it is there, or the bucket is."""
        with self._translated():
            try:
                self._client.delete_object(Bucket=self._bucket, Key=path)
            except ClientError as exc:
                if code(exc) != _NO_BUCKET:
                    raise

    def _translated(self) -> Any:
        return translated(f"the bucket {self._bucket}", dependency="issuer", advice=_ADVICE)


def _content(client: Any, bucket: str, name: str, missing: Collection[str]) -> bytes | None:
    """An object whole; None when S3's answer is one of `missing`."""
    try:
        reply = client.get_object(Bucket=bucket, Key=name)
    except ClientError as exc:
        if code(exc) in missing:
            return None
        raise
    with closing(reply["Body"]) as body, _whole():
        data = time_left.bounded(body.read)
        assert isinstance(data, bytes)
        return data


def _name(key: GenerationKey) -> str:
    document = hashlib.sha256(key.doc_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{key.tenant}/{document}/{key.generation}.txt.gz"


def _version(reply: Mapping[str, Any]) -> str | None:
    found = reply.get("VersionId")
    return found if found and found != "null" else None


@contextmanager
def _whole() -> Iterator[None]:
    """What breaks while a body comes, which the client does not try again."""
    try:
        yield
    except (BotoCoreError, HTTPError, OSError) as exc:
        raise _Broken(type(exc).__name__) from exc


def _again(read: Callable[[], T], what: str, dependency: str, sleep: Callable[[float], None]) -> T:
    """What `read` returns, tried again while the bytes break off."""
    for tries in range(1, TRIES + 1):
        try:
            return read()
        except _Broken as exc:
            broken = exc
        if tries < TRIES:
            _pause(tries, sleep)
    raise DependencyFailed(f"{what} failed: an object broke off {TRIES} times ({broken})", dependency=dependency)


def _pause(tries: int, sleep: Callable[[float], None]) -> None:
    sleep(time_left.at_most(random.uniform(0, FIRST_PAUSE * 2 ** (tries - 1))))  # noqa: S311 -- no secret
