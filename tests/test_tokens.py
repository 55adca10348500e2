"""Forged and malformed tokens: each differs from a good one in one point and is refused for that point."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamabda import jws
from llamabda.errors import DependencyFailed, Unauthorized
from llamabda.tokens import MAX_AGE_SECONDS, REFETCH_SECONDS, TokenVerifier, mint
from llamabda.types import Principal

NOW = 1_800_000_000
ISSUER = "https://issuer.test"
AUDIENCE = "llamabda"
TENANT = "t_" + "abcdefghijklmnopqrstuvwxyz"
CLAIMS = {
    "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": NOW, "exp": NOW + 3600, "jti": "one", "tenant": TENANT,
}  # fmt: skip


class Key:
    """A signer in memory."""

    def __init__(self, bits: int = 2048) -> None:
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        self.public = self.private.public_key()
        self.jwk: dict[str, object] = {**jws.public_jwk(self.public)}

    @property
    def kid(self) -> str:
        return str(self.jwk["kid"])

    def key(self) -> Key:
        return self

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message, PKCS1v15(), SHA256())

    def public_jwks(self) -> Mapping[str, object]:
        return {"keys": [self.jwk]}


KEY, OTHER, STRANGER = Key(), Key(), Key()
HEADER = {"alg": "RS256", "kid": KEY.kid, "typ": "at+jwt"}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def raw(header: str, payload: str, sign: Callable[[bytes], bytes] = KEY.sign) -> str:
    """A correctly signed token whose parts are exactly these texts."""
    message = f"{b64(header.encode())}.{b64(payload.encode())}"
    return f"{message}.{b64(sign(message.encode()))}"


def with_header(sign: Callable[[bytes], bytes] = KEY.sign, **changes: object) -> str:
    return raw(json.dumps(without_none({**HEADER, **changes})), json.dumps(CLAIMS), sign)


def with_claims(**changes: object) -> str:
    return raw(json.dumps(HEADER), json.dumps(without_none({**CLAIMS, **changes})))


def without_none(members: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}


def with_payload(text: str) -> str:
    return raw(json.dumps(HEADER), text)


GOOD = mint(KEY, CLAIMS)
HEAD, BODY, SIGNATURE = GOOD.split(".")
PLAIN = json.dumps(CLAIMS)


def verifier(*keys: Mapping[str, object], issuer: str = ISSUER, audience: str = AUDIENCE) -> TokenVerifier:
    jwks = {"keys": list(keys or (KEY.jwk, OTHER.jwk))}
    return TokenVerifier(lambda: jwks, issuer, audience, clock=lambda: NOW)


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda message: hmac.new(secret, message, hashlib.sha256).digest()


def respelled(signature: str) -> str:
    """The same bytes, spelled with a spare bit set: 256 bytes leave four of them in the last character."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = signature[:-1] + alphabet[alphabet.index(signature[-1]) + 1]
    assert base64.urlsafe_b64decode(twin + "==") == base64.urlsafe_b64decode(signature + "==")
    return twin


PEM = KEY.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = KEY.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PSS_256 = PSS(MGF1(SHA256()), 32)

FORM = "not base64url without padding"
HEADER_SHAPE = "the header is not a plain JSON object"
PARAMETER = "the header has a parameter that is not known here"
ALGORITHM = "the algorithm is not RS256"
NO_KEY = "the header names no key"
UNKNOWN_KEY = "signed by an unknown key"
WRONG = "the signature is wrong"
TYPE = "its type is not at+jwt"
PAYLOAD_SHAPE = "the payload is not a plain JSON object"
SUBJECT = "sub is not a username"
FOREIGN = "tenant is not a tenant"

