"""What the messages of the queue say: changes of objects, as S3 or EventBridge tell them, and work of our own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote_plus

from llamabda.errors import InvalidInput
from llamabda.types import SHARED_TENANT, GenerationKey

MAX_KEY_BYTES = 1_024  # of an object's key, as S3 counts
_TENANT_KEY = re.compile(r"tenants/([^/]*)/?")
_TENANT = re.compile(r"t_[a-z2-7]{26}")
_SEQUENCER = re.compile(r"[0-9A-Fa-f]{1,64}")
_CREATED, _REMOVED = "ObjectCreated:", "ObjectRemoved:"
_MARKER = "DeleteMarkerCreated"


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """An object is there, new or anew. `version`: of a bucket that keeps versions."""

    bucket: str
    key: str
    sequencer: str | None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectDeleted:
    """An object is gone. `version`: one version of it is, and another may be the object now."""

    bucket: str
    key: str
    sequencer: str | None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """A generation that was accepted is to be made."""

    key: GenerationKey


@dataclass(frozen=True, slots=True)
class Sweep:
    """What nobody can want any more is to be removed."""


@dataclass(frozen=True, slots=True)
class Nonsense:
    """Nobody knows what to do."""

    why: str


Event: TypeAlias = ObjectCreated | ObjectDeleted | Work | Sweep | Nonsense


@dataclass(frozen=True, slots=True)
class Record:
    """One event and how it was written, so that it can be sent on alone. `attempt`: 1 for the first."""

    event: Event
    body: str
    attempt: int = 1


def parse(body: str) -> Sequence[Record]:
    """What one message says, in its order; nothing for S3's test event. Of several records a bad one stands alone."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return [Record(Nonsense("the message is not JSON"), body)]
    if not isinstance(found, dict):
        return [Record(Nonsense("the message is not a JSON object"), body)]
    if found.get("Event") == "s3:TestEvent":
        return []
    attempt = 1
    if found.get("llamabda") == "again":
        event, number = found.get("event"), found.get("attempt")
        if not isinstance(event, dict) or type(number) is not int or number < 1:
            return [Record(Nonsense("the message says that an event is to be tried again, and holds none"), body)]
        found, body, attempt = event, json.dumps(event), number
    records = found.get("Records")
    if "llamabda" not in found and "source" not in found and isinstance(records, list) and records:
        return [Record(_read(_from_s3, one), json.dumps({"Records": [one]}), attempt) for one in records]
    return [Record(_read(_single, found), body, attempt)]


def again(record: Record, *, attempt: int) -> str:
    """The message that says the same for that attempt."""
    return json.dumps({"llamabda": "again", "attempt": attempt, "event": json.loads(record.body)})


def work(key: GenerationKey) -> str:
    """The message that says Work."""
    return json.dumps({"llamabda": "work", "tenant": key.tenant, "id": key.doc_id, "generation": key.generation})


def sweep() -> str:
    """The message that says Sweep."""
    return json.dumps({"llamabda": "sweep"})


def _read(reader: Callable[[Mapping[str, Any]], Event], found: object) -> Event:
    if not isinstance(found, dict):
        return Nonsense("a record of the message is not a JSON object")
    try:
        return reader(found)
    except InvalidInput as exc:
        return Nonsense(exc.message)


def _single(found: Mapping[str, Any]) -> Event:
    if "llamabda" in found:
        return _own(found)
    if found.get("source") == "aws.s3":
        return _from_event_bridge(found)
    raise InvalidInput("the message is neither an S3 event nor work of Llamabda's own")


def owner(key: str) -> str:
    """The tenant whose document an object is: by its key `tenants/<tenant>/...`, else everybody's.

    InvalidInput when the key names what is no tenant: such a file must not become everybody's.
    """
    found = _TENANT_KEY.match(key)
    if found is None:
        return SHARED_TENANT
    if not _TENANT.fullmatch(found[1]) or not key[found.end() :]:
        raise InvalidInput(
            f"the object {key[:100]!r} lies below tenants/ but not in a tenant's folder: "
            "tenants/<tenant as /auth/me tells it>/<name>"
        )
    return found[1]


def _own(found: Mapping[str, Any]) -> Event:
    kind = found["llamabda"]
    if kind == "sweep":
        return Sweep()
    if kind != "work":
        raise InvalidInput(f"the message says that it is work of the kind {str(kind)[:100]!r}, which is unknown")
    tenant, doc_id = _text(found, "tenant"), _text(found, "id")
    generation = found.get("generation")
    if type(generation) is not int or generation < 1:
        raise InvalidInput(f"the message's generation is not a whole number above 0: {str(generation)[:100]!r}")
    return Work(GenerationKey(tenant, doc_id, generation))


def _from_event_bridge(found: Mapping[str, Any]) -> Event:
    """Its keys are as they are."""
    kind, detail = found.get("detail-type"), _object(found, "detail")
    item = _object(detail, "object")
    place = (_text(_object(detail, "bucket"), "name"), _key(_text(item, "key")), _sequencer(item))
    version = _version(item, "version-id")
    if kind == "Object Created":
        return ObjectCreated(*place, version)
    if kind == "Object Deleted":
        marker = detail.get("deletion-type") == "Delete Marker Created"
        return ObjectDeleted(*place, None if marker else version)
    raise InvalidInput(f"the S3 event is of the type {str(kind)[:100]!r}: only created and deleted objects matter here")


def _from_s3(record: Mapping[str, Any]) -> Event:
    """Its keys are encoded as in forms."""
    name = str(record.get("eventName", "")).removeprefix("s3:")
    entry = _object(record, "s3")
    item = _object(entry, "object")
    key = unquote_plus(_text(item, "key"), errors="replace")
    place = (_text(_object(entry, "bucket"), "name"), _key(key), _sequencer(item))
    version = _version(item, "versionId")
    if name.startswith(_CREATED):
        return ObjectCreated(*place, version)
    if name.startswith(_REMOVED):
        return ObjectDeleted(*place, None if name.endswith(_MARKER) else version)
    raise InvalidInput(f"the S3 event is {name[:100]!r}: only created and removed objects matter here")


def _object(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = found.get(name)
    if not isinstance(value, dict):
        raise InvalidInput(f"the message has no object {name!r}")
    return value


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"the message has no {name!r}")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InvalidInput(f"the message's {name!r} holds a lone surrogate: it is not Unicode")
    return value


def _key(key: str) -> str:
    if len(key.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        raise InvalidInput(f"the key {key[:100]!r}... has more than {MAX_KEY_BYTES} bytes, which no object's has")
    return key


def _sequencer(item: Mapping[str, Any]) -> str | None:
    value = item.get("sequencer")
    if value is None:
        return None
    if not isinstance(value, str) or not _SEQUENCER.fullmatch(value):
        raise InvalidInput(f"the sequencer {str(value)[:100]!r} is no hexadecimal number")
    return value.upper()


def _version(item: Mapping[str, Any], name: str) -> str | None:
    value = item.get(name)
    return value if isinstance(value, str) and value not in ("", "null") else None
