"""Accounts: who may come in, and the token that says so."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from typing import Protocol

from llamabda import tokens
from llamabda.credentials import (
    acceptable_password,
    canonical_or_none,
    canonical_username,
    network,
    new_password,
    shown,
)
from llamabda.errors import Forbidden, InvalidInput, NotFound, TooManyRequests, Unauthorized
from llamabda.ports import AttemptStore, SessionStore, Signer, UserStore
from llamabda.types import Invite, Registration, Role, Session, User

LOGIN_FAILED = "the username or the password is wrong"  # one message: it must not tell which
REFRESH_FAILED = "the refresh token is not good: it was used, has expired or was withdrawn; log in again"
REFRESH_TOKEN = re.compile(r"([A-Za-z0-9_-]{16})\.([A-Za-z0-9_-]{43})")
INVITE_SECONDS = 7 * 86_400


class PasswordHasher(Protocol):
    """Slow, salted hashes of passwords."""

    def hash(self, password: str) -> str: ...

    def verify(self, password: str, password_hash: str | None) -> bool:
        """None stands for nobody's hash: False, after the same work as for a real one."""

    def outdated(self, password_hash: str) -> bool:
        """Made with other parameters than today's."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a login gives. `expires_in`: seconds that the access token lives."""

    access: str = field(repr=False)
    expires_in: int
    refresh: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """How often passwords may be guessed: by anybody for one account, and from one address for any account."""

    account: int = 10
    address: int = 100
    window: float = 900.0  # seconds


def new_tenant() -> str:
    """`t_` and 26 random base32 characters: nobody can guess one, and it says nothing of its user."""
    return "t_" + base64.b32encode(secrets.token_bytes(17)).decode("ascii").lower()[:26]


