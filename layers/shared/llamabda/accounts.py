"""Accounts behind tokens: a token is good until it expires, its account may not be."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from llamabda.errors import Unauthorized
from llamabda.ports import UserStore
from llamabda.types import Principal, User

DISABLED_WITHIN = 10.0  # seconds in which a disabled account's tokens stop being taken
KNOWN_ACCOUNTS = 10_000  # kept in memory


class Accounts:
    """Whether the account behind a token may still come in. Asked at every request, so answers are kept for a while.

    `clock`: seconds that never go back. Safe to share between threads.
    """

    def __init__(
        self, users: UserStore, *, keep: float = DISABLED_WITHIN, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._users = users
        self._keep = keep
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, User | None]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, principal: Principal) -> None:
        """Unauthorized when the account is gone or disabled, or its credentials were renewed after the token was made;
        at most `keep` seconds late."""
        user = self._get(principal.username)
        if user is None or not _fits(user, principal):
            user = self._get(principal.username, again=True)  # what is remembered may be older than the token
        if user is None or user.tenant != principal.tenant:
            raise Unauthorized("the account of this token is gone")
        if user.disabled:
            raise Unauthorized("the account of this token is disabled")
        if user.credentials != principal.credentials:
            raise Unauthorized("the access token was withdrawn: log in again")

    def _get(self, username: str, *, again: bool = False) -> User | None:
        now = self._clock()
        with self._lock:
            found = None if again else self._known.get(username)
        if found is not None and now - found[0] < self._keep:
            return found[1]
        user = self._users.get(username)
        with self._lock:
            self._known[username] = now, user
            self._known.move_to_end(username)
            while len(self._known) > KNOWN_ACCOUNTS:
                self._known.popitem(last=False)
        return user


def _fits(user: User, principal: Principal) -> bool:
    return not user.disabled and (user.tenant, user.credentials) == (principal.tenant, principal.credentials)
