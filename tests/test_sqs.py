"""Work and letters in SQS, over moto's server."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from llamabda import events
from llamabda.adapters.sqs import MAX_DELAY, REASON, SqsQueue
from llamabda.errors import DependencyFailed
from llamabda.types import GenerationKey


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Queues:
    client: object
    url: str
    dead_url: str
    clock: Clock
    queue: SqsQueue

    def waiting(self, *, delayed: bool = False) -> int:
        name = "ApproximateNumberOfMessages" + ("Delayed" if delayed else "")
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=[name])
        return int(found["Attributes"][name])

    def taken(self, url: str | None = None) -> list[dict]:
        found = []
        while True:
            reply = self.client.receive_message(
                QueueUrl=url or self.url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
            )
            if not reply.get("Messages"):
                return found
            found += reply["Messages"]


@pytest.fixture
def queues(aws) -> Queues:
    client, clock = aws.client("sqs"), Clock()
    url, dead = (client.create_queue(QueueName=name)["QueueUrl"] for name in ("work", "failed"))
    return Queues(client, url, dead, clock, SqsQueue(client, url, dead, clock=clock))


def key(name: str) -> GenerationKey:
    return GenerationKey("t", name, 1)


def test_what_is_put_comes_as_work(queues):
    keys = [key(f"{n} é") for n in range(23)]
    queues.queue.put(keys)
    bodies = [message["Body"] for message in queues.taken()]
    assert sorted(bodies) == sorted(events.work(one) for one in keys)
    assert {events.parse(body)[0].event.key for body in bodies} == set(keys)


def test_a_message_that_comes_no_later_is_enough(queues):
    queues.queue.put([key("a")], delay=30)
    queues.clock.now += 1
    queues.queue.put([key("a")], delay=30)
    assert queues.waiting(delayed=True) == 1
    queues.queue.put([key("a")])
    assert (queues.waiting(), queues.waiting(delayed=True)) == (1, 1)


def test_what_came_meanwhile_is_sent_anew(queues):
    queues.queue.put([key("a")], delay=30)
    queues.clock.now += 31
    queues.queue.put([key("a")], delay=30)
    assert queues.waiting(delayed=True) == 2


def test_what_was_withdrawn_can_be_put_again(queues):
    queues.queue.put([key("a")], delay=30)
    queues.queue.withdraw([key("a"), key("unknown")])
    queues.queue.put([key("a")], delay=30)
    assert queues.waiting(delayed=True) == 2


def test_no_delay_is_longer_than_sqs_allows(queues):
    queues.queue.put([key("a")], delay=10 * MAX_DELAY)
    queues.queue.send(events.sweep(), delay=10 * MAX_DELAY)
    assert queues.waiting(delayed=True) == 2


def test_a_buried_letter_keeps_its_body_and_carries_the_reason(queues):
    queues.queue.bury("{}", "it is\x00 broken: \ud800" + "x" * 5000)
    (message,) = queues.taken(queues.dead_url)
    reason = message["MessageAttributes"][REASON]["StringValue"]
    assert message["Body"] == "{}"
    assert reason.startswith("it is  broken:  xxx")
    assert len(reason) == 1000


@pytest.mark.parametrize("call", ["put", "send", "bury"])
def test_a_queue_that_is_not_there_is_named(queues, call):
    missing = queues.url.replace("work", "gone")
    queue = SqsQueue(queues.client, missing, missing)
    act = {
        "put": lambda: queue.put([key("a")]),
        "send": lambda: queue.send("{}", delay=0),
        "bury": lambda: queue.bury("{}", "why"),
    }
    with pytest.raises(DependencyFailed, match="_URL") as caught:
        act[call]()
    assert caught.value.dependency == "queue"


def test_messages_that_sqs_did_not_take_are_sent_again_and_then_told(queues):
    class Refusing:
        """Refuses the second message of a batch as often as it is told to: SQS does so now and then, moto never."""

        def __init__(self, times: int) -> None:
            self.left = times

        def send_message_batch(self, QueueUrl, Entries):  # noqa: N803  (as boto3 names them)
            if self.left:
                self.left -= 1
                refused = Entries[-1]
                if Entries[:-1]:
                    queues.client.send_message_batch(QueueUrl=QueueUrl, Entries=Entries[:-1])
                return {"Failed": [{"Id": refused["Id"], "Code": "InternalError", "SenderFault": False}]}
            return queues.client.send_message_batch(QueueUrl=QueueUrl, Entries=Entries)

    SqsQueue(Refusing(1), queues.url).put([key("a"), key("b")])
    assert sorted(json.loads(message["Body"])["id"] for message in queues.taken()) == ["a", "b"]
    with pytest.raises(DependencyFailed, match="did not take 1 messages: InternalError"):
        SqsQueue(Refusing(2), queues.url).put([key("c"), key("d")])
