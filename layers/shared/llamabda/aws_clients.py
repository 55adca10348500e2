"""Clients of AWS whose every call ends by the deadline of what is under way. Part of the composition root."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llamabda import time_left
from llamabda.time_left import TimeIsUp


class BoundedClient:
    """A boto3 client. What is not there by the deadline is ReadTimeoutError, as botocore says it.

    botocore's own time-outs are fixed when a client is made, count anew for each part of a reply and for each attempt.
    They end what was left behind; and no attempt begins after the deadline, so that nothing is written long after
    somebody was told that it failed.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        client.meta.events.register("before-send", _in_time)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return _bounded(found, self._client.meta.endpoint_url) if callable(found) else found


def _bounded(operation: Callable[..., Any], endpoint: str) -> Callable[..., Any]:
    from botocore.exceptions import ReadTimeoutError

    def call(*args: Any, **parameters: Any) -> Any:
        try:
            return time_left.bounded(lambda: operation(*args, **parameters))
        except TimeIsUp as exc:
            raise ReadTimeoutError(endpoint_url=endpoint, error=exc) from None

    return call


def _in_time(**_: Any) -> None:
    deadline = time_left.current()
    if deadline is not None and deadline.passed():
        raise TimeIsUp("there was no time left for another attempt")
