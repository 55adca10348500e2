"""What a public address shows, as gateways read it."""

from __future__ import annotations

from llamabda.endpoint import Endpoint
from llamabda.errors import DependencyFailed
from llamabda.exchange import Unanswered, exchange

MAX_BYTES = 65_536


def fetch(url: str) -> bytes:
    """DependencyFailed with the reason alone when it cannot be had; redirects are not followed."""
    try:
        address = Endpoint.parse(url)
    except ValueError as exc:
        raise DependencyFailed(f"it is not {exc}", dependency="issuer") from None
    try:
        reply = exchange(address, most=MAX_BYTES, headers={"Accept": "application/json"})()
    except Unanswered as exc:
        raise DependencyFailed(exc.reason, dependency="issuer") from exc.__cause__
    if reply.status != 200:
        raise DependencyFailed(f"its status is {reply.status}", dependency="issuer")
    return reply.content
