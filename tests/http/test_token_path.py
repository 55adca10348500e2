"""From the key in KMS to the gateway: what `auth` signs is admitted by whoever has the published documents alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from llamabda_functions.auth.app import app

from llamabda import issuer, jws, rotation, wiring
from llamabda.adapters.kms import KmsSigner
from llamabda.errors import Unauthorized
from llamabda.publication import LEDGER_PATH
from llamabda.settings import settings
from llamabda.tokens import TokenVerifier
from tests.aws import USERS
from tests.gateway import CACHE_SECONDS, DISCOVERY, Gateway, Refused, Unmade
from tests.http.conftest import PASSWORD, register
from tests.http.issuer_stage import BUCKET, START, Stage, prepare, staged

AUDIENCE = "llamabda"
LIFE = 3_600  # seconds, of a token
KEEP = LIFE + 7_200
LAG = 900  # seconds after the keys' deployment, in which functions are updated
LEAD = rotation.LEAD_SECONDS
ALICE = {"username": "alice", "password": PASSWORD}


@pytest.fixture
def stage(home, aws, certificate, monkeypatch) -> Iterator[Stage]:
    prepare(monkeypatch, aws, certificate)
    monkeypatch.setenv("USERS_TABLE", USERS)
    with staged(aws, certificate) as made:
        yield made


@dataclass(frozen=True)
class Bundle:
    """After a deployment: the function that signs, and the gateway that was made of what is published."""

    stage: Stage
    key: str
    client: TestClient
    token: str
    gateway: Gateway

    def admitted(self, token: str) -> tuple[bool, bool]:
        """By the gateway, and by the function behind it."""
        try:
            self.gateway.admits(f"Bearer {token}", now=time.time())
        except Refused:
            first = False
        else:
            first = True
        status = self.client.get("/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code
        assert status in (200, 401)
        return first, status == 200


@pytest.fixture(params=["s3", "https"])
def bundle(request, stage, certificate, monkeypatch) -> Bundle:
    key = stage.key()
    url = stage.deploy(key)["Data"]["Url"]
    shown = {"s3": f"s3://{BUCKET}/{issuer.JWKS_PATH}", "https": f"{url}/{issuer.JWKS_PATH}"}
    for name, value in {"TOKEN_ISSUER": url, "KMS_KEY_ID": key, "JWKS_URL": shown[request.param]}.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    client = TestClient(app)
    account = register(client, "alice")
    return Bundle(stage, key, client, account.token, gateway_of(url, certificate))


def gateway_of(url: str, certificate: Path) -> Gateway:
    """As API Gateway makes one from the issuer's address."""
    with httpx.Client(verify=ssl.create_default_context(cafile=str(certificate)), timeout=30) as client:
        discovery = client.get(url + DISCOVERY).raise_for_status().content
        keys = client.get(Gateway.jwks_uri(url, discovery)).raise_for_status().content
    return Gateway.made(url, [AUDIENCE], discovery, keys)


def test_a_token_of_the_bundle_is_admitted_with_what_is_published_alone(bundle):
    claims = bundle.gateway.admits(f"Bearer {bundle.token}", now=time.time())
    assert claims["iss"] == bundle.stage.address
    assert claims["aud"] == AUDIENCE
    assert bundle.admitted(bundle.token) == (True, True)
    refreshed = bundle.client.post("/auth/login", json=ALICE).json()["access_token"]
    assert bundle.admitted(refreshed) == (True, True)


def forged(bundle: Bundle, *, header: dict | None = None, key: str = "", **claims: object) -> str:
    """The token with other claims (None: without), rightly signed unless `key` is another's."""
    head, payload, _ = bundle.token.split(".")
    said_head, said = (json.loads(jws.decode(part)) for part in (head, payload))
    said = {name: value for name, value in (said | claims).items() if value is not None}
    said_head = {name: value for name, value in (said_head | (header or {})).items() if value is not None}
    sign = KmsSigner(bundle.stage.aws.client("kms"), (key or bundle.key,)).key().sign
    return jws.sign(said_head, json.dumps(said).encode(), sign)


def unsigned(bundle: Bundle) -> str:
    _, payload, _ = bundle.token.split(".")
    kid = bundle.stage.kids()[0]
    return f"{jws.encode(json.dumps({'alg': 'none', 'typ': 'at+jwt', 'kid': kid}).encode())}.{payload}."


