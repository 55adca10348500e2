"""Metrics on Lambda: lines that CloudWatch takes for numbers, and that tell nothing of anybody."""

from __future__ import annotations

import io
import json
import sys

import jsonschema_rs
import pytest

from llamabda.adapters.emf import UNITS, EmfMetrics
from llamabda.types import Reply, Usage
from tests import emf

NOW = 1_790_000_000.25


def reply(*, answered: bool = True, mode: str = "generated", finish: str = "stop", usage: Usage | None = None) -> Reply:
    return Reply("An answer [1].", answered, mode, finish, (), None, usage or Usage(), {})


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def metrics(lines) -> EmfMetrics:
    return EmfMetrics("ask-of-the-tests", write=lines.append, now=lambda: NOW)


def test_a_request_is_one_line(metrics, lines):
    metrics.request("/documents/{id:path}", "GET", 200, 0.0123)
    (line,) = lines
    assert json.loads(line)["_aws"]["Timestamp"] == 1_790_000_000_250
    dimensions, counted, beside = emf.read(line)
    assert dimensions == {"Function": "ask-of-the-tests"}
    assert counted == {"Requests": 1, "ClientErrors": 0, "ServerErrors": 0, "Latency": 12.3}
    assert beside == {"Route": "/documents/{id:path}", "Method": "GET", "Status": 200}


@pytest.mark.parametrize(
    ("status", "client", "server"),
    [(200, 0, 0), (202, 0, 0), (401, 1, 0), (499, 1, 0), (500, 0, 1), (503, 0, 1), (0, 0, 1)],
)
def test_errors_are_counted_by_whose_they_are(metrics, lines, status, client, server):
    metrics.request("/search", "POST", status, 0.1)
    _, counted, _ = emf.read(lines[0])
    assert (counted["ClientErrors"], counted["ServerErrors"]) == (client, server)


def test_an_answer_is_told_in_the_line_of_its_request(metrics, lines):
    metrics.stages({"embed": 3.21, "decode": 1234.56})
    metrics.answer(reply(usage=Usage(600, 400, 75)))
    assert lines == []
    metrics.request("/ask/question", "POST", 200, 2.5)
    _, counted, beside = emf.read(lines[0])
    assert counted == {
        "Requests": 1,
        "ClientErrors": 0,
        "ServerErrors": 0,
        "Latency": 2500,
        "Answers": 1,
        "Refusals": 0,
        "GeneratedAnswers": 1,
        "DeadlineReplies": 0,
        "PromptTokens": 600,
        "CachedTokens": 400,
        "CompletionTokens": 75,
    }
    assert beside["StageEmbed"] == 3.2
    assert beside["StageDecode"] == 1234.6
    assert list(counted) == list(UNITS)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (reply(finish="deadline"), {"Answers": 1, "Refusals": 0, "GeneratedAnswers": 1, "DeadlineReplies": 1}),
        (reply(mode="extractive"), {"Answers": 1, "Refusals": 0, "GeneratedAnswers": 0, "DeadlineReplies": 0}),
        (
            reply(answered=False, mode="extractive"),
            {"Answers": 0, "Refusals": 1, "GeneratedAnswers": 0, "DeadlineReplies": 0},
        ),
    ],
)
def test_what_became_of_a_question_is_counted_zeros_included(metrics, lines, made, expected):
    metrics.answer(made)
    metrics.request("/ask/question", "POST", 200, 1)
    _, counted, _ = emf.read(lines[0])
    assert {name: counted[name] for name in expected} == expected


def test_the_next_request_has_nothing_of_the_one_before(metrics, lines):
    metrics.answer(reply(finish="deadline"))
    metrics.stages({"embed": 1.0})
    metrics.request("/ask/question", "POST", 200, 1)
    metrics.request("/search", "POST", 200, 1)
    _, counted, beside = emf.read(lines[1])
    assert "DeadlineReplies" not in counted
    assert "StageEmbed" not in beside


def test_answers_of_requests_at_once_are_all_counted(metrics, lines):
    for _ in range(3):
        metrics.answer(reply(finish="deadline", usage=Usage(1, 0, 2)))
    for _ in range(3):
        metrics.request("/ask/question", "POST", 200, 1)
    counted = [emf.read(line)[1] for line in lines]
    assert sum(one.get("DeadlineReplies", 0) for one in counted) == 3
    assert sum(one.get("CompletionTokens", 0) for one in counted) == 6


def test_a_method_that_somebody_made_up_is_not_printed(metrics, lines):
    metrics.request("", 'X"\n{secret', 405, 0)
    assert "secret" not in lines[0]
    assert emf.read(lines[0])[2] == {"Route": "", "Method": "other", "Status": 405}


def test_lines_go_to_stdout_whole(capsys):
    EmfMetrics("ask").request("/health", "GET", 200, 0.001)
    out, err = capsys.readouterr()
    assert err == ""
    assert out.endswith("}\n")
    assert emf.read(out)[1]["Requests"] == 1


@pytest.mark.parametrize("failure", [OSError("gone"), ValueError("closed")])
def test_a_request_survives_that_nobody_reads_its_line(monkeypatch, failure):
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise failure

    monkeypatch.setattr(sys, "stdout", Gone())
    EmfMetrics("ask").request("/health", "GET", 200, 0.001)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d["_aws"].pop("Timestamp"),
        lambda d: d["_aws"]["CloudWatchMetrics"][0]["Metrics"][0].update(Unit="Requests"),
        lambda d: d["_aws"]["CloudWatchMetrics"][0]["Metrics"].append({"Unit": "Count"}),
        lambda d: d["_aws"]["CloudWatchMetrics"][0].pop("Dimensions"),
        lambda d: d["_aws"]["CloudWatchMetrics"][0].update(Dimensions=["Function"]),
    ],
)
def test_the_schema_refuses_what_cloudwatch_would(metrics, lines, spoil):
    metrics.request("/health", "GET", 200, 0.001)
    document = json.loads(lines[0])
    spoil(document)
    with pytest.raises(jsonschema_rs.ValidationError):
        emf.read(json.dumps(document))
