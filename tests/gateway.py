"""What an HTTP API's JWT authorizer does with a token, written out from API Gateway's documentation.

It knows its own configuration (issuer, audiences, a route's scopes) and the two published documents, and shares no code
with the product.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

DISCOVERY = "/.well-known/openid-configuration"
HASHES = {"RS256": SHA256, "RS384": SHA384, "RS512": SHA512}
CACHE_SECONDS = 7_200


class Refused(Exception):
    """401, or 403 for want of a scope."""


class Unmade(Exception):
    """The authorizer could not be made: the API would come without its routes."""


@dataclass(frozen=True)
class Gateway:
    """An authorizer with the key set that it has at the moment."""

    issuer: str
    audiences: tuple[str, ...]
    keys: dict[str, dict]

    @classmethod
    def made(cls, issuer: str, audiences: Sequence[str], discovery: bytes, jwks: bytes) -> Gateway:
        """From what is shown at the issuer's address and at the jwks_uri."""
        cls.jwks_uri(issuer, discovery)
        found = json.loads(jwks)["keys"]
        keys = {key["kid"]: key for key in found if key["kty"] == "RSA"}
        if not found or len(keys) != len(found):
            raise Unmade("a key has no kid of its own, or is not RSA")
        return cls(issuer, tuple(audiences), keys)

    @staticmethod
    def jwks_uri(issuer: str, discovery: bytes) -> str:
        """Where the discovery document says that the keys are."""
        said = json.loads(discovery)
        if said["issuer"] != issuer:
            raise Unmade("the discovery document is another issuer's")
        uri = said["jwks_uri"]
        if urlsplit(uri).scheme != "https":
            raise Unmade("the jwks_uri is not https")
        for needed in ("response_types_supported", "subject_types_supported", "id_token_signing_alg_values_supported"):
            if not said[needed]:
                raise Unmade(f"{needed} is empty")
        return uri

    def admits(self, authorization: str, *, now: float, scopes: Sequence[str] = ()) -> dict:
        """The claims of a token, which may come with or without "Bearer "; else Refused."""
        parts = authorization.removeprefix("Bearer ").split(".")
        if len(parts) != 3:
            raise Refused("not a JWT")
        try:
            header, claims = (json.loads(_decoded(part)) for part in parts[:2])
            signature = _decoded(parts[2])
        except ValueError as exc:
            raise Refused("not a JWT") from exc
        self._check_signature(header, f"{parts[0]}.{parts[1]}".encode(), signature)
        if claims.get("iss") != self.issuer:
            raise Refused("iss")
        meant = claims["aud"] if "aud" in claims else claims.get("client_id")
        if not set(meant if isinstance(meant, list) else [meant]) & set(self.audiences):
            raise Refused("aud")
        if not claims.get("exp", 0) > now:
            raise Refused("exp")
        if not claims.get("nbf", now) <= now:
            raise Refused("nbf")
        if not claims.get("iat", now) <= now:
            raise Refused("iat")
        if scopes and not set(str(claims.get("scope") or claims.get("scp") or "").split()) & set(scopes):
            raise Refused("scope")
        return claims

    def _check_signature(self, header: dict, message: bytes, signature: bytes) -> None:
        if header.get("alg") not in HASHES:
            raise Refused("only RSA is supported")
        key = self.keys.get(header.get("kid", ""))
        if key is None:
            raise Refused("no key has that kid")
        numbers = RSAPublicNumbers(*(int.from_bytes(_decoded(key[part]), "big") for part in ("e", "n")))
        try:
            numbers.public_key().verify(signature, message, PKCS1v15(), HASHES[header["alg"]]())
        except InvalidSignature as exc:
            raise Refused("the signature is wrong") from exc


def _decoded(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
