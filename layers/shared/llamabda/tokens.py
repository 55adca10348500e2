"""Access tokens: RS256 JSON Web Tokens of type `at+jwt`, made and checked."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from llamabda import jws
from llamabda.errors import DependencyFailed, LlamabdaError
from llamabda.jws import refused
from llamabda.ports import Signer
from llamabda.types import SHARED_TENANT, Principal

TYPE = "at+jwt"  # RFC 9068: so that no other kind of token passes for an access token
TENANT = re.compile(rf"t_[a-z2-7]{{26}}|{SHARED_TENANT}")
MAX_LIFETIME = 86_400  # seconds; the most that ACCESS_TOKEN_EXPIRE_MINUTES allows
LEEWAY = 60  # seconds that the issuer's clock may be ahead of ours
MAX_SUBJECT_CHARS = 256
LATEST = 2**40  # epoch seconds, far beyond any clock
REFETCH_SECONDS = 60.0  # a key set from elsewhere is asked for no more often than this ...
MAX_AGE_SECONDS = 3_600.0  # ... and asked for again after this, so that a withdrawn key stops counting

JwksSource = Callable[[], Mapping[str, object]]


def mint(signer: Signer, claims: Mapping[str, object]) -> str:
    """A signed access token that says `claims` (JSON values; times are integer epoch seconds)."""
    key = signer.key()
    header = {"alg": "RS256", "kid": key.kid, "typ": TYPE}
    payload = json.dumps(claims, separators=(",", ":"), allow_nan=False).encode("ascii")
    return jws.sign(header, payload, key.sign)


class TokenVerifier:
    """Tells who a token speaks for. Safe to share between threads.

    `jwks` returns the issuer's JWK set; it may raise a LlamabdaError, OSError or ValueError, and then the last good set
    goes on counting. It is asked for no more often than every `refetch` seconds. `clock` gives epoch seconds,
    `monotonic` seconds that never go back.
    """

    def __init__(
        self,
        jwks: JwksSource,
        issuer: str,
        audience: str,
        *,
        refetch: float = REFETCH_SECONDS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = _CachedKeys(jwks, refetch, monotonic)
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    def verify(self, token: str) -> Principal:
        """Unauthorized for every token that is not good; DependencyFailed when no key set could be had so far."""
        signed = jws.verify(token, self._keys.find)
        if signed.header.get("typ") != TYPE:
            raise refused(f"its type is not {TYPE}")
        try:
            claims = jws.parse_object(signed.payload)
        except ValueError:
            raise refused("the payload is not a plain JSON object") from None
        self._check_origin(claims)
        self._check_times(claims)
        return _principal(claims)

    def _check_origin(self, claims: Mapping[str, object]) -> None:
        if claims.get("iss") != self._issuer:
            raise refused("it comes from another issuer")
        if claims.get("aud") != self._audience:
            raise refused("it is meant for another audience")

    def _check_times(self, claims: Mapping[str, object]) -> None:
        now = self._clock()
        issued, expires = _epoch(claims, "iat"), _epoch(claims, "exp")
        starts = _epoch(claims, "nbf") if "nbf" in claims else issued
        if expires <= now:
            raise refused("it has expired")
        if max(issued, starts) > now + LEEWAY:
            raise refused("it is not valid yet")
        if not issued < expires <= issued + MAX_LIFETIME:
            raise refused(f"its lifetime is not within {MAX_LIFETIME} s")


def _epoch(claims: Mapping[str, object], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int or not 0 < value < LATEST:  # bool is an int to isinstance
        raise refused(f"{name} is not a time in whole seconds")
    return value


def _principal(claims: Mapping[str, object]) -> Principal:
    subject, tenant = claims.get("sub"), claims.get("tenant")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS:
        raise refused("sub is not a username")
    if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
        raise refused("tenant is not a tenant")
    credentials = claims.get("cred", 0)
    if type(credentials) is not int or not 0 <= credentials < LATEST:
        raise refused("cred is not a whole number")
    return Principal(subject, tenant, credentials)


class _CachedKeys:
    """The issuer's keys, asked for when first needed, when a `kid` is unknown and when old, all within bounds."""

    def __init__(self, source: JwksSource, refetch: float, monotonic: Callable[[], float]) -> None:
        self._source = source
        self._refetch_seconds = refetch
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._keys: Mapping[str, RSAPublicKey] = {}
        self._fetched_at = float("-inf")  # when the last good set came
        self._tried_at = float("-inf")

    def find(self, kid: str) -> RSAPublicKey | None:
        if kid not in self._keys or self._monotonic() - self._fetched_at >= MAX_AGE_SECONDS:
            with self._lock:  # those who need a newer set wait for one fetch; the others do not come here
                self._refetch(kid)
        return self._keys.get(kid)

    def _refetch(self, kid: str) -> None:
        now = self._monotonic()
        if kid in self._keys and now - self._fetched_at < MAX_AGE_SECONDS:
            return  # another thread has just done it
        failure: Exception | None = None
        if now - self._tried_at >= self._refetch_seconds:
            self._tried_at = now
            try:
                keys = jws.usable_keys(self._source())
            except (LlamabdaError, OSError, ValueError) as exc:
                failure = exc
            else:
                if keys:  # an empty set would lock everybody out: keep what was good
                    self._keys, self._fetched_at = keys, now
        if not self._keys:
            message = f"no key to verify tokens with could be had; asked at most every {self._refetch_seconds:.0f} s"
            raise DependencyFailed(message, dependency="jwks") from failure
