"""Which signing keys may be published, sign and go, so that no good token is refused anywhere. Pure.

Gateways keep the key set for up to two hours, and tokens live for a while. So a key is published for as long before it
signs, and stays published after it signed for as long as its tokens live. The ledger remembers both, from one
deployment to the next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from llamabda.errors import ConfigurationError

GATEWAY_SECONDS = 7_200  # for which API Gateway goes on with the key set that it has
CACHE_SECONDS = 60  # for which the published documents may be kept on their way there
LEAD_SECONDS = GATEWAY_SECONDS + CACHE_SECONDS  # for which a key is published before it signs
_MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """`kid`: RFC 7638 thumbprint; `name`: how whoever deploys knows the key; times: epoch seconds.

    `signed_until`: when another one took its place, at the earliest; None: it has not signed, or signs now.
    """

    kid: str
    name: str
    published: int
    signed_until: int | None = None


@dataclass(frozen=True, slots=True)
class Ledger:
    """The keys that are published. The first one signs."""

    keys: tuple[PublishedKey, ...]

    def to_json(self) -> bytes:
        keys = [
            {"kid": key.kid, "name": key.name, "published": key.published, "signed_until": key.signed_until}
            for key in self.keys
        ]
        return json.dumps({"keys": keys}, indent=1).encode("ascii")

    @classmethod
    def from_json(cls, content: bytes) -> Ledger:
        """ValueError when it is not what `to_json` makes."""
        try:
            if len(content) > _MAX_BYTES:
                raise ValueError("too long")
            keys = tuple(_key(entry) for entry in json.loads(content)["keys"])
            if not keys:
                raise ValueError("empty")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError("this is no ledger of keys") from None
        return cls(keys)


def first(wanted: Mapping[str, str], *, now: int) -> Ledger:
    """The ledger of keys that nothing was signed with so far. `wanted`: names by kid, the one that signs first."""
    return Ledger(tuple(PublishedKey(kid, name, now) for kid, name in wanted.items()))


def advanced(ledger: Ledger, wanted: Mapping[str, str], *, now: int) -> Ledger:
    """The ledger once the keys of `wanted` are published and its first one signs."""
    known = {key.kid: key for key in (replace(ledger.keys[0], signed_until=now), *ledger.keys[1:])}
    keys = [replace(known.get(kid, PublishedKey(kid, name, now)), name=name) for kid, name in wanted.items()]
    keys[0] = replace(keys[0], signed_until=None)
    return Ledger(tuple(keys))


def check(ledger: Ledger, wanted: Mapping[str, str], *, now: int, keep: int) -> None:
    """ConfigurationError, which says what may be done when, if good tokens would be refused somewhere.

    `keep`: seconds for which a key stays published after it signed: as long as a token lives, or longer.
    """
    known = {key.kid: key for key in ledger.keys}
    signs = next(iter(wanted))
    if signs != ledger.keys[0].kid:
        _check_lead(known.get(signs), wanted[signs], now)
    for key in ledger.keys:
        if key.kid in wanted:
            continue
        if key is ledger.keys[0]:
            raise ConfigurationError(
                f"the key {key.name} signs now and cannot go at once: put the key that is to sign before it, and take "
                f"it away {_duration(keep)} after that deployment at the earliest"
            )
        if key.signed_until is not None and now < key.signed_until + keep:
            raise ConfigurationError(
                f"the key {key.name} signed until {_moment(key.signed_until)} and tokens that it signed may still be "
                f"good: keep it published, after the key that signs, until {_moment(key.signed_until + keep)}"
            )


def assumed(jwks: bytes, *, since: int) -> Ledger | None:
    """The ledger for a key set that was published at `since` and has none: its first key signs, the others may have
    signed until then. None when there is no key in it."""
    try:
        found = json.loads(jwks)["keys"]
        kids = dict.fromkeys(str(key["kid"]) for key in found)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    keys = [PublishedKey(kid, kid, since, since if place else None) for place, kid in enumerate(kids)]
    return Ledger(tuple(keys)) if keys else None


def _check_lead(key: PublishedKey | None, name: str, now: int) -> None:
    if key is None:
        raise ConfigurationError(
            f"the key {name} has not been published yet: deploy with it behind the key that signs now, and put it "
            f"first {_duration(LEAD_SECONDS)} after that deployment at the earliest"
        )
    if now < key.published + LEAD_SECONDS:
        raise ConfigurationError(
            f"the key {name} was published at {_moment(key.published)} and gateways may not know it yet: put it first "
            f"at {_moment(key.published + LEAD_SECONDS)} at the earliest"
        )


def _key(entry: object) -> PublishedKey:
    if not isinstance(entry, dict):
        raise TypeError("not an object")
    kid, name, published, ended = (entry[each] for each in ("kid", "name", "published", "signed_until"))
    if not (isinstance(kid, str) and kid and isinstance(name, str)):
        raise TypeError("not strings")
    if type(published) is not int or not (ended is None or type(ended) is int):
        raise TypeError("not whole seconds")
    return PublishedKey(kid, name, published, ended)


def _moment(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970"


def _duration(seconds: int) -> str:
    hours, rest = divmod(seconds, 3_600)
    minutes, rest = divmod(rest, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"
