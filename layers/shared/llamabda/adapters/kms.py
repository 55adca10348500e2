"""The signing keys in AWS KMS, which never leave it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from llamabda import jws
from llamabda.aws_failures import code, translated
from llamabda.errors import ConfigurationError

ALGORITHM = "RSASSA_PKCS1_V1_5_SHA_256"
MAX_MESSAGE_BYTES = 4_096  # what KMS takes whole
_WANTED = "an asymmetric RSA key of 2,048 bits or more for SIGN_VERIFY"
_MAKE = f"make {_WANTED} (RSA_2048)"
# what stays until somebody does something, by AWS's name for it
_ADVICE = {
    "NotFoundException": f"is not there, in this account and region: name one that is, or {_MAKE}",
    "InvalidArnException": "is not the id, ARN or alias of a key",
    "ValidationException": f"is not the id, ARN or alias of a key that can sign: name one, or {_MAKE}",
    "DisabledException": "is disabled: enable it, or take it out of KMS_KEY_ID",
    "KMSInvalidStateException": "cannot be used as it is (perhaps it is to be deleted): cancel that, or take it out",
    "InvalidKeyUsageException": f"is not for signing with {ALGORITHM}: {_MAKE}",
    "UnsupportedOperationException": f"has no public key: {_MAKE}",
    "AccessDeniedException": "may not be used: give the role of this process kms:GetPublicKey and kms:Sign on it",
}


@dataclass(frozen=True, slots=True)
class KmsKey:
    """One RSA key. `arn`: of the very key, which an alias may leave; `given`: as the settings name it."""

    client: Any
    given: str
    arn: str
    jwk: Mapping[str, str]

    @property
    def kid(self) -> str:
        return self.jwk["kid"]

    def sign(self, message: bytes) -> bytes:
        """ConfigurationError for a message of more than 4,096 bytes, DependencyFailed when KMS does not answer."""
        if len(message) > MAX_MESSAGE_BYTES:
            raise ConfigurationError(
                f"a token of {len(message)} bytes is more than the {MAX_MESSAGE_BYTES} that KMS signs: "
                "choose a shorter TOKEN_ISSUER or TOKEN_AUDIENCE"
            )
        reply = _call(
            self.client.sign,
            self.given,
            KeyId=self.arn,
            Message=message,
            MessageType="RAW",
            SigningAlgorithm=ALGORITHM,
        )
        signature = reply["Signature"]
        assert isinstance(signature, bytes)
        return signature


class KmsSigner:
    """The Signer port over keys of KMS. `client`: boto3's for KMS; `key_ids`: ids, ARNs or aliases.

    The first key signs; the public keys of all are published, in this order. Public keys are asked for once. A key is
    looked at when it is first needed: ConfigurationError, naming it and what to do, when it cannot be used; no good key
    is held up by another one.
    """

    def __init__(self, client: Any, key_ids: Sequence[str]) -> None:
        if not key_ids:
            raise ConfigurationError(f"KMS_KEY_ID names no key: {_MAKE} and name it")
        self._client = client
        self._ids = tuple(dict.fromkeys(key_ids))
        self._keys: dict[str, KmsKey] = {}
        self._lock = threading.Lock()

    def key(self) -> KmsKey:
        return self._key(self._ids[0])

    def keys(self) -> tuple[KmsKey, ...]:
        """All of them, each once, in their order."""
        found: dict[str, KmsKey] = {}
        for key in map(self._key, self._ids):  # several ids may mean one key
            found.setdefault(key.kid, key)
        return tuple(found.values())

    def public_jwks(self) -> Mapping[str, object]:
        return {"keys": [dict(key.jwk) for key in self.keys()]}

    def _key(self, key_id: str) -> KmsKey:
        found = self._keys.get(key_id)
        if found is None:
            with self._lock:
                found = self._keys.get(key_id)
                if found is None:
                    found = self._keys[key_id] = self._fetched(key_id)
        return found

    def _fetched(self, key_id: str) -> KmsKey:
        reply = _call(self._client.get_public_key, key_id, KeyId=key_id)
        if ALGORITHM not in (reply.get("SigningAlgorithms") or ()):
            raise _unusable(key_id, f"is a {reply.get('KeySpec')} for {reply.get('KeyUsage')}: {_MAKE}")
        try:
            public = load_der_public_key(reply["PublicKey"])
        except (ValueError, UnsupportedAlgorithm):
            raise _unusable(key_id, f"has a public key that cannot be read: {_MAKE}") from None
        if not isinstance(public, RSAPublicKey) or not jws.MIN_KEY_BITS <= public.key_size <= jws.MAX_KEY_BITS:
            raise _unusable(key_id, f"is not {_WANTED}: {_MAKE}")
        return KmsKey(self._client, key_id, reply["KeyId"], jws.public_jwk(public))


def _call(operation: Any, key_id: str, **parameters: Any) -> Any:
    with translated(f"the key {key_id} (KMS_KEY_ID)", dependency="signer"):
        try:
            return operation(**parameters)
        except ClientError as exc:
            if code(exc) in _ADVICE:
                raise _unusable(key_id, _ADVICE[code(exc)]) from None
            raise


def _unusable(key_id: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"KMS_KEY_ID: the key {key_id} {reason}")
