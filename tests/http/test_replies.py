"""What every reply carries, whatever it answers, and what none may give away."""

from __future__ import annotations

import json
import logging
import re
from base64 import b64encode
from hashlib import sha256

import pytest
from fastapi.testclient import TestClient
from llamabda_functions.local.app import create_local_app

from llamabda import wiring
from llamabda.settings import settings
from tests.http.conftest import PASSWORD
from tests.http.problem import checked

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [("GET", "/health", 200), ("GET", "/nowhere", 404), ("PUT", "/health", 405), ("GET", "/documents", 401),
     ("POST", "/auth/login", 415), ("GET", "/%ff", 400), ("GET", "/docs", 200), ("GET", "/openapi.json", 200)],
)  # fmt: skip
def test_every_reply_has_an_id_and_the_security_headers(client, method, url, status):
    replies = [client.request(method, url) for _ in range(2)]
    assert {reply.status_code for reply in replies} == {status}
    assert len({reply.headers["x-request-id"] for reply in replies}) == 2
    for reply in replies:
        assert UUID.fullmatch(reply.headers["x-request-id"])
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"


def test_the_id_of_a_client_is_not_taken_over(client):
    assert client.get("/health", headers={"X-Request-Id": "mine"}).headers["x-request-id"] != "mine"


@pytest.mark.parametrize("url", ["/nowhere", "/", "/auth", "/auth/login/", "/health/", "/training", "/v1", "/redoc"])
def test_unknown_routes_are_problems(client, url):
    assert checked(client.get(url), 404)["detail"] == "there is no such endpoint"


