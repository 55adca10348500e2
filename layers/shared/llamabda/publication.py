"""Use case: the documents that tokens are checked with are put where everybody can read them, and taken away again.

The key set is what API Gateway's authorizer believes. It is published before anything is signed with a new key, and
seen at its public address before anybody is told that it is there.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from llamabda import issuer, rotation, time_left
from llamabda.errors import DependencyFailed, LlamabdaError
from llamabda.rotation import CACHE_SECONDS, Ledger
from llamabda.types import Deadline

T = TypeVar("T")

log = logging.getLogger("llamabda.publication")

LEDGER_PATH = "rotation.json"  # beside the documents, for this use case alone
FETCH_SECONDS = 1.5  # API Gateway gives up after as many
FIRST_PAUSE = 0.5  # seconds between two looks at the public address; doubled each time
LONGEST_PAUSE = 5.0
GRANTED_SECONDS = 30.0  # permissions that were given a moment ago may not count yet


class NamedKey(Protocol):
    """A signing key's public half. `given`: its name for whoever deploys."""

    @property
    def kid(self) -> str: ...

    @property
    def given(self) -> str: ...

    @property
    def jwk(self) -> Mapping[str, str]: ...


class DocumentStore(Protocol):
    """Where the documents lie. Failures are a LlamabdaError."""

    def put(self, path: str, content: bytes, *, cached: int) -> None:
        """`cached`: seconds for which whoever reads it may keep it; 0: none."""

    def get(self, path: str) -> bytes | None: ...

    def written(self, path: str) -> int | None:
        """When it was put there, in epoch seconds; None: it is not there."""

    def delete(self, path: str) -> None:
        """Whether or not it is there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be published. `address`: of the issuer, below which the documents are seen.

    `anew`: nothing was signed for it so far. `keep`: seconds for which a key stays published after it signed.
    `forced`: whatever tokens are refused by it.
    """

    address: str
    keep: int
    anew: bool = False
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Publication:
    """`keys`: those to be published, the one that signs first. `fetch`: the content at a public address.

    `left`: seconds until all must have ended. `clock`: epoch seconds.
    """

    store: DocumentStore
    keys: Callable[[], Sequence[NamedKey]]
    fetch: Callable[[str], bytes]
    left: Callable[[], float]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def __call__(self, wanted: Wanted) -> None:
        """Returns once the public address shows both documents. LlamabdaError when it does not, or nothing may change.

        What is refused for the sake of tokens is refused before anything is written.
        """
        keys = self._granted(self.keys)
        documents = issuer.documents(wanted.address, {"keys": [dict(key.jwk) for key in keys]})
        names = {key.kid: key.given for key in keys}
        before = None if wanted.anew else self._granted(self._before)
        if wanted.forced:
            log.warning("keys change at once, whatever tokens are refused by it")
        elif before is not None:
            rotation.check(before, names, now=int(self.clock()), keep=wanted.keep)
        self._granted(lambda: write(self.store, documents))
        base = wanted.address.rstrip("/")
        self._await({f"{base}/{path}": content for path, content in documents.items()})
        # last: a key counts as published since it was seen, and what failed before changes nothing
        now = int(self.clock())
        ledger = rotation.first(names, now=now) if before is None else rotation.advanced(before, names, now=now)
        self.store.put(LEDGER_PATH, ledger.to_json(), cached=0)
        log.info("%d keys are published at %s; %s signs", len(keys), wanted.address, keys[0].given)

    def _before(self) -> Ledger | None:
        """As it is; None when nothing is published."""
        content = self.store.get(LEDGER_PATH)
        if content is not None:
            try:
                return Ledger.from_json(content)
            except ValueError:
                log.warning("%s cannot be read: the times of the keys begin with the key set", LEDGER_PATH)
        # somebody removed it: what is published tells less, but enough to refuse no token
        jwks, since = self.store.get(issuer.JWKS_PATH), self.store.written(issuer.JWKS_PATH)
        return None if jwks is None or since is None else rotation.assumed(jwks, since=since)

    def _granted(self, call: Callable[[], T]) -> T:
        """What `call` returns, tried again for a while: the permissions of a new role do not count at once."""
        waited, pause = 0.0, FIRST_PAUSE
        while True:
            try:
                return call()
            except LlamabdaError as exc:
                if waited >= GRANTED_SECONDS or self.left() <= pause:
                    raise
                log.info("tried again in %.1f s: %s", pause, exc.message)
            self.sleep(pause)
            waited, pause = waited + pause, min(pause * 2, LONGEST_PAUSE)

    def _await(self, contents: Mapping[str, bytes]) -> None:
        """Until each address shows its content, all of them in one look."""
        began, pause = self.left(), FIRST_PAUSE
        while True:
            amiss = [f"{url}: {why}" for url, content in contents.items() if (why := self._amiss(url, content))]
            if not amiss:
                return
            if self.left() <= pause:
                raise DependencyFailed(
                    f"what was published was not seen in {began:.0f} s: {'; '.join(amiss)}", dependency="issuer"
                )
            self.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _amiss(self, url: str, content: bytes) -> str:
        try:
            with time_left.within(Deadline.after(FETCH_SECONDS)):
                found = self.fetch(url)
        except DependencyFailed as exc:
            return exc.message
        return "" if found == content else "it shows something else than what was published"


def write(store: DocumentStore, documents: Mapping[str, bytes]) -> None:
    """What `issuer.documents` made. The key set comes first: the other one points to it."""
    for path in sorted(documents, key=lambda path: path != issuer.JWKS_PATH):
        store.put(path, documents[path], cached=CACHE_SECONDS)


def withdraw(store: DocumentStore, address: str) -> bool:
    """Takes away what was published for that issuer; False: another one's documents lie there, and stay."""
    content = store.get(issuer.DISCOVERY_PATH)
    if content is not None and not _says(content, address):
        return False
    for path in (LEDGER_PATH, issuer.JWKS_PATH, issuer.DISCOVERY_PATH):  # the last one tells whose they are
        store.delete(path)
    return True


def _says(content: bytes, address: str) -> bool:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("issuer") == address
