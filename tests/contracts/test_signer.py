"""What every Signer does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from llamabda import jws
from llamabda.adapters.key_file import KeyFileSigner
from llamabda.adapters.kms import KmsSigner
from llamabda.ports import Signer
from llamabda.tokens import TokenVerifier, mint

ISSUER, AUDIENCE = "https://issuer.test", "llamabda"


@dataclass(frozen=True)
class Keys:
    """A signer, and how its next key comes: `publish` makes it known, `promote` lets it sign; each gives the signer."""

    signer: Signer
    publish: Callable[[], Signer]
    promote: Callable[[], Signer]


def key_file(request: pytest.FixtureRequest) -> Keys:
    moment = [time.time()]
    signer = KeyFileSigner(request.getfixturevalue("tmp_path") / "key.pem", keep=3_600, clock=lambda: moment[0])

    def publish() -> Signer:
        signer.rotate(after=60)
        return signer

    def promote() -> Signer:
        moment[0] += 61
        return signer

    return Keys(signer, publish, promote)


def kms(request: pytest.FixtureRequest) -> Keys:
    client = request.getfixturevalue("aws").client("kms")

    def made() -> str:
        return client.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]

    ids = [made()]

    def publish() -> Signer:
        ids.append(made())
        return KmsSigner(client, ids)

    return Keys(KmsSigner(client, ids), publish, lambda: KmsSigner(client, ids[::-1]))


@pytest.fixture(params=[key_file, kms], ids=lambda make: make.__name__)
def keys(request: pytest.FixtureRequest) -> Keys:
    return request.param(request)


def claims() -> dict[str, object]:
    now = int(time.time())
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600, "tenant": "t_" + "a" * 26}


def subject(signer: Signer, token: str) -> str:
    return TokenVerifier(signer.public_jwks, ISSUER, AUDIENCE).verify(token).username


def kids(signer: Signer) -> Sequence[str]:
    found = signer.public_jwks()["keys"]
    assert isinstance(found, list)
    return [key["kid"] for key in found]


def test_a_token_is_good_to_us_and_to_others(keys: Keys):
    token = mint(keys.signer, claims())
    assert subject(keys.signer, token) == "alice"
    (published,) = jwt.PyJWKSet.from_dict(dict(keys.signer.public_jwks())).keys
    assert jwt.decode(token, published, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)["sub"] == "alice"
    assert jwt.get_unverified_header(token)["kid"] == published.key_id


def test_a_signature_is_that_of_the_whole_message(keys: Keys):
    key = keys.signer.key()
    head, body, signature = mint(keys.signer, claims()).split(".")
    assert jws.decode(signature) == key.sign(f"{head}.{body}".encode())  # deterministic
    assert jws.decode(signature) != key.sign(f"{head}.{body}x".encode())


def test_the_longest_token_can_be_signed(keys: Keys):
    assert len(keys.signer.key().sign(b"x" * jws.MAX_CHARS)) == 256


def test_the_key_set_is_public_and_can_be_written_as_json(keys: Keys):
    (published,) = json.loads(json.dumps(keys.signer.public_jwks()))["keys"]
    assert published.keys() == {"kty", "kid", "use", "alg", "n", "e"}
    assert (published["kty"], published["use"], published["alg"]) == ("RSA", "sig", "RS256")
    (known,) = jws.usable_keys({"keys": [published]}).values()
    assert jws.public_jwk(known)["kid"] == published["kid"] == keys.signer.key().kid  # RFC 7638


def test_a_key_is_published_before_it_signs_and_after(keys: Keys):
    first = keys.signer.key().kid
    old = mint(keys.signer, claims())
    published = keys.publish()
    assert published.key().kid == first
    assert kids(published)[0] == first
    (following,) = set(kids(published)) - {first}
    promoted = keys.promote()
    assert promoted.key().kid == following
    assert kids(promoted) == [following, first]
    assert subject(promoted, old) == "alice"
    assert subject(published, mint(promoted, claims())) == "alice"  # who read the set before knows it, too


def test_kms_says_the_same_key(aws):
    client = aws.client("kms")
    key_id = client.create_key(KeySpec="RSA_3072", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    public = load_der_public_key(client.get_public_key(KeyId=key_id)["PublicKey"])
    assert KmsSigner(client, [key_id]).key().jwk == jws.public_jwk(public)
