"""Staying logged in, logging out, invites, guesses and what becomes of a disabled account, over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from fastapi.testclient import TestClient
from llamabda_functions.local.app import create_local_app

from llamabda import accounts, wiring
from tests.http.conftest import PASSWORD, register
from tests.http.problem import checked

CREDENTIALS = {"username": "alice", "password": PASSWORD}


def login(client: TestClient, **changes: str) -> dict[str, object]:
    reply = client.post("/auth/login", json={**CREDENTIALS, **changes})
    assert reply.status_code == 200, reply.text
    return reply.json()


def refresh(client: TestClient, token: object):
    return client.post("/auth/refresh", json={"refresh_token": token})


def me(client: TestClient, token: object):
    return client.get("/auth/me", headers={"Authorization": f"Bearer {token}"})


def test_a_refresh_token_gives_new_tokens_once(client, alice):
    first = login(client)
    second = refresh(client, first["refresh_token"]).json()
    assert set(second) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert second["refresh_token"] != first["refresh_token"]
    assert me(client, second["access_token"]).json()["username"] == "alice"
    third = refresh(client, second["refresh_token"])
    assert third.status_code == 200


def test_using_an_old_one_again_ends_the_session(client, alice):
    first = login(client)
    second = refresh(client, first["refresh_token"]).json()
    stolen = refresh(client, first["refresh_token"])
    assert checked(stolen, 401)["code"] == "unauthorized"
    assert refresh(client, second["refresh_token"]).status_code == 401
    assert refresh(client, login(client)["refresh_token"]).status_code == 200


def test_of_a_hundred_parallel_uses_one_wins(client, alice):
    token = login(client)["refresh_token"]
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: refresh(client, token).status_code, range(100)))
    assert (found.count(200), found.count(401)) == (1, 99)


def test_only_digests_of_refresh_tokens_are_stored(client, alice, home):
    token = str(login(client)["refresh_token"])
    stored = b"".join(path.read_bytes() for path in home.glob("llamabda.db*"))
    assert token.partition(".")[0].encode() in stored
    assert token.partition(".")[2].encode() not in stored


@pytest.mark.parametrize("token", ["", "x", "a.b", "é" * 16 + "." + "b" * 43, "a" * 16 + "." + "b" * 43, "\u0000"])
def test_what_is_no_refresh_token_is_refused_and_logging_out_with_it_is_not(client, alice, token):
    assert refresh(client, token).status_code in (401, 422)
    reply = client.post("/auth/logout", json={"refresh_token": token})
    assert reply.status_code in (204, 422)


def test_logging_out_ends_the_session(client, alice):
    token = login(client)["refresh_token"]
    for _ in range(2):
        assert client.post("/auth/logout", json={"refresh_token": token}).status_code == 204
    assert refresh(client, token).status_code == 401


def test_ten_guesses_an_account_even_when_two_hundred_come_at_once(client, alice):
    def guess(_: int) -> tuple[int, str | None]:
        reply = client.post("/auth/login", json={**CREDENTIALS, "password": "wrong-password"})
        return reply.status_code, reply.headers.get("retry-after")

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(guess, range(200)))
    assert [status for status, _ in found].count(401) == 10
    assert all(status in (401, 429) for status, _ in found)
    assert all(0 < int(wait) <= 900 for status, wait in found if status == 429 and wait is not None)
    right = client.post("/auth/login", json=CREDENTIALS)
    assert checked(right, 429)["code"] == "too_many_requests"


def test_guesses_for_unknown_users_are_limited_alike(client, alice):
    found = [
        client.post("/auth/login", json={"username": "nobody", "password": PASSWORD}).status_code for _ in range(12)
    ]
    assert found == [401] * 10 + [429] * 2


def test_one_address_cannot_guess_for_ever_whatever_the_names(client, alice, monkeypatch):
    monkeypatch.setenv("LOGIN_GUESSES_ADDRESS", "20")
    wiring.settings.cache_clear()
    monkeypatch.setattr(wiring, "auth", type(wiring.auth)(wiring.auth._make))
    found = [
        client.post("/auth/login", json={"username": f"u{n}", "password": PASSWORD}).status_code for n in range(25)
    ]
    assert found == [401] * 20 + [429] * 5
    wiring.settings.cache_clear()


def test_a_good_login_forgets_the_guesses_before_it(client, alice):
    for _ in range(3):
        for _ in range(9):
            assert client.post("/auth/login", json={**CREDENTIALS, "password": "wrong-password"}).status_code == 401
        login(client)


@pytest.fixture
def registration(monkeypatch):
    def set_to(mode: str) -> TestClient:
        monkeypatch.setenv("REGISTRATION", mode)
        wiring.settings.cache_clear()
        return TestClient(create_local_app())

    return set_to


def test_closed_means_closed(home, registration):
    client = registration("closed")
    reply = client.post("/auth/register", json=CREDENTIALS)
    assert "REGISTRATION" in checked(reply, 403)["detail"]


def test_an_invite_lets_one_person_into_the_inviters_tenant(client, alice):
    made = client.post("/auth/invites", json={}, headers=alice.headers)
    assert made.status_code == 201
    secret = made.json()["invite"]
    bob = {"username": "bob", "password": PASSWORD, "invite": secret}
    joined = client.post("/auth/register", json=bob)
    assert joined.json() == {"username": "bob", "tenant": alice.tenant}
    again = client.post("/auth/register", json={**bob, "username": "carol"})
    assert again.status_code == 403
    assert secret not in again.text
    token = login(client, username="bob")["access_token"]
    assert me(client, token).json()["role"] == "member"
    forbidden = client.post("/auth/invites", json={}, headers={"Authorization": f"Bearer {token}"})
    assert forbidden.status_code == 403


def test_who_registers_alone_is_the_admin_of_an_own_tenant(client, alice):
    assert me(client, alice.token).json()["role"] == "admin"


def test_with_registration_by_invite_nobody_comes_in_without_one(home, registration):
    client = registration("invite")
    assert client.post("/auth/register", json=CREDENTIALS).status_code == 403
    secret, made = wiring.auth().new_invite(None, role="admin")
    reply = client.post("/auth/register", json={**CREDENTIALS, "invite": secret})
    assert reply.json()["tenant"] == made.tenant


def test_a_name_that_is_taken_does_not_use_up_the_invite(client, alice):
    secret = client.post("/auth/invites", json={"role": "admin"}, headers=alice.headers).json()["invite"]
    assert client.post("/auth/register", json={**CREDENTIALS, "invite": secret}).status_code == 409
    assert client.post("/auth/register", json={**CREDENTIALS, "username": "bob", "invite": secret}).status_code == 201


def test_disabling_ends_every_credential_and_enabling_revives_none(client, alice, monkeypatch):
    now = [0.0]
    gate = accounts.Accounts(wiring.users(), clock=lambda: now[0])
    monkeypatch.setattr(wiring, "accounts", lambda: gate)
    tokens = login(client)
    assert me(client, tokens["access_token"]).status_code == 200
    wiring.auth().set_disabled("alice", True)
    assert refresh(client, tokens["refresh_token"]).status_code == 401
    assert client.post("/auth/login", json=CREDENTIALS).status_code == 401
    now[0] += accounts.DISABLED_WITHIN
    assert me(client, tokens["access_token"]).status_code == 401
    wiring.auth().set_disabled("alice", False)
    now[0] += accounts.DISABLED_WITHIN
    assert me(client, tokens["access_token"]).status_code == 401
    assert refresh(client, tokens["refresh_token"]).status_code == 401
    assert me(client, login(client)["access_token"]).status_code == 200


def test_a_new_password_ends_what_was_open(client, alice, monkeypatch):
    gate = accounts.Accounts(wiring.users(), keep=0)
    monkeypatch.setattr(wiring, "accounts", lambda: gate)
    tokens = login(client)
    wiring.auth().set_password("alice", "another-secret")
    assert me(client, tokens["access_token"]).status_code == 401
    assert refresh(client, tokens["refresh_token"]).status_code == 401
    assert login(client, password="another-secret")["access_token"]


def test_a_token_that_is_newer_than_what_is_remembered_counts_at_once(client, alice):
    assert me(client, alice.token).status_code == 200
    wiring.auth().set_password("alice", "another-secret")
    assert me(client, login(client, password="another-secret")["access_token"]).status_code == 200
    wiring.auth().set_disabled("alice", True)
    wiring.auth().set_disabled("alice", False)
    assert me(client, login(client, password="another-secret")["access_token"]).status_code == 200


def test_the_published_documents_are_enough_to_check_a_token(client, alice):
    found = client.get("/.well-known/openid-configuration").json()
    assert found["jwks_uri"] == found["issuer"] + "/.well-known/jwks.json"
    keys = {key["kid"]: key for key in client.get("/.well-known/jwks.json").json()["keys"]}
    key = jwt.PyJWK(keys[jwt.get_unverified_header(alice.token)["kid"]])
    claims = jwt.decode(alice.token, key, algorithms=["RS256"], audience="llamabda", issuer=found["issuer"])
    assert (claims["sub"], claims["tenant"]) == ("alice", alice.tenant)
    assert all(set(key) <= {"kty", "kid", "use", "alg", "n", "e", "key_ops"} for key in keys.values())


def test_registering_twice_is_two_tenants(client):
    assert register(client, "one").tenant != register(client, "two").tenant