@dataclass(frozen=True, slots=True)
class Auth:
    """Registers users, logs them in and keeps them logged in.

    `lifetime` and `refresh_lifetime`: of an access and a refresh token, in seconds. `clock`: epoch seconds.
    """

    users: UserStore
    sessions: SessionStore
    attempts: AttemptStore
    signer: Signer
    hasher: PasswordHasher
    issuer: str
    audience: str
    lifetime: int
    refresh_lifetime: int = 30 * 86_400
    registration: Registration = "open"
    limits: Limits = Limits()
    clock: Callable[[], float] = time.time
    new_tenant: Callable[[], str] = new_tenant

    # -- accounts

    def register(self, username: str, password: str, *, invite: str | None = None) -> User:
        """A new user: with an invite, a member of its tenant; without, the admin of a tenant of their own.

        Forbidden when registration is closed, or the invite is missing where it is needed, used or expired;
        InvalidInput for a name or password that cannot be taken; Conflict when the name is.
        """
        if self.registration == "closed":
            raise Forbidden("registration is closed: ask whoever runs this for an account (REGISTRATION)")
        if invite is None:
            if self.registration == "invite":
                raise Forbidden("registration needs an invite: ask a member of the tenant that you want to join")
            return self.add(username, password, role="admin")
        digest = _digest(invite)
        found = self.users.invite(digest)
        if found is None or found.expires_at <= self.clock():
            raise Forbidden("the invite is not good: it was used already, has expired, or was never made here")
        return self.add(username, password, tenant=found.tenant, role=found.role, invite=digest)

    def add(
        self,
        username: str,
        password: str,
        *,
        tenant: str | None = None,
        role: Role = "member",
        invite: str | None = None,
    ) -> User:
        """A new user, in a tenant of their own unless one is given; nobody is asked whether they may.

        InvalidInput for a name, password or tenant that cannot be taken; Conflict when the name is.
        """
        name = canonical_username(username)
        password = new_password(password)
        user = User(
            username=name,
            tenant=self.new_tenant() if tenant is None else _checked_tenant(tenant),
            role=role,
            password_hash=self.hasher.hash(password),
            disabled=False,
            created_at=datetime.fromtimestamp(self.clock(), UTC),
        )
        self.users.add(user, invite=invite, now=self.clock())
        return user

    def user(self, username: str) -> User:
        """NotFound when there is none, whether or not such a name could be."""
        user = self._find(username)
        if user is None:
            raise NotFound(f"there is no user {shown(username)!r}")
        return user

    def set_disabled(self, username: str, disabled: bool) -> User:
        """Disabling ends all sessions and tokens; enabling brings none of them back. NotFound when there is no such
        user."""
        name = self.user(username).username
        self.users.set_disabled(name, disabled)
        if disabled:
            self.sessions.end_all(name)
        return self.user(name)

    def set_password(self, username: str, password: str) -> User:
        """Also ends all sessions and tokens. NotFound, or InvalidInput for a password that cannot be taken."""
        user = self.user(username)
        self.users.set_password_hash(user.username, self.hasher.hash(new_password(password)), renew=True)
        self.sessions.end_all(user.username)
        return self.user(user.username)

    def new_invite(self, by: User | None, *, tenant: str | None = None, role: Role = "member") -> tuple[str, Invite]:
        """What to send to the one invited, to be used once, and what is kept of it.

        Into the tenant of `by`, who must be an admin (else Forbidden). The command line is nobody: it names a tenant,
        or gets a new one.
        """
        if by is not None and by.role != "admin":
            raise Forbidden(f"only an admin of a tenant can invite into it; {by.username} is a {by.role}")
        if by is not None:
            tenant = by.tenant
        secret = secrets.token_urlsafe(24)
        invite = Invite(
            digest=_digest(secret),
            tenant=self.new_tenant() if tenant is None else _checked_tenant(tenant),
            role=role,
            created_by=by.username if by is not None else "",
            expires_at=self.clock() + INVITE_SECONDS,
        )
        self.users.add_invite(invite)
        return secret, invite

    # -- tokens

    def login(self, username: str, password: str, *, address: str | None = None) -> Tokens:
        """Tokens for the user, or Unauthorized: alike, and after the same work, whatever was wrong.

        TooManyRequests, without any look at the password, when too many guesses were made for this account or from
        this address. InvalidInput for a password that nobody can have (too long, not encodable).
        """
        password = acceptable_password(password)
        name = canonical_or_none(username)
        # the address first: one that may not guess any more must not use up other people's guesses
        keys = [] if address is None else [(f"address:{network(address)}", self.limits.address)]
        keys += [] if name is None else [(f"account:{_digest(name)}", self.limits.account)]
        for key, limit in keys:
            self._count_guess(key, limit)
        user = None if name is None else self.users.get(name)
        right = self.hasher.verify(password, None if user is None else user.password_hash)
        if user is None or not right or user.disabled:
            raise Unauthorized(LOGIN_FAILED)
        for key, _ in keys:
            if key.startswith("account:"):
                self.attempts.forget(key)
            else:
                self.attempts.give_back(key)  # only its own: else one good login would allow a hundred more guesses
        if self.hasher.outdated(user.password_hash):
            self.users.set_password_hash(user.username, self.hasher.hash(password), instead_of=user.password_hash)
        session_id, secret = secrets.token_urlsafe(12), secrets.token_urlsafe(32)
        now = self.clock()
        # with the credentials that were verified: whatever renewed them meanwhile ends this session, too
        session = Session(session_id, user.username, _digest(secret), now + self.refresh_lifetime, user.credentials)
        self.sessions.add(session, now=now)
        return Tokens(self._mint(user), self.lifetime, f"{session_id}.{secret}")

    def refresh(self, token: str) -> Tokens:
        """New tokens for a refresh token, which is used up. Unauthorized when it is not good.

        One that was used before ends the whole session: whoever used it, two have it. Where something fails, it can be
        used again.
        """
        session_id, secret = _split(token)
        fresh, digest = secrets.token_urlsafe(32), _digest(secret)
        now = self.clock()
        session = self.sessions.get(session_id)
        minted = None
        if session is not None and session.digest == digest:
            # whatever can fail comes before the token is used up: the client would try again with it
            user = self.users.get(session.username)
            if user is not None and not user.disabled and user.credentials == session.credentials:
                minted = self._mint(user)
        end = now + self.refresh_lifetime
        used = self.sessions.rotate(session_id, digest, _digest(fresh), expires_at=end, now=now)
        if used is None or minted is None:
            raise Unauthorized(REFRESH_FAILED)
        return Tokens(minted, self.lifetime, f"{session_id}.{fresh}")

    def logout(self, token: str) -> None:
        """Ends the session of a refresh token; nothing happens when it is not good."""
        with suppress(Unauthorized):
            session_id, secret = _split(token)
            self.sessions.end(session_id, _digest(secret))

    def _count_guess(self, key: str, limit: int) -> None:
        wait = self.attempts.take(key, limit=limit, window=self.limits.window, now=self.clock())
        if wait > 0:
            what = "for this account" if key.startswith("account:") else "from this address"
            seconds = ceil(wait)
            raise TooManyRequests(f"too many logins were tried {what}: wait {seconds} s", retry_after=seconds)

    def _find(self, username: str) -> User | None:
        name = canonical_or_none(username)
        return None if name is None else self.users.get(name)

    def _mint(self, user: User) -> str:
        now = int(self.clock())
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": user.username,
            "iat": now,
            "exp": now + self.lifetime,
            "jti": secrets.token_urlsafe(16),
            "tenant": user.tenant,
            "cred": user.credentials,
        }
        return tokens.mint(self.signer, claims)


def _digest(secret: str) -> str:
    """Of a long random string, for which a fast hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _split(token: str) -> tuple[str, str]:
    match = REFRESH_TOKEN.fullmatch(token)
    if match is None:
        raise Unauthorized(REFRESH_FAILED)
    return match[1], match[2]


def _checked_tenant(tenant: str) -> str:
    if not tokens.TENANT.fullmatch(tenant):
        raise InvalidInput("tenant: 't_' and 26 characters of a-z2-7, or 'shared'", loc=("body", "tenant"))
    return tenant
