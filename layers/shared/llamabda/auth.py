"""Accounts: who may come in, and the token that says so."""

from __future__ import annotations

import base64
import secrets
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

from llamabda import tokens
from llamabda.errors import InvalidInput, NotFound, Unauthorized
from llamabda.ports import Signer, UserStore
from llamabda.types import User

MAX_USERNAME_CHARS = 64  # after normalisation
MAX_RAW_USERNAME_CHARS = 4 * MAX_USERNAME_CHARS  # composing shortens; beyond this nothing is normalised at all
USERNAME_PUNCTUATION = frozenset("._@-+")
BLANK_LETTERS = frozenset("\u115f\u1160")  # letters to Unicode, but nothing shows: names would look alike
MIN_PASSWORD_CHARS = 8  # NIST SP 800-63B; no composition rules
MAX_PASSWORD_CHARS = 1_024
LOGIN_FAILED = "the username or the password is wrong"  # one message: it must not tell which


class PasswordHasher(Protocol):
    """Slow, salted hashes of passwords."""

    def hash(self, password: str) -> str: ...

    def verify(self, password: str, password_hash: str | None) -> bool:
        """None stands for nobody's hash: False, after the same work as for a real one."""

    def outdated(self, password_hash: str) -> bool:
        """Made with other parameters than today's."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a login gives. `expires_in`: seconds."""

    value: str = field(repr=False)
    expires_in: int


def new_tenant() -> str:
    """`t_` and 26 random base32 characters: nobody can guess one, and it says nothing of its user."""
    return "t_" + base64.b32encode(secrets.token_bytes(17)).decode("ascii").lower()[:26]


@dataclass(frozen=True, slots=True)
class Auth:
    """Registers users and logs them in.

    `lifetime`: of a token, in seconds. `clock`: epoch seconds.
    """

    users: UserStore
    signer: Signer
    hasher: PasswordHasher
    issuer: str
    audience: str
    lifetime: int
    clock: Callable[[], float] = time.time
    new_tenant: Callable[[], str] = new_tenant

    def register(
        self,
        username: str,
        password: str,
        tenant: str | None = None,
        role: Literal["admin", "member"] = "member",
    ) -> User:
        """A new user, in a tenant of their own unless one is given.

        InvalidInput for a name, password or tenant that cannot be taken; Conflict when the name is.
        """
        name = canonical_username(username)
        password = _acceptable(password)
        if len(password) < MIN_PASSWORD_CHARS:
            raise InvalidInput(f"password: {MIN_PASSWORD_CHARS} characters or more", loc=("body", "password"))
        if tenant is not None and not tokens.TENANT.fullmatch(tenant):
            raise InvalidInput("tenant: 't_' and 26 characters of a-z2-7, or 'shared'", loc=("body", "tenant"))
        user = User(
            username=name,
            tenant=self.new_tenant() if tenant is None else tenant,
            role=role,
            password_hash=self.hasher.hash(password),
            disabled=False,
            created_at=datetime.fromtimestamp(self.clock(), UTC),
        )
        self.users.add(user)
        return user

    def login(self, username: str, password: str) -> AccessToken:
        """A token for the user, or Unauthorized: alike, and after the same work, whatever was wrong.

        InvalidInput for a password that nobody can have (too long, not encodable).
        """
        password = _acceptable(password)
        user = self._find(username)
        right = self.hasher.verify(password, None if user is None else user.password_hash)
        if user is None or not right or user.disabled:
            raise Unauthorized(LOGIN_FAILED)
        if self.hasher.outdated(user.password_hash):
            self.users.set_password_hash(user.username, self.hasher.hash(password))
        return AccessToken(self._mint(user), self.lifetime)

    def user(self, username: str) -> User:
        """NotFound when there is none, whether or not such a name could be."""
        user = self._find(username)
        if user is None:
            raise NotFound("no such user")
        return user

    def _find(self, username: str) -> User | None:
        try:
            name = canonical_username(username)
        except InvalidInput:
            return None
        return self.users.get(name)

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
        }
        return tokens.mint(self.signer, claims)


def canonical_username(username: str) -> str:
    """The form in which a name is stored and compared: `Ａlice` and `ALICE` are `alice`. InvalidInput if not a name."""
    if len(username) <= MAX_RAW_USERNAME_CHARS:
        folded = unicodedata.normalize("NFKC", username).casefold()
        name = unicodedata.normalize("NFKC", folded)  # folding can leave what is not normalised
        if 0 < len(name) <= MAX_USERNAME_CHARS and all(map(_fits_username, name)):
            return name
    shown = username[:100].encode("utf-8", "replace").decode("utf-8")  # a lone surrogate could not be sent back
    raise InvalidInput(
        f"username: 1 to {MAX_USERNAME_CHARS} letters, digits or {' '.join(sorted(USERNAME_PUNCTUATION))}",
        loc=("body", "username"),
        value=shown,
    )


def _fits_username(char: str) -> bool:
    return (char.isalnum() and char not in BLANK_LETTERS) or char in USERNAME_PUNCTUATION


def _acceptable(password: str) -> str:
    """The password as it is hashed: whole, with accents composed (RFC 8265), since keyboards differ in that."""
    if len(password) > MAX_PASSWORD_CHARS:
        raise InvalidInput(f"password: at most {MAX_PASSWORD_CHARS} characters", loc=("body", "password"))
    if any("\ud800" <= char <= "\udfff" for char in password):  # not by trying: the encoder's error holds the password
        raise InvalidInput("password: has a lone surrogate, which UTF-8 cannot hold", loc=("body", "password"))
    return unicodedata.normalize("NFC", password)
