"""Questions while the language model's server does what servers do: there is an answer, in time, and never a 500."""

from __future__ import annotations

import json
import logging
import socket
import time

import pytest

from llamabda import ask as use_case
from llamabda import wiring
from llamabda.adapters.openai import rest as known_rest
from llamabda.adapters.openai import server as known_server
from llamabda.settings import settings
from tests.http.conftest import HARBOUR
from tests.http.problem import checked
from tests.http.test_stream import events
from tests.playing_server import DONE, PlayingServer, Visit, delta, event, writes
from tests.pulse import Pulse

KEY = "sk-never-to-be-seen-0123456789"
QUESTION = {"question": "When does the harbour office open?", "top_k": 3}
DEADLINE = 2.0  # seconds
STEADY_SECONDS = 0.5  # a machine that stands still for longer may leave no time for an answer
ATTEMPTS = 3


def status(code: int, more: str = ""):
    def play(visit: Visit) -> None:
        # some servers repeat the key that they refuse
        visit.json({"error": {"message": f"no: {KEY}", "type": "x", "code": code}}, code, more)

    return play


def silent(visit: Visit) -> None:
    visit.over.wait()


def dribbled_head(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    visit.again(b"x", 0.02)


def endless_head(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\n")
    visit.again(b"X-More: yes\r\n")


def endless_continue(visit: Visit) -> None:
    visit.again(b"HTTP/1.1 100 Continue\r\n\r\n")


def not_http(visit: Visit) -> None:
    visit.send(f"SSH-2.0-{KEY}\r\n".encode())


def hangs_up(visit: Visit) -> None:
    visit.connection.close()


def resets(visit: Visit) -> None:
    visit.reset()


def html(visit: Visit) -> None:
    visit.reply(200, b"<html><body>Welcome</body></html>", "text/html")


def html_as_json(visit: Visit) -> None:
    visit.reply(200, b"<html><body>Welcome</body></html>")


def truncated_json(visit: Visit) -> None:
    visit.send(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"choices": [{')


def nested_json(visit: Visit) -> None:
    visit.reply(200, b"[" * 200_000)


def another_shape(visit: Visit) -> None:
    visit.json({"choices": [{"message": {"content": [1, 2]}}], "data": [7]})


def huge_numbers(visit: Visit) -> None:
    visit.reply(200, b'{"choices": [{"message": {"content": ""}}], "usage": {"prompt_tokens": 1' + b"0" * 5000 + b"}}")


def bad_chunks(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n")


def cut_stream(visit: Visit) -> None:
    visit.stream()
    visit.send(event(delta("The tide ")))


def cut_chunk(visit: Visit) -> None:
    visit.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\ndata: {"
    )


def reset_stream(visit: Visit) -> None:
    cut_stream(visit)
    visit.reset()


def dribbled_stream(visit: Visit) -> None:
    visit.stream()
    for byte in event(delta("The tide is high. ")) * 1000:
        if visit.over.wait(0.02):
            return
        visit.send(bytes([byte]))


def endless_line(visit: Visit) -> None:
    visit.stream()
    visit.send(b"data: ")
    visit.again(b"x" * 65_536)


def endless_answer(visit: Visit) -> None:
    visit.stream()
    visit.again(event(delta("tide ")))


def endless_comments(visit: Visit) -> None:
    visit.stream()
    visit.again(b": ping\n\n", 0.001)


def one_huge_piece(visit: Visit) -> None:
    visit.stream()
    visit.send(event(delta("tide " * 100_000)) + DONE)


def wrong_type(visit: Visit) -> None:
    visit.reply(200, event(delta("The tide.", "stop")) + DONE, "text/plain")


def error_in_the_stream(visit: Visit) -> None:
    visit.stream()
    visit.send(event(delta("The tide ")) + event({"error": {"message": f"out of memory {KEY}", "code": 500}}))


def not_json_in_the_stream(visit: Visit) -> None:
    visit.stream()
    visit.send(b"data: oops\n\n")


def redirect(visit: Visit) -> None:
    if visit.path.startswith("/elsewhere"):
        raise AssertionError("it must not be followed")
    visit.reply(307, b"", more="Location: /elsewhere/v1/chat/completions\r\n")


def goes_on_after_the_end(visit: Visit) -> None:
    visit.stream()
    visit.send(event(delta("The tide is high.", "stop")) + DONE)
    visit.again(event(delta("more ")), 0.001)


def never_says_done(visit: Visit) -> None:
    visit.stream()
    visit.send(event(delta("The tide is high.", "stop")))
    visit.over.wait()


PARTS = {
    **{f"status {code}": status(code) for code in (400, 401, 403, 404, 418, 500, 502, 503, 504)},
    "status 429": status(429, "Retry-After: 7\r\n"),
    "status 429 with a date": status(429, "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n"),
    **{
        part.__name__: part
        for part in (
            silent,
            dribbled_head,
            endless_head,
            endless_continue,
            not_http,
            hangs_up,
            resets,
            html,
            html_as_json,
            truncated_json,
            nested_json,
            another_shape,
            huge_numbers,
            bad_chunks,
            cut_stream,
            cut_chunk,
            reset_stream,
            dribbled_stream,
            endless_line,
            endless_answer,
            endless_comments,
            one_huge_piece,
            wrong_type,
            error_in_the_stream,
            not_json_in_the_stream,
            redirect,
            goes_on_after_the_end,
            never_says_done,
        )
    },
}


@pytest.fixture
def served(monkeypatch, home, caplog):
    """Puts a server behind the app."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(use_case, "LEAST_SECONDS", 0.1)
    monkeypatch.setenv("GENERATOR_API_KEY", KEY)
    monkeypatch.setenv("ASK_DEADLINE_SECONDS", str(DEADLINE))

    def use(url: str) -> None:
        monkeypatch.setenv("GENERATOR_URL", url)
        settings.cache_clear()

    return use


@pytest.fixture(scope="module")
def pulse() -> Pulse:
    return Pulse()


@pytest.fixture
def ask(client, alice, harbour, caplog, pulse):
    def post(**extra):
        for _ in range(ATTEMPTS):
            began = time.monotonic()
            reply = client.post("/ask/question", json={**QUESTION, **extra}, headers=alice.headers)
            seconds, lag = time.monotonic() - began, pulse.lag(began)
            assert seconds - lag < DEADLINE, "the deadline is a promise"
            if lag < STEADY_SECONDS:
                break
        assert KEY not in reply.text
        assert KEY not in caplog.text
        return reply

    return post


def assert_extract(document) -> None:
    assert document["answered"] is True
    assert document["answer"] == f"{HARBOUR} [1]"
    assert document["mode"] == "extractive"
    assert [cited["n"] for cited in document["citations"]] == [1]


@pytest.mark.parametrize("everywhere", [False, True], ids=["at the question", "everywhere"])
@pytest.mark.parametrize("name", PARTS)
def test_whatever_the_server_does_there_is_an_answer_in_time(name, everywhere, ask, served):
    with PlayingServer(PARTS[name], everywhere).running() as server:
        served(server.url)
        reply = ask(mode="auto")
        assert reply.status_code == 200
        assert_extract(reply.json())
        assert server.visits
        assert everywhere or server.chats
        assert not [visit for visit in server.visits if visit.path.startswith("/elsewhere")]


@pytest.mark.parametrize("name", PARTS)
def test_who_wants_the_models_words_gets_them_or_a_503(name, ask, served):
    with PlayingServer(PARTS[name]).running() as server:
        served(server.url)
        reply = ask(mode="generated")
        if reply.status_code == 200:
            assert_extract(reply.json())
        else:
            problem = checked(reply, 503)
            assert problem["code"] in ("dependency_failed", "busy")
            assert "127.0.0.1" not in reply.text


@pytest.mark.parametrize("mode", ["auto", "generated"])
@pytest.mark.parametrize("name", ["status 429", "silent", "cut_stream", "dribbled_stream", "endless_answer", "html"])
def test_a_streamed_answer_ends_well_too(name, mode, ask, served):
    with PlayingServer(PARTS[name]).running() as server:
        served(server.url)
        found = events(ask(mode=mode, stream=True).text)
        names = [name for name, _ in found]
        assert "extract" in names
        if mode == "generated" and names[-1] == "error":
            assert found[-1][1]["status"] == 503
        else:
            assert names[-1] == "final_answer"
            assert_extract(found[-1][1])


def test_a_refusal_for_the_time_being_says_when_to_come_back(ask, served):
    with PlayingServer(PARTS["status 429"]).running() as server:
        served(server.url)
        reply = ask(mode="generated")
        assert checked(reply, 503)["code"] == "busy"
        assert reply.headers["retry-after"] == "7"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("mode", ["auto", "generated"])
@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "name.invalid:{port}", "[::1]:{port}"])
def test_where_nobody_listens_the_extract_answers(host, mode, ask, served):
    served(f"http://{host.format(port=closed_port())}/v1")
    for _ in range(2):
        reply = ask(mode=mode)
        if mode == "auto":
            assert_extract(reply.json())
            assert reply.json()["model"] is None
        else:
            assert checked(reply, 503)["detail"] == "the generator is not available now"


def test_a_server_that_comes_up_later_is_used_without_a_restart(ask, served, monkeypatch):
    monkeypatch.setattr(known_rest, "REST_SECONDS", 0.0)
    server = PlayingServer(writes(HARBOUR + " [1]"), port=closed_port())
    served(server.url)
    assert_extract(ask().json())
    with server.running():
        found = ask().json()
    assert (found["mode"], found["model"], found["answer"]) == ("generated", "a-model", f"{HARBOUR} [1]")
    assert found["usage"] == {"prompt_tokens": 11, "cached_tokens": 5, "completion_tokens": 7}
    assert_extract(ask().json())


def test_a_server_that_was_not_reached_is_left_alone_for_a_moment(ask, served, monkeypatch):
    monkeypatch.setattr(known_server, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(known_rest, "REST_SECONDS", 1000.0)
    with PlayingServer(silent, everywhere=True).running() as server:
        served(server.url)
        for _ in range(3):
            assert_extract(ask().json())
        assert server.connections == 1


def test_the_words_of_a_good_server_are_checked_and_streamed(ask, served):
    with PlayingServer(writes(HARBOUR + " [1] The mayor is a duck. [1]")).running() as server:
        served(server.url)
        found = events(ask(stream=True).text)
        assert found[-1][1]["answer"] == f"{HARBOUR} [1]"
        assert found[-1][1]["mode"] == "generated"
        (chat,) = server.chats
        assert f"authorization: bearer {KEY}" in chat.headers.lower()
        assert chat.body["model"] == "a-model"
        assert (chat.body["stream"], chat.body["temperature"]) == (True, 0)
        assert [message["role"] for message in chat.body["messages"]] == ["system", "user"]
        assert f"[1] {HARBOUR}" in chat.body["messages"][1]["content"]


def test_proxies_of_the_environment_are_not_used(ask, served, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    with PlayingServer(writes(HARBOUR)).running() as server:
        served(server.url)
        assert ask().json()["mode"] == "generated"


@pytest.mark.parametrize(
    ("name", "expected"), [("good", "ok"), ("status 503", "busy"), ("status 401", "failed"), ("html", "failed")]
)
def test_readiness_tells_the_servers_state_and_nothing_else(name, expected, client, served, caplog):
    with PlayingServer(PARTS.get(name, writes("x")), everywhere=name in PARTS).running() as server:
        served(server.url)
        wiring.space()
        reply = client.get("/health/ready")
        assert reply.json()["checks"]["generator"]["status"] == expected
        assert reply.status_code == 200
        assert str(server.port) not in reply.text
        assert KEY not in reply.text + caplog.text + json.dumps(dict(reply.headers))


def test_readiness_does_not_wait_long_for_a_silent_server(client, served, monkeypatch, caplog):
    monkeypatch.setattr(wiring, "READY_SECONDS", 0.1)
    with PlayingServer(silent, everywhere=True).running() as server:
        served(server.url)
        for _ in range(3):
            assert client.get("/health/ready").json()["checks"]["generator"]["status"] == "failed"
        assert server.connections == 1
    assert "does not answer within 0.1 s" in caplog.text


def test_a_model_whose_name_cannot_be_sent_does_not_break_the_reply(ask, served):
    def play(visit: Visit) -> None:
        if visit.path.endswith("/models"):
            visit.reply(200, b'{"data": [{"id": "m\\ud800"}]}')
        elif not visit.path.endswith("/chat/completions"):
            visit.json({}, 404)
        else:
            writes(HARBOUR)(visit)

    with PlayingServer(play, everywhere=True).running() as server:
        served(server.url)
        assert_extract(ask().json())


def test_a_server_that_hangs_costs_one_question_its_deadline(ask, served):
    with PlayingServer(silent).running() as server:
        served(server.url)
        for _ in range(3):
            assert_extract(ask().json())
        assert len(server.chats) == 1