FORGED = {
    # form
    "empty": ("", "not three parts"),
    "one part": ("abc", "not three parts"),
    "two parts": (f"{HEAD}.{BODY}", "not three parts"),
    "four parts": (f"{GOOD}.", "not three parts"),
    "oversize, correctly signed": (with_claims(note="x" * 4_000_000), "longer than 4096 characters"),
    "oversize by one": ("a" * 4097, "longer than 4096 characters"),
    "padded signature": (GOOD + "==", FORM),
    "padded header": (f"{HEAD}=.{BODY}.{SIGNATURE}", FORM),
    "signature with spare bits set": (f"{HEAD}.{BODY}.{respelled(SIGNATURE)}", FORM),
    "leading space": (f" {GOOD}", FORM),
    "trailing newline": (f"{GOOD}\n", FORM),
    "newline inside": (f"{HEAD}.{BODY[:9]}\n{BODY[9:]}.{SIGNATURE}", FORM),
    "plus instead of minus": (f"{HEAD}.{BODY}.+/{SIGNATURE[2:]}", FORM),
    "not ASCII": (f"{HEAD}.{BODY}.é{SIGNATURE[1:]}", FORM),
    "lone surrogate": (f"{HEAD}.{BODY}.\ud800{SIGNATURE[1:]}", FORM),
    "NUL": (f"{HEAD}.{BODY}.\0{SIGNATURE[1:]}", FORM),
    "a length that no bytes have": (f"{HEAD}.{BODY}.{SIGNATURE}aaa", FORM),
    # header
    "header of garbage": (raw("garbage", PLAIN), HEADER_SHAPE),
    "header is a list": (raw('["alg"]', PLAIN), HEADER_SHAPE),
    "header in UTF-16": (
        f"{b64(json.dumps(HEADER).encode('utf-16'))}.{BODY}.{SIGNATURE}",
        HEADER_SHAPE,
    ),
    "header with a duplicate key": (raw(json.dumps(HEADER)[:-1] + ',"alg":"RS256"}', PLAIN), HEADER_SHAPE),
    "header nested beyond sense": (raw('{"kid":' + "[" * 1000 + "]" * 1000 + "}", PLAIN), HEADER_SHAPE),
    "empty header": (raw("{}", PLAIN), ALGORITHM),
    "alg none without signature": (f"{b64(json.dumps({**HEADER, 'alg': 'none'}).encode())}.{BODY}.", ALGORITHM),
    "alg none, signed": (with_header(alg="none"), ALGORITHM),
    "alg nOnE": (with_header(alg="nOnE"), ALGORITHM),
    "alg in lower case": (with_header(alg="rs256"), ALGORITHM),
    "no alg": (with_header(alg=None), ALGORITHM),
    "alg in a list": (with_header(alg=["RS256"]), ALGORITHM),
    "HS256 with the public key in PEM as secret": (with_header(hs256(PEM), alg="HS256"), ALGORITHM),
    "HS256 with the public key in DER as secret": (with_header(hs256(DER), alg="HS256"), ALGORITHM),
    "HMAC under the name RS256": (with_header(hs256(PEM)), WRONG),
    "PS256": (with_header(lambda m: KEY.private.sign(m, PSS_256, SHA256()), alg="PS256"), ALGORITHM),
    "PSS under the name RS256": (with_header(lambda m: KEY.private.sign(m, PSS_256, SHA256())), WRONG),
    "SHA-512 under the name RS256": (with_header(lambda m: KEY.private.sign(m, PKCS1v15(), SHA512())), WRONG),
    "no kid": (with_header(kid=None), NO_KEY),
    "empty kid": (with_header(kid=""), NO_KEY),
    "kid is a number": (with_header(kid=1), "the header has a value that is not a string"),
    "kid of nobody": (with_header(kid="nobody"), UNKNOWN_KEY),
    "kid is a path": (with_header(kid="../../dev/null"), UNKNOWN_KEY),
    "kid of another key": (with_header(kid=OTHER.kid), WRONG),
    "kid with a lone surrogate": (raw(json.dumps({**HEADER, "kid": "\ud800"}), PLAIN), HEADER_SHAPE),
    "crit": (with_header(crit=["exp"]), PARAMETER),
    "b64 false": (with_header(b64=False, crit=["b64"]), PARAMETER),
    "jku": (with_header(jku="https://evil.test/jwks.json"), PARAMETER),
    "jwk of a stranger": (with_header(STRANGER.sign, jwk=STRANGER.jwk), PARAMETER),
    "x5u": (with_header(x5u="https://evil.test/cert"), PARAMETER),
    "x5c": (with_header(x5c=["MIIB"]), PARAMETER),
    "zip": (with_header(zip="DEF"), PARAMETER),
    "typ JWT": (with_header(typ="JWT"), TYPE),
    "typ in upper case": (with_header(typ="AT+JWT"), TYPE),
    "typ with its media type prefix": (with_header(typ="application/at+jwt"), TYPE),
    "no typ": (with_header(typ=None), TYPE),
    # signature
    "signed by a stranger under our kid": (with_header(STRANGER.sign), WRONG),
    "no signature": (f"{HEAD}.{BODY}.", WRONG),
    "a signature of zeros": (f"{HEAD}.{BODY}.{b64(bytes(256))}", WRONG),
    "a signature that is too long": (f"{HEAD}.{BODY}.{b64(bytes(1) + jws.decode(SIGNATURE))}", WRONG),
    "another token's signature": (f"{HEAD}.{b64(PLAIN.replace('alice', 'bobby').encode())}.{SIGNATURE}", WRONG),
    # payload
    "empty payload": (with_payload(""), PAYLOAD_SHAPE),
    "payload of garbage": (with_payload("garbage"), PAYLOAD_SHAPE),
    "payload is null": (with_payload("null"), PAYLOAD_SHAPE),
    "payload is a list": (with_payload("[]"), PAYLOAD_SHAPE),
    "payload twice": (with_payload(PLAIN + PLAIN), PAYLOAD_SHAPE),
    "byte order mark": (with_payload("\ufeff" + PLAIN), PAYLOAD_SHAPE),
    "duplicate sub": (with_payload(PLAIN[:-1] + ',"sub":"mallory"}'), PAYLOAD_SHAPE),
    "duplicate sub, escaped": (with_payload(PLAIN[:-1] + ',"\\u0073ub":"mallory"}'), PAYLOAD_SHAPE),
    "duplicate key deep inside": (with_payload(PLAIN[:-1] + ',"x":[{"a":1,"a":2}]}'), PAYLOAD_SHAPE),
    "NaN": (with_payload(PLAIN[:-1] + ',"x":NaN}'), PAYLOAD_SHAPE),
    "iat of 2,000 digits": (with_payload(PLAIN.replace(str(NOW), "9" * 2000)), "iat is not a time in whole seconds"),
    "nested beyond sense": (with_payload(PLAIN[:-1] + ',"x":' + "[" * 1200 + "]" * 1200 + "}"), PAYLOAD_SHAPE),
    "lone surrogate in sub": (with_claims(sub="alice\ud800"), PAYLOAD_SHAPE),
    "lone surrogate in a claim that nobody reads": (with_claims(note=["\udfff"]), PAYLOAD_SHAPE),
    "lone surrogate in a name": (with_claims(**{"\ud800": 1}), PAYLOAD_SHAPE),
    # claims
    "wrong iss": (with_claims(iss="https://evil.test"), "it comes from another issuer"),
    "iss with a slash more": (with_claims(iss=ISSUER + "/"), "it comes from another issuer"),
    "iss in a list": (with_claims(iss=[ISSUER]), "it comes from another issuer"),
    "no iss": (with_claims(iss=None), "it comes from another issuer"),
    "wrong aud": (with_claims(aud="others"), "it is meant for another audience"),
    "aud in a list": (with_claims(aud=[AUDIENCE]), "it is meant for another audience"),
    "no aud": (with_claims(aud=None), "it is meant for another audience"),
    "string exp": (with_claims(exp=str(NOW + 3600)), "exp is not a time in whole seconds"),
    "float exp": (with_claims(exp=NOW + 3600.5), "exp is not a time in whole seconds"),
    "whole float exp": (with_claims(exp=float(NOW + 3600)), "exp is not a time in whole seconds"),
    "exp of 10^30": (with_claims(exp=10**30), "exp is not a time in whole seconds"),
    "exp of infinity": (with_payload(PLAIN.replace(str(NOW + 3600), "1e999")), "exp is not a time in whole seconds"),
    "bool exp": (with_claims(exp=True), "exp is not a time in whole seconds"),
    "exp of null": (with_payload(PLAIN.replace(str(NOW + 3600), "null")), "exp is not a time in whole seconds"),
    "no exp": (with_claims(exp=None), "exp is not a time in whole seconds"),
    "negative exp": (with_claims(exp=-1), "exp is not a time in whole seconds"),
    "expired": (with_claims(iat=NOW - 10, exp=NOW - 1), "it has expired"),
    "expires now": (with_claims(iat=NOW - 10, exp=NOW), "it has expired"),
    "lives for a century": (with_claims(exp=NOW + 10**9), "its lifetime is not within 86400 s"),
    "expires before it was issued": (with_claims(iat=NOW + 30, exp=NOW + 20), "its lifetime is not within 86400 s"),
    "bool iat": (with_claims(iat=True), "iat is not a time in whole seconds"),
    "string iat": (with_claims(iat=str(NOW)), "iat is not a time in whole seconds"),
    "no iat": (with_claims(iat=None), "iat is not a time in whole seconds"),
    "future iat": (with_claims(iat=NOW + 61), "it is not valid yet"),
    "future nbf": (with_claims(nbf=NOW + 61), "it is not valid yet"),
    "string nbf": (with_claims(nbf="0"), "nbf is not a time in whole seconds"),
    "empty sub": (with_claims(sub=""), SUBJECT),
    "no sub": (with_claims(sub=None), SUBJECT),
    "sub is a number": (with_claims(sub=1), SUBJECT),
    "sub of 257 characters": (with_claims(sub="a" * 257), SUBJECT),
    "no tenant": (with_claims(tenant=None), FOREIGN),
    "empty tenant": (with_claims(tenant=""), FOREIGN),
    "tenant is a number": (with_claims(tenant=7), FOREIGN),
    "tenant in upper case": (with_claims(tenant=TENANT.upper()), FOREIGN),
    "tenant with a newline": (with_claims(tenant=TENANT + "\n"), FOREIGN),
    "tenant too short": (with_claims(tenant=TENANT[:-1]), FOREIGN),
    "tenants in a list": (with_claims(tenant=[TENANT, "shared"]), FOREIGN),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused_for_its_own_reason(name: str):
    token, reason = FORGED[name]
    with pytest.raises(Unauthorized) as caught:
        verifier().verify(token)
    assert caught.value.message == f"the access token was refused: {reason}"


@pytest.mark.parametrize(
    ("token", "principal"),
    [
        (GOOD, Principal("alice", TENANT)),
        (with_claims(), Principal("alice", TENANT)),
        (with_claims(tenant="shared"), Principal("alice", "shared")),
        (with_claims(sub="maria.joão@exemplo.pt"), Principal("maria.joão@exemplo.pt", TENANT)),
        (with_claims(sub="\U0001d49c" * 64), Principal("\U0001d49c" * 64, TENANT)),
        (with_claims(iat=NOW + 60), Principal("alice", TENANT)),
        (with_claims(exp=NOW + 1), Principal("alice", TENANT)),
        (with_claims(exp=NOW + 86_400), Principal("alice", TENANT)),
        (with_claims(nbf=NOW), Principal("alice", TENANT)),
        (with_claims(jti=None), Principal("alice", TENANT)),
        (with_claims(scope="read", more={"a": [1.5, None]}), Principal("alice", TENANT)),
        (mint(OTHER, CLAIMS), Principal("alice", TENANT)),
    ],
)
def test_a_good_token_is_accepted(token: str, principal: Principal):
    assert verifier().verify(token) == principal


def test_another_issuer_or_audience_refuses_the_same_token():
    for other in (verifier(issuer="https://other.test"), verifier(audience="other")):
        with pytest.raises(Unauthorized):
            other.verify(GOOD)


PLACES = st.integers(min_value=0, max_value=len(GOOD) - 1)
BYTES = st.integers(min_value=0, max_value=255).map(chr)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(PLACES, BYTES)
def test_a_good_token_with_any_one_byte_changed_is_refused(place: int, byte: str):
    if GOOD[place] == byte:
        return
    with pytest.raises(Unauthorized):
        verifier().verify(GOOD[:place] + byte + GOOD[place + 1 :])


@settings(max_examples=300, deadline=None)
@given(PLACES, BYTES)
def test_a_good_token_with_one_byte_more_or_less_is_refused(place: int, byte: str):
    for token in (GOOD[:place] + byte + GOOD[place:], GOOD[:place] + GOOD[place + 1 :]):
        with pytest.raises(Unauthorized):
            verifier().verify(token)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=300) | st.lists(st.binary(max_size=60).map(b64), min_size=3, max_size=3).map(".".join))
