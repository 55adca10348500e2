"""The catalog of documents in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from llamabda.adapters.sqlite import embeddings
from llamabda.adapters.sqlite.database import Database
from llamabda.cursors import decode, encode
from llamabda.succession import INTERRUPTED, QUEUED, behind, may_go_live
from llamabda.types import DocState, Document, DocumentPage, GenerationKey, Metadata, Pending

# documents: one row per document ever seen; a deleted one stays as a tombstone, so that its generations are not
#   allotted again and an event older than the delete finds its sequencer.
# generations: every version whose chunks or texts may exist; `dead_since` is set once it is garbage.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    tenant TEXT NOT NULL, id TEXT NOT NULL, source TEXT NOT NULL, state TEXT NOT NULL,
    last_generation INTEGER NOT NULL, live_generation INTEGER, deleted_upto INTEGER NOT NULL DEFAULT 0,
    sequencer TEXT, sha256 TEXT NOT NULL DEFAULT '', bytes INTEGER NOT NULL DEFAULT 0,
    chunks INTEGER NOT NULL DEFAULT 0, metadata TEXT NOT NULL, error TEXT,
    created_at REAL NOT NULL, updated_at REAL NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS generations (
    tenant TEXT NOT NULL, doc_id TEXT NOT NULL, generation INTEGER NOT NULL,
    begun_at REAL NOT NULL, went_live INTEGER NOT NULL DEFAULT 0, dead_since REAL,
    PRIMARY KEY (tenant, doc_id, generation)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS generations_dead ON generations (dead_since) WHERE dead_since IS NOT NULL;
CREATE INDEX IF NOT EXISTS generations_pending ON generations (begun_at) WHERE went_live = 0 AND dead_since IS NULL
"""

_COLUMNS = (
    "tenant, id, source, state, live_generation, sha256, bytes, chunks, metadata, error, created_at, updated_at,"
    " recipe, sequencer"
)
_PENDING = {
    "source": "TEXT NOT NULL DEFAULT ''",
    "metadata": "TEXT NOT NULL DEFAULT '{}'",
    "instructions": "TEXT NOT NULL DEFAULT ''",
    "sequencer": "TEXT",
}
_VISIBLE = "state != 'deleted'"
_LIVE_BATCH = 200  # documents per query: SQLite takes a bounded number of parameters


