"""Accounts in SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from llamabda.adapters.sqlite.database import Database
from llamabda.errors import Conflict
from llamabda.types import User

_SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    username TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('admin', 'member')),
    password_hash TEXT NOT NULL,
    disabled INTEGER NOT NULL,
    created_at TEXT NOT NULL
) WITHOUT ROWID
"""
_COLUMNS = "username, tenant, role, password_hash, disabled, created_at"


class SqliteUserStore:
    """The UserStore port over one table; every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.script(_SCHEMA)

    def add(self, user: User) -> None:
        row = (
            user.username,
            user.tenant,
            user.role,
            user.password_hash,
            user.disabled,
            user.created_at.astimezone(UTC).isoformat(),
        )
        # told by the row count and not by a constraint's error, which other constraints raise too
        statement = f"INSERT INTO users ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (username) DO NOTHING"  # noqa: S608 -- constants
        if not self._changes_one(statement, row):
            raise Conflict(f"username {user.username!r} is taken: choose another")

    def get(self, username: str) -> User | None:
        with self._database.read() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM users WHERE username = ?", (username,)).fetchone()  # noqa: S608 -- constants
        return None if row is None else _user(row)

    def list(self) -> Sequence[User]:
        with self._database.read() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM users ORDER BY username").fetchall()  # noqa: S608 -- constants
        return [_user(row) for row in rows]

    def set_disabled(self, username: str, disabled: bool) -> bool:
        return self._changes_one("UPDATE users SET disabled = ? WHERE username = ?", (disabled, username))

    def set_password_hash(self, username: str, password_hash: str) -> bool:
        return self._changes_one("UPDATE users SET password_hash = ? WHERE username = ?", (password_hash, username))

    def ping(self) -> None:
        self._database.ping()

    def _changes_one(self, statement: str, parameters: tuple[object, ...]) -> bool:
        with self._database.write() as db:
            return db.execute(statement, parameters).rowcount == 1


def _user(row: tuple[object, ...]) -> User:
    username, tenant, role, password_hash, disabled, created_at = row
    return User(
        username=str(username),
        tenant=str(tenant),
        role="admin" if role == "admin" else "member",
        password_hash=str(password_hash),
        disabled=bool(disabled),
        created_at=datetime.fromisoformat(str(created_at)),
    )
