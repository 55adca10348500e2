"""The app over AWS: accounts in DynamoDB, texts in S3, tokens signed by KMS and checked with what is published."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import httpx
import jwt
import pytest
from fastapi.testclient import TestClient
from llamabda_functions.local.app import create_local_app

from llamabda import issuer, wiring, wiring_aws
from llamabda.adapters.kms import KmsSigner
from llamabda.errors import ConfigurationError, DependencyFailed
from llamabda.settings import settings
from tests.aws import REGION, TEXTS, USERS, Aws
from tests.http.conftest import HARBOUR, PASSWORD, register
from tests.http.serving import environment_of, serving

BUCKET = "issuer-of-the-tests"
ISSUER = "https://issuer.test"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": REGION}
# everything that the function can do, in a process of its own
LIGHT = """
import sys
from fastapi.testclient import TestClient
from llamabda_functions.auth.app import app
client = TestClient(app)
alice = {"username": "alice", "password": "secret123"}
assert client.post("/auth/register", json=alice).status_code == 201
token = client.post("/auth/login", json=alice).json()["access_token"]
assert client.get("/auth/me", headers={"Authorization": f"Bearer {token}"}).json()["username"] == "alice"
assert client.get("/.well-known/jwks.json").json()["keys"]
print(*{name.split(".")[0] for name in sys.modules})
"""


def make_key(aws: Aws) -> str:
    return aws.client("kms").create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]


def publish(aws: Aws, *key_ids: str) -> str:
    """What the issuer publishes, where JWKS_URL says."""
    client = aws.client("s3")
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for path, document in issuer.documents(ISSUER, KmsSigner(aws.client("kms"), key_ids).public_jwks()).items():
        client.put_object(Bucket=BUCKET, Key=path, Body=document)
    return f"s3://{BUCKET}/{issuer.JWKS_PATH}"


@pytest.fixture
def configured(home, aws, monkeypatch) -> Aws:
    """The settings of a process that signs and checks."""
    given = CREDENTIALS | {
        "AWS_ENDPOINT_URL": aws.endpoint,
        "USERS_TABLE": USERS,
        "TEXT_BUCKET": TEXTS,
        "KMS_KEY_ID": make_key(aws),
        "TOKEN_ISSUER": ISSUER,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return aws


def test_the_app_works_over_aws(configured, home):
    client = TestClient(create_local_app())
    alice = register(client, "alice")
    doc = {"id": "notes/harbour", "text": HARBOUR}
    assert client.post("/training/train", json={"docs": [doc]}, headers=alice.headers).status_code == 200
    source = client.get("/source", params={"doc_id": "notes/harbour"}, headers=alice.headers)
    assert source.text == HARBOUR
    assert configured.client("s3").list_objects_v2(Bucket=TEXTS)["KeyCount"] == 1
    assert not (home / "signing-key.pem").exists()
    kinds = {item["pk"]["S"].split("#")[0] for item in configured.client("dynamodb").scan(TableName=USERS)["Items"]}
    assert {"users", "session"} <= kinds
    header = jwt.get_unverified_header(alice.token)
    assert header["kid"] == client.get("/.well-known/jwks.json").json()["keys"][0]["kid"]
    checks = client.get("/health/ready").json()["checks"]
    assert checks["users"]["status"] == "ok"


def test_logins_refreshes_and_guesses_are_what_they_are_on_a_laptop(configured, monkeypatch):
    monkeypatch.setenv("LOGIN_GUESSES_ACCOUNT", "3")
    client = TestClient(create_local_app())
    register(client, "alice")
    good, wrong = {"username": "alice", "password": PASSWORD}, {"username": "alice", "password": "wrong-secret"}
    tokens = client.post("/auth/login", json=good).json()
    fresh = client.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
    assert client.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).status_code == 401
    assert client.post("/auth/refresh", json={"refresh_token": fresh["refresh_token"]}).status_code == 401
    statuses = [client.post("/auth/login", json=wrong).status_code for _ in range(4)]
    assert statuses == [401, 401, 401, 429]


def test_what_one_process_signs_another_checks_with_what_is_published(aws, home, signing_key, tmp_path, monkeypatch):
    """`auth` has the keys of KMS; the other process has nothing but the published set."""
    key_id = make_key(aws)
    url = publish(aws, key_id)
    common = CREDENTIALS | {"AWS_ENDPOINT_URL": aws.endpoint, "USERS_TABLE": USERS, "TOKEN_ISSUER": ISSUER}
    for name, value in {**common, "KMS_KEY_ID": key_id}.items():
        monkeypatch.setenv(name, value)
    account = register(TestClient(create_local_app()), "alice")
    folder = tmp_path / "other"
    folder.mkdir()
    environment = environment_of(folder, folder / "no-key.pem", **common, JWKS_URL=url)
    with serving(folder, environment) as server:
        url = f"{server.url}/documents"
        found = httpx.get(url, headers=account.headers, timeout=30)
        assert (found.status_code, found.json()["documents"]) == (200, [])
        forged = {"Authorization": f"Bearer {account.token[:-8]}AAAAAAAA"}
        assert httpx.get(url, headers=forged, timeout=30).status_code == 401
    assert not (folder / "no-key.pem").exists()


def test_the_auth_function_loads_no_model_library_when_it_works(aws, tmp_path, signing_key):
    environment = environment_of(tmp_path, signing_key, **CREDENTIALS) | {
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_LAMBDA_FUNCTION_NAME": "auth",
        "USERS_TABLE": USERS,
        "KMS_KEY_ID": make_key(aws),
    }
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "boto3" in loaded
    assert loaded & {"numpy", "onnxruntime", "llama_cpp", "tokenizers", "kreuzberg"} == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("provider", "names"),
    [
        ("users", ["USERS_TABLE"]),
        ("sessions", ["USERS_TABLE"]),
        ("attempts", ["USERS_TABLE"]),
        ("accounts", ["USERS_TABLE"]),
        ("catalog", ["CATALOG_TABLE"]),
        ("embeddings", ["CATALOG_TABLE"]),
        ("texts", ["TEXT_BUCKET"]),
        ("queue", ["QUEUE_URL"]),
        ("indexes", ["OPENSEARCH_HOST"]),
        ("signer", ["KMS_KEY_ID"]),
        ("verifier", ["JWKS_URL", "KMS_KEY_ID"]),
    ],
)
def test_on_lambda_each_setting_that_is_missing_is_named(home, monkeypatch, provider, names):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "ask")
    for _ in range(2):  # a failure is not kept
        with pytest.raises(ConfigurationError) as refused:
            getattr(wiring, provider)()
        assert [word for word in refused.value.message.split() if word.isupper()] == " or ".join(names).split(" or ")
    assert list(home.iterdir()) == []
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME")
    assert getattr(wiring, provider)() is not None


@pytest.mark.parametrize(
    ("name", "value", "provider"),
    [
        ("USERS_TABLE", USERS, "users"),
        ("USERS_TABLE", USERS, "sessions"),
        ("USERS_TABLE", USERS, "attempts"),
        ("TEXT_BUCKET", TEXTS, "texts"),
        ("KMS_KEY_ID", "alias/tokens", "signer"),
        ("KMS_KEY_ID", "alias/tokens", "verifier"),
        ("JWKS_URL", "file:///jwks.json", "verifier"),
        ("JWKS_URL", "s3://bucket/jwks.json", "verifier"),
        ("JWKS_URL", "https://issuer.test/jwks.json", "verifier"),
    ],
)
def test_on_lambda_a_setting_chooses_its_adapter_and_nothing_is_asked_yet(home, monkeypatch, name, value, provider):
    for more in {**CREDENTIALS, "AWS_LAMBDA_FUNCTION_NAME": "auth", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(*more)
    monkeypatch.setenv(name, value)
    assert getattr(wiring, provider)() is getattr(wiring, provider)()
    assert list(home.iterdir()) == []


def test_a_verifier_with_a_key_set_elsewhere_asks_no_signer(home, monkeypatch, tmp_path):
    monkeypatch.setenv("JWKS_URL", f"file://{tmp_path}/jwks.json")
    monkeypatch.setenv("KMS_KEY_ID", "alias/nobody")
    with pytest.raises(DependencyFailed, match="no key to verify") as failed:
        wiring.verifier().verify(SOME_TOKEN)
    assert "jwks.json" in str(failed.value.__cause__)


SOME_TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngiLCJ0eXAiOiJhdCtqd3QifQ.e30.AAAA"


def test_keys_in_kms_are_not_rotated_in_a_file(home, monkeypatch):
    monkeypatch.setenv("KMS_KEY_ID", "alias/tokens")
    with pytest.raises(ConfigurationError, match="two hours later put it first"):
        wiring.key_file()
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_is_found_under_both_names(home, monkeypatch, name):
    bare(monkeypatch)
    monkeypatch.setenv(name, "sa-east-1")
    assert wiring_aws.dynamodb().meta.region_name == "sa-east-1"


def test_without_a_region_it_says_what_to_set(home, monkeypatch):
    bare(monkeypatch)
    monkeypatch.setenv("USERS_TABLE", USERS)
    with pytest.raises(ConfigurationError, match="set AWS_REGION"):
        wiring.users()


def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")


def test_clients_give_up_soon_and_are_made_once(home, monkeypatch):
    for more in CREDENTIALS.items():
        monkeypatch.setenv(*more)
    config = wiring_aws.dynamodb().meta.config
    assert (config.connect_timeout, config.read_timeout) == (1, 3)
    assert config.retries == {"total_max_attempts": 3, "mode": "standard"}
    assert config.tcp_keepalive is True
    assert wiring_aws.s3().meta.config.read_timeout > 3
    assert wiring_aws.s3() is wiring_aws.s3()


def test_debugging_shows_no_request(configured, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    client = TestClient(create_local_app())
    alice = register(client, "alice")
    doc = {"id": "notes/harbour", "text": HARBOUR}
    assert client.post("/training/train", json={"docs": [doc]}, headers=alice.headers).status_code == 200
    user = wiring.users().get("alice")
    assert user is not None
    assert caplog.records
    for secret in (PASSWORD, user.password_hash, HARBOUR, alice.token):
        assert secret not in caplog.text


def test_an_address_other_than_aws_own_is_taken_from_the_settings(home, monkeypatch):
    for more in CREDENTIALS.items():
        monkeypatch.setenv(*more)
    (home / ".env").write_text("AWS_ENDPOINT_URL=http://127.0.0.1:5000\n", "utf-8")
    settings.cache_clear()
    assert wiring_aws.kms().meta.endpoint_url == "http://127.0.0.1:5000"


def test_documents_are_what_gateways_read(aws):
    url = publish(aws, make_key(aws), make_key(aws))
    bucket, _, key = url.removeprefix("s3://").partition("/")
    found = json.loads(aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    assert len(jwt.PyJWKSet.from_dict(found).keys) == 2
