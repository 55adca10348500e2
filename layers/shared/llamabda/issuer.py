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


def check(issuer: str, *, setting: str = "TOKEN_ISSUER") -> None:
    """ConfigurationError unless it is an https address that paths can follow."""
    try:
        parts = urlsplit(issuer)
        good = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        good = False
    if not good or not issuer.isascii() or set(issuer) & set("?# \t\r\n"):
        raise ConfigurationError(f"{setting} is {issuer[:200]!r}: gateways want an https address without ? and #")


def documents(issuer: str, jwks: Mapping[str, object]) -> Mapping[str, bytes]:
    """Both documents as JSON, by their paths below the issuer's address.

    ConfigurationError when the issuer is no address that gateways take, or there is no key.
    """
    check(issuer)
    found = {DISCOVERY_PATH: discovery(issuer), JWKS_PATH: key_set(jwks)}
    return {path: json.dumps(document, indent=1).encode("ascii") for path, document in found.items()}