class SqliteCatalog:
    """The Catalog port over two tables of its own; every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.script(_SCHEMA)
        database.add_columns("documents", {"recipe": "TEXT NOT NULL DEFAULT ''"})
        database.add_columns("generations", _PENDING)
        embeddings.create(database)

    def begin(
        self,
        tenant: str,
        doc_id: str,
        *,
        source: str,
        metadata: Metadata,
        state: DocState = "processing",
        sequencer: str | None = None,
        instructions: str = "",
    ) -> int | None:
        now = _now()
        with self._database.write() as db:
            row = db.execute(
                "SELECT last_generation, sequencer, state FROM documents WHERE tenant = ? AND id = ?", (tenant, doc_id)
            ).fetchone()
            if row is not None and behind(sequencer, row[1]):
                return None
            generation = 1 if row is None else int(row[0]) + 1
            if row is None or row[2] == "deleted":  # a new document, or one that starts a new life
                db.execute(
                    "INSERT INTO documents"
                    " (tenant, id, source, state, last_generation, metadata, created_at, updated_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, id) DO UPDATE SET source = excluded.source,"
                    " state = excluded.state, last_generation = excluded.last_generation,"
                    " metadata = excluded.metadata, created_at = excluded.created_at,"
                    " updated_at = excluded.updated_at, error = NULL",
                    (tenant, doc_id, source, state, generation, _dump(metadata), now, now),
                )
            else:
                db.execute(
                    "UPDATE documents SET state = ?, last_generation = ?, error = NULL, updated_at = ?"
                    " WHERE tenant = ? AND id = ?",
                    (state, generation, now, tenant, doc_id),
                )
            db.execute(
                "INSERT INTO generations"
                " (tenant, doc_id, generation, begun_at, source, metadata, instructions, sequencer)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (tenant, doc_id, generation, now, source, _dump(metadata), instructions, sequencer),
            )
        return generation

    def start(self, key: GenerationKey) -> Pending | None:
        now = _now()
        with self._database.write() as db:
            row = db.execute(
                "SELECT g.source, g.metadata, g.instructions, g.sequencer, d.live_generation, d.deleted_upto,"
                " d.sequencer FROM generations g JOIN documents d ON d.tenant = g.tenant AND d.id = g.doc_id"
                " WHERE g.tenant = ? AND g.doc_id = ? AND g.generation = ? AND g.dead_since IS NULL"
                " AND g.went_live = 0",
                _row(key),
            ).fetchone()
            if row is None:
                return None
            source, metadata, instructions, sequencer, live, deleted_upto, known = row
            if not may_go_live(key.generation, sequencer, live=live, deleted_upto=deleted_upto, known=known):
                _superseded(db, key, now)
                return None
            db.execute(
                "UPDATE generations SET begun_at = ? WHERE tenant = ? AND doc_id = ? AND generation = ?",
                (now, *_row(key)),
            )
            _set_state(db, key, "processing", None, now)
            return Pending(str(source), json.loads(metadata), str(instructions), sequencer)

    def requeue(self, key: GenerationKey, error: str | None) -> None:
        with self._database.write() as db:
            if _is_pending(db, key):
                _set_state(db, key, "queued", error, _now())

    def unchanged(self, key: GenerationKey, live: int, *, build: str = "") -> bool:
        now = _now()
        with self._database.write() as db:
            if not embeddings.has(db, key.tenant, key.doc_id, live, build):
                return False
            same = db.execute(
                "UPDATE documents SET state = CASE WHEN last_generation = ? THEN 'ready' ELSE state END,"
                " error = CASE WHEN last_generation = ? THEN NULL ELSE error END"
                " WHERE tenant = ? AND id = ? AND live_generation = ?",
                (key.generation, key.generation, key.tenant, key.doc_id, live),
            ).rowcount
            if not same:
                return False
            if not _is_pending(db, key):
                return True
            sequencer, known = _sequencers(db, key)
            if sequencer is None:
                # versions between the two, still to be made, are older than what has just been said
                db.execute(
                    "UPDATE generations SET dead_since = ? WHERE tenant = ? AND doc_id = ? AND generation < ?"
                    " AND went_live = 0 AND dead_since IS NULL",
                    (now, *_row(key)),
                )
            elif not behind(sequencer, known):
                # what is older, though begun later, is known by it
                values = (sequencer, key.tenant, key.doc_id)
                db.execute("UPDATE documents SET sequencer = ? WHERE tenant = ? AND id = ?", values)
            _bury(db, key, now)
            return True

    def commit(
        self,
        key: GenerationKey,
        *,
        source: str,
        metadata: Metadata,
        sha256: str,
        size: int,
        chunks: int,
        recipe: str = "",
        build: str = "",
        sequencer: str | None = None,
    ) -> bool:
        now = _now()
        with self._database.write() as db:
            embeddings.check(db, build)
            row = db.execute(
                "SELECT live_generation, deleted_upto, sequencer, last_generation, state FROM documents"
                " WHERE tenant = ? AND id = ?",
                (key.tenant, key.doc_id),
            ).fetchone()
            live = None if row is None or row[0] is None else int(row[0])
            if live == key.generation:
                return True  # two had this piece of work, and the other one was first
            begun = db.execute(
                "SELECT 1 FROM generations WHERE tenant = ? AND doc_id = ? AND generation = ? AND dead_since IS NULL",
                _row(key),
            ).fetchone()
            if row is None or begun is None:  # given up as abandoned: its chunks may be gone
                db.execute(  # it may have been swept already: chunks that came later are garbage, too
                    "INSERT OR IGNORE INTO generations (tenant, doc_id, generation, begun_at) VALUES (?, ?, ?, ?)",
                    (*_row(key), now),
                )
                _bury(db, key, now)
                return False
            if not may_go_live(key.generation, sequencer, live=live, deleted_upto=int(row[1]), known=row[2]):
                _superseded(db, key, now)
                return False
            # a later ingestion may be under way: then the state is its own
            latest = key.generation == int(row[3]) or row[4] == "deleted"
            db.execute(
                "UPDATE documents SET source = ?, state = ?, live_generation = ?, sequencer = coalesce(?, sequencer),"
                " sha256 = ?, bytes = ?, chunks = ?, metadata = ?, recipe = ?,"
                " error = CASE WHEN ? THEN NULL ELSE error END, updated_at = ? WHERE tenant = ? AND id = ?",
                (
                    source,
                    "ready" if latest else row[4],
                    key.generation,
                    sequencer,
                    sha256,
                    size,
                    chunks,
                    _dump(metadata),
                    recipe,
                    latest,
                    now,
                    key.tenant,
                    key.doc_id,
                ),
            )
            db.execute(
                "UPDATE generations SET went_live = 1 WHERE tenant = ? AND doc_id = ? AND generation = ?", _row(key)
            )
            embeddings.mark(db, key, build)
            if live is not None:
                _bury(db, GenerationKey(key.tenant, key.doc_id, live), now)
        return True

    def fail(self, key: GenerationKey, error: str) -> None:
        with self._database.write() as db:
            if _is_pending(db, key):
                _failed(db, key, error, _now())

    def get(self, tenant: str, doc_id: str) -> Document | None:
        with self._database.read() as db:
            row = db.execute(
                f"SELECT {_COLUMNS} FROM documents WHERE tenant = ? AND id = ? AND {_VISIBLE}",  # noqa: S608  (constants)
                (tenant, doc_id),
            ).fetchone()
        return None if row is None else _document(row)

    def list(
        self, tenant: str, *, state: DocState | None = None, limit: int = 50, cursor: str | None = None
    ) -> DocumentPage:
        after = "" if cursor is None else decode(cursor)
        with self._database.read() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM documents WHERE tenant = ? AND id > ? AND {_VISIBLE}"  # noqa: S608  (constants)
                " AND (? IS NULL OR state = ?) ORDER BY id LIMIT ?",
                (tenant, after, state, state, limit + 1),
            ).fetchall()
            counts = db.execute(
                f"SELECT state, count(*) FROM documents WHERE tenant = ? AND {_VISIBLE} GROUP BY state",  # noqa: S608
                (tenant,),
            ).fetchall()
        documents = tuple(_document(row) for row in rows[:limit])
        more = len(rows) > limit
        return DocumentPage(documents, dict(counts), encode(documents[-1].id) if more else None)

    def live(self, documents: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
        wanted = sorted(set(documents))
        found: dict[tuple[str, str], int] = {}
        with self._database.read() as db:
            for at in range(0, len(wanted), _LIVE_BATCH):
                batch = wanted[at : at + _LIVE_BATCH]
                places = ", ".join(["(?, ?)"] * len(batch))
                rows = db.execute(
                    "SELECT tenant, id, live_generation FROM documents"  # noqa: S608  (placeholders only)
                    f" WHERE (tenant, id) IN (VALUES {places}) AND live_generation IS NOT NULL",
                    [value for pair in batch for value in pair],
                ).fetchall()
                found.update({(row[0], row[1]): int(row[2]) for row in rows})
        return found

    def delete(self, tenant: str, doc_id: str, *, sequencer: str | None = None) -> bool:
        now = _now()
        with self._database.write() as db:
            row = db.execute(
                "SELECT live_generation, sequencer, state FROM documents WHERE tenant = ? AND id = ?", (tenant, doc_id)
            ).fetchone()
            if row is None:
                if sequencer is not None:  # an event that overtook the document's creation: remember it
                    db.execute(
                        "INSERT INTO documents (tenant, id, source, state, last_generation, sequencer, metadata,"
                        " created_at, updated_at) VALUES (?, ?, '', 'deleted', 0, ?, '{}', ?, ?)",
                        (tenant, doc_id, sequencer, now, now),
                    )
                return False
            if behind(sequencer, row[1]):
                return False
            db.execute(
                "UPDATE documents SET state = 'deleted', live_generation = NULL, deleted_upto = last_generation,"
                " sequencer = coalesce(?, sequencer), sha256 = '', bytes = 0, chunks = 0, metadata = '{}',"
                " error = NULL, updated_at = ? WHERE tenant = ? AND id = ?",
                (sequencer, now, tenant, doc_id),
            )
            if row[0] is not None:
                _bury(db, GenerationKey(tenant, doc_id, int(row[0])), now)
            return bool(row[2] != "deleted")

    def garbage(self, *, before: datetime, abandoned_before: datetime) -> Sequence[GenerationKey]:
        now = _now()
        with self._database.write() as db:
            # first given up, so that it cannot go live any more; its turn to be swept comes later
            given_up = db.execute(
                "SELECT g.tenant, g.doc_id, g.generation FROM generations g"
                " JOIN documents d ON d.tenant = g.tenant AND d.id = g.doc_id"
                " WHERE g.went_live = 0 AND g.dead_since IS NULL AND g.begun_at < ?"
                " AND (g.begun_at < ? OR g.instructions = ''"  # with instructions it is in a queue
                " AND (d.state != 'queued' OR d.last_generation != g.generation))",
                (abandoned_before.timestamp(), now - QUEUED.total_seconds()),
            ).fetchall()
            for row in given_up:
                _failed(db, GenerationKey(*row), INTERRUPTED, now)
            rows = db.execute(
                "SELECT tenant, doc_id, generation FROM generations WHERE dead_since < ?", (before.timestamp(),)
            ).fetchall()
        return [GenerationKey(*row) for row in rows]

    def swept(self, keys: Iterable[GenerationKey]) -> None:
        keys = list(keys)
        with self._database.write() as db:
            embeddings.forget(db, keys)
            db.executemany(
                "DELETE FROM generations WHERE tenant = ? AND doc_id = ? AND generation = ?",
                [_row(key) for key in keys],
            )

    def ping(self) -> None:
        self._database.ping()


def _set_state(db: sqlite3.Connection, key: GenerationKey, state: DocState, error: str | None, now: float) -> None:
    """Of the document, when nothing later is under way and it was not deleted meanwhile."""
    db.execute(
        "UPDATE documents SET state = ?, error = ?, updated_at = ?"
        " WHERE tenant = ? AND id = ? AND last_generation = ? AND deleted_upto < last_generation",
        (state, error, now, *_row(key)),
    )


def _failed(db: sqlite3.Connection, key: GenerationKey, error: str, now: float) -> None:
    if behind(*_sequencers(db, key)):
        _superseded(db, key, now)
        return
    _set_state(db, key, "failed", error, now)
    _bury(db, key, now)


def _superseded(db: sqlite3.Connection, key: GenerationKey, now: float) -> None:
    """Nothing comes of a generation, since what readers see is later."""
    row = db.execute(
        "SELECT live_generation FROM documents WHERE tenant = ? AND id = ?", (key.tenant, key.doc_id)
    ).fetchone()
    if row is not None and row[0] is not None:
        _set_state(db, key, "ready", None, now)
    _bury(db, key, now)


def _sequencers(db: sqlite3.Connection, key: GenerationKey) -> tuple[str | None, str | None]:
    """The generation's, and the one that its document carries."""
    row = db.execute(
        "SELECT g.sequencer, d.sequencer FROM generations g JOIN documents d ON d.tenant = g.tenant AND d.id = g.doc_id"
        " WHERE g.tenant = ? AND g.doc_id = ? AND g.generation = ?",
        _row(key),
    ).fetchone()
    return (None, None) if row is None else (row[0], row[1])


