"""The local server over the wire: what its sockets, signals and log do."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.http.serving import Server, environment_of, serving

LOGIN = b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, signing_key: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    environment = environment_of(home, signing_key, MAX_BODY_BYTES="200000", SECRET_KEY="from-another-project")
    with serving(home, environment) as started:
        yield started


def test_it_answers_and_does_not_name_its_server(server):
    reply = httpx.get(server.url + "/health")
    assert reply.json() == {"status": "ok"}
    assert "server" not in reply.headers


def test_a_whole_round_over_the_wire(server):
    with httpx.Client(base_url=server.url) as client:
        credentials = {"username": "alice", "password": "secret123"}
        assert client.post("/auth/register", json=credentials).status_code == 201
        token = client.post("/auth/login", json=credentials).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        trained = client.post(
            "/training/train", json={"docs": [{"id": "a/b c?", "text": "The harbour opens at eight."}]}
        )
        assert trained.json()["indexed"] == 1
        assert client.get("/documents/a%2Fb%20c%3F").json()["id"] == "a/b c?"
        hits = client.post("/search", json={"query": "harbour"}).json()["hits"]
        assert [hit["doc_id"] for hit in hits] == ["a/b c?"]
        assert client.delete("/documents/a%2Fb%20c%3F").status_code == 204


def test_forwarded_headers_change_nothing(server):
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Forwarded": "for=203.0.113.9"}
    assert httpx.get(server.url + "/health", headers=headers).status_code == 200
    assert not any("203.0.113.9" in line for line in server.lines)


def test_a_chunked_body_without_end_is_refused_while_it_streams(server):
    head = (
        b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    reply = server.send(head + b"3e8\r\n" + b"a" * 1_000 + (b"\r\n3e8\r\n" + b"a" * 1_000) * 250)
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in reply


def test_a_declared_length_over_the_limit_is_refused_before_the_body_comes(server):
    head = (
        b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
    )
    assert server.send(head).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_hangs_up_within_its_body_is_no_defect(server):
    assert server.send(LOGIN + b"Content-Length: 100\r\n\r\nhalf") == b""
    assert httpx.get(server.url + "/health").status_code == 200
    assert not any("unexpected" in line for line in server.lines)


@pytest.mark.parametrize(
    ("target", "status"), [(b"/documents/%FF", 400), (b"/%00", 404), (b"//health", 404), (b"/health?%FF", 400)]
)
def test_odd_targets_are_problems(server, target, status):
    reply = server.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in reply


def test_obsolete_settings_are_named_at_start_without_their_value(server):
    assert any("SECRET_KEY is set but has no effect" in line for line in server.lines)
    assert not any("from-another-project" in line for line in server.lines)


def test_sigterm_ends_it_cleanly(server):  # the last one of this file
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) == 0
    assert not any("Traceback" in line for line in server.lines)