@pytest.mark.parametrize(
    ("method", "url", "allow"),
    [
        ("GET", "/auth/login", "POST"),
        ("DELETE", "/search", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("POST", "/documents", "GET, HEAD"),
        ("PATCH", "/documents/a/b", "GET, HEAD, DELETE"),
        ("OPTIONS", "/documents/a", "GET, HEAD, DELETE"),
        ("TRACE", "/health", "GET, HEAD"),
        ("NONSENSE", "/auth/login", "POST"),
        ("HEAD", "/auth/login", "POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(client, method, url, allow):
    reply = client.request(method, url)
    assert reply.headers["allow"] == allow
    if method != "HEAD":
        assert checked(reply, 405)["code"] == "method_not_allowed"


@pytest.mark.parametrize("url", ["/health", "/docs", "/documents", "/nowhere", "/source?doc_id=notes/harbour"])
def test_head_is_get_without_the_body(client, alice, harbour, url):
    get, head = (client.request(method, url, headers=alice.headers) for method in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (get.status_code, b"")
    changing = ("x-request-id", "server-timing", "ratelimit")
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in get.headers.items() if k not in changing
    }


@pytest.mark.filterwarnings("default")
def test_a_defect_is_a_bare_500_and_the_log_has_it_under_its_id(client, alice, monkeypatch, caplog):
    def broken():
        raise RuntimeError("internal detail 4711")

    monkeypatch.setattr(wiring, "search", broken)
    with caplog.at_level(logging.INFO):
        reply = client.post("/search", json={"query": "anything"}, headers=alice.headers)
    problem = checked(reply, 500)
    assert (problem["code"], problem["errors"]) == ("internal", [])
    assert "4711" not in reply.text
    [record] = [record for record in caplog.records if record.exc_info]
    assert reply.headers["x-request-id"] in record.getMessage()
    assert "internal detail 4711" in caplog.text


def test_no_password_and_no_token_is_in_any_reply_or_log(client, alice, harbour, caplog):
    caplog.set_level(logging.DEBUG)
    bad = [
        ("/auth/register", {"username": "alice", "password": PASSWORD}),
        ("/auth/register", {"username": PASSWORD, "password": 7}),
        ("/auth/register", {"username": "bob", "password": PASSWORD, "password2": PASSWORD}),
        ("/auth/register", {"username": "bob", "password": [PASSWORD]}),
        ("/auth/register", [{"username": "bob", "password": PASSWORD}]),
        ("/auth/register", {"username": "bob", "pass": PASSWORD}),
        ("/auth/register", {"username": "bob", "password": PASSWORD + "\ud800"}),
        ("/auth/register", {"username": "bob", "password": PASSWORD + "\0"}),
        ("/auth/register", {"username": ["bob"], "password": PASSWORD * 100}),
        ("/auth/login", {"username": "alice", "password": PASSWORD + "x"}),
        ("/auth/login", PASSWORD),
        ("/search", {"query": "a", "token": alice.token, "authorization": alice.token}),
    ]
    for url, body in bad:
        content, headers = json.dumps(body).encode(), alice.headers | {"Content-Type": "application/json"}
        reply = client.post(url, content=content, headers=headers)
        assert 400 <= reply.status_code < 500, (url, body)
        assert PASSWORD not in reply.text
        assert alice.token not in reply.text
    cut = f'{{"username": "alice", "password": "{PASSWORD}'.encode()
    assert PASSWORD not in client.post("/auth/login", content=cut, headers={"Content-Type": "application/json"}).text
    good = client.post("/auth/login", json={"username": "alice", "password": PASSWORD})
    client.get("/auth/me", headers=alice.headers)
    client.get("/auth/me", headers={"Authorization": f"Bearer {alice.token}x"})
    assert len([record for record in caplog.records if record.name == "llamabda.http"]) >= len(bad) + 4
    for secret in (PASSWORD, alice.token, good.json()["access_token"], "$argon2id$"):
        assert secret not in caplog.text


def test_the_log_has_one_line_a_request_without_the_query_and_cannot_be_forged(client, caplog):
    with caplog.at_level(logging.INFO, logger="llamabda.http"):
        reply = client.get("/no%0Awhere%1b?key=value")
    [record] = [record for record in caplog.records if record.name == "llamabda.http"]
    message = record.getMessage()
    assert message.startswith("GET /no%0Awhere%1B 404 ")
    assert record.request_id == reply.headers["x-request-id"]
    assert "value" not in message


def test_cors_is_for_the_origins_of_the_settings_only(home, monkeypatch):
    monkeypatch.setenv("CORS_ORIGINS", "https://app.example, http://localhost:5173")
    settings.cache_clear()
    client = TestClient(create_local_app())
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    good = client.options("/search", headers={"Origin": "https://app.example", **asks})
    assert good.status_code == 200
    assert good.headers["access-control-allow-origin"] == "https://app.example"
    bad = client.options("/search", headers={"Origin": "https://evil.example", **asks})
    assert "access-control-allow-origin" not in bad.headers
    refused = client.get("/documents", headers={"Origin": "http://localhost:5173"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "http://localhost:5173")
    assert "X-Request-Id" in refused.headers["access-control-expose-headers"]


def test_without_origins_there_is_no_cors(client):
    reply = client.get("/health", headers={"Origin": "https://app.example"})
    assert "access-control-allow-origin" not in reply.headers


# what each path takes, beyond which nothing is served
OPERATIONS = {
    "/health": {"get"},
    "/health/ready": {"get"},
    "/auth/register": {"post"},
    "/auth/login": {"post"},
    "/auth/refresh": {"post"},
    "/auth/logout": {"post"},
    "/auth/invites": {"post"},
    "/auth/me": {"get"},
    "/training/train": {"post"},
    "/documents": {"get"},
    "/documents/{id}": {"get", "delete"},
    "/chunks": {"get"},
    "/source": {"get"},
    "/ask/question": {"post"},
    "/search": {"post"},
}
OPEN = ("/health", "/health/ready", "/auth/register", "/auth/login", "/auth/refresh", "/auth/logout")


def test_the_api_description_tells_the_operations_their_problems_and_who_needs_a_token(client):
    spec = client.get("/openapi.json").json()
    assert {path: set(operations) for path, operations in spec["paths"].items()} == OPERATIONS
    [(scheme, definition)] = spec["components"]["securitySchemes"].items()
    assert (definition["type"], definition["scheme"]) == ("http", "bearer")
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            assert operation.get("security") == (None if path in OPEN else [{scheme: []}])
            responses = operation["responses"]
            expected = {"429", "500"} | ({"401"} if path not in OPEN else set())
            expected |= {"400", "413", "415", "422"} if "requestBody" in operation else set()
            assert expected <= set(responses), path
            for status, response in responses.items():
                if status >= "400" and (path, status) != ("/health/ready", "503"):
                    schema = response["content"]["application/problem+json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}
                    assert list(response["content"]) == ["application/problem+json"]
            assert operation["description"]
    text = json.dumps(spec)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in spec["components"]["schemas"]
    assert "HTTPValidationError" not in text


# alice is there already, with another password
EXAMPLES = {"/auth/register": 409, "/auth/login": 401, "/auth/refresh": 401, "/auth/logout": 204, "/auth/invites": 201}


def test_the_examples_of_the_api_description_work(client, alice):
    spec = client.get("/openapi.json").json()
    tried = 0
    for path, operations in spec["paths"].items():
        if "post" not in operations:
            continue
        reference = operations["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        for example in spec["components"]["schemas"][reference.rsplit("/", 1)[1]]["examples"]:
            reply = client.post(path, json=example, headers=alice.headers)
            expected = EXAMPLES.get(path, 200)
            assert reply.status_code == expected, (path, reply.text)
            tried += 1
    assert tried >= 5


def test_the_docs_page_reaches_nothing_but_this_server(client):
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert re.findall(r"(?:https?:)?//[a-z]", page.text) == []
    [script] = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    policy = page.headers["content-security-policy"]
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