def symmetric(bundle: Bundle) -> str:
    """Signed with the public key, as if it were a secret."""
    _, payload, _ = bundle.token.split(".")
    (key,) = json.loads(bundle.stage.documents()[1])["keys"]
    head = jws.encode(json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": key["kid"]}).encode())
    mac = hmac.digest(base64.urlsafe_b64decode(key["n"] + "=="), f"{head}.{payload}".encode(), hashlib.sha256)
    return f"{head}.{payload}.{jws.encode(mac)}"


def with_other_payload(bundle: Bundle) -> str:
    head, payload, signature = bundle.token.split(".")
    said = json.loads(jws.decode(payload)) | {"tenant": "shared"}
    return f"{head}.{jws.encode(json.dumps(said).encode())}.{signature}"


def of_a_stranger(bundle: Bundle, *, own_kid: bool) -> str:
    key = bundle.stage.key()
    kid = KmsSigner(bundle.stage.aws.client("kms"), (key,)).key().kid
    return forged(bundle, key=key, header={"kid": kid} if own_kid else None)


INVALID: dict[str, Callable[[Bundle], str]] = {
    "another issuer": partial(forged, iss="https://another.test"),
    "the issuer with a slash": lambda bundle: forged(bundle, iss=f"{bundle.stage.address}/"),
    "no issuer": partial(forged, iss=None),
    "another audience": partial(forged, aud="another"),
    "no audience": partial(forged, aud=None),
    "expired": lambda bundle: forged(bundle, iat=int(time.time()) - 7_200, exp=int(time.time()) - 1),
    "no expiry": partial(forged, exp=None),
    "not yet": lambda bundle: forged(bundle, nbf=int(time.time()) + 600),
    "issued tomorrow": lambda bundle: forged(bundle, iat=int(time.time()) + 86_400, exp=int(time.time()) + 90_000),
    "no kid": lambda bundle: forged(bundle, header={"kid": None}),
    "another kid": lambda bundle: forged(bundle, header={"kid": "x"}),
    "a stranger's key": partial(of_a_stranger, own_kid=True),
    "a stranger's key under this kid": partial(of_a_stranger, own_kid=False),
    "unsigned": unsigned,
    "symmetric": symmetric,
    "another algorithm of RSA's": lambda bundle: forged(bundle, header={"alg": "RS512"}),
    "another payload": with_other_payload,
    "another signature": lambda bundle: bundle.token[:-8] + "AAAAAAAA",
    "no signature": lambda bundle: bundle.token.rpartition(".")[0] + ".",
}


@pytest.mark.parametrize("bundle", ["s3"], indirect=True)
def test_what_is_not_valid_is_admitted_by_nobody(bundle):
    assert {name: bundle.admitted(make(bundle)) for name, make in INVALID.items()} == dict.fromkeys(
        INVALID, (False, False)
    )
    assert bundle.admitted(bundle.token) == (True, True)


@pytest.mark.parametrize("bundle", ["s3"], indirect=True)
def test_the_gateway_asks_for_a_scope_where_a_route_has_one(bundle):
    scoped = forged(bundle, scope="read write")
    assert bundle.gateway.admits(scoped, now=time.time(), scopes=["write", "admin"])
    for token, scopes in ((scoped, ["admin"]), (bundle.token, ["read"])):
        with pytest.raises(Refused, match="scope"):
            bundle.gateway.admits(token, now=time.time(), scopes=scopes)


@pytest.mark.parametrize("bundle", ["s3"], indirect=True)
def test_an_authorizer_for_another_issuer_is_not_made(bundle):
    discovery, keys = bundle.stage.documents()
    with pytest.raises(Unmade, match="another issuer"):
        Gateway.made(f"{bundle.stage.address}/", [AUDIENCE], discovery, keys)


# -- rotation


@dataclass
class Deployed:
    """A stack over time. `published`: key sets since when; `signing`: which keys may sign since when."""

    stage: Stage
    published: list[tuple[float, bytes]]
    signing: list[tuple[float, tuple[str, ...]]]

    def deploy(self, *keys: str) -> dict:
        answer = self.stage.deploy(*keys)
        now = self.stage.clock.now
        if answer["Status"] == "SUCCESS":
            self.published.append((now, self.stage.documents()[1]))
            before = self.signing[-1][1] if self.signing else (keys[0],)
            self.signing += [(now, tuple(dict.fromkeys((before[-1], keys[0])))), (now + LAG, (keys[0],))]
        return answer

    def refused_before(self, moment: float, *keys: str) -> str:
        """The deployment a second too early; why it was refused. The stack is as it was."""
        self.stage.clock.now = moment - 1
        before = self.stage.objects()
        answer = self.stage.deploy(*keys)
        assert answer["Status"] == "FAILED"
        assert self.stage.objects() == before
        assert self.stage.roll_back(*keys)["Status"] == "SUCCESS"
        assert self.stage.documents() == (before[issuer.DISCOVERY_PATH], before[issuer.JWKS_PATH])
        self.stage.clock.now = moment
        return answer["Reason"]

    def seen(self, now: float) -> set[bytes]:
        """The key sets that gateways may have at a moment: as old as their cache and the one before it allow."""
        ages = (0, rotation.CACHE_SECONDS, 1_800, 3_600, CACHE_SECONDS, CACHE_SECONDS + rotation.CACHE_SECONDS)
        moments = [now - age for age in ages if now - age >= self.published[0][0]]
        return {[keys for since, keys in self.published if since <= moment][-1] for moment in moments}

    def signers(self, now: float) -> tuple[str, ...]:
        return [keys for since, keys in self.signing if since <= now][-1]


def both_admit(address: str, keys: bytes, discovery: bytes, token: str, now: float) -> bool:
    """The gateway and the apps, which must agree."""
    try:
        Gateway.made(address, [AUDIENCE], discovery, keys).admits(token, now=now)
    except Refused:
        first = False
    else:
        first = True
    try:
        TokenVerifier(lambda: json.loads(keys), address, AUDIENCE, clock=lambda: now).verify(token)
    except Unauthorized:
        second = False
    else:
        second = True
    assert first == second
    return first


def test_while_keys_rotate_every_token_is_admitted_by_everybody_as_long_as_it_lives(stage, monkeypatch):
    blue, green = stage.key(), stage.key()
    stack = Deployed(stage, [], [])
    clock = stage.clock

    stack.deploy(blue)
    clock.now += 4 * 3_600
    both = clock.now
    assert stack.deploy(blue, green)["Status"] == "SUCCESS"
    assert green in stack.refused_before(both + LEAD, green, blue)
    swapped = clock.now
    assert stack.deploy(green, blue)["Status"] == "SUCCESS"
    assert blue in stack.refused_before(swapped + KEEP, green)
    alone = clock.now
    assert stack.deploy(green)["Status"] == "SUCCESS"
    end = alone + 4 * 3_600

    changes = [moment for moment, _ in stack.signing]
    moments = sorted(
        {*range(START, int(end), 1_800), *(int(at) + late for at in changes for late in (-1, 0, 1))} - {START - 1}
    )
    discovery = stage.documents()[0]
    monkeypatch.setenv("KMS_KEY_ID", blue)
    monkeypatch.setenv("TOKEN_ISSUER", stage.address)
    settings.cache_clear()
    wiring.auth().add("alice", PASSWORD)
    signers = {key: KmsSigner(stage.aws.client("kms"), (key,)) for key in (blue, green)}
    checked = 0
    for issued in moments:
        for key in stack.signers(issued):
            auth = replace(wiring.auth(), signer=signers[key], clock=lambda: issued)  # noqa: B023
            token = auth.login("alice", PASSWORD, address="192.0.2.1").access
            lives = [at for at in moments if issued <= at < issued + LIFE] + [issued + LIFE - 1]
            for now in lives:
                for keys in stack.seen(now):
                    assert both_admit(stage.address, keys, discovery, token, now), (issued, now, key == blue)
                    checked += 1
            for keys in stack.seen(issued + LIFE):
                assert not both_admit(stage.address, keys, discovery, token, issued + LIFE)
    assert checked > 200

    # once the old key is gone for everybody, nothing it signs is admitted
    auth = replace(wiring.auth(), signer=signers[blue], clock=lambda: end)
    stale = auth.login("alice", PASSWORD, address="192.0.2.1").access
    assert not any(both_admit(stage.address, keys, discovery, stale, end) for keys in stack.seen(end))


@pytest.mark.parametrize(
    ("before", "seconds", "wanted", "reason"),
    [
        ("b", 86_400, "g", r"the key {g} has not been published yet: .* 2 h 1 min after"),
        ("b", 86_400, "gb", r"the key {g} has not been published yet: deploy with it behind"),
        ("b bg", LEAD - 1, "gb", r"the key {g} was published at 2027-01-15 08:00:00 UTC .* at 2027-01-15 10:01:00 UTC"),
        ("b bg", 86_400, "g", r"the key {b} signs now and cannot go at once: .* 3 h after"),
        ("b bg", LEAD, "g", r"the key {b} signs now"),
        (
            "b bg +gb",
            KEEP - 1,
            "g",
            r"the key {b} signed until 2027-01-15 10:01:00 UTC .* until 2027-01-15 13:01:00 UTC",
        ),
        ("b bg +gb", 60, "g", r"the key {b} signed until"),
        ("b bg +gb bg", LEAD, "b", r"the key {g} signed until"),
        ("b bg +gb", 60, "gr", r"the key {b} signed until"),
        ("b bg +gb", 60, "rgb", r"the key {r} has not been published yet"),
        ("b bg b bg", LEAD - 1, "gb", r"the key {g} was published"),
    ],
)
def test_a_deployment_that_would_refuse_tokens_is_refused_with_what_to_do(stage, before, seconds, wanted, reason):
    """`b`lue, `g`reen and `r`ed, the first one signs; `+`: two hours and a minute later."""
    keys = {name: stage.key() for name in "bgr"}
    for step in before.split():
        stage.clock.now += LEAD if step[0] == "+" else 0
        assert stage.deploy(*(keys[name] for name in step.lstrip("+")))["Status"] == "SUCCESS"
    objects = stage.objects()
    stage.clock.now += seconds
    answer = stage.deploy(*(keys[name] for name in wanted))
    assert answer["Status"] == "FAILED"
    assert re.search(reason.format(**keys), answer["Reason"]) is not None, answer["Reason"]
    assert stage.objects() == objects
    assert stage.roll_back(*(keys[name] for name in wanted))["Status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("before", "seconds", "wanted"),
    [
        ("b", 0, "bg"),
        ("b bg", 0, "b"),  # what never signed may go at once
        ("b bg", LEAD, "gb"),
        ("b bg +gb", 0, "bg"),  # back to the one before, whose key everybody knows
        ("b bg +gb", KEEP, "g"),
        ("b bg +gb", 60, "gbr"),
        ("bg", LEAD, "gb"),
    ],
)
def test_every_step_can_be_taken_and_rolled_back(stage, before, seconds, wanted):
    keys = {name: stage.key() for name in "bgr"}
    for step in before.split():
        stage.clock.now += LEAD if step[0] == "+" else 0
        assert stage.deploy(*(keys[name] for name in step.lstrip("+")))["Status"] == "SUCCESS"
    former, documents = stage.former, stage.documents()
    stage.clock.now += seconds
    new = [keys[name] for name in wanted]
    assert stage.deploy(*new)["Status"] == "SUCCESS"
    assert stage.documents() != documents
    stage.former = former
    assert stage.roll_back(*new)["Status"] == "SUCCESS"
    assert stage.documents() == documents


def test_keep_seconds_of_zero_changes_keys_at_once_and_can_be_rolled_back(stage):
    blue, green = stage.key(), stage.key()
    stage.deploy(blue)
    former, documents = stage.former, stage.documents()
    assert stage.deploy(green, KeepSeconds="0")["Status"] == "SUCCESS"
    assert stage.kids() == [KmsSigner(stage.aws.client("kms"), (green,)).key().kid]
    stage.former = former
    assert stage.roll_back(green, KeepSeconds="0")["Status"] == "SUCCESS"
    assert stage.documents() == documents
    assert stage.deploy(green)["Status"] == "FAILED"


@pytest.mark.parametrize("minutes", [5, 1_440])
def test_a_key_is_kept_as_long_as_the_tokens_of_these_settings_live(stage, monkeypatch, minutes):
    monkeypatch.setenv("ACCESS_TOKEN_EXPIRE_MINUTES", str(minutes))
    settings.cache_clear()
    blue, green = stage.key(), stage.key()
    stage.deploy(blue, green)
    stage.clock.now += LEAD
    stage.deploy(green, blue)
    stage.clock.now += minutes * 60 + 7_199
    assert stage.deploy(green)["Status"] == "FAILED"
    stage.clock.now += 1
    assert stage.deploy(green)["Status"] == "SUCCESS"


def test_keep_seconds_say_how_long_a_key_is_kept(stage):
    blue, green = stage.key(), stage.key()
    stage.deploy(blue, green, KeepSeconds="20000")
    stage.clock.now += LEAD
    stage.deploy(green, blue, KeepSeconds="20000")
    stage.clock.now += 19_999
    assert stage.deploy(green, KeepSeconds="20000")["Status"] == "FAILED"
    stage.clock.now += 1
    assert stage.deploy(green, KeepSeconds="20000")["Status"] == "SUCCESS"


@pytest.mark.parametrize(
    "left", [None, b"", b"{}", b'{"keys": []}', b'{"keys": [{"kid": "x"}]}', b"\xff", b"[" * 9_000]
)
def test_without_the_record_of_times_no_key_changes_too_early_either(stage, left):
    blue, green = stage.key(), stage.key()
    stage.deploy(blue)
    store = stage.aws.client("s3")
    if left is None:
        store.delete_object(Bucket=BUCKET, Key=LEDGER_PATH)
    else:
        store.put_object(Bucket=BUCKET, Key=LEDGER_PATH, Body=left)
    for wanted in ((green, blue), (green,)):
        assert stage.deploy(*wanted)["Status"] == "FAILED"
        assert stage.roll_back(*wanted)["Status"] == "SUCCESS"
    assert stage.deploy(blue, green)["Status"] == "SUCCESS"
    stage.clock.now += LEAD
    assert stage.deploy(green, blue)["Status"] == "SUCCESS"
