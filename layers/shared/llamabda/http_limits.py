"""Rate limits on every route: by address before anything is read, by user once the token is known.

The headers are those of the IETF's draft "RateLimit header fields for HTTP".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llamabda.credentials import network
from llamabda.errors import TooManyRequests
from llamabda.http_client import Network, client_address
from llamabda.http_envelope import REQUEST_ID
from llamabda.http_problems import from_error
from llamabda.rate_limits import WINDOW, Buckets, Taken

LIMITS = "llamabda.limits"  # key in the ASGI scope


@dataclass(slots=True)
class Counted:
    """What a request has taken so far, and where it takes for its user."""

    users: Buckets | None
    taken: list[Taken] = field(default_factory=list)

    def take(self, buckets: Buckets, key: str) -> None:
        taken = buckets.take(key)
        self.taken.append(taken)
        if taken.wait > 0:
            seconds = ceil(taken.wait)
            who = "user" if buckets is self.users else "address"
            raise TooManyRequests(
                f"more than {taken.limit} requests in {WINDOW} s for this {who}: wait {seconds} s", retry_after=seconds
            )

    def headers(self) -> dict[str, str]:
        if not self.taken:
            return {}
        scarcest = min(self.taken, key=lambda taken: taken.remaining)
        return {
            "RateLimit-Policy": ", ".join(f'"{taken.policy}";q={taken.limit};w={WINDOW}' for taken in self.taken),
            "RateLimit": f'"{scarcest.policy}";r={scarcest.remaining};t={scarcest.reset}',
        }


class RateLimits:
    """An ASGI layer. `buckets` gives those for addresses and users (None: no limit), `trusted` the proxies to believe;
    both are asked when the first request comes."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        buckets: Callable[[], tuple[Buckets | None, Buckets | None]],
        trusted: Callable[[], tuple[Network, ...]],
    ) -> None:
        self.app = app
        self._buckets = buckets
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        addresses, users = self._buckets()
        counted = scope[LIMITS] = Counted(users)

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(counted.headers())
            await send(message)

        try:
            if addresses is not None:
                counted.take(addresses, network(client_address(scope, self._trusted()) or ""))
        except TooManyRequests as exc:
            await from_error(exc, request_id=scope[REQUEST_ID], token_sent=False)(scope, receive, counting)
            return
        await self.app(scope, receive, counting)


def count_user(scope: Scope, username: str) -> None:
    """TooManyRequests when this user's bucket is empty."""
    counted: Counted | None = scope.get(LIMITS)
    if counted is not None and counted.users is not None:
        counted.take(counted.users, username)
