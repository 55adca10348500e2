"""Where the key set comes from, and what is published."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llamabda import exchange, issuer
from llamabda.adapters import jwks
from llamabda.adapters.jwks import MAX_BYTES, file_source, http_source, s3_source
from llamabda.adapters.key_file import KeyFileSigner
from llamabda.endpoint import Endpoint
from llamabda.errors import ConfigurationError, DependencyFailed
from llamabda.jwks_address import FileAddress, S3Address, parse
from llamabda.tokens import TokenVerifier, mint
from tests.aws import TEXTS

ISSUER = "https://issuer.test"
Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(scope="module")
def signer(tmp_path_factory) -> KeyFileSigner:
    return KeyFileSigner(tmp_path_factory.mktemp("key") / "key.pem", keep=60)


@pytest.fixture(scope="module")
def content(signer) -> bytes:
    return issuer.documents(ISSUER, signer.public_jwks())[issuer.JWKS_PATH]


@contextmanager
def answering(answer: Answer) -> Iterator[tuple[Endpoint, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer(self)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Endpoint("http", "127.0.0.1", server.server_port, "/keys/jwks.json"), asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sending(
    body: bytes, status: int = 200, headers: dict[str, str] | None = None, *, length: int | None = None
) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(length or len(body))} | (headers or {})).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.fixture(params=["file", "s3", "http"])
def published(request, content, tmp_path) -> Iterator[Callable[[bytes | None], jwks.Source]]:
    """Puts a content where a source of that kind reads it; None: nothing is there."""
    if request.param == "http":
        served: list[bytes | None] = [None]

        def answer(handler: BaseHTTPRequestHandler) -> None:
            sending(served[0] or b"", 200 if served[0] is not None else 404)(handler)

        with answering(answer) as (address, _):

            def serve(body: bytes | None) -> jwks.Source:
                served[0] = body
                return http_source(address)

            yield serve
        return
    if request.param == "file":
        file = tmp_path / "a b" / "jwks.json"
        file.parent.mkdir()

        def write(body: bytes | None) -> jwks.Source:
            if body is not None:
                file.write_bytes(body)
            return file_source(FileAddress(str(file)))

        yield write
        return
    client = request.getfixturevalue("aws").client("s3")

    def put(body: bytes | None) -> jwks.Source:
        if body is not None:
            client.put_object(Bucket=TEXTS, Key=".well-known/jwks.json", Body=body)
        return s3_source(S3Address(TEXTS, ".well-known/jwks.json"), client)

    yield put


def test_tokens_are_verified_with_what_is_published(published, content, signer):
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "a", "sub": "alice", "iat": now, "exp": now + 60, "tenant": "shared"}
    verifier = TokenVerifier(published(content), ISSUER, "a")
    assert verifier.verify(mint(signer, claims)).username == "alice"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"<html>",
        b'{"keys": {}}',
        b'{"keys": [], "keys": []}',
        b'{"keys": []' + b" " * MAX_BYTES + b"}",
        b'{"keys": ["\xff"]}',
        None,
    ],
    ids=["empty", "list", "no keys", "html", "keys no list", "twice", "too large", "no utf-8", "not there"],
)
def test_what_is_no_key_set_is_a_failure_that_names_the_place(published, body):
    with pytest.raises(DependencyFailed, match="JWKS_URL") as failed:
        published(body)()
    assert failed.value.dependency == "jwks"
    assert "jwks.json" in failed.value.message
    assert "html" not in failed.value.message


def test_the_largest_key_set_is_read(published):
    body = b'{"keys": []' + b" " * (MAX_BYTES - 12) + b"}"
    assert published(body)() == {"keys": []}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(content, status):
    with answering(sending(content)) as (elsewhere, asked):
        moved = sending(content, status, {"Location": str(elsewhere)})
        with answering(moved) as (address, _), pytest.raises(DependencyFailed, match=f"its status is {status}"):
            http_source(address)()
        assert asked == []


def test_proxies_of_the_environment_are_not_used(content, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with answering(sending(content)) as (address, asked):
        assert http_source(address)()["keys"]
        assert asked == ["/keys/jwks.json"]


def test_a_reply_that_breaks_off_is_a_failure(content):
    with (
        answering(sending(content, length=len(content) + 1)) as (address, _),
        pytest.raises(DependencyFailed, match="broke off"),
    ):
        http_source(address)()


def test_a_server_that_sends_slowly_or_not_at_all_is_given_up(content, monkeypatch):
    monkeypatch.setattr(exchange, "READ_SECONDS", 0.2)
    over = threading.Event()

    def dripping(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.05):
            handler.wfile.write(b" ")

    def silent(handler: BaseHTTPRequestHandler) -> None:
        over.wait()

    def endless_head(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not over.wait(0.05):
            handler.wfile.write(b"x")

    try:
        for answer in (dripping, silent, endless_head):
            with answering(answer) as (address, _), pytest.raises(DependencyFailed, match="does not answer in time"):
                http_source(address)()
    finally:
        over.set()


def test_what_is_not_http_is_a_failure_without_its_words():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4_096)
                connection.sendall(b"220 secret greeting\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(DependencyFailed, match="BadStatusLine") as failed:
            http_source(Endpoint("http", "127.0.0.1", listening.getsockname()[1], ""))()
        thread.join()
    assert "secret" not in failed.value.message


def test_a_server_that_is_not_there_cannot_be_reached():
    with answering(sending(b"")) as (address, _):
        pass
    with pytest.raises(DependencyFailed, match="cannot be reached"):
        http_source(address)()


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    """A server without TLS has none at all."""
    with answering(sending(b"{}")) as (address, asked):
        with pytest.raises(DependencyFailed, match="cannot be reached"):
            http_source(Endpoint("https", address.host, address.port, address.path))()
        assert asked == []


def test_a_bucket_that_is_not_there_is_said(aws):
    with pytest.raises(DependencyFailed, match=r"s3://nobodys-bucket/k \(JWKS_URL\).*not there"):
        s3_source(S3Address("nobodys-bucket", "k"), aws.client("s3"))()


# -- addresses


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///a/b%20c.json", FileAddress("/a/b c.json")),
        ("file:/a.json", FileAddress("/a.json")),
        ("file://localhost/a.json", FileAddress("/a.json")),
        ("s3://bucket/.well-known/jwks.json", S3Address("bucket", ".well-known/jwks.json")),
        ("S3://my.bucket-1/a b", S3Address("my.bucket-1", "a b")),
        ("https://x.test/.well-known/jwks.json", Endpoint("https", "x.test", 443, "/.well-known/jwks.json")),
        ("http://127.0.0.1:8000/jwks", Endpoint("http", "127.0.0.1", 8000, "/jwks")),
        ("http://[::1]:8000/jwks", Endpoint("http", "::1", 8000, "/jwks")),
        ("http://localhost/jwks", Endpoint("http", "localhost", 80, "/jwks")),
        ("http://auth:8000/jwks", Endpoint("http", "auth", 8000, "/jwks")),
    ],
)
def test_an_address_is_understood(url, expected):
    assert parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "jwks.json", "/a/jwks.json", "ftp://x/jwks", "file:jwks.json", "file://host/a", "file:///", "file:///a?b",
        "file:///a%00b", "s3://bucket", "s3://bucket/", "s3://B/k", "s3:///k", "http://x.test/jwks", "http://10.0.0.1/jwks",
        "http://[2001:db8::1]/jwks", "https://user:hunter2@x.test/jwks", "https://x.test/jwks?hunter2", "https://",
        "data:,hunter2",
    ],
)  # fmt: skip
def test_another_address_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match=r"like|no user name") as refused:
        parse(url)
    assert "hunter2" not in str(refused.value)


# -- what is published


def test_both_documents_are_published_by_their_paths(signer):
    found = issuer.documents(ISSUER, signer.public_jwks())
    discovery = json.loads(found[".well-known/openid-configuration"])
    assert discovery["issuer"] == ISSUER
    assert discovery["jwks_uri"] == f"{ISSUER}/.well-known/jwks.json"
    assert discovery["id_token_signing_alg_values_supported"] == ["RS256"]
    assert {"response_types_supported", "subject_types_supported"} <= discovery.keys()
    assert json.loads(found[".well-known/jwks.json"]) == signer.public_jwks()


def test_an_issuer_stays_as_tokens_say_it():
    found = issuer.discovery("https://x.test/tenant/")
    assert (found["issuer"], found["jwks_uri"]) == (
        "https://x.test/tenant/",
        "https://x.test/tenant/.well-known/jwks.json",
    )


@pytest.mark.parametrize("name", ["http://x.test", "x.test", "", "https://", "https://x.test?a", "https://x.test#a"])
def test_an_issuer_that_gateways_cannot_read_is_refused(signer, name):
    with pytest.raises(ConfigurationError, match="TOKEN_ISSUER"):
        issuer.documents(name, signer.public_jwks())


def test_nothing_private_is_published(signer):
    (key,) = signer.public_jwks()["keys"]
    found = issuer.key_set({"keys": [{**key, "d": "secret", "p": "secret"}, {"kty": "oct", "k": "secret"}]})
    assert found == {"keys": [key]}


@pytest.mark.parametrize("jwks", [{}, {"keys": []}, {"keys": "x"}, {"keys": [{"kty": "EC"}]}])
def test_an_empty_key_set_is_not_published(jwks):
    with pytest.raises(ConfigurationError, match="no RSA key"):
        issuer.key_set(jwks)


def test_a_file_that_is_a_folder_is_said(tmp_path: Path):
    with pytest.raises(DependencyFailed, match="directory"):
        file_source(FileAddress(str(tmp_path)))()
