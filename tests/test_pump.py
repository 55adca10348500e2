"""The pump does what Lambda's event source mapping does: moto's queues, and a function that is played over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from scripts.local import account, template
from scripts.local import pump as pumping
from scripts.local.pump import CONSTANT, Pump
from scripts.local.stack import function_of


class Function:
    """Answers invocations with what `reply` makes of the event, bytes as they are; keeps what it was given."""

    def __init__(self) -> None:
        self.events: list[dict] = []
        self.reply: Callable[[dict], object] = lambda event: {"batchItemFailures": []}
        self.error = False
        self.hangs_up = False
        self.status = 200

    def bodies(self) -> list[str]:
        return [record["body"] for event in self.events for record in event["Records"]]


@pytest.fixture
def function() -> Iterator[Function]:
    played = Function()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            played.events.append(event)
            if played.hangs_up:
                return
            reply = played.reply(event)
            body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(played.status)
            if played.error:
                self.send_header("X-Amz-Function-Error", "Unhandled")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    played.address = f"http://127.0.0.1:{server.server_port}"
    yield played
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def queue(aws):
    client = aws.client("sqs")
    return client, client.create_queue(QueueName="work")["QueueUrl"]


@pytest.fixture
def pump(queue, function) -> Pump:
    return Pump(*queue, account.client("lambda", function.address), "IngestFunction", say=lambda line: None)


def send(queue, *bodies: str) -> None:
    client, url = queue
    for body in bodies:
        client.send_message(QueueUrl=url, MessageBody=body)


def hidden_and_waiting(queue) -> tuple[int, int]:
    client, url = queue
    names = ["ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessages"]
    found = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return int(found[names[0]]), int(found[names[1]])


def test_what_is_done_is_gone(queue, pump, function):
    send(queue, "one", "two")
    while pump.once():
        pass
    assert sorted(function.bodies()) == ["one", "two"]
    assert hidden_and_waiting(queue) == (0, 0)
    record = function.events[0]["Records"][0]
    assert record["eventSource"] == "aws:sqs"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"


def test_what_the_function_names_as_failed_comes_again(queue, pump, function):
    function.reply = lambda event: {
        "batchItemFailures": [{"itemIdentifier": one["messageId"]} for one in event["Records"] if one["body"] == "bad"]
    }
    send(queue, "good", "bad")
    while pump.once():
        pass
    assert hidden_and_waiting(queue) == (1, 0)


@pytest.mark.parametrize("reply", [None, {}, {"batchItemFailures": None}, {"batchItemFailures": []}])
def test_a_reply_without_failures_says_that_all_went_well(queue, pump, function, reply):
    function.reply = lambda event: reply
    send(queue, "one", "two")
    while pump.once():
        pass
    assert hidden_and_waiting(queue) == (0, 0)


def named(*entries: object) -> Callable[[dict], object]:
    """A reply that names a message of the batch, and then these."""
    return lambda event: {"batchItemFailures": [{"itemIdentifier": event["Records"][0]["messageId"]}, *entries]}


@pytest.mark.parametrize(
    "reply",
    [
        lambda event: b"",
        lambda event: b"{",
        lambda event: b"\xff",
        lambda event: [],
        lambda event: "done",
        lambda event: {"batchItemFailures": "none"},
        lambda event: {"batchItemFailures": {}},
        named("m"),
        named(None),
        named({}),
        named({"messageId": "m"}),
        named({"itemIdentifier": None}),
        named({"itemIdentifier": ""}),
        named({"itemIdentifier": 3}),
        named({"itemIdentifier": []}),
        named({"itemIdentifier": "of another batch"}),
    ],
)
def test_after_a_reply_that_cannot_be_trusted_all_come_again(queue, pump, function, reply):
    function.reply = reply
    send(queue, "one", "two")
    while pump.once():
        pass
    assert hidden_and_waiting(queue) == (2, 0)


@pytest.mark.parametrize(
    "reply", [{"errorMessage": "no memory left"}, {"batchItemFailures": []}, None, b"out of memory"]
)
def test_when_the_function_fails_all_come_again(queue, pump, function, reply):
    function.reply = lambda event: reply
    function.error = True
    send(queue, "one", "two")
    while pump.once():
        pass
    assert hidden_and_waiting(queue) == (2, 0)


def test_a_bad_reply_does_not_end_the_thread(queue, pump, function):
    client, url = queue
    client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "0"})
    replies: list[object] = [b"{", {"batchItemFailures": [3]}, {"batchItemFailures": [{"itemIdentifier": []}]}]
    arrived = threading.Event()

    def reply(event: dict) -> object:
        if replies:
            return replies.pop()
        arrived.set()
        return None

    function.reply = reply
    send(queue, "one")
    pump.start()
    assert arrived.wait(60)
    assert pump.running()
    pump.stop()
    assert not pump.running()
    assert hidden_and_waiting(queue) == (0, 0)


def test_a_function_is_called_once_when_its_connection_breaks(queue, pump, function):
    function.hangs_up = True
    send(queue, "one")
    with pytest.raises(BotoCoreError):
        pump.once()
    assert function.bodies() == ["one"]
    assert hidden_and_waiting(queue) == (1, 0)


def test_what_could_not_be_begun_comes_again_at_once(queue, pump, function):
    function.status = 500
    send(queue, "one", "two")
    with pytest.raises(ClientError):
        pump.once()
    assert hidden_and_waiting(queue) == (0, 2)
    function.status = 200
    while pump.once():
        pass
    assert sorted(set(function.bodies())) == ["one", "two"]
    assert hidden_and_waiting(queue) == (0, 0)


def test_a_function_is_waited_for_as_long_as_it_may_run():
    config = account.client("lambda", "http://127.0.0.1:1").meta.config
    assert config.read_timeout > template.read()["Parameters"]["IngestTimeout"]["MaxValue"]
    assert config.retries["total_max_attempts"] == 1


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_a_function_is_called_without_a_proxy(queue, pump, function, monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    reply = account.client("lambda", function.address).invoke(FunctionName="AskFunction", Payload="{}")
    assert reply["StatusCode"] == 200


def test_sequencers_grow_though_the_clock_does_not(queue, pump, function, monkeypatch):
    monkeypatch.setattr(pumping.time, "time_ns", lambda: 7)
    send(queue, *[CONSTANT] * 3)
    while pump.once():
        pass
    assert sorted(function.bodies()) == [f"{number:016X}" for number in (7, 8, 9)]


def test_motos_constant_sequencer_grows_and_is_the_same_for_a_message_that_comes_again(queue, pump, function):
    client, url = queue
    client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "0"})
    function.reply = lambda event: {"batchItemFailures": [{"itemIdentifier": r["messageId"]} for r in event["Records"]]}
    body = json.dumps({"key": "a", "sequencer": CONSTANT})
    send(queue, body)
    pump.once()
    pump.once()
    first, again = (json.loads(one) for one in function.bodies())
    assert first == again
    assert first["key"] == "a"
    assert first["sequencer"] != CONSTANT
    function.events.clear()
    function.reply = lambda event: {"batchItemFailures": []}
    pump.once()
    function.events.clear()
    send(queue, body, "untouched")
    while pump.once():
        pass
    later = next(json.loads(one) for one in function.bodies() if one != "untouched")
    assert later["sequencer"] > first["sequencer"]
    assert len(later["sequencer"]) == len(first["sequencer"])
    assert "untouched" in function.bodies()


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ({"Records": []}, "IngestFunction"),
        ({"rawPath": "/documents/a"}, "IngestFunction"),
        ({"rawPath": "/health"}, "AuthFunction"),
        ({"rawPath": "/health/ready"}, "AskFunction"),
        ({"rawPath": "/search"}, "AskFunction"),
    ],
)
def test_an_event_goes_to_its_function(event, name):
    assert function_of(event) == name