def test_no_text_at_all_does_anything_but_be_refused(text: str):
    with pytest.raises(Unauthorized):
        verifier().verify(text)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*CLAIMS, "nbf", "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_correctly_signed_claims_of_any_kind_are_accepted_or_refused_but_never_crash(changes: dict[str, object]):
    token = with_payload(json.dumps({**CLAIMS, **changes}))
    try:
        principal = verifier().verify(token)
    except Unauthorized as error:
        assert token not in error.message  # noqa: PT017 -- not every example is refused
    else:
        assert principal.username


WEAK = Key(1024)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        (KEY, {"use": "enc"}),
        (KEY, {"use": None}),
        (KEY, {"key_ops": ["encrypt"]}),
        (KEY, {"key_ops": "verify"}),
        (KEY, {"alg": "PS256"}),
        (KEY, {"alg": "RS512"}),
        (KEY, {"kty": "EC"}),
        (KEY, {"kty": "oct", "k": b64(PEM)}),
        (KEY, {"kid": ""}),
        (KEY, {"kid": 5}),
        (KEY, {"n": ""}),
        (KEY, {"n": 5}),
        (KEY, {"n": str(KEY.jwk["n"]) + "="}),
        (KEY, {"e": ""}),
        (KEY, {"e": "AQ"}),
        (WEAK, {}),
    ],
)
def test_a_key_that_is_not_for_this_verifies_nothing(key: Key, changes: dict[str, object]):
    unusable = {**key.jwk, **changes}
    token = mint(key, CLAIMS)
    with pytest.raises(Unauthorized, match="unknown key"):
        verifier(unusable, OTHER.jwk).verify(token)


