"""Custom resources of CloudFormation: a request that an event tells of, and its answer.

The answer goes to a presigned address: whoever knows it may answer in our place, so it is in no message and no log.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from llamabda.endpoint import PORTS, Endpoint
from llamabda.errors import DependencyFailed, InvalidInput
from llamabda.exchange import Unanswered, exchange

log = logging.getLogger("llamabda.cloudformation")

MAX_BYTES = 4_096  # of an answer
MAX_REASON = 1_000  # characters
TRIES = 5
FIRST_PAUSE = 0.5  # seconds; doubled each time
_REPLY_BYTES = 1_000  # that are read of what S3 says to an answer


@dataclass(frozen=True, slots=True)
class Request:
    """`kind`: Create, Update or Delete. `resource`: the id that an earlier answer gave, or "".

    `properties`, `former`: of the resource, as it is to be and as it was before an update.
    """

    kind: str
    address: Endpoint = field(repr=False)
    stack: str
    id: str
    logical: str
    resource: str
    properties: Mapping[str, object]
    former: Mapping[str, object]

    @classmethod
    def parse(cls, event: object) -> Request:
        """InvalidInput, which names what is missing and repeats nothing, when nobody could be answered."""
        if not isinstance(event, dict):
            raise InvalidInput("the event is not a request of CloudFormation's: it is no object")
        given = {name: event.get(name) for name in ("ResponseURL", "StackId", "RequestId", "LogicalResourceId")}
        missing = [name for name, value in given.items() if not isinstance(value, str) or not value]
        if missing:
            raise InvalidInput(f"the event is not a request of CloudFormation's: it has no {', '.join(missing)}")
        return cls(
            kind=str(event.get("RequestType") or ""),
            address=_address(event["ResponseURL"]),
            stack=event["StackId"],
            id=event["RequestId"],
            logical=event["LogicalResourceId"],
            resource=str(event.get("PhysicalResourceId") or ""),
            properties=_object(event, "ResourceProperties"),
            former=_object(event, "OldResourceProperties"),
        )

    def done(self, resource: str, attributes: Mapping[str, str]) -> bytes:
        """The answer that it went well. Another `resource` than before: the former one is to be deleted."""
        return self._answer("SUCCESS", resource, Data=dict(attributes))

    def failed(self, reason: str) -> bytes:
        """The answer that it did not."""
        # an id must be there; that of an update stays, or CloudFormation would delete what is still in use
        resource = self.resource or f"{self.logical}-{self.id}"
        for most in range(min(len(reason), MAX_REASON), 0, -50):
            answer = self._answer("FAILED", resource, Reason=reason[:most])
            if len(answer) <= MAX_BYTES:
                return answer
        return self._answer("FAILED", resource, Reason="it failed: see the log")

    def _answer(self, status: str, resource: str, **more: object) -> bytes:
        said = {
            "Status": status,
            "PhysicalResourceId": resource,
            "StackId": self.stack,
            "RequestId": self.id,
            "LogicalResourceId": self.logical,
            **more,
        }
        return json.dumps(said).encode("ascii")

    def answer(self, content: bytes, *, left: Callable[[], float], sleep: Callable[[float], None] = time.sleep) -> None:
        """Sends what `done` or `failed` made. `left`: seconds for it. DependencyFailed when nobody took it."""
        # without a type: the address was signed without one
        send = exchange(self.address, most=_REPLY_BYTES, method="PUT", body=content, headers={"Content-Type": ""})
        pause = FIRST_PAUSE
        for tries in range(1, TRIES + 1):
            try:
                status = send().status
            except Unanswered as exc:
                amiss = exc.reason
            else:
                if 200 <= status < 300:
                    return
                amiss = f"its status is {status}"
            if tries == TRIES or left() <= pause:
                break
            sleep(pause)
            pause *= 2
        raise DependencyFailed(f"CloudFormation did not take the answer: {amiss}", dependency="cloudformation")


def _address(url: str) -> Endpoint:
    """As it was sent, with what follows its path."""
    wrong = InvalidInput("the event is not a request of CloudFormation's: its ResponseURL is no https address")
    if not url.isascii() or any(c <= " " or c == "\x7f" for c in url):
        raise wrong
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme != "https" or not host or "@" in parts.netloc or port == 0:
        raise wrong
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint("https", host, port or PORTS["https"], target)


def _object(event: dict[str, Any], name: str) -> Mapping[str, object]:
    found = event.get(name)
    return found if isinstance(found, dict) else {}
