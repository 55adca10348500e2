"""Which embedding readers search with, beside the catalog: both change in the same transactions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from datetime import datetime

from llamabda.adapters.sqlite.database import Database
from llamabda.errors import DependencyFailed
from llamabda.types import Embedding, EmbeddingModel, GenerationKey

# embeddings: the one without `retired_at` is the one that readers search with.
# vectors: which generations have all their vectors of which embedding.
SCHEMA = """
CREATE TABLE IF NOT EXISTS embeddings (
    fingerprint TEXT PRIMARY KEY, model TEXT NOT NULL, backend TEXT NOT NULL, retired_at REAL
);
CREATE TABLE IF NOT EXISTS vectors (
    tenant TEXT NOT NULL, doc_id TEXT NOT NULL, generation INTEGER NOT NULL, fingerprint TEXT NOT NULL,
    PRIMARY KEY (tenant, doc_id, generation, fingerprint)
) WITHOUT ROWID
"""
# the embedding stood in the recipe before it had a place of its own
_CUT = "(instr(recipe, '/') + instr(substr(recipe, instr(recipe, '/')), ':'))"
FROM_RECIPES = f"""
INSERT OR IGNORE INTO vectors SELECT tenant, id, live_generation, substr(recipe, {_CUT}) FROM documents
    WHERE live_generation IS NOT NULL AND recipe LIKE '%:%/%:%';
UPDATE documents SET recipe = substr(recipe, 1, {_CUT} - 2) WHERE recipe LIKE '%:%/%:%'
"""  # noqa: S608  (constants)
_LACKING = (
    "FROM documents d WHERE d.live_generation IS NOT NULL AND NOT EXISTS (SELECT 1 FROM vectors v WHERE"
    " v.tenant = d.tenant AND v.doc_id = d.id AND v.generation = d.live_generation AND v.fingerprint = ?)"
)


class SqliteEmbeddings:
    """The Embeddings port over two tables of the catalog's database, whose own tables must be there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def live(self) -> Embedding | None:
        with self._database.read() as db:
            row = _live(db)
        return None if row is None else Embedding(row[0], EmbeddingModel(row[1], row[2]))

    def unmade(self, fingerprint: str, *, limit: int, after: GenerationKey | None = None) -> Sequence[GenerationKey]:
        last = ("", "") if after is None else (after.tenant, after.doc_id)
        with self._database.read() as db:
            rows = db.execute(
                f"SELECT d.tenant, d.id, d.live_generation {_LACKING}"
                " AND (d.tenant, d.id) > (?, ?) ORDER BY d.tenant, d.id LIMIT ?",
                (fingerprint, *last, limit),
            ).fetchall()
        return [GenerationKey(*row) for row in rows]

    def left(self, fingerprint: str) -> int:
        with self._database.read() as db:
            row = db.execute(f"SELECT count(*) {_LACKING}", (fingerprint,)).fetchone()
        return int(row[0])

    def made(self, keys: Iterable[GenerationKey], fingerprint: str) -> None:
        with self._database.write() as db:
            for key in keys:
                mark(db, key, fingerprint)

    def adopt(self, embedding: Embedding) -> bool:
        with self._database.write() as db:
            if db.execute(f"SELECT 1 {_LACKING} LIMIT 1", (embedding.fingerprint,)).fetchone():
                return False
            db.execute(
                "UPDATE embeddings SET retired_at = ? WHERE retired_at IS NULL AND fingerprint != ?",
                (time.time(), embedding.fingerprint),
            )
            db.execute(
                "INSERT INTO embeddings VALUES (?, ?, ?, NULL) ON CONFLICT (fingerprint) DO UPDATE SET"
                " model = excluded.model, backend = excluded.backend, retired_at = NULL",
                (embedding.fingerprint, embedding.model.name, embedding.model.backend),
            )
        return True

    def retired(self, *, before: datetime) -> Sequence[str]:
        with self._database.read() as db:
            rows = db.execute(
                "SELECT fingerprint FROM embeddings WHERE retired_at < ? ORDER BY retired_at", (before.timestamp(),)
            ).fetchall()
        return [str(row[0]) for row in rows]

    def dropped(self, fingerprint: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM vectors WHERE fingerprint = ?", (fingerprint,))
            db.execute("DELETE FROM embeddings WHERE fingerprint = ? AND retired_at IS NOT NULL", (fingerprint,))


def check(db: sqlite3.Connection, fingerprint: str) -> None:
    """Within a transaction. DependencyFailed when readers search with another embedding than this one."""
    row = _live(db)
    if fingerprint and row is not None and row[0] != fingerprint:
        raise DependencyFailed(
            f"the embedding model has changed to {row[1]} meanwhile: the document is made again", dependency="embedder"
        )


def mark(db: sqlite3.Connection, key: GenerationKey, fingerprint: str) -> None:
    """Within a transaction: the generation has its vectors of this embedding."""
    db.execute(
        "INSERT OR IGNORE INTO vectors VALUES (?, ?, ?, ?)", (key.tenant, key.doc_id, key.generation, fingerprint)
    )


def forget(db: sqlite3.Connection, keys: Iterable[GenerationKey]) -> None:
    """Within a transaction: these generations are gone."""
    db.executemany(
        "DELETE FROM vectors WHERE tenant = ? AND doc_id = ? AND generation = ?",
        [(key.tenant, key.doc_id, key.generation) for key in keys],
    )


def _live(db: sqlite3.Connection) -> tuple[str, str, str] | None:
    row = db.execute("SELECT fingerprint, model, backend FROM embeddings WHERE retired_at IS NULL").fetchone()
    return None if row is None else (str(row[0]), str(row[1]), str(row[2]))
