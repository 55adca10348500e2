"""Durable work in SQLite."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

from llamabda.adapters.sqlite.database import Database
from llamabda.types import GenerationKey, Lease

# due_at: nobody takes a row before; one that was taken carries the receipt of whoever has it until then.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, doc_id TEXT NOT NULL, generation INTEGER NOT NULL,
    due_at REAL NOT NULL, receipt TEXT, attempts INTEGER NOT NULL DEFAULT 0, UNIQUE (tenant, doc_id, generation)
);
CREATE INDEX IF NOT EXISTS queue_due ON queue (due_at, id)
"""


class SqliteQueue:
    """The Queue port over one table; every method is one transaction. `clock`: epoch seconds."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        database.script(_SCHEMA)

    def put(self, keys: Iterable[GenerationKey], *, delay: float = 0.0) -> None:
        due = self._clock() + delay
        with self._database.write() as db:
            db.executemany(
                "INSERT INTO queue (tenant, doc_id, generation, due_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (tenant, doc_id, generation) DO UPDATE SET due_at = excluded.due_at"
                " WHERE receipt IS NULL",
                [(*_row(key), due) for key in keys],
            )

    def take(self, *, limit: int, seconds: float) -> Sequence[Lease]:
        now = self._clock()
        receipt = uuid.uuid4().hex
        with self._database.read() as db:  # asked every second: only work is worth a transaction that shuts others out
            if db.execute("SELECT 1 FROM queue WHERE due_at <= ? LIMIT 1", (now,)).fetchone() is None:
                return []
        with self._database.write() as db:
            rows = db.execute(
                "SELECT id, tenant, doc_id, generation, attempts FROM queue WHERE due_at <= ?"
                " ORDER BY attempts > 0, id LIMIT ?",
                (now, limit),
            ).fetchall()
            new = [row for row in rows if row[4] == 0]
            rows = new or rows[:1]
            db.executemany(
                "UPDATE queue SET due_at = ?, receipt = ?, attempts = attempts + 1 WHERE id = ?",
                [(now + seconds, receipt, row[0]) for row in rows],
            )
        return [Lease(GenerationKey(row[1], row[2], row[3]), f"{row[0]}:{receipt}", row[4] + 1) for row in rows]

    def extend(self, leases: Sequence[Lease], *, seconds: float) -> None:
        until = self._clock() + seconds
        with self._database.write() as db:
            db.executemany(
                "UPDATE queue SET due_at = ? WHERE id = ? AND receipt = ?", [(until, *_held(lease)) for lease in leases]
            )

    def done(self, lease: Lease) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM queue WHERE id = ? AND receipt = ?", _held(lease))

    def retry(self, lease: Lease, *, delay: float) -> None:
        with self._database.write() as db:
            db.execute(
                "UPDATE queue SET due_at = ?, receipt = NULL WHERE id = ? AND receipt = ?",
                (self._clock() + delay, *_held(lease)),
            )

    def withdraw(self, keys: Iterable[GenerationKey]) -> None:
        with self._database.write() as db:
            db.executemany(
                "DELETE FROM queue WHERE tenant = ? AND doc_id = ? AND generation = ? AND receipt IS NULL",
                [_row(key) for key in keys],
            )

    def counts(self) -> Mapping[str, int]:
        now = self._clock()
        with self._database.read() as db:
            taken, everything = db.execute(
                "SELECT coalesce(sum(receipt IS NOT NULL AND due_at > ?), 0), count(*) FROM queue", (now,)
            ).fetchone()
        return {"waiting": int(everything) - int(taken), "taken": int(taken)}


def _row(key: GenerationKey) -> tuple[str, str, int]:
    return key.tenant, key.doc_id, key.generation


def _held(lease: Lease) -> tuple[int, str]:
    number, _, receipt = lease.receipt.partition(":")
    return int(number), receipt
