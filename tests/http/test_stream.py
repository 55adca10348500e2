"""Answers as server-sent events."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from llamabda import http_events, wiring
from llamabda.admission import Admission
from llamabda.errors import DependencyFailed, ModelError
from llamabda.http_events import EventStream, while_connected
from tests.ask_fakes import ScriptedGenerator
from tests.http.conftest import HARBOUR
from tests.http.problem import checked

QUESTION = {"question": "When does the harbour office open?", "top_k": 3}


def events(text: str) -> list[tuple[str, dict]]:
    """As the HTML standard reads them."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            fields = dict(line.split(": ", 1) for line in lines)
            found.append((fields["event"], json.loads(fields["data"])))
    return found


@pytest.fixture
def ask(client, alice, harbour):
    def post(**extra):
        return client.post("/ask/question", json={**QUESTION, **extra}, headers=alice.headers)

    return post


@pytest.fixture
def generator(monkeypatch):
    scripted = ScriptedGenerator(HARBOUR + " [1]")
    monkeypatch.setattr(wiring, "generator", lambda: scripted)
    return scripted


def comparable(reply: dict) -> dict:
    return {key: value for key, value in reply.items() if key != "timings"}


@pytest.mark.parametrize("mode", ["auto", "extractive", "generated"])
def test_the_final_answer_is_the_unstreamed_reply_and_the_deltas_are_its_text(ask, generator, mode):
    whole = ask(mode=mode).json()
    streamed = ask(mode=mode, stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    found = events(streamed.text)
    names = [name for name, _ in found]
    assert names[0] == "search_results"
    assert names[-1] == "final_answer"
    assert names.count("final_answer") == 1
    assert comparable(found[-1][1]) == comparable(whole)
    assert "".join(data["delta"] for name, data in found if name == "message") == whole["answer"]
    assert [data for name, data in found if name == "citation"] == whole["citations"]
    assert [hit["n"] for hit in found[0][1]["hits"]] == list(range(1, len(found[0][1]["hits"]) + 1))
    assert ("extract" in names) == (mode != "extractive")
    numbered = {hit["n"]: hit for hit in found[0][1]["hits"]}
    assert all(numbered[cited["n"]] == cited for cited in whole["citations"])


def test_a_refusal_is_streamed_too(ask, generator):
    found = events(ask(question="Who painted the ceiling of the chapel?", stream=True).text)
    assert [name for name, _ in found] == ["search_results", "message", "final_answer"]
    assert found[-1][1]["answered"] is False
    assert found[1][1]["delta"] == found[-1][1]["answer"]


def test_what_fails_before_the_first_event_has_a_status(ask, monkeypatch):
    def broken():
        raise DependencyFailed("the index is away", dependency="index")

    monkeypatch.setattr(wiring, "search", lambda: (_ for _ in ()).throw(DependencyFailed("x", dependency="index")))
    monkeypatch.setattr(wiring, "ask", broken)
    checked(ask(stream=True), 503)


def test_what_fails_later_is_one_error_event(ask, generator):
    generator.fails = ModelError("broken")
    generator.text = "Something."
    found = events(ask(mode="generated", stream=True).text)
    assert [name for name, _ in found][-1] == "error"
    assert [name for name, _ in found].count("error") == 1
    assert "final_answer" not in dict(found)
    assert found[-1][1]["status"] == 503
    assert found[-1][1]["code"] == "model"
    assert "broken" not in json.dumps(found[-1][1])


def test_a_defect_is_an_error_event_without_details(ask, generator):
    generator.fails = ZeroDivisionError("inside")
    found = events(ask(mode="generated", stream=True).text)
    assert (found[-1][0], found[-1][1]["status"]) == ("error", 500)
    assert "inside" not in json.dumps(found)


@pytest.mark.parametrize("stream", [True, False])
def test_beyond_the_queue_it_is_a_503_at_once(ask, generator, monkeypatch, stream):
    full = Admission(0)
    monkeypatch.setattr(wiring, "admission", lambda: full)
    monkeypatch.setattr(wiring, "ask", type(wiring.ask)(wiring.ask._make))
    with full.place():
        reply = ask(stream=stream)
        assert int(reply.headers["retry-after"]) >= 1
        assert checked(reply, 503)["code"] == "busy"
        assert ask(mode="extractive").status_code == 200
    assert ask(stream=stream).status_code == 200


def test_a_comment_is_sent_while_nothing_else_is(monkeypatch):
    monkeypatch.setattr(http_events, "PING_SECONDS", 0.01)
    go_on = threading.Event()

    def slow():
        yield "message", {"delta": "a"}
        go_on.wait(10)
        yield "final_answer", {}

    sent = []

    async def send(message):
        sent.append(message.get("body", b""))
        if sent.count(http_events.PING) == 3:
            go_on.set()

    async def receive():
        await asyncio.Event().wait()

    asyncio.run(EventStream(slow(), leave=lambda: None, request_id="r")({"type": "http"}, receive, send))
    assert sent.count(http_events.PING) >= 3
    assert [name for name, _ in events(b"".join(sent).decode())] == ["message", "final_answer"]


def test_when_the_client_leaves_the_work_is_told_to_end():
    left = threading.Event()

    def endless():
        yield "message", {"delta": "a"}
        while not left.wait(0.01):
            pass
        yield "final_answer", {}

    async def run():
        sent = asyncio.Event()

        async def send(message):
            if message.get("body"):
                sent.set()

        async def receive():
            await sent.wait()
            return {"type": "http.disconnect"}

        await EventStream(endless(), leave=left.set, request_id="r")({"type": "http"}, receive, send)

    asyncio.run(asyncio.wait_for(run(), 20))
    assert left.is_set()


def test_unstreamed_work_is_told_too():
    left = threading.Event()

    async def run():
        async def receive():
            return {"type": "http.disconnect"}

        return await while_connected(receive, lambda: left.wait(20), left.set)

    assert asyncio.run(run()) is True


def test_server_timing_adds_up(ask, generator):
    began = time.perf_counter()
    reply = ask()
    spent = 1000 * (time.perf_counter() - began)
    parts = {
        name: float(ms) for name, ms in (part.split(";dur=") for part in reply.headers["server-timing"].split(", "))
    }
    total = parts.pop("total")
    assert {"auth", "read", "embed", "search", "extract", "prefill", "decode"} <= set(parts)
    assert sum(parts.values()) == pytest.approx(total, rel=0.05)
    assert total <= spent
