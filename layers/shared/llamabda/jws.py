"""Compact JSON Web Signatures with RS256 and nothing else, read strictly (RFC 7515, 7517, 7638).

General JOSE libraries accept more than one wants of a token that strangers send: duplicate keys, padded or otherwise
non-canonical base64, keys meant for encryption. So the reading is done here and only the signature itself is left to
PyJWT. What a payload says is not looked at: `tokens` does that.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from jwt.algorithms import RSAAlgorithm

from llamabda.errors import Unauthorized

MAX_CHARS = 4_096  # a token of ours has about 700; the longest username and a long issuer stay far below
MIN_KEY_BITS = 2_048  # NIST SP 800-131A
MAX_KEY_BITS = 8_192  # verifying gets slow beyond
HEADER_PARAMETERS = frozenset({"alg", "kid", "typ"})  # anything else (crit, jwk, jku, x5u, b64 ...) is refused
BASE64URL = re.compile(r"[A-Za-z0-9_-]*")

# Finds the public key that a token's `kid` names; None: there is no such key.
KeyFinder = Callable[[str], RSAPublicKey | None]


@dataclass(frozen=True, slots=True)
class Signed:
    """The parts of a token whose signature was right. The header holds strings only."""

    header: Mapping[str, str]
    payload: bytes


def refused(reason: str) -> Unauthorized:
    """The error for a token that is not good. `reason` names the rule, never the token's content."""
    return Unauthorized(f"the access token was refused: {reason}")


def encode(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """The bytes of canonical base64url without padding; ValueError for any other spelling."""
    if not BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise ValueError("not base64url without padding")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode(data) != text:  # the last character's spare bits must be zero, or one signature had many spellings
        raise ValueError("not canonical base64url")
    return data


def parse_object(data: bytes) -> dict[str, object]:
    """A JSON object in UTF-8 without duplicate keys, NaN or lone surrogates, at any depth; else ValueError."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on surrogates that came as \u escapes
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def verify(token: str, find_key: KeyFinder) -> Signed:
    """Checks form, header and signature. Every failure is Unauthorized with a reason that does not show the token."""
    if len(token) > MAX_CHARS:
        raise refused(f"longer than {MAX_CHARS} characters")
    parts = token.split(".")
    if len(parts) != 3:
        raise refused("not three parts")
    try:
        header_bytes, payload, signature = (decode(part) for part in parts)
    except ValueError:
        raise refused("not base64url without padding") from None
    header = _header(header_bytes)
    key = find_key(header["kid"])
    if key is None:
        raise refused("signed by an unknown key")
    if not RSAAlgorithm(RSAAlgorithm.SHA256).verify(f"{parts[0]}.{parts[1]}".encode("ascii"), key, signature):
        raise refused("the signature is wrong")
    return Signed(header, payload)


def sign(header: Mapping[str, str], payload: bytes, signer: Callable[[bytes], bytes]) -> str:
    """A compact JWS. `signer` makes an RS256 signature; the header must name its `alg` and `kid`."""
    head = encode(json.dumps(header, separators=(",", ":")).encode("ascii"))
    message = f"{head}.{encode(payload)}"
    return f"{message}.{encode(signer(message.encode('ascii')))}"


def public_jwk(key: RSAPublicKey) -> dict[str, str]:
    """The key as a JWK for RS256 signatures; its `kid` is the RFC 7638 thumbprint."""
    numbers = key.public_numbers()
    required = {"e": _encode_integer(numbers.e), "kty": "RSA", "n": _encode_integer(numbers.n)}  # in RFC 7638's order
    thumbprint = hashlib.sha256(json.dumps(required, separators=(",", ":")).encode("ascii")).digest()
    return {**required, "kid": encode(thumbprint), "use": "sig", "alg": "RS256"}


def usable_keys(jwks: Mapping[str, object]) -> dict[str, RSAPublicKey]:
    """The keys of a JWK set that may verify RS256, by `kid`; others are passed over. The first of equal kids counts."""
    entries = jwks.get("keys")
    usable: dict[str, RSAPublicKey] = {}
    for jwk in entries if isinstance(entries, list | tuple) else ():
        if isinstance(jwk, Mapping):
            kid, key = jwk.get("kid"), _public_key(jwk)
            if isinstance(kid, str) and kid and key is not None:
                usable.setdefault(kid, key)
    return usable


def _header(data: bytes) -> dict[str, str]:
    try:
        header = parse_object(data)
    except ValueError:
        raise refused("the header is not a plain JSON object") from None
    if not header.keys() <= HEADER_PARAMETERS:
        raise refused("the header has a parameter that is not known here")
    if header.get("alg") != "RS256":
        raise refused("the algorithm is not RS256")
    if not header.get("kid"):
        raise refused("the header names no key")
    strings = {name: value for name, value in header.items() if isinstance(value, str)}
    if len(strings) != len(header):
        raise refused("the header has a value that is not a string")
    return strings


def _public_key(jwk: Mapping[str, object]) -> RSAPublicKey | None:
    operations = jwk.get("key_ops", ["verify"])
    if (
        jwk.get("kty") != "RSA"
        or jwk.get("use", "sig") != "sig"
        or jwk.get("alg", "RS256") != "RS256"
        or not isinstance(operations, list | tuple)
        or "verify" not in operations
    ):
        return None
    modulus, exponent = jwk.get("n"), jwk.get("e")
    if not isinstance(modulus, str) or not isinstance(exponent, str):
        return None
    try:
        n, e = (int.from_bytes(decode(part), "big") for part in (modulus, exponent))
        if not MIN_KEY_BITS <= n.bit_length() <= MAX_KEY_BITS:
            return None
        return RSAPublicNumbers(e, n).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _encode_integer(number: int) -> str:
    return encode(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