@pytest.mark.parametrize("left_out", [["use"], ["alg"], ["use", "alg"]])
def test_a_key_need_not_say_its_use_and_algorithm(left_out: list[str]):
    jwk = {name: value for name, value in KEY.jwk.items() if name not in left_out}
    assert verifier(jwk).verify(GOOD).username == "alice"
    assert verifier({**jwk, "key_ops": ["verify"]}).verify(GOOD).username == "alice"


class Source:
    """A key set that can be changed and can fail, and that counts how often it was asked."""

    def __init__(self, *keys: Key) -> None:
        self.answer: Mapping[str, object] | Exception = {"keys": [key.jwk for key in keys]}
        self.asked = 0
        self.time = 1_000.0

    def __call__(self) -> Mapping[str, object]:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def verifier(self) -> TokenVerifier:
        return TokenVerifier(self, ISSUER, AUDIENCE, clock=lambda: NOW, monotonic=lambda: self.time)


def refusals(verifier: TokenVerifier, token: str, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Unauthorized, match="unknown key"):
            verifier.verify(token)


def test_nothing_is_asked_for_before_the_first_token_and_only_once_for_known_keys():
    source = Source(KEY, OTHER)
    verifier = source.verifier()
    assert source.asked == 0
    for _ in range(50):
        verifier.verify(GOOD)
        verifier.verify(mint(OTHER, CLAIMS))
    assert source.asked == 1


