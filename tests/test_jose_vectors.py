"""Published JWS vectors (Wycheproof): what must be refused is refused, at the signature layer and as a token.

The signature layer takes RS256 of any payload; a token must besides be of our type and make our claims, which no vector
does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from llamabda import jws
from llamabda.errors import Unauthorized
from llamabda.tokens import TokenVerifier


@dataclass(frozen=True)
class Vector:
    number: int
    comment: str
    token: str
    valid: bool
    key: Mapping[str, object]

    @property
    def for_rs256(self) -> bool:
        return self.key["kty"] == "RSA" and self.key.get("alg") == "RS256"


@pytest.fixture(scope="module")
def vectors(data_dir: Path) -> list[Vector]:
    suite = json.loads((data_dir / "jose" / "json_web_signature_test.json").read_text("utf-8"))
    found = [
        Vector(
            number=test["tcId"],
            comment=test["comment"],
            # two vectors are in JSON serialization: as a header would carry them
            token=test["jws"] if isinstance(test["jws"], str) else json.dumps(test["jws"]),
            valid=test["result"] == "valid",
            key=group.get("public") or group["private"],
        )
        for group in suite["testGroups"]
        for test in group["tests"]
    ]
    assert len(found) == suite["numberOfTests"]
    return found


def accepted(vector: Vector, key: Mapping[str, object] | None = None) -> bool:
    keys = jws.usable_keys({"keys": [vector.key if key is None else key]})
    try:
        jws.verify(vector.token, keys.get)
    except Unauthorized:
        return False
    return True


def test_the_vectors_are_all_there(vectors: list[Vector]):
    assert Counter(vector.valid for vector in vectors) == {True: 46, False: 355}
    assert sum(vector.for_rs256 and not vector.valid for vector in vectors) == 225


def test_the_signature_layer_accepts_the_valid_rs256_vectors_and_refuses_every_other(vectors: list[Vector]):
    wrong = [
        (vector.number, vector.comment) for vector in vectors if accepted(vector) != (vector.valid and vector.for_rs256)
    ]
    assert wrong == []


def test_of_the_invalid_vectors_only_a_keys_declared_purpose_refuses_three_and_the_signature_the_others(
    vectors: list[Vector],
):
    """With every RSA key declared fit, the well signed vectors whose fault is the key's purpose show up, no others."""
    fit = {"use": "sig", "alg": "RS256", "key_ops": ["verify"]}
    taken = [vector.comment for vector in vectors if not vector.valid and accepted(vector, {**vector.key, **fit})]
    assert sorted(taken) == ["UsingRS256", "rejectWrongKeyOps", "rejectWrongUse"]


def test_no_vector_is_an_access_token(vectors: list[Vector]):
    taken = []
    for vector in vectors:
        jwks = {"keys": [vector.key, _another_key(vectors)]}
        verifier = TokenVerifier(lambda jwks=jwks: jwks, "issuer", "audience")
        try:
            verifier.verify(vector.token)
        except Unauthorized:
            continue
        taken.append((vector.number, vector.comment))
    assert taken == []


def _another_key(vectors: list[Vector]) -> Mapping[str, object]:
    """A usable key beside the vector's own, so that a set without a usable one is not the reason for refusal."""
    return {**next(vector.key for vector in vectors if vector.for_rs256), "kid": "another"}
