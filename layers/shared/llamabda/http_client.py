"""Who is at the other end of a connection."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.datastructures import Headers
from starlette.types import Scope

Network = IPv4Network | IPv6Network
MAX_HOPS = 32


def client_address(scope: Scope, trusted: Sequence[Network]) -> str | None:
    """The peer; if that is a trusted proxy, what the proxies say of whom they speak for, read from the nearest.

    None when the server does not know (a Unix socket).
    """
    client = scope.get("client")
    if not client:
        return None
    address = str(client[0])
    forwarded = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")
    for hop in reversed(forwarded[-MAX_HOPS:]):
        if not is_within(address, trusted):
            break
        named = _bare(hop)
        if named is None:
            break  # not an address: what stands before it cannot be believed either
        address = named
    return address


def is_within(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any(candidate in network for network in networks for candidate in (parsed, mapped) if candidate is not None)


def _bare(hop: str) -> str | None:
    """An address without brackets and port."""
    hop = hop.strip()
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        return str(ip_address(hop))
    except ValueError:
        return None
