"""Registering and logging in, over a real store, real hashes and a real key."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabda.adapters.argon2 import Argon2Hasher
from llamabda.adapters.key_file import KeyFileSigner
from llamabda.adapters.sqlite.attempts import SqliteAttemptStore
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.sessions import SqliteSessionStore
from llamabda.adapters.sqlite.users import SqliteUserStore
from llamabda.auth import Auth, Limits, Tokens, new_tenant
from llamabda.credentials import canonical_username
from llamabda.errors import (
    Conflict,
    DependencyFailed,
    Forbidden,
    InvalidInput,
    LlamabdaError,
    NotFound,
    TooManyRequests,
    Unauthorized,
)
from llamabda.tokens import TENANT, TokenVerifier

NOW = 1_800_000_000.75
SECRET = "secret123"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> KeyFileSigner:
    return KeyFileSigner(tmp_path_factory.mktemp("key") / "key.pem", keep=3600)


@pytest.fixture
def auth(tmp_path: Path, signer: KeyFileSigner):
    database = Database(tmp_path / "users.db")
    yield Auth(
        users=SqliteUserStore(database),
        sessions=SqliteSessionStore(database),
        attempts=SqliteAttemptStore(database),
        signer=signer,
        hasher=Argon2Hasher(),
        issuer="https://issuer.test",
        audience="llamabda",
        lifetime=3_600,
        clock=lambda: NOW,
    )
    database.close()


def failure(call, *args) -> LlamabdaError:
    with pytest.raises(LlamabdaError) as caught:
        call(*args)
    return caught.value


def test_a_registered_user_gets_a_token_that_the_verifier_and_another_library_accept(auth: Auth, signer: KeyFileSigner):
    user = auth.register("alice", SECRET)
    token = auth.login("alice", SECRET)
    assert token.expires_in == 3_600
    verifier = TokenVerifier(signer.public_jwks, auth.issuer, auth.audience, clock=lambda: NOW)
    principal = verifier.verify(token.access)
    assert (principal.username, principal.tenant) == ("alice", user.tenant)

    jwk = jwt.PyJWK(signer.public_jwks()["keys"][0])
    options = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(token.access, jwk, algorithms=["RS256"], audience="llamabda", options=options)
    assert set(claims) == {"iss", "aud", "sub", "iat", "exp", "jti", "tenant", "cred"}
    assert (claims["iat"], claims["exp"]) == (1_800_000_000, 1_800_003_600)
    assert jwt.get_unverified_header(token.access) == {"alg": "RS256", "kid": signer.key().kid, "typ": "at+jwt"}


def test_two_logins_give_different_token_ids(auth: Auth):
    auth.register("alice", SECRET)
    assert auth.login("alice", SECRET) != auth.login("alice", SECRET)


def test_a_user_is_the_admin_of_a_random_tenant_of_their_own(auth: Auth):
    first, second = auth.register("alice", SECRET), auth.register("bob", SECRET)
    assert first.role == "admin"
    assert TENANT.fullmatch(first.tenant)
    assert TENANT.fullmatch(second.tenant)
    assert first.tenant != second.tenant
    assert "alice" not in first.tenant


def test_a_user_can_be_given_a_tenant_and_a_role(auth: Auth):
    user = auth.add("root", SECRET, tenant="shared", role="admin")
    assert (user.tenant, user.role) == ("shared", "admin")
    assert auth.user("root") == user


@pytest.mark.parametrize("tenant", ["", "alice", "t_short", "t_" + "A" * 26, "t_" + "a" * 27, "shared\n"])
def test_a_tenant_that_is_not_one_is_refused(auth: Auth, tenant: str):
    assert isinstance(failure(lambda: auth.add("alice", SECRET, tenant=tenant)), InvalidInput)
    assert list(auth.users.list()) == []


@pytest.mark.parametrize("again", ["alice", "ALICE", "Ａｌｉｃｅ", "ａLIce"])
def test_a_name_is_taken_in_every_spelling(auth: Auth, again: str):
    auth.register("alice", SECRET)
    assert isinstance(failure(auth.register, again, "another one"), Conflict)
    assert auth.login(again, SECRET).access


@pytest.mark.parametrize(
    ("given_name", "stored"),
    [
        ("Alice", "alice"),
        ("maria.joão@exemplo.pt", "maria.joão@exemplo.pt"),
        ("MARIA.JOA\u0303O", "maria.joão"),
        ("Straße", "strasse"),
        ("用户_1+x-y", "用户_1+x-y"),
        ("ﬁ", "fi"),
        ("a" * 64, "a" * 64),
        ("e\u0301" * 64, "é" * 64),
    ],
)
def test_names_are_normalised_and_case_folded(given_name: str, stored: str):
    assert canonical_username(given_name) == stored


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "a b", "a" * 65, "ﷺ" * 10, "a" * 100_000, "a\0b", "a\nb", "a\u202eb", "a\u200bb", "\ud800", "a\udfffb",
        "a/b", "a:b", "<a>", "'", "\u3164", "\u115f", "\U0001f600",
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_taken_is_refused_before_anything_is_written(auth: Auth, name: str):
    error = failure(auth.register, name, SECRET)
    assert isinstance(error, InvalidInput)
    assert error.loc == ("body", "username")
    str(error.value).encode("utf-8")  # can be sent back
    assert len(str(error.value)) <= 100
    assert list(auth.users.list()) == []


@given(st.text(max_size=80))
def test_a_canonical_name_is_its_own_canonical_form(text: str):
    try:
        name = canonical_username(text)
    except InvalidInput:
        return
    assert canonical_username(name) == name
    assert 1 <= len(name) <= 64


@pytest.mark.parametrize("password", ["", "seven77", "a" * 1_025, "a" * 2_000_000, "lone\ud800surrogate", "\udcff" * 8])
def test_a_password_that_cannot_be_taken_is_refused_and_never_shown(auth: Auth, password: str):
    error = failure(auth.register, "alice", password)
    assert isinstance(error, InvalidInput)
    assert error.loc == ("body", "password")
    assert error.value is None
    if password:
        assert password not in "".join(traceback.format_exception(error))
    assert error.__context__ is None
    assert list(auth.users.list()) == []


@pytest.mark.parametrize(
    "password", ["12345678", "        ", "a" * 1_024, "пароль-длинный", "nul\0inside", "\U0001f600" * 8]
)
def test_any_password_of_eight_characters_or_more_works(auth: Auth, password: str):
    auth.register("alice", password)
    assert auth.login("alice", password).access


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("a" * 1_023 + "b", "a" * 1_023 + "c"),
        ("before\0after", "before\0other"),
        (SECRET, SECRET + " "),
        (SECRET, SECRET.upper()),
    ],
)
def test_every_character_of_a_password_counts(auth: Auth, right: str, wrong: str):
    auth.register("alice", right)
    assert isinstance(failure(auth.login, "alice", wrong), Unauthorized)
    assert auth.login("alice", right).access


def test_an_accent_may_be_typed_composed_or_not(auth: Auth):
    auth.register("alice", "cora\u00e7\u00e3o-01")
    assert auth.login("alice", "corac\u0327a\u0303o-01").access


def test_no_failed_login_tells_what_was_wrong(auth: Auth):
    auth.register("alice", SECRET)
    auth.register("dora", SECRET)
    auth.users.set_disabled("dora", True)
    attempts = [
        ("alice", "wrong password"),
        ("alice", ""),
        ("nobody", SECRET),
        ("dora", SECRET),
        ("dora", "wrong password"),
        ("", SECRET),
        ("not a name", SECRET),
        ("\ud800", SECRET),
        ("a" * 100_000, SECRET),
    ]
    failures = [failure(auth.login, *attempt) for attempt in attempts]
    assert {(type(error), error.message) for error in failures} == {
        (Unauthorized, "the username or the password is wrong")
    }


def test_an_enabled_user_can_log_in_again(auth: Auth):
    auth.register("dora", SECRET)
    auth.users.set_disabled("dora", True)
    assert isinstance(failure(auth.login, "dora", SECRET), Unauthorized)
    auth.users.set_disabled("dora", False)
    assert auth.login("dora", SECRET).access


@pytest.mark.parametrize("password", ["a" * 1_025, "lone\ud800surrogate"])
def test_a_login_with_an_impossible_password_is_bad_input_for_known_and_unknown_users_alike(auth: Auth, password: str):
    auth.register("alice", SECRET)
    known, unknown = failure(auth.login, "alice", password), failure(auth.login, "nobody", password)
    assert type(known) is type(unknown) is InvalidInput
    assert known.message == unknown.message


class CountingHasher(Argon2Hasher):
    """Real hashes, and a record of what was checked."""

    def __init__(self) -> None:
        super().__init__()
        self.checked: list[str | None] = []

    def verify(self, password: str, password_hash: str | None) -> bool:
        self.checked.append(password_hash)
        return super().verify(password, password_hash)


def test_an_unknown_user_costs_a_hash_like_a_known_one(auth: Auth):
    hasher = CountingHasher()
    auth = replace(auth, hasher=hasher)
    user = auth.register("alice", SECRET)
    for name in ("alice", "nobody", "not a name"):
        failure(auth.login, name, "wrong password")
    assert hasher.checked == [user.password_hash, None, None]


def test_a_hash_of_older_parameters_is_renewed_at_the_next_login_and_only_then(auth: Auth):
    weak = replace(auth, hasher=Argon2Hasher(memory_kib=64, passes=1))
    old = weak.register("alice", SECRET).password_hash
    assert isinstance(failure(auth.login, "alice", "wrong password"), Unauthorized)
    assert auth.user("alice").password_hash == old
    assert auth.login("alice", SECRET).access
    new = auth.user("alice").password_hash
    assert new.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert auth.login("alice", SECRET).access
    assert auth.user("alice").password_hash == new


def test_a_user_is_found_in_any_spelling_and_a_missing_one_is_not(auth: Auth):
    user = auth.register("alice", SECRET)
    assert auth.user("ALICE") == user
    for name in ("nobody", "", "not a name", "\ud800"):
        assert isinstance(failure(auth.user, name), NotFound)


def test_secrets_do_not_show_in_representations(auth: Auth):
    user = auth.register("alice", SECRET)
    token = auth.login("alice", SECRET)
    assert isinstance(token, Tokens)
    assert token.access not in repr(token)
    assert user.password_hash not in repr(user)
    assert SECRET not in repr(user) + repr(auth)


def test_hashes_are_argon2id_with_the_stated_cost_and_fresh_salt():
    hasher = Argon2Hasher()
    one, other = hasher.hash(SECRET), hasher.hash(SECRET)
    assert one != other
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert hasher.verify(SECRET, one)
    assert not hasher.outdated(one)
    assert not hasher.verify("wrong", one)
    assert hasher.verify(SECRET, None) is False


@pytest.mark.parametrize(
    "stored", ["", "plain text", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$", "$2b$12$abcdefghijklmnopqrstuv"]
)
def test_a_stored_hash_that_is_none_of_ours_is_a_failure_of_the_store_not_a_wrong_password(stored: str):
    error = failure(Argon2Hasher().verify, SECRET, stored)
    assert isinstance(error, DependencyFailed)
    assert SECRET not in "".join(traceback.format_exception(error))


def test_new_tenants_are_well_formed_and_distinct():
    tenants = {new_tenant() for _ in range(200)}
    assert len(tenants) == 200
    assert all(TENANT.fullmatch(tenant) for tenant in tenants)


class During(Argon2Hasher):
    """Something happens while a password is being looked at."""

    def __init__(self, happens) -> None:
        super().__init__()
        self.happens = happens
        self.old = False

    def verify(self, password: str, password_hash: str | None) -> bool:
        right = super().verify(password, password_hash)
        happens, self.happens = self.happens, lambda: None
        happens()
        return right

    def outdated(self, password_hash: str) -> bool:
        return self.old


def test_a_login_that_a_new_password_overtakes_leaves_no_session(auth: Auth):
    auth.register("alice", SECRET)
    during = During(lambda: auth.set_password("alice", "another-secret"))
    tokens = replace(auth, hasher=during).login("alice", SECRET)
    assert isinstance(failure(auth.refresh, tokens.refresh), Unauthorized)


def test_disabling_in_the_middle_of_a_login_leaves_no_session(auth: Auth):
    auth.register("alice", SECRET)

    def disabled_and_enabled():
        auth.set_disabled("alice", True)
        auth.set_disabled("alice", False)

    tokens = replace(auth, hasher=During(disabled_and_enabled)).login("alice", SECRET)
    assert isinstance(failure(auth.refresh, tokens.refresh), Unauthorized)


def test_renewing_a_hash_never_brings_an_old_password_back(auth: Auth):
    auth.register("alice", SECRET)
    during = During(lambda: auth.set_password("alice", "another-secret"))
    during.old = True
    replace(auth, hasher=during).login("alice", SECRET)
    assert isinstance(failure(auth.login, "alice", SECRET), Unauthorized)
    assert auth.login("alice", "another-secret").access


def test_a_disabled_admin_cannot_invite(auth: Auth):
    before = auth.register("alice", SECRET)
    auth.set_disabled("alice", True)
    assert isinstance(failure(auth.new_invite, before), Forbidden)


def test_an_address_that_may_not_guess_uses_up_nobodys_guesses(auth: Auth):
    auth.register("alice", SECRET)
    limited = replace(auth, limits=Limits(account=2, address=1))
    with pytest.raises(Unauthorized):
        limited.login("bob", "wrong-password", address="192.0.2.1")
    for _ in range(5):
        with pytest.raises(TooManyRequests, match="address"):
            limited.login("alice", "wrong-password", address="192.0.2.1")
    assert limited.login("alice", SECRET, address="192.0.2.2").access


class Interrupted:
    """A signer that does something before it signs."""

    def __init__(self, signer: KeyFileSigner, happens) -> None:
        self._signer = signer
        self._happens = happens

    def __getattr__(self, name: str):
        if name == "key":
            self._happens()
        return getattr(self._signer, name)


def test_a_refresh_that_fails_can_be_tried_again_with_the_same_token(auth: Auth, signer: KeyFileSigner):
    def throttled():
        raise DependencyFailed("the key is throttled", dependency="signer")

    auth.register("alice", SECRET)
    token = auth.login("alice", SECRET).refresh
    assert isinstance(failure(replace(auth, signer=Interrupted(signer, throttled)).refresh, token), DependencyFailed)
    assert auth.refresh(token).refresh != token
    assert isinstance(failure(auth.refresh, token), Unauthorized)


def test_who_is_disabled_in_the_midst_of_a_refresh_gets_nothing(auth: Auth, signer: KeyFileSigner):
    auth.register("alice", SECRET)
    token = auth.login("alice", SECRET).refresh
    during = Interrupted(signer, lambda: auth.set_disabled("alice", True))
    assert isinstance(failure(replace(auth, signer=during).refresh, token), Unauthorized)


def test_of_two_refreshes_at_once_one_succeeds_and_the_session_ends(auth: Auth, signer: KeyFileSigner):
    auth.register("alice", SECRET)
    token = auth.login("alice", SECRET).refresh
    second: list[Tokens] = []
    during = Interrupted(signer, lambda: second.append(auth.refresh(token)))
    assert isinstance(failure(replace(auth, signer=during).refresh, token), Unauthorized)
    assert isinstance(failure(auth.refresh, second[0].refresh), Unauthorized)