def _is_pending(db: sqlite3.Connection, key: GenerationKey) -> bool:
    row = db.execute(
        "SELECT 1 FROM generations WHERE tenant = ? AND doc_id = ? AND generation = ? AND went_live = 0"
        " AND dead_since IS NULL",
        _row(key),
    ).fetchone()
    return row is not None


def _bury(db: sqlite3.Connection, key: GenerationKey, now: float) -> None:
    """Makes a generation garbage, unless it is the one that readers see."""
    db.execute(
        "UPDATE generations SET dead_since = ? WHERE tenant = ? AND doc_id = ? AND generation = ?"
        " AND NOT EXISTS (SELECT 1 FROM documents d WHERE d.tenant = generations.tenant"
        " AND d.id = generations.doc_id AND d.live_generation = generations.generation)",
        (now, *_row(key)),
    )


def _document(row: Sequence[object]) -> Document:
    (
        tenant,
        doc_id,
        source,
        state,
        live,
        sha256,
        size,
        chunks,
        metadata,
        error,
        created,
        updated,
        recipe,
        sequencer,
    ) = row
    return Document(
        tenant=str(tenant),
        id=str(doc_id),
        source=str(source),
        state=state,  # type: ignore[arg-type]  # the column holds what `begin`, `commit` and `fail` write
        generation=None if live is None else int(str(live)),
        sha256=str(sha256),
        bytes=int(str(size)),
        chunks=int(str(chunks)),
        metadata=json.loads(str(metadata)),
        error=None if error is None else str(error),
        created_at=_time(created),
        updated_at=_time(updated),
        recipe=str(recipe),
        sequencer=None if sequencer is None else str(sequencer),
    )


def _dump(metadata: Metadata) -> str:
    return json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False)


def _row(key: GenerationKey) -> tuple[str, str, int]:
    return key.tenant, key.doc_id, key.generation


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _time(value: object) -> datetime:
    return datetime.fromtimestamp(float(str(value)), UTC)
