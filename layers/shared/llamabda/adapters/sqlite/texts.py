"""Extracted texts in SQLite."""

from __future__ import annotations

from collections.abc import Iterable

from llamabda.adapters.sqlite.database import Database
from llamabda.types import GenerationKey

_SCHEMA = """
CREATE TABLE IF NOT EXISTS texts (
    tenant TEXT NOT NULL, doc_id TEXT NOT NULL, generation INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (tenant, doc_id, generation)
)
"""


class SqliteTextStore:
    """The TextStore port over one table."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.script(_SCHEMA)

    def put(self, key: GenerationKey, text: str) -> None:
        with self._database.write() as db:
            db.execute("INSERT OR REPLACE INTO texts VALUES (?, ?, ?, ?)", (*_row(key), text))

    def get(self, key: GenerationKey) -> str | None:
        with self._database.read() as db:
            row = db.execute(
                "SELECT text FROM texts WHERE tenant = ? AND doc_id = ? AND generation = ?", _row(key)
            ).fetchone()
        return None if row is None else str(row[0])

    def delete(self, keys: Iterable[GenerationKey]) -> None:
        with self._database.write() as db:
            db.executemany(
                "DELETE FROM texts WHERE tenant = ? AND doc_id = ? AND generation = ?", [_row(key) for key in keys]
            )


def _row(key: GenerationKey) -> tuple[str, str, int]:
    return key.tenant, key.doc_id, key.generation
