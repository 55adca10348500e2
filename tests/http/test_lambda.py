"""Each function alone, called as the gateway calls it: HTTP API events of format 2.0 through Mangum."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import time

import pytest

from llamabda import wiring, wiring_aws
from llamabda.background import Once
from llamabda.types import Deadline
from tests import emf
from tests.http.conftest import HARBOUR, PASSWORD

QUESTION = {"question": "When does the harbour office open?"}


class Context:
    """The runtime's context, as far as we look at it."""

    def __init__(self, milliseconds: int) -> None:
        self.milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


@pytest.fixture(autouse=True)
def _loop():
    """The runtime calls on the main thread, which has a loop there."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def event(method: str, path: str, body: object = None, *, token: str | None = None, query: str = "", encoded=False):
    headers = {
        "accept": "*/*",
        "content-type": "application/json",
        "host": "abc123.execute-api.eu-west-1.amazonaws.com",
        "x-forwarded-for": "203.0.113.7",
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
    }
    if token:
        headers["authorization"] = f"Bearer {token}"
    text = None if body is None else json.dumps(body)
    if text is not None and encoded:
        text = base64.b64encode(text.encode()).decode()
    made = {
        "version": "2.0",
        "routeKey": f"{method} {path}",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abc123",
            "domainName": "abc123.execute-api.eu-west-1.amazonaws.com",
            "domainPrefix": "abc123",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": "curl/8.0",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": f"{method} {path}",
            "stage": "$default",
            "time": "10/Mar/2026:05:16:23 +0000",
            "timeEpoch": int(time.time() * 1000),
        },
        "isBase64Encoded": encoded,
    }
    return made if text is None else made | {"body": text}


def call(function: str, made: dict, *, remaining: int = 30_000):
    handler = importlib.import_module(f"llamabda_functions.{function}.app").handler
    reply = handler(made, Context(remaining))
    assert reply["isBase64Encoded"] is False
    assert reply["headers"]["x-request-id"]
    return reply["statusCode"], reply["headers"]["content-type"], reply["body"]


@pytest.fixture
def token(home) -> str:
    credentials = {"username": "alice", "password": PASSWORD}
    status, _, _ = call("auth", event("POST", "/auth/register", credentials))
    assert status == 201
    status, _, body = call("auth", event("POST", "/auth/login", credentials, encoded=True))
    assert status == 200
    return json.loads(body)["access_token"]


def test_the_three_functions_work_one_by_one(token):
    doc = {"id": "notes/harbour", "text": HARBOUR}
    status, _, body = call("ingest", event("POST", "/training/train", {"docs": [doc]}, token=token))
    assert (status, json.loads(body)["indexed"]) == (200, 1)
    status, kind, body = call("ingest", event("GET", "/source", query="doc_id=notes%2Fharbour", token=token))
    assert (status, kind, body) == (200, "text/plain; charset=utf-8", HARBOUR)
    status, _, body = call("ingest", event("GET", "/documents/notes/harbour", token=token))
    assert (status, json.loads(body)["id"]) == (200, "notes/harbour")
    status, _, body = call("ask", event("POST", "/search", {"query": "harbour"}, token=token))
    assert (status, json.loads(body)["hits"][0]["doc_id"]) == (200, "notes/harbour")
    question = {"question": "When does the harbour office open?"}
    status, _, whole = call("ask", event("POST", "/ask/question", question, token=token))
    assert (status, json.loads(whole)["answered"]) == (200, True)
    status, kind, body = call("ask", event("POST", "/ask/question", question | {"stream": True}, token=token))
    assert (status, kind) == (200, "text/event-stream; charset=utf-8")  # as one body: a Python function cannot stream
    last = body.strip().split("\n\n")[-1]
    assert last.startswith("event: final_answer\n")
    assert json.loads(last.partition("data: ")[2])["answer"] == json.loads(whole)["answer"]


@pytest.mark.parametrize(
    ("function", "made", "expected"),
    [
        ("auth", event("GET", "/nowhere"), 404),
        ("ask", event("GET", "/auth/me"), 404),  # another function's
        ("auth", event("GET", "/auth/me"), 401),
        ("ingest", event("GET", "/documents", token="abc"), 401),
        ("auth", event("POST", "/auth/login"), 400),
        ("auth", event("POST", "/auth/login", {"username": 1}), 422),
        ("auth", event("PUT", "/auth/login", {}), 405),
    ],
)
def test_problems_are_text_and_not_base64(home, function, made, expected):
    status, kind, body = call(function, made)
    assert (status, kind) == (expected, "application/problem+json")
    assert json.loads(body)["status"] == expected


@pytest.mark.parametrize(
    ("age_ms", "remaining_ms", "expected"),
    [
        (0, 60_000, 25.0),
        (5_000, 60_000, 20.0),
        (0, 12_000, 10.0),
        (29_000, 60_000, 0.0),
        (0, 500, 0.0),
        (-5_000, 60_000, 25.0),
        (60_000, 60_000, 25.0),  # it would have been given up: that clock is not ours
    ],
)
def test_the_deadline_is_the_gateways_or_the_functions_whichever_is_first(
    token, monkeypatch, age_ms, remaining_ms, expected
):
    seen: list[Deadline] = []
    real = wiring.search()
    wiring.space()  # loaded by now: nobody waits for it beyond the deadline

    def search(*args, deadline, **options):
        seen.append(deadline)
        return real(*args, deadline=Deadline.after(10), **options)

    monkeypatch.setattr(wiring, "search", lambda: search)
    made = event("POST", "/search", {"query": "harbour"}, token=token)
    made["requestContext"]["timeEpoch"] -= age_ms
    before = time.monotonic()
    status, _, _ = call("ask", made, remaining=remaining_ms)
    assert status == 200
    elapsed = time.monotonic() - before
    assert before + expected - 1 <= seen[0].at <= before + expected + elapsed


@pytest.fixture
def billed(token, monkeypatch) -> str:
    """A token, on a function of 2,048 MB whose parts are there already: embedded ones are not made on Lambda."""
    call("ingest", event("POST", "/training/train", {"docs": [{"id": "h", "text": HARBOUR}]}, token=token))
    call("ask", event("POST", "/ask/question", QUESTION, token=token))
    monkeypatch.setattr(wiring, "metrics", Once(wiring.metrics._make))
    monkeypatch.setattr(wiring_aws.platform, "machine", lambda: "aarch64")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "ask-of-the-tests")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "2048")
    return token


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_on_lambda_says_what_it_cost(billed, stream):
    began = time.perf_counter()
    _, _, body = call("ask", event("POST", "/ask/question", QUESTION | {"stream": stream}, token=billed))
    elapsed = time.perf_counter() - began
    reply = json.loads(body.strip().split("data: ")[-1])
    usage = reply["usage"]
    assert set(usage) == {"prompt_tokens", "cached_tokens", "completion_tokens", "gb_seconds", "estimated_cost_usd"}
    # no less than the question took, no more than the whole call; 2 GB
    assert 2 * reply["timings"]["total"] / 1000 <= usage["gb_seconds"] <= 2 * (elapsed + 0.001)
    assert usage["estimated_cost_usd"] == pytest.approx(usage["gb_seconds"] * 0.0000133334 + 2e-7, abs=1e-9)


@pytest.mark.parametrize("memory", ["", "0", "much"])
def test_without_a_known_memory_there_is_no_receipt(billed, monkeypatch, memory):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory)
    _, _, body = call("ask", event("POST", "/ask/question", QUESTION, token=billed))
    assert set(json.loads(body)["usage"]) == {"prompt_tokens", "cached_tokens", "completion_tokens"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_on_lambda_prints_one_line_of_metrics_that_names_nobody(billed, capsys, stream):
    capsys.readouterr()
    call("ask", event("POST", "/ask/question", QUESTION | {"stream": stream}, token=billed))
    (line,) = capsys.readouterr().out.splitlines()
    dimensions, counted, beside = emf.read(line)
    assert dimensions == {"Function": "ask-of-the-tests"}
    assert (counted["Requests"], counted["Answers"], counted["DeadlineReplies"]) == (1, 1, 0)
    assert beside["Route"] == "/ask/question"
    tenant = json.loads(call("auth", event("GET", "/auth/me", token=billed))[2])["tenant"]
    for told in ("alice", tenant, "harbour", "203.0.113.7", billed):
        assert told not in line
