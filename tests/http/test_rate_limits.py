"""Token buckets, and the limits that they are for over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from llamabda_functions.local.app import create_local_app

from llamabda import wiring
from llamabda.http_client import client_address, is_within
from llamabda.rate_limits import MAX_KEYS, Buckets
from llamabda.settings import Settings
from tests.http.conftest import register
from tests.http.problem import checked


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_allowed_and_then_a_steady_rate():
    clock = Clock()
    buckets = Buckets("p", 60, clock=clock)
    assert all(buckets.take("k").wait == 0 for _ in range(60))
    refused = buckets.take("k")
    assert (refused.remaining, refused.reset) == (0, 60)
    assert 0 < refused.wait <= 1
    clock.now += 1
    assert buckets.take("k").wait == 0
    assert buckets.take("k").wait > 0
    assert buckets.take("another").remaining == 59


@given(st.lists(st.floats(0, 20), max_size=60), st.integers(1, 30))
def test_no_span_of_time_ever_sees_more_than_the_burst_and_the_rate(gaps, limit):
    clock = Clock()
    buckets = Buckets("p", limit, clock=clock)
    allowed = []
    for gap in gaps:
        clock.now += gap
        if buckets.take("k").wait == 0:
            allowed.append(clock.now)
    for first in range(len(allowed)):
        for last in range(first, len(allowed)):
            span = allowed[last] - allowed[first]
            assert last - first + 1 <= limit + span * limit / 60 + 1e-6


def test_waiting_as_long_as_told_is_enough():
    clock = Clock()
    buckets = Buckets("p", 7, clock=clock)
    for _ in range(7):
        buckets.take("k")
    clock.now += buckets.take("k").wait + 1e-6
    assert buckets.take("k").wait == 0


def test_memory_is_bounded():
    buckets = Buckets("p", 5)
    for n in range(MAX_KEYS + 100):
        buckets.take(f"{n}")
    assert len(buckets._levels) == MAX_KEYS


def test_threads_cannot_take_more_than_there_is():
    buckets = Buckets("p", 50, clock=Clock())
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda _: buckets.take("k").wait == 0, range(500)))
    assert found.count(True) == 50


@pytest.fixture
def limited(home, monkeypatch):
    def client(**limits: int) -> TestClient:
        for name, value in limits.items():
            monkeypatch.setenv(f"RATE_LIMIT_{name.upper()}", str(value))
        wiring.settings.cache_clear()
        return TestClient(create_local_app())

    yield client
    wiring.settings.cache_clear()


def test_beyond_the_limit_of_an_address_every_route_is_a_429(limited):
    client = limited(address=5)
    for n in range(5):
        reply = client.get("/health")
        assert reply.status_code == 200
        assert reply.headers["ratelimit-policy"] == '"address";q=5;w=60'
        assert reply.headers["ratelimit"].startswith(f'"address";r={4 - n};t=')
    for path in ("/health", "/nothing", "/documents"):
        refused = client.get(path)
        assert checked(refused, 429)["code"] == "too_many_requests"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["ratelimit"].startswith('"address";r=0;t=')


def test_users_behind_one_address_have_limits_of_their_own(limited):
    client = limited(user=3)
    alice, bob = register(client, "alice"), register(client, "bob")
    for _ in range(3):
        assert client.get("/auth/me", headers=alice.headers).status_code == 200
    refused = client.get("/auth/me", headers=alice.headers)
    assert "user" in checked(refused, 429)["detail"]
    assert client.get("/auth/me", headers=bob.headers).status_code == 200
    assert client.get("/health").status_code == 200


def test_limits_can_be_switched_off(limited):
    client = limited(address=0, user=0)
    assert "ratelimit" not in client.get("/health").headers


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "found"),
    [
        ("198.51.100.7", "203.0.113.9", "", "198.51.100.7"),
        ("127.0.0.1", "203.0.113.9", "", "127.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9:4711", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::1]:4711", "10.0.0.0/8", "2001:db8::1"),
        ("10.0.0.1", "6.6.6.6, unknown", "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.0/8", "10.0.0.1"),
        ("::ffff:10.0.0.1", "203.0.113.9", "10.0.0.0/8", "203.0.113.9"),
        ("testclient", "203.0.113.9", "10.0.0.0/8", "testclient"),
    ],
)
def test_only_trusted_proxies_are_believed(peer, forwarded, trusted, found):
    scope = {"type": "http", "client": (peer, 1), "headers": [(b"x-forwarded-for", forwarded.encode())]}
    assert client_address(scope, Settings(trusted_proxies=trusted).proxies) == found


def test_a_peer_that_is_not_known_is_none():
    assert client_address({"type": "http", "client": None, "headers": []}, ()) is None
    assert not is_within("nonsense", Settings(trusted_proxies="0.0.0.0/0").proxies)


def test_a_network_that_is_none_is_refused_at_start():
    with pytest.raises(ValueError, match=r"10\.0\.0"):
        Settings(trusted_proxies="10.0.0.0/8, 10.0.0.")
