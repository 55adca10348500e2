"""Password hashes by argon2-cffi."""

from __future__ import annotations

import base64
import secrets
import threading

import argon2
from argon2.exceptions import Argon2Error, InvalidHashError, VerifyMismatchError

from llamabda.errors import DependencyFailed

# OWASP's first choice for argon2id with little memory: 19 MiB, two passes, one lane.
MEMORY_KIB = 19_456
PASSES = 2
LANES = 1
SALT_BYTES = 16
HASH_BYTES = 32
AT_ONCE = 4  # each takes MEMORY_KIB; a rush of logins must not take the machine's memory


class Argon2Hasher:
    """argon2id. Passwords are hashed whole, as UTF-8."""

    def __init__(self, *, memory_kib: int = MEMORY_KIB, passes: int = PASSES, lanes: int = LANES) -> None:
        self._argon2 = argon2.PasswordHasher(
            time_cost=passes,
            memory_cost=memory_kib,
            parallelism=lanes,
            salt_len=SALT_BYTES,
            hash_len=HASH_BYTES,
            type=argon2.Type.ID,
        )
        # Well-formed, with our parameters, of no known password: checking against it costs what a real one costs.
        salt, digest = (_unpadded(secrets.token_bytes(n)) for n in (SALT_BYTES, HASH_BYTES))
        self._nobodys = f"$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${digest}"
        self._slots = threading.BoundedSemaphore(AT_ONCE)

    def hash(self, password: str) -> str:
        """An encoded hash with a fresh salt."""
        try:
            with self._slots:
                return self._argon2.hash(password)
        except Argon2Error as exc:
            raise DependencyFailed("the password could not be hashed", dependency="argon2") from exc

    def verify(self, password: str, password_hash: str | None) -> bool:
        """None: nobody's hash; False after the same work. DependencyFailed for a stored hash that is not argon2's."""
        try:
            with self._slots:
                return self._argon2.verify(self._nobodys if password_hash is None else password_hash, password)
        except VerifyMismatchError:
            return False
        except (Argon2Error, InvalidHashError) as exc:
            raise DependencyFailed("the stored password hash could not be checked", dependency="users") from exc

    def outdated(self, password_hash: str) -> bool:
        return self._argon2.check_needs_rehash(password_hash)


def _unpadded(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode("ascii")
