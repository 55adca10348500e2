"""The issuer as a custom resource: CloudFormation asks for the documents that tokens are checked with.

Properties: `Bucket` (where the documents lie), `Address` (https, where they are seen), `KeyIds` (of KMS, separated by
commas: the first one signs), `KeepSeconds` (for which a key stays published after it signed; "0": whatever tokens are
refused by it). Attribute: `Url`, the address, once it shows the documents.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from llamabda import issuer, logs, publication, time_left, wiring_aws
from llamabda.custom_resource import Request
from llamabda.errors import ConfigurationError, InvalidInput, LlamabdaError
from llamabda.publication import Publication, Wanted
from llamabda.rotation import GATEWAY_SECONDS
from llamabda.settings import settings
from llamabda.types import Deadline

log = logging.getLogger("llamabda.issuer")

ANSWER_SECONDS = 15.0  # before the function's end, kept for telling CloudFormation
MAX_ADDRESS = 200  # characters: it is in every token
MAX_KEYS = 8


def handler(event: dict[str, Any], context: Any) -> None:
    """The Lambda entry."""
    handled(event, context)


def handled(
    event: dict[str, Any],
    context: Any,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Does what is asked for and answers, whatever happens. `clock`: epoch seconds.

    InvalidInput when nobody could be answered, DependencyFailed when nobody took the answer: then Lambda calls again,
    and all of this may be done twice.
    """
    request = Request.parse(event)

    def remaining(margin: float) -> float:
        milliseconds: int = context.get_remaining_time_in_millis()
        return max(0.0, milliseconds / 1000 - margin)

    left, to_answer = partial(remaining, ANSWER_SECONDS), partial(remaining, 1.0)

    try:
        _begin()
        log.info("%s of %s", request.kind[:20], request.logical)
        with time_left.within(Deadline.after(left())):
            content = _done(request, left, clock, sleep)
    except LlamabdaError as exc:
        log.error("%s of %s failed: %s", request.kind[:20], request.logical, exc.message)
        content = request.failed(exc.message)
    except Exception as exc:
        # the border of the process: without an answer CloudFormation would wait for an hour
        log.exception("%s of %s: unexpected failure", request.kind[:20], request.logical)
        content = request.failed(f"unexpected failure ({type(exc).__name__}): see the function's log")
    with time_left.within(Deadline.after(to_answer())):
        request.answer(content, left=to_answer, sleep=sleep)


@cache
def _begin() -> None:
    logs.configure(settings().log_format, debug=settings().debug)


def _done(
    request: Request, left: Callable[[], float], clock: Callable[[], float], sleep: Callable[[float], None]
) -> bytes:
    if request.kind == "Delete":
        _withdraw(request.properties)
        return request.done(request.resource or request.logical, {})
    if request.kind not in ("Create", "Update"):
        raise InvalidInput(f"the request is {request.kind[:100]!r}: only Create, Update and Delete are known")
    properties = request.properties
    address, bucket, keep = _address(properties), _bucket(properties), _keep(properties)
    publish = Publication(
        store=wiring_aws.documents(bucket),
        keys=wiring_aws.kms_keys(_key_ids(properties)),
        fetch=wiring_aws.public_content(),
        left=left,
        clock=clock,
        sleep=sleep,
    )
    # what follows something forced may be its rollback, which must not be refused
    forced = keep == 0 or request.former.get("KeepSeconds") == "0"
    publish(Wanted(address, keep, anew=request.kind == "Create", forced=forced))
    # The id is the place: with another address, too, the documents lie there. A new id would have them deleted with the
    # former one, or with this one when the deployment is rolled back.
    return request.done(f"issuer-{bucket}", {"Url": address})


def _withdraw(properties: Mapping[str, object]) -> None:
    try:
        address, bucket = _address(properties), _bucket(properties)
    except (
        ConfigurationError,
        InvalidInput,
    ) as exc:  # then nothing was ever published, and what failed to be made can go
        log.warning("there is nothing to take away: %s", exc.message)
        return
    if not publication.withdraw(wiring_aws.documents(bucket), address):
        log.info("the documents in %s are another issuer's and stay", bucket)


def _address(properties: Mapping[str, object]) -> str:
    found = _text(properties, "Address", "the public https address of the documents")
    if len(found) > MAX_ADDRESS:
        raise InvalidInput(f"Address has {len(found)} characters: {MAX_ADDRESS} at most, since every token holds it")
    issuer.check(found, setting="Address")
    return found


def _bucket(properties: Mapping[str, object]) -> str:
    found = _text(properties, "Bucket", "the name of the bucket that the documents are seen from")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", found):
        raise InvalidInput(f"Bucket is {found[:100]!r}: that is no bucket's name")
    return found


def _key_ids(properties: Mapping[str, object]) -> tuple[str, ...]:
    what = "the ids of KMS keys, separated by commas: the first one signs"
    found = tuple(part.strip() for part in _text(properties, "KeyIds", what).split(",") if part.strip())
    if not 0 < len(found) <= MAX_KEYS:
        raise InvalidInput(f"KeyIds names {len(found)} keys: name 1 to {MAX_KEYS}")
    return found


def _keep(properties: Mapping[str, object]) -> int:
    found = properties.get("KeepSeconds", "")
    if found == "":
        return settings().access_token_expire_minutes * 60 + GATEWAY_SECONDS
    if not isinstance(found, str) or not re.fullmatch(r"[0-9]{1,7}", found):
        raise InvalidInput(f"KeepSeconds is {str(found)[:100]!r}: give whole seconds, 0 to 9999999")
    return int(found)


def _text(properties: Mapping[str, object], name: str, what: str) -> str:
    found = properties.get(name)
    if not isinstance(found, str) or not found.strip():
        raise InvalidInput(f"the property {name} is missing: {what}")
    return found.strip()
