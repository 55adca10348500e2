"""Refresh tokens in SQLite."""

from __future__ import annotations

from llamabda.adapters.sqlite.database import Database
from llamabda.types import Session

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT NOT NULL PRIMARY KEY, username TEXT NOT NULL, digest TEXT NOT NULL, expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_of_user ON sessions (username);
CREATE INDEX IF NOT EXISTS sessions_by_end ON sessions (expires_at)
"""


class SqliteSessionStore:
    """The SessionStore port over one table; every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.script(_SCHEMA)
        database.add_columns("sessions", {"credentials": "INTEGER NOT NULL DEFAULT 0"})

    def add(self, session: Session, *, now: float) -> None:
        row = (session.id, session.username, session.digest, session.expires_at, session.credentials)
        with self._database.write() as db:
            db.execute("DELETE FROM sessions WHERE expires_at <= ?", (now,))
            db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", row)

    def get(self, session_id: str) -> Session | None:
        with self._database.read() as db:
            row = db.execute(
                "SELECT username, digest, expires_at, credentials FROM sessions WHERE id = ?", (session_id,)
            ).fetchone()
        return None if row is None else Session(session_id, str(row[0]), str(row[1]), float(row[2]), int(row[3]))

    def rotate(self, session_id: str, old: str, new: str, *, expires_at: float, now: float) -> Session | None:
        with self._database.write() as db:
            row = db.execute(
                "UPDATE sessions SET digest = ?, expires_at = ? WHERE id = ? AND digest = ? AND expires_at > ?"
                " RETURNING username, credentials",
                (new, expires_at, session_id, old, now),
            ).fetchone()
            if row is None:
                db.execute("DELETE FROM sessions WHERE id = ?", (session_id,))
                return None
            return Session(session_id, str(row[0]), new, expires_at, int(row[1]))

    def end(self, session_id: str, digest: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM sessions WHERE id = ? AND digest = ?", (session_id, digest))

    def end_all(self, username: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM sessions WHERE username = ?", (username,))
