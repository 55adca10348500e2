"""Counted guesses in SQLite."""

from __future__ import annotations

from llamabda.adapters.sqlite.database import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (key TEXT NOT NULL, at REAL NOT NULL, forget_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS attempts_of_key ON attempts (key, at);
CREATE INDEX IF NOT EXISTS attempts_by_end ON attempts (forget_at)
"""


class SqliteAttemptStore:
    """The AttemptStore port over one table; every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.script(_SCHEMA)

    def take(self, key: str, *, limit: int, window: float, now: float) -> float:
        with self._database.write() as db:
            db.execute("DELETE FROM attempts WHERE forget_at <= ?", (now,))
            recent = db.execute(
                "SELECT at FROM attempts WHERE key = ? AND at > ? ORDER BY at DESC LIMIT ?", (key, now - window, limit)
            ).fetchall()
            if len(recent) >= limit:
                # never over the window: another's guess may have been counted after this one looked at the clock
                return min(window, float(recent[-1][0]) + window - now)
            db.execute("INSERT INTO attempts VALUES (?, ?, ?)", (key, now, now + window))
            return 0.0

    def give_back(self, key: str) -> None:
        with self._database.write() as db:
            db.execute(
                "DELETE FROM attempts"
                " WHERE rowid = (SELECT rowid FROM attempts WHERE key = ? ORDER BY at DESC LIMIT 1)",
                (key,),
            )

    def forget(self, key: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM attempts WHERE key = ?", (key,))
