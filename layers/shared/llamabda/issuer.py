"""The two documents by which gateways and others check tokens, as they are published. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from llamabda.errors import ConfigurationError

DISCOVERY_PATH = ".well-known/openid-configuration"
JWKS_PATH = ".well-known/jwks.json"
_PUBLIC = ("kty", "n", "e", "kid", "use", "alg")  # whatever else a key may have does not get out


def discovery(issuer: str) -> dict[str, object]:
    """OpenID Connect Discovery 1.0, the part that gateways read. `issuer` stays exactly as tokens say it."""
    base = issuer.rstrip("/")
    return {
        "issuer": issuer,
        "jwks_uri": f"{base}/{JWKS_PATH}",
        "authorization_endpoint": f"{base}/auth/login",
        "token_endpoint": f"{base}/auth/login",
        "response_types_supported": ["token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }


def key_set(jwks: Mapping[str, object]) -> dict[str, object]:
    """The public members of the RSA keys of a JWK set. ConfigurationError when there is none: with an empty set
    published, every token would be refused."""
    entries = jwks.get("keys")
    keys = [
        {name: entry[name] for name in _PUBLIC if name in entry}
        for entry in (entries if isinstance(entries, list | tuple) else ())
        if isinstance(entry, Mapping) and entry.get("kty") == "RSA"
    ]
    if not keys:
        raise ConfigurationError("there is no RSA key to publish: does KMS_KEY_ID name one?")
    return {"keys": keys}


def documents(issuer: str, jwks: Mapping[str, object]) -> Mapping[str, bytes]:
    """Both documents as JSON, by their paths below the issuer's address.

    ConfigurationError when the issuer is no https address that paths can follow, or there is no key.
    """
    parts = urlsplit(issuer)
    if parts.scheme != "https" or not parts.netloc or "?" in issuer or "#" in issuer:
        raise ConfigurationError(f"TOKEN_ISSUER is {issuer!r}: gateways want an https address without ? and #")
    found = {DISCOVERY_PATH: discovery(issuer), JWKS_PATH: key_set(jwks)}
    return {path: json.dumps(document, indent=1).encode("ascii") for path, document in found.items()}
