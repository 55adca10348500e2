"""How a cluster is reached: verified TLS, name and password, requests that are signed for AWS."""

from __future__ import annotations

import base64
import secrets
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import ProfileNotFound
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llamabda.adapters.opensearch import Access, Connection
from llamabda.adapters.opensearch.connection import Failed
from llamabda.errors import ConfigurationError
from llamabda.settings import Settings
from llamabda.wiring_index import opensearch_access
from tests.opensearch_proxy import Asked, Given, Proxy


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Iterator[tuple[ssl.SSLContext, Path]]:
    """A server's side of TLS for 127.0.0.1, and the file of the authority that vouches for it."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Llamabda's tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(pem)
    (folder / "server.pem").write_bytes(secret + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context, folder / "ca.pem"


def guarded(asked: Asked) -> Given | None:
    """Lets maria in."""
    wanted = "Basic " + base64.b64encode(b"maria:segredo").decode()
    if asked.headers.get("Authorization") == wanted:
        return None
    return Given(401, b"Unauthorized", "text/plain")


def test_a_certificate_is_verified_and_a_private_authority_can_be_named(opensearch, authority):
    context, ca = authority
    with Proxy(opensearch, before=guarded, tls=context).running() as access:
        let_in = replace(access, user="maria", password="segredo")
        assert Connection(replace(let_in, ca_certs=str(ca))).call("GET", "/")["version"]["distribution"] == "opensearch"
        with pytest.raises(Failed, match="certificate of the index cannot be verified: OPENSEARCH_CA_CERTS"):
            Connection(let_in).call("GET", "/")
        with pytest.raises(Failed, match=r"refuses these credentials .*OPENSEARCH_USER and OPENSEARCH_PASS"):
            Connection(replace(let_in, ca_certs=str(ca), password="wrong")).call("GET", "/")
        with pytest.raises(Failed, match="refuses these credentials"):
            Connection(replace(access, ca_certs=str(ca))).call("GET", "/")


def test_a_password_is_not_shown(opensearch):
    assert "segredo" not in repr(replace(opensearch, user="maria", password="segredo"))


class Gate:
    """Computes the signature of every request anew, with the library of AWS itself."""

    def __init__(self, service: str, *known: Credentials) -> None:
        self.service = service
        self.known = {one.access_key: one for one in known}
        self.users: list[str] = []
        self.host = ""

    def __call__(self, asked: Asked) -> Given | None:
        headers = {name.lower(): value for name, value in asked.headers.items()}
        scheme, _, rest = headers.get("authorization", "").partition(" ")
        if scheme != "AWS4-HMAC-SHA256":
            return Given(403, b'{"message":"Missing Authentication Token"}')
        parts = dict(part.strip().split("=", 1) for part in rest.split(","))
        user, day, region, service, _ = parts["Credential"].split("/")
        credentials = self.known[user]
        signed = {name: headers[name] for name in parts["SignedHeaders"].split(";")}
        request = AWSRequest(asked.method, f"http://{headers['host']}{asked.path}", headers=signed, data=asked.body)
        request.context["timestamp"] = headers["x-amz-date"]
        auth = SigV4Auth(credentials, service, region)
        expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
        fits = expected == parts["Signature"] and (service, region) == (self.service, "eu-west-1")
        if not fits or "host" not in signed or headers.get("x-amz-security-token") != credentials.token:
            return Given(403, b'{"message":"The request signature we calculated does not match"}')
        assert headers["x-amz-date"].startswith(day)
        self.users.append(user)
        return None


@pytest.mark.parametrize("service", ["es", "aoss"])
def test_requests_are_signed_with_credentials_that_are_refreshed(opensearch, monkeypatch, service):
    first, second = Credentials("AKIDFIRST", secrets.token_hex(20), "one"), Credentials("AKIDSECOND", "s" * 40, "two")
    soon = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
    found = RefreshableCredentials(
        first.access_key, first.secret_key, first.token, datetime.now(UTC) + timedelta(hours=1),
        lambda: {"access_key": second.access_key, "secret_key": second.secret_key, "token": "two", "expiry_time": soon},
        "test",
    )  # fmt: skip
    monkeypatch.setattr(boto3.Session, "get_credentials", lambda self: found)
    gate = Gate(service, first, second)
    with Proxy(opensearch, before=gate).running() as access:
        connection = Connection(replace(access, service=service, region="eu-west-1"))
        assert connection.call("GET", "/")["version"]["distribution"] == "opensearch"
        found._expiry_time = datetime.now(UTC)  # they end
        connection.call("POST", "/_analyze", {"analyzer": "standard", "text": "ação"})
        connection.call("GET", "/no-such-*/_mapping", params={"expand_wildcards": "open,closed"})
        assert gate.users == ["AKIDFIRST", "AKIDSECOND", "AKIDSECOND"]
        with pytest.raises(Failed, match="the policy of the role that signs"):
            Connection(access).call("GET", "/")


def test_many_threads_sign_each_their_own_request(opensearch, monkeypatch):
    known = [Credentials(f"AKID{n}", f"{n}" * 40, f"token-{n}") for n in range(20)]
    turns = iter(known * 40)
    lock = threading.Lock()

    class Changing(Credentials):
        def get_frozen_credentials(self) -> object:
            with lock:
                return next(turns).get_frozen_credentials()

    monkeypatch.setattr(boto3.Session, "get_credentials", lambda self: Changing("AKID0", "0" * 40, "token-0"))
    gate = Gate("es", *known)
    with Proxy(opensearch, before=gate).running() as access:
        connection = Connection(replace(access, service="es", region="eu-west-1"))

        def work(number: int) -> None:
            for at in range(25):
                connection.call("GET", f"/none-{number}-{at}-*/_mapping")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    assert len(gate.users) == 200
    assert len(set(gate.users)) == 20


def test_credentials_that_cannot_be_had_are_a_failure_of_the_index(opensearch, monkeypatch):
    access = replace(opensearch, service="es", region="eu-west-1")
    monkeypatch.setattr(boto3.Session, "get_credentials", lambda self: None)
    with pytest.raises(Failed, match="no AWS credentials"):
        Connection(access).call("GET", "/")

    def broken(self: object) -> None:
        raise ProfileNotFound(profile="maria")

    monkeypatch.setattr(boto3.Session, "get_credentials", broken)
    with pytest.raises(Failed, match="cannot be asked: ProfileNotFound"):
        Connection(access).call("GET", "/")


def test_a_password_may_hold_any_letter(opensearch):
    wanted = "Basic " + base64.b64encode("josé:ção→🔑".encode()).decode()

    def before(asked: Asked) -> Given | None:
        return None if asked.headers["Authorization"] == wanted else Given(401, b"")

    with Proxy(opensearch, before=before).running() as access:
        assert Connection(replace(access, user="josé", password="ção→🔑")).call("GET", "/")["version"]


def test_nobody_is_followed_to_another_address(opensearch):
    elsewhere: list[Asked] = []

    def before(asked: Asked) -> Given | None:
        elsewhere.append(asked)
        return None

    with (
        Proxy(opensearch, before=before).running() as other,
        Proxy(
            opensearch, before=lambda asked: Given(307, b"", location=f"http://127.0.0.1:{other.port}/")
        ).running() as a,
        pytest.raises(Failed),
    ):
        Connection(a).call("GET", "/")
    assert elsewhere == []


def given(**more: object) -> Settings:
    return Settings(_env_file=None, **more)  # type: ignore[arg-type]  # passed on


def test_what_signs_follows_from_the_address_and_a_user_s_name():
    domain = "https://search-docs-abc.eu-west-1.es.amazonaws.com"
    found = opensearch_access(given(opensearch_host=domain), {})
    assert (found.service, found.region, found.port, found.tls) == ("es", "eu-west-1", 443, True)
    collection = opensearch_access(given(opensearch_host="https://abc.sa-east-1.aoss.amazonaws.com"), {})
    assert (collection.service, collection.region) == ("aoss", "sa-east-1")
    by_name = opensearch_access(given(opensearch_host=domain, opensearch_user="maria", opensearch_pass="x"), {})
    assert (by_name.service, by_name.user, by_name.password) == ("", "maria", "x")
    plain = opensearch_access(given(opensearch_host="http://localhost:9200"), {"AWS_REGION": "eu-west-1"})
    assert plain == Access("localhost", 9200, False, region="eu-west-1")
    own = given(opensearch_host="https://search.example.org/os", opensearch_service="es")
    assert opensearch_access(own, {"AWS_REGION": "eu-west-1"}).path == "/os"
    with pytest.raises(ConfigurationError, match="set AWS_REGION"):
        opensearch_access(own, {})
