"""Brings messages from the queue to the ingest function, as Lambda's event source mapping does.

It takes a batch, invokes the function, deletes what the function does not name as failed, and leaves the rest to come
again when its time is over. moto gives every object event the same sequencer, where S3's grow: that constant, and
nothing else, is replaced by a growing number, one for each message.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

BATCH = 10
CONSTANT = "617f08299329d189"
WAIT_SECONDS = 1


class BatchFailed(Exception):
    """Nothing of a batch counts as done; the message says why."""


class Pump:
    """One thread, until it is told to stop. `say` gets a line for each batch and each failure."""

    def __init__(self, queues: Any, url: str, functions: Any, function: str, say: Any = print) -> None:
        self._queues = queues
        self._url = url
        self._functions = functions
        self._function = function
        self._say = say
        self._sequencers: dict[str, str] = {}
        self._latest = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pump", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if not self.once():
                    self._stop.wait(WAIT_SECONDS)
            except (BotoCoreError, ClientError) as exc:
                self._say(f"pump: {exc}")
                self._stop.wait(WAIT_SECONDS)

    def once(self) -> int:
        """One batch; how many messages it had."""
        reply = self._queues.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=BATCH, AttributeNames=["All"], MessageAttributeNames=["All"]
        )
        messages = reply.get("Messages", [])
        if not messages:
            return 0
        began = time.monotonic()
        given = json.dumps({"Records": [self._record(one) for one in messages]})
        try:
            invoked = self._functions.invoke(FunctionName=self._function, Payload=given)
        except ClientError:
            # it was not begun, such as when its container does not start: nobody works on them
            for one in messages:
                self._queues.change_message_visibility(
                    QueueUrl=self._url, ReceiptHandle=one["ReceiptHandle"], VisibilityTimeout=0
                )
            raise
        payload = invoked["Payload"].read()
        try:
            if invoked.get("FunctionError"):
                raise BatchFailed(shown(payload))
            failed = failures(payload, {one["MessageId"] for one in messages})
        except BatchFailed as exc:
            self._say(f"pump: the function failed at {len(messages)} messages, which come again: {exc}")
            return len(messages)
        done = [one for one in messages if one["MessageId"] not in failed]
        for one in done:
            self._queues.delete_message(QueueUrl=self._url, ReceiptHandle=one["ReceiptHandle"])
        self._say(f"pump: {len(done)} of {len(messages)} messages done in {time.monotonic() - began:.1f} s")
        return len(messages)

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"].replace(CONSTANT, self._sequencer(message["MessageId"])),
            "attributes": message.get("Attributes", {}),
            "messageAttributes": {},
            "md5OfBody": message.get("MD5OfBody", ""),
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:llamabda-local-work",
            "awsRegion": "eu-west-1",
        }

    def _sequencer(self, message: str) -> str:
        """The same for a message that comes again, another one for every other, even if the clock is set back."""
        if message not in self._sequencers:
            self._latest = max(self._latest + 1, time.time_ns())
            self._sequencers[message] = f"{self._latest:016X}"
        return self._sequencers[message]


def failures(payload: bytes, batch: Collection[str]) -> set[str]:
    """Which messages of a batch a function's reply says have failed, by the rules of ReportBatchItemFailures.

    No reply, an empty one, and no list or an empty one in it say that all went well. BatchFailed when the reply cannot
    be read, or names a message that is not in the batch: then nothing of it can be trusted.
    """
    try:
        reply = json.loads(payload)
    except ValueError:
        raise BatchFailed(f"its reply is no JSON: {shown(payload)}") from None
    if reply is None:
        return set()
    if not isinstance(reply, dict):
        raise BatchFailed(f"its reply is no object: {shown(payload)}")
    entries = reply.get("batchItemFailures")
    if entries is None:
        return set()
    if not isinstance(entries, list):
        raise BatchFailed(f"batchItemFailures is no list: {shown(payload)}")
    failed = set()
    for entry in entries:
        name = entry.get("itemIdentifier") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in batch:
            raise BatchFailed(f"batchItemFailures names {name!r}, which is no message of the batch: {shown(payload)}")
        failed.add(name)
    return failed


def shown(payload: bytes) -> str:
    """Enough of it to see what it is."""
    return payload[:500].decode("utf-8", "replace")
