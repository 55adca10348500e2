"""`llamabda serve` over a real OpenSearch server, which goes away and comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from llamabda.adapters.opensearch import Connection
from tests.http.conftest import opensearch_settings
from tests.http.serving import SERVE, environment_of, serving
from tests.http.test_under_way import NO_LIMITS, logged_in, until
from tests.opensearch_proxy import DROP, Asked, Given, Proxy, refused

HARBOUR = "The harbour office opens at eight in the morning. It closes at five."
DEADLINE = 3.0
BY_THEN = 5.5  # of a reply that was due by the deadline: before a call without one would have ended


class Weather:
    """What requests meet now."""

    def __init__(self) -> None:
        self.now = "fair"

    def __call__(self, asked: Asked) -> Given | None:
        if self.now == "gone":
            return DROP
        if self.now == "stalled":
            time.sleep(DEADLINE + 7)
        if self.now == "red" and "_search" not in asked.path:
            return refused("unavailable_shards_exception", "primary shard is not active", 503)
        if self.now == "red":
            return refused("search_phase_execution_exception", "all shards failed", 503)
        if self.now == "locked":
            return Given(401, b"Unauthorized", "text/plain")
        return None


@pytest.fixture
def weather() -> Weather:
    return Weather()


@pytest.fixture
def client(tmp_path, opensearch, weather) -> Iterator[httpx.Client]:
    with Proxy(opensearch, before=weather).running() as access, opensearch_settings(opensearch) as chosen:
        environment = environment_of(
            tmp_path,
            tmp_path / "key.pem",
            **NO_LIMITS,
            **chosen
            | {
                "OPENSEARCH_HOST": f"http://127.0.0.1:{access.port}",
                "OPENSEARCH_TIMEOUT": "2",
                "ASK_DEADLINE_SECONDS": str(DEADLINE),
            },
        )
        with serving(tmp_path, environment, SERVE) as server, logged_in(server.url) as client:
            client.index_name = chosen["INDEX_NAME"]  # type: ignore[attr-defined]  # for the tests
            yield client


def train(client: httpx.Client, doc_id: str, text: str) -> httpx.Response:
    return client.post("/training/train", json={"docs": [{"id": doc_id, "text": text}]})


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/ask/question", json={"question": "When does the harbour office open?"})


def test_from_training_to_a_cited_answer_and_to_nothing_again(client, opensearch):
    assert train(client, "harbour.md", HARBOUR).status_code == 200
    reply = ask(client).json()
    assert reply["answered"]
    assert reply["answer"] == "The harbour office opens at eight in the morning. [1]"
    (citation,) = reply["citations"]
    source = client.get("/source", params={"doc_id": "harbour.md"}).text
    assert source[citation["start"] : citation["end"]] == citation["text"]
    assert train(client, "harbour.md", HARBOUR).json()["documents"][0]["state"] == "unchanged"
    assert train(client, "harbour.md", HARBOUR.replace("eight", "nine")).status_code == 200
    assert ask(client).json()["answer"] == "The harbour office opens at nine in the morning. [1]"
    chunks = client.get("/chunks", params={"doc_id": "harbour.md"}).json()["chunks"]
    assert [chunk["generation"] for chunk in chunks] == [citation["generation"] + 2]
    found = Connection(opensearch).call("GET", f"/_alias/{client.index_name}")
    assert len(found) == 1  # the alias leads to the index that readers search
    assert client.delete("/documents/harbour.md").status_code == 204
    assert not ask(client).json()["answered"]


@pytest.mark.parametrize("trouble", ["gone", "stalled", "red", "locked"])
def test_a_cluster_in_trouble_is_a_clean_503_and_nothing_is_lost(client, weather, trouble):
    assert train(client, "harbour.md", HARBOUR).status_code == 200
    assert client.get("/health/ready").status_code == 200
    weather.now = trouble
    for path, body in (("/ask/question", {"question": "When?"}), ("/search", {"query": "When?"})):
        began = time.monotonic()
        reply = client.post(path, json=body)
        assert time.monotonic() - began < BY_THEN
        assert (reply.status_code, reply.headers["content-type"]) == (503, "application/problem+json")
        assert (reply.json()["code"], reply.json()["detail"]) == ("dependency_failed", "the index is not available now")
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    failing = {name for name, check in ready.json()["checks"].items() if check["status"] not in ("ok", "none")}
    assert failing == {"index"}
    queued = train(client, "tide.md", "The tide is high at noon.")
    assert queued.status_code == 202
    weather.now = "fair"
    assert until(lambda: client.get("/documents/tide.md").json()["state"] == "ready", 60)
    assert ask(client).json()["answered"]
    assert client.post("/search", json={"query": "tide"}).json()["hits"][0]["doc_id"] == "tide.md"
    assert client.get("/health/ready").status_code == 200


@pytest.mark.parametrize("trouble", ["gone", "stalled"])
def test_a_cluster_that_is_away_at_the_start_is_named_soon_and_used_once_it_is_there(
    tmp_path, opensearch, weather, trouble
):
    weather.now = trouble
    with Proxy(opensearch, before=weather).running() as access, opensearch_settings(opensearch) as chosen:
        settings = chosen | {
            "OPENSEARCH_HOST": f"http://127.0.0.1:{access.port}",
            "OPENSEARCH_TIMEOUT": "2",
            "ASK_DEADLINE_SECONDS": str(DEADLINE),
        }
        environment = environment_of(tmp_path, tmp_path / "key.pem", **NO_LIMITS, **settings)
        with serving(tmp_path, environment, SERVE) as server, logged_in(server.url) as client:
            index = lambda: client.get("/health/ready").json()["checks"]["index"]["status"]  # noqa: E731
            assert until(lambda: index() not in ("ok", "loading"), 30)
            began = time.monotonic()
            ready = client.get("/health/ready").json()["checks"]
            assert time.monotonic() - began < BY_THEN + 2
            assert ready["embedder"]["status"] == "ok"
            for _ in range(3):
                began = time.monotonic()
                assert client.post("/search", json={"query": "When?"}).status_code == 503
                assert time.monotonic() - began < BY_THEN
            began = time.monotonic()
            assert train(client, "harbour.md", HARBOUR).status_code in (202, 503)
            assert time.monotonic() - began < 20
            weather.now = "fair"
            assert until(lambda: client.get("/health/ready").status_code == 200, 60)
            assert train(client, "harbour.md", HARBOUR).status_code in (200, 202)
            assert until(lambda: client.get("/documents/harbour.md").json()["state"] == "ready", 60)
            assert ask(client).json()["answered"]
