"""Keys in KMS that cannot be used, and a KMS that does not answer."""

from __future__ import annotations

import base64
import json

import pytest

from llamabda.adapters.kms import MAX_MESSAGE_BYTES, KmsSigner
from llamabda.errors import ConfigurationError, DependencyFailed
from tests.aws import Aws
from tests.aws_proxy import DROP, Asked, Given, error, proxied


def make(aws: Aws, spec: str = "RSA_2048", usage: str = "SIGN_VERIFY") -> str:
    return aws.client("kms").create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["KeyId"]


@pytest.mark.parametrize(
    ("spec", "usage"),
    [("RSA_2048", "ENCRYPT_DECRYPT"), ("ECC_NIST_P256", "SIGN_VERIFY"), ("ECC_SECG_P256K1", "SIGN_VERIFY")],
)
def test_a_key_of_another_kind_is_refused_by_name(aws, spec, usage):
    key_id = make(aws, spec, usage)
    signer = KmsSigner(aws.client("kms"), [key_id])
    for use in (signer.key, signer.public_jwks):
        with pytest.raises(ConfigurationError, match=f"{key_id} .*RSA_2048"):
            use()


@pytest.mark.parametrize(
    "key_id", ["7c1a7bbd-0d6c-4a04-b1bb-8a1d6e0a1f00", "alias/nobody", "not an id", "arn:aws:kms:eu-west-1:1:key/x"]
)
def test_a_key_that_is_not_there_is_named(aws, key_id):
    with pytest.raises(ConfigurationError) as refused:
        KmsSigner(aws.client("kms"), [key_id]).key()
    assert key_id in refused.value.message
    assert "KMS_KEY_ID" in refused.value.message


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("DisabledException", "enable it"),
        ("KMSInvalidStateException", "deleted"),
        ("AccessDeniedException", "kms:GetPublicKey and kms:Sign"),
        ("InvalidKeyUsageException", "RSA_2048"),
        ("UnsupportedOperationException", "RSA_2048"),
    ],
)
@pytest.mark.parametrize("operation", ["GetPublicKey", "Sign"])
def test_what_kms_refuses_for_good_is_said_with_what_to_do(aws, code, advice, operation):
    key_id = make(aws)
    with proxied(aws, lambda asked: error(code) if asked.operation == operation else None) as (place, seen):
        signer = KmsSigner(place.client("kms"), [key_id])
        with pytest.raises(ConfigurationError, match=advice) as refused:
            signer.key().sign(b"x")
        assert key_id in refused.value.message
        assert "never shown" not in refused.value.message
        assert sum(asked.operation == operation for asked in seen) == 1


@pytest.mark.parametrize(
    "reply", [error("ThrottlingException"), error("KMSInternalException", 500), error("KeyUnavailableException"), DROP]
)
def test_what_may_pass_is_a_dependency_that_failed(aws, reply):
    key_id = make(aws)
    with proxied(aws, lambda asked: reply if asked.operation == "Sign" else None) as (place, _):
        key = KmsSigner(place.client("kms"), [key_id]).key()
        with pytest.raises(DependencyFailed, match="KMS_KEY_ID") as failed:
            key.sign(b"x")
        assert failed.value.dependency == "signer"


def test_a_moment_of_throttling_is_not_noticed(aws):
    key_id = make(aws)
    with proxied(aws, lambda asked: error("ThrottlingException") if asked.number == 0 else None) as (place, seen):
        assert KmsSigner(place.client("kms"), [key_id]).key().sign(b"x")
    assert [asked.operation for asked in seen] == ["GetPublicKey"] * 2 + ["Sign"] * 2


def test_a_server_that_is_not_there_is_a_dependency_that_failed(aws):
    with proxied(aws) as (place, _):
        pass
    with pytest.raises(DependencyFailed, match="cannot be reached"):
        KmsSigner(place.client("kms"), ["alias/x"]).key()


def test_public_keys_are_asked_for_once_and_failures_again(aws):
    key_id = make(aws)
    with proxied(aws, lambda asked: error("NotFoundException") if asked.number == 0 else None) as (place, seen):
        signer = KmsSigner(place.client("kms"), [key_id])
        with pytest.raises(ConfigurationError):
            signer.key()
        for _ in range(3):
            assert signer.key().kid == signer.public_jwks()["keys"][0]["kid"]
        assert len(seen) == 2


def test_a_key_signs_though_another_one_cannot_be_published(aws):
    signer = KmsSigner(aws.client("kms"), [make(aws), "alias/gone"])
    assert signer.key().sign(b"x")
    with pytest.raises(ConfigurationError, match="alias/gone"):
        signer.public_jwks()


def test_a_key_that_is_named_twice_is_published_once(aws):
    client, key_id, other = aws.client("kms"), make(aws), make(aws)
    client.create_alias(AliasName="alias/tokens", TargetKeyId=key_id)
    published = KmsSigner(client, ["alias/tokens", other, key_id]).public_jwks()["keys"]
    assert [key["kid"] for key in published] == [KmsSigner(client, [one]).key().kid for one in (key_id, other)]


def test_a_signature_is_of_the_key_that_is_published_though_its_alias_has_moved(aws):
    client, key_id, other = aws.client("kms"), make(aws), make(aws)
    client.create_alias(AliasName="alias/tokens", TargetKeyId=key_id)
    key = KmsSigner(client, ["alias/tokens"]).key()
    client.update_alias(AliasName="alias/tokens", TargetKeyId=other)
    assert key.sign(b"x") == KmsSigner(client, [key_id]).key().sign(b"x")


def test_what_is_too_long_is_refused_before_kms_is_asked(aws):
    key_id = make(aws)
    with proxied(aws) as (place, seen):
        key = KmsSigner(place.client("kms"), [key_id]).key()
        with pytest.raises(ConfigurationError, match="TOKEN_ISSUER"):
            key.sign(b"x" * (MAX_MESSAGE_BYTES + 1))
        assert [asked.operation for asked in seen] == ["GetPublicKey"]


def test_no_key_at_all_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="KMS_KEY_ID"):
        KmsSigner(object(), [])


@pytest.mark.parametrize("public", [b"nothing", b""])
def test_a_public_key_that_cannot_be_read_is_refused(aws, public):
    key_id = make(aws)

    def broken(asked: Asked, given: Given) -> Given:
        body = json.loads(given.body) | {"PublicKey": base64.b64encode(public).decode()}
        return Given(given.status, json.dumps(body).encode(), given.headers)

    with proxied(aws, after=broken) as (place, _), pytest.raises(ConfigurationError, match="cannot be read"):
        KmsSigner(place.client("kms"), [key_id]).key()