def test_unknown_keys_cause_one_question_per_interval():
    source = Source(KEY)
    verifier = source.verifier()
    verifier.verify(GOOD)
    refusals(verifier, mint(STRANGER, CLAIMS), times=50)
    assert source.asked == 1
    source.time += REFETCH_SECONDS
    refusals(verifier, mint(STRANGER, CLAIMS), times=50)
    assert source.asked == 2
    verifier.verify(GOOD)
    assert source.asked == 2


def test_a_rotated_key_is_found_after_the_interval():
    source = Source(KEY)
    verifier = source.verifier()
    verifier.verify(GOOD)
    source.answer = {"keys": [OTHER.jwk, KEY.jwk]}
    refusals(verifier, mint(OTHER, CLAIMS))
    source.time += REFETCH_SECONDS
    assert verifier.verify(mint(OTHER, CLAIMS)).username == "alice"
    assert verifier.verify(GOOD).username == "alice"


def test_a_withdrawn_key_stops_counting_once_the_set_is_old():
    source = Source(KEY)
    verifier = source.verifier()
    verifier.verify(GOOD)
    source.answer = {"keys": [OTHER.jwk]}
    source.time += MAX_AGE_SECONDS
    refusals(verifier, GOOD)


BROKEN = [
    DependencyFailed("down", dependency="jwks"),
    OSError("unreachable"),
    ValueError("not JSON"),
    {},
    {"keys": None},
    {"keys": []},
    {"keys": [1, None, "x", {}, {"kty": "RSA"}]},
]


@pytest.mark.parametrize("broken", BROKEN, ids=repr)
def test_the_last_good_set_goes_on_counting_while_none_can_be_had(broken: Mapping[str, object] | Exception):
    source = Source(KEY)
    verifier = source.verifier()
    verifier.verify(GOOD)
    source.answer = broken
    for step in (REFETCH_SECONDS, MAX_AGE_SECONDS, 0.0, 1.0):
        source.time += step
        assert verifier.verify(GOOD).username == "alice"
        refusals(verifier, mint(STRANGER, CLAIMS), times=3)
    assert source.asked == 3


@pytest.mark.parametrize("broken", BROKEN, ids=repr)
def test_without_any_key_set_it_is_the_dependency_that_failed_until_one_comes(broken: Mapping[str, object] | Exception):
    source = Source(KEY)
    good, source.answer = source.answer, broken
    verifier = source.verifier()
    for _ in range(5):
        with pytest.raises(DependencyFailed):
            verifier.verify(GOOD)
    assert source.asked == 1
    source.answer = good
    source.time += REFETCH_SECONDS
    assert verifier.verify(GOOD).username == "alice"


def test_threads_that_come_together_ask_once_and_all_get_their_answer():
    source = Source(KEY)
    verifier = source.verifier()
    start = threading.Barrier(8)

    def verify(_: int) -> Principal:
        start.wait()
        return verifier.verify(GOOD)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(verify, range(8))) == {Principal("alice", TENANT)}
    assert source.asked == 1
