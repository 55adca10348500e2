"""Work and letters in SQS."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llamabda import events
from llamabda.aws_failures import translated
from llamabda.errors import DependencyFailed
from llamabda.types import GenerationKey

MAX_DELAY = 900.0  # seconds that a message can be held back
BATCH = 10  # messages of one request
REASON = "reason"  # the attribute of a buried message
MAX_REASON = 1_000  # characters
REMEMBERED = 10_000  # keys whose message is known to be on its way
_ADVICE = {
    "AWS.SimpleQueueService.NonExistentQueue": "it is not there: check QUEUE_URL and DEAD_LETTER_URL",
    "QueueDoesNotExist": "it is not there: check QUEUE_URL and DEAD_LETTER_URL",
}


class SqsQueue:
    """The ports Queue and Letters. `client`: boto3's for SQS; `url`, `dead_url`: of the queue and of what failed.

    A message that was sent cannot be changed. A key that is put again comes at both times, unless the earlier message
    is the earlier of the two: then it is enough. `clock`: seconds that never go back.
    """

    def __init__(
        self, client: Any, url: str, dead_url: str = "", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._url = url
        self._dead_url = dead_url
        self._clock = clock
        self._lock = threading.Lock()
        self._due: OrderedDict[GenerationKey, float] = OrderedDict()

    def put(self, keys: Iterable[GenerationKey], *, delay: float = 0.0) -> None:
        delay = min(delay, MAX_DELAY)
        due = self._clock() + delay
        wanted = [key for key in keys if not self._comes_before(key, due)]
        for first in range(0, len(wanted), BATCH):
            batch = wanted[first : first + BATCH]
            self._send([events.work(key) for key in batch], delay)
            with self._lock:
                for key in batch:
                    self._due[key] = due
                    self._due.move_to_end(key)
                while len(self._due) > REMEMBERED:
                    self._due.popitem(last=False)

    def withdraw(self, keys: Iterable[GenerationKey]) -> None:
        """What was sent comes anyway."""
        with self._lock:
            for key in keys:
                self._due.pop(key, None)

    def send(self, body: str, *, delay: float) -> None:
        self._send([body], min(delay, MAX_DELAY))

    def bury(self, body: str, why: str) -> None:
        with translated("the queue of what failed", dependency="queue", advice=_ADVICE):
            self._client.send_message(
                QueueUrl=self._dead_url,
                MessageBody=body,
                MessageAttributes={
                    REASON: {"DataType": "String", "StringValue": _plain(why)[:MAX_REASON] or "unknown"}
                },
            )

    def _comes_before(self, key: GenerationKey, due: float) -> bool:
        with self._lock:
            return self._clock() < self._due.get(key, -math.inf) <= due

    def _send(self, bodies: Sequence[str], delay: float) -> None:
        """All of them. What SQS did not take is sent again once."""
        entries = [
            {"Id": str(at), "MessageBody": body, "DelaySeconds": math.ceil(delay)} for at, body in enumerate(bodies)
        ]
        for _ in range(2):
            with translated("the queue", dependency="queue", advice=_ADVICE):
                reply = self._client.send_message_batch(QueueUrl=self._url, Entries=entries)
            refused = {one["Id"]: one.get("Code", "unknown") for one in reply.get("Failed", ())}
            if not refused:
                return
            entries = [entry for entry in entries if entry["Id"] in refused]
        reasons = ", ".join(sorted(set(refused.values())))
        raise DependencyFailed(f"the queue did not take {len(refused)} messages: {reasons}", dependency="queue")


def _plain(text: str) -> str:
    """Without the characters that SQS refuses."""
    return "".join(c if c in "\t\n\r" or "\x20" <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" else " " for c in text)
