"""What the server tells about itself: logs, metrics, request ids."""

from __future__ import annotations

import json
import logging

import pytest

from llamabda.logs import JsonFormatter
from tests.http.conftest import HARBOUR, PASSWORD
from tests.http.problem import checked


@pytest.fixture
def lines(caplog):
    """What has been logged, as it is written."""
    caplog.set_level(logging.INFO)
    return lambda: [
        json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name.startswith("llamabda")
    ]


def test_each_request_is_one_line_with_its_id(client, alice, harbour, lines):
    reply = client.get(f"/documents/{harbour}", headers=alice.headers)
    (line,) = [line for line in lines() if line.get("request_id") == reply.headers["x-request-id"]]
    assert (line["method"], line["path"], line["route"], line["status"], line["user"]) == (
        "GET",
        "/documents/notes/harbour",
        "/documents/{id:path}",
        200,
        "alice",
    )
    assert line["ms"] > 0
    assert line["level"] == "info"
    assert line["time"].endswith("Z")


def test_logs_hold_neither_texts_nor_secrets(client, alice, harbour, lines):
    tokens = client.post("/auth/login", json={"username": "alice", "password": PASSWORD}).json()
    client.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    client.post("/ask/question", json={"question": "When does the harbour office open?"}, headers=alice.headers)
    client.post("/search", json={"query": "harbour", "nonsense": "secret-value"}, headers=alice.headers)
    client.get("/documents?token=in-the-query", headers=alice.headers)
    written = json.dumps(lines())
    for secret in (
        PASSWORD,
        alice.token,
        tokens["refresh_token"],
        HARBOUR,
        "harbour office open",
        "secret-value",
        "in-the-query",
    ):
        assert secret not in written


def test_a_line_is_json_whatever_is_logged():
    record = logging.makeLogRecord({"msg": "a\nb \ud800", "levelname": "INFO", "name": "x", "path": object()})
    text = JsonFormatter().format(record)
    assert "\n" not in text
    text.encode("utf-8")
    assert json.loads(text)["message"].startswith("a\nb")


def metrics(client) -> dict[str, float]:
    reply = client.get("/metrics")
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/plain")
    rows = [line.rsplit(" ", 1) for line in reply.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in rows}


@pytest.fixture
def local(client, monkeypatch):
    client._transport.client = ("127.0.0.1", 50000)
    return client


def test_metrics_count_requests_answers_and_the_queue(local, alice, harbour):
    local.post("/ask/question", json={"question": "When does the harbour office open?"}, headers=alice.headers)
    local.post("/ask/question", json={"question": "Who painted the chapel ceiling?"}, headers=alice.headers)
    local.get("/nothing")
    found = metrics(local)
    assert found['llamabda_requests_total{method="POST",route="/ask/question",status="200"}'] == 2
    assert found['llamabda_requests_total{method="GET",route="",status="404"}'] == 1
    assert found['llamabda_answers_total{answered="true",finish_reason="stop",mode="extractive"}'] == 1
    assert found['llamabda_answers_total{answered="false",finish_reason="stop",mode="extractive"}'] == 1
    assert found['llamabda_stage_seconds_count{stage="search"}'] == 2
    assert found['llamabda_queue{state="waiting"}'] == 0


def test_metrics_are_for_this_machine_only(local):
    local._transport.client = ("198.51.100.7", 50000)
    checked(local.get("/metrics"), 404)
