"""The ledger of published keys. What it refuses, and that no token is refused by what it allows, is in
tests/http/test_token_path.py."""

from __future__ import annotations

import json

import pytest

from llamabda import rotation
from llamabda.errors import ConfigurationError
from llamabda.rotation import Ledger, PublishedKey

BLUE, GREEN = {"kid-blue": "blue"}, {"kid-green": "green"}


def test_what_is_written_is_read_again():
    ledger = Ledger((PublishedKey("kid-blue", "blue", 5), PublishedKey("kid-green", "arn:ü", 6, 7)))
    assert Ledger.from_json(ledger.to_json()) == ledger


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": [1]}',
        b'{"keys": [{"kid": "x", "name": "x", "published": 1}]}',
        b'{"keys": [{"kid": "", "name": "x", "published": 1, "signed_until": null}]}',
        b'{"keys": [{"kid": "x", "name": "x", "published": "1", "signed_until": null}]}',
        b'{"keys": [{"kid": "x", "name": "x", "published": true, "signed_until": null}]}',
        b'{"keys": [{"kid": "x", "name": "x", "published": 1, "signed_until": 1.5}]}',
        b" " * 70_000,
        b"[" * 60_000,
    ],
)
def test_what_is_no_ledger_is_refused(content):
    with pytest.raises(ValueError, match="no ledger"):
        Ledger.from_json(content)


def test_times_begin_when_a_key_is_published_and_end_when_another_one_signs():
    ledger = rotation.first(BLUE, now=10)
    for wanted, now in ((BLUE | GREEN, 20), (GREEN | BLUE, 30), (BLUE | GREEN, 40), (BLUE | GREEN, 50)):
        ledger = rotation.advanced(ledger, wanted, now=now)
    assert ledger.keys == (PublishedKey("kid-blue", "blue", 10), PublishedKey("kid-green", "green", 20, 40))
    assert rotation.advanced(ledger, BLUE, now=60).keys == (PublishedKey("kid-blue", "blue", 10),)


def test_a_key_that_was_gone_is_new_when_it_comes_back():
    ledger = rotation.advanced(rotation.first(BLUE | GREEN, now=10), BLUE, now=20)
    assert rotation.advanced(ledger, BLUE | GREEN, now=30).keys[1] == PublishedKey("kid-green", "green", 30)


def test_a_key_may_have_another_name():
    ledger = rotation.first(BLUE, now=10)
    rotation.check(ledger, {"kid-blue": "alias/blue"}, now=10, keep=0)
    assert rotation.advanced(ledger, {"kid-blue": "alias/blue"}, now=20).keys[0].name == "alias/blue"


def test_of_a_key_set_alone_the_first_key_signs_and_the_others_may_have_signed():
    jwks = json.dumps({"keys": [{"kid": "kid-blue"}, {"kid": "kid-green"}]}).encode()
    ledger = rotation.assumed(jwks, since=100)
    first, second = PublishedKey("kid-blue", "kid-blue", 100), PublishedKey("kid-green", "kid-green", 100, 100)
    assert ledger == Ledger((first, second))
    with pytest.raises(ConfigurationError, match="kid-green signed until"):
        rotation.check(ledger, BLUE, now=199, keep=100)
    rotation.check(ledger, BLUE, now=200, keep=100)


@pytest.mark.parametrize("jwks", [b"", b"\xff", b"[]", b"{}", b'{"keys": []}', b'{"keys": [{}]}', b'{"keys": 1}'])
def test_of_what_is_no_key_set_nothing_is_known(jwks):
    assert rotation.assumed(jwks, since=100) is None
