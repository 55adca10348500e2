"""Accounts and invites in SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from llamabda.adapters.sqlite.database import Database
from llamabda.errors import Conflict, Forbidden
from llamabda.types import Invite, Role, User

_SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    username TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('admin', 'member')),
    password_hash TEXT NOT NULL,
    disabled INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    credentials INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS invites (
    digest TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('admin', 'member')),
    created_by TEXT NOT NULL,
    expires_at REAL NOT NULL
) WITHOUT ROWID
"""
_COLUMNS = "username, tenant, role, password_hash, disabled, created_at, credentials"


class SqliteUserStore:
    """The UserStore port over two tables; every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.script(_SCHEMA)
        database.add_columns("users", {"credentials": "INTEGER NOT NULL DEFAULT 0"})

    def add(self, user: User, *, invite: str | None = None, now: float = 0.0) -> None:
        row = (
            user.username,
            user.tenant,
            user.role,
            user.password_hash,
            user.disabled,
            user.created_at.astimezone(UTC).isoformat(),
            user.credentials,
        )
        with self._database.write() as db:
            # told by the row count and not by a constraint's error, which other constraints raise too
            added = db.execute(
                f"INSERT INTO users ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (username) DO NOTHING",  # noqa: S608 -- constants
                row,
            ).rowcount
            if not added:
                raise Conflict(f"username {user.username!r} is taken: choose another")
            if invite is None:
                return
            used = db.execute("DELETE FROM invites WHERE digest = ? AND expires_at > ?", (invite, now)).rowcount
            if not used:
                raise Forbidden("the invite is not good: it was used already, or has expired")

    def get(self, username: str) -> User | None:
        with self._database.read() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM users WHERE username = ?", (username,)).fetchone()  # noqa: S608 -- constants
        return None if row is None else _user(row)

    def list(self) -> Sequence[User]:
        with self._database.read() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM users ORDER BY username").fetchall()  # noqa: S608 -- constants
        return [_user(row) for row in rows]

    def set_disabled(self, username: str, disabled: bool) -> bool:
        with self._database.write() as db:
            changed = db.execute(
                "UPDATE users SET disabled = ?, credentials = credentials + ? WHERE username = ?",
                (disabled, disabled, username),
            ).rowcount
            if disabled:
                db.execute("DELETE FROM invites WHERE created_by = ?", (username,))
            return changed == 1

    def set_password_hash(
        self, username: str, password_hash: str, *, renew: bool = False, instead_of: str | None = None
    ) -> bool:
        with self._database.write() as db:
            changed = db.execute(
                "UPDATE users SET password_hash = ?, credentials = credentials + ?"
                " WHERE username = ? AND (? IS NULL OR password_hash = ?)",
                (password_hash, renew, username, instead_of, instead_of),
            ).rowcount
            return changed == 1

    def add_invite(self, invite: Invite) -> None:
        row = (invite.digest, invite.tenant, invite.role, invite.created_by, invite.expires_at)
        with self._database.write() as db:
            added = db.execute(
                "INSERT INTO invites SELECT ?, ?, ?, ?, ?"
                " WHERE ? = '' OR EXISTS (SELECT 1 FROM users WHERE username = ? AND NOT disabled)",
                (*row, invite.created_by, invite.created_by),
            ).rowcount
            if not added:
                raise Forbidden(f"{invite.created_by} cannot invite: the account is disabled")

    def invite(self, digest: str) -> Invite | None:
        with self._database.read() as db:
            row = db.execute("SELECT * FROM invites WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else Invite(*row)

    def ping(self) -> None:
        self._database.ping()


def _user(row: tuple[object, ...]) -> User:
    username, tenant, role, password_hash, disabled, created_at, credentials = row
    return User(
        username=str(username),
        tenant=str(tenant),
        role=_role(role),
        password_hash=str(password_hash),
        disabled=bool(disabled),
        created_at=datetime.fromisoformat(str(created_at)),
        credentials=int(str(credentials)),
    )


def _role(value: object) -> Role:
    return "admin" if value == "admin" else "member"
