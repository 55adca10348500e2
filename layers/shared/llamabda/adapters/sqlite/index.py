"""The embedded index: SQLite holds the chunks, arrays in memory answer the searches."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamabda import filters, identifiers
from llamabda.adapters.sqlite import segments
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.masks import Masks
from llamabda.adapters.sqlite.shard import Shard, best_by_text, best_by_vector
from llamabda.analysis import query_terms, tokens
from llamabda.errors import ConfigurationError, DependencyFailed, InvalidInput
from llamabda.filters import Scope
from llamabda.types import Chunk, Deadline, Found, GenerationKey, Metadata, ScoredChunk, TextMatches

# AUTOINCREMENT: ids only grow, so "rows after the last one seen" finds exactly the new ones.
# collections.version counts a tenant's changes, collections.removals those that took rows away.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS collections (
    tenant TEXT PRIMARY KEY, version INTEGER NOT NULL, removals INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS generations (
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, doc_id TEXT NOT NULL, generation INTEGER NOT NULL,
    sha256 TEXT NOT NULL, metadata TEXT NOT NULL, UNIQUE (tenant, doc_id, generation)
);
CREATE TABLE IF NOT EXISTS chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, number INTEGER NOT NULL REFERENCES generations,
    ordinal INTEGER NOT NULL, first INTEGER NOT NULL, beyond INTEGER NOT NULL, text TEXT NOT NULL,
    vector BLOB NOT NULL, terms BLOB NOT NULL, length INTEGER NOT NULL, UNIQUE (number, ordinal)
);
CREATE INDEX IF NOT EXISTS chunks_of_tenant ON chunks (tenant, id);
CREATE TABLE IF NOT EXISTS metadata_terms (
    tenant TEXT NOT NULL, term TEXT NOT NULL, number INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE,
    PRIMARY KEY (tenant, term, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS metadata_terms_of ON metadata_terms (number)
"""

_TERMS_VERSION = "2"  # higher: documents have terms that they had not before (1: metadata filters; 2: ids)
_KEEP_ROWS = 4096  # segments from this size on are kept as files; smaller ones are built from SQLite in a blink
_LOAD_ROWS = 20_000  # rows read from SQLite at a time: bounds memory while a cache is rebuilt
_COLUMNS = "c.id, g.tenant, g.doc_id, g.generation, c.ordinal, c.first, c.beyond, c.text, g.sha256, g.metadata"
_FROM = "FROM chunks c JOIN generations g ON g.number = c.number"
_CHUNK = f"SELECT {_COLUMNS} {_FROM}"
_CHUNK_AND_VECTOR = f"SELECT {_COLUMNS}, c.vector {_FROM}"


class SqliteIndex:
    """The Index port over one database file per embedding model.

    `cache` is a folder for memory-mapped copies; it may be deleted at any time. Safe with threads and processes.
    """

    def __init__(self, database: Database, *, cache: Path, dim: int) -> None:
        self._database = database
        self._dim = dim
        self._shards: dict[str, Shard] = {}
        self._removals: dict[str, int] = {}
        self._masks = Masks()
        self._lock = threading.Lock()
        database.script(_SCHEMA)
        with database.write() as db:
            db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", [("dim", str(dim)), ("stamp", uuid.uuid4().hex)])
            meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
            if meta.get("filters") != _TERMS_VERSION:
                _index_metadata(db)  # of an index that was made when documents had fewer terms
        if meta["dim"] != str(dim):
            message = f"the index {database.path.name} holds vectors of {meta['dim']} numbers, the embedder makes {dim}"
            raise ConfigurationError(message)
        self._stamp: str = meta["stamp"]
        self._cache: Path = cache / self._stamp

    def add(
        self, chunks: Sequence[Chunk], vectors: NDArray[np.float32], *, alive: Callable[[], None] = lambda: None
    ) -> None:
        if vectors.shape != (len(chunks), self._dim):
            raise InvalidInput(
                f"{len(chunks)} chunks need vectors of shape ({len(chunks)}, {self._dim}), not {vectors.shape}"
            )
        packed = [segments.pack_terms(tokens(f"{chunk.context}\n{chunk.text}")) for chunk in chunks]
        raw = np.ascontiguousarray(vectors, np.dtype("<f4"))
        with self._database.write() as db:
            replaced: set[str] = set()
            numbers: dict[GenerationKey, int] = {}
            for chunk, (terms, length), vector in zip(chunks, packed, raw, strict=True):
                if chunk.key not in numbers:
                    numbers[chunk.key] = _number(db, chunk)
                number = numbers[chunk.key]
                if db.execute("DELETE FROM chunks WHERE number = ? AND ordinal = ?", (number, chunk.ordinal)).rowcount:
                    replaced.add(chunk.tenant)
                db.execute(
                    "INSERT INTO chunks (tenant, number, ordinal, first, beyond, text, vector, terms, length)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        chunk.tenant,
                        number,
                        chunk.ordinal,
                        chunk.start,
                        chunk.end,
                        chunk.text,
                        vector.tobytes(),
                        terms,
                        length,
                    ),
                )
            for tenant in {chunk.tenant for chunk in chunks}:
                _changed(db, tenant, removed=tenant in replaced)

    def search(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        *,
        tenants: Sequence[str],
        scopes: Sequence[Scope],
        deadline: Deadline | None = None,
    ) -> list[Found]:
        """Exact. The deadline is looked at between scopes."""
        if vector is not None and vector.shape != (self._dim,):
            raise InvalidInput(f"a query vector has the shape ({self._dim},), not {vector.shape}")
        terms = {segments.term_hash(term): content for term, content in query_terms(text).items()}
        found = []
        with self._database.read() as db:
            shards = self._current(db, tenants)
            every = list(shards.values())
            for scope in scopes:
                if deadline is not None and deadline.passed():
                    raise DependencyFailed("the index did not answer in time", dependency="index")
                masks = self._masks.of(db, shards, scope.filter)
                texts, bound = best_by_text(every, terms, scope.limit, masks) if terms else ([], 0.0)
                nearest = [] if vector is None else best_by_vector(every, vector, scope.limit, masks)
                found.append(Found(TextMatches(_resolve(db, texts), bound), _resolve(db, nearest)))
        return found

    def chunks(self, key: GenerationKey, *, limit: int, after: int = -1) -> Sequence[Chunk]:
        with self._database.read() as db:
            rows = db.execute(
                f"{_CHUNK} WHERE g.tenant = ? AND g.doc_id = ? AND g.generation = ? AND c.ordinal > ?"
                " ORDER BY c.ordinal LIMIT ?",
                (key.tenant, key.doc_id, key.generation, after, limit),
            ).fetchall()
        return [_chunk(row) for row in rows]

    def vectors(self, key: GenerationKey) -> tuple[Sequence[Chunk], NDArray[np.float32]]:
        with self._database.read() as db:
            rows = db.execute(
                f"{_CHUNK_AND_VECTOR} WHERE g.tenant = ? AND g.doc_id = ? AND g.generation = ? ORDER BY c.ordinal",
                (key.tenant, key.doc_id, key.generation),
            ).fetchall()
        packed = b"".join(row[-1] for row in rows)
        return [_chunk(row[:-1]) for row in rows], np.frombuffer(packed, np.dtype("<f4")).reshape(len(rows), self._dim)

    def delete(self, keys: Iterable[GenerationKey]) -> None:
        with self._database.write() as db:
            touched = set()
            for key in keys:
                row = db.execute(
                    "SELECT number FROM generations WHERE tenant = ? AND doc_id = ? AND generation = ?",
                    (key.tenant, key.doc_id, key.generation),
                ).fetchone()
                if row is not None:
                    db.execute("DELETE FROM chunks WHERE number = ?", row)
                    db.execute("DELETE FROM generations WHERE number = ?", row)
                    touched.add(key.tenant)
            for tenant in touched:
                _changed(db, tenant, removed=True)

    def ping(self) -> None:
        self._database.ping()

    def _current(self, db: sqlite3.Connection, tenants: Sequence[str]) -> dict[str, Shard]:
        """The shards as they stand in this transaction. Readers of an unchanged collection never wait."""
        shards: dict[str, Shard] = {}
        for tenant in dict.fromkeys(tenants):
            row = db.execute("SELECT version, removals FROM collections WHERE tenant = ?", (tenant,)).fetchone()
            if row is None:
                continue
            version, removals = int(row[0]), int(row[1])
            shard = self._shards.get(tenant)
            if shard is None or shard.version != version:
                with self._lock:
                    shard = self._refreshed(db, tenant, version, removals)
            shards[tenant] = shard
        return shards

    def _refreshed(self, db: sqlite3.Connection, tenant: str, version: int, removals: int) -> Shard:
        known = self._shards.get(tenant)
        if known is not None and known.version >= version:
            return known  # another thread did it, or has seen more already
        shard = known or self._opened(tenant)
        before = {id(segment) for segment in shard.segments}
        if known is None or self._removals.get(tenant) != removals:
            ids = np.fromiter(
                (row[0] for row in db.execute("SELECT id FROM chunks WHERE tenant = ? ORDER BY id", (tenant,))),
                np.int64,
            )
            shard = shard.restricted(ids, version)
        rows = db.execute(
            "SELECT id, number, vector, terms, length FROM chunks WHERE tenant = ? AND id > ? ORDER BY id",
            (tenant, shard.last_id),
        )
        while batch := rows.fetchmany(_LOAD_ROWS):
            shard = shard.extended(segments.build(*zip(*batch, strict=True)), version)
        shard = Shard(version, shard.segments, shard.alive)
        self._keep(tenant, shard, before)
        self._shards[tenant] = shard
        self._removals[tenant] = removals
        return shard

    def _folder(self, tenant: str) -> Path:
        name = blake2b(tenant.encode(), digest_size=16).hexdigest()  # a tenant's own name need not suit a file system
        return self._cache / name

    def _opened(self, tenant: str) -> Shard:
        """What the cache holds of a tenant: files that follow on one another, by their first id."""
        found: list[segments.Segment] = []
        for folder in sorted(self._folder(tenant).glob("[0-9]*-[0-9]*")):
            segment = segments.load(folder, self._stamp)
            if segment is None or (found and segment.ids[0] <= found[-1].ids[-1]):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                found.append(segment)
        return Shard(-1, tuple(found), tuple(np.ones(len(segment), np.bool_) for segment in found))

    def _keep(self, tenant: str, shard: Shard, before: set[int]) -> None:
        """Writes new large segments to the cache and drops the files of those that were merged away."""
        if all(id(segment) in before for segment in shard.segments if len(segment) >= _KEEP_ROWS):
            return
        names = set()
        for segment in shard.segments:
            if len(segment) >= _KEEP_ROWS:
                folder = self._folder(tenant) / f"{int(segment.ids[0]):015d}-{int(segment.ids[-1]):015d}"
                names.add(folder.name)
                segments.save(segment, folder, self._stamp)
        for folder in self._folder(tenant).glob("[0-9]*-[0-9]*"):
            if folder.name not in names:
                shutil.rmtree(folder, ignore_errors=True)


def _number(db: sqlite3.Connection, chunk: Chunk) -> int:
    key = (chunk.tenant, chunk.doc_id, chunk.generation)
    metadata = json.dumps(dict(chunk.metadata), ensure_ascii=False, allow_nan=False)
    added = db.execute(
        "INSERT OR IGNORE INTO generations (tenant, doc_id, generation, sha256, metadata) VALUES (?, ?, ?, ?, ?)",
        (*key, chunk.sha256, metadata),
    ).rowcount
    row = db.execute(
        "SELECT number FROM generations WHERE tenant = ? AND doc_id = ? AND generation = ?", key
    ).fetchone()
    number = int(row[0])
    if added:
        db.executemany(
            "INSERT INTO metadata_terms VALUES (?, ?, ?)",
            [(chunk.tenant, term, number) for term in _terms(chunk.doc_id, chunk.metadata)],
        )
    return number


def _terms(doc_id: str, metadata: Metadata) -> frozenset[str]:
    return filters.terms(metadata) | identifiers.terms(doc_id, metadata)


def _index_metadata(db: sqlite3.Connection) -> None:
    rows = db.execute("SELECT tenant, number, doc_id, metadata FROM generations").fetchall()
    db.executemany(
        "INSERT OR IGNORE INTO metadata_terms VALUES (?, ?, ?)",
        [(tenant, term, number) for tenant, number, doc_id, text in rows for term in _terms(doc_id, json.loads(text))],
    )
    db.execute("INSERT OR REPLACE INTO meta VALUES ('filters', ?)", (_TERMS_VERSION,))


def _changed(db: sqlite3.Connection, tenant: str, *, removed: bool) -> None:
    db.execute(
        "INSERT INTO collections VALUES (?, 1, ?) ON CONFLICT (tenant) DO UPDATE SET version = version + 1,"
        " removals = removals + excluded.removals",
        (tenant, int(removed)),
    )


def _resolve(db: sqlite3.Connection, found: Sequence[tuple[int, float]]) -> tuple[ScoredChunk, ...]:
    if not found:
        return ()
    wanted = json.dumps([row_id for row_id, _ in found])
    rows = db.execute(f"{_CHUNK} JOIN json_each(?) wanted ON wanted.value = c.id", (wanted,)).fetchall()
    chunks = {row[0]: _chunk(row) for row in rows}
    return tuple(ScoredChunk(chunks[row_id], score) for row_id, score in found if row_id in chunks)


def _chunk(row: Sequence[object]) -> Chunk:
    _, tenant, doc_id, generation, ordinal, first, beyond, text, sha256, metadata = row
    return Chunk(
        tenant=str(tenant),
        doc_id=str(doc_id),
        generation=int(str(generation)),
        ordinal=int(str(ordinal)),
        start=int(str(first)),
        end=int(str(beyond)),
        text=str(text),
        sha256=str(sha256),
        metadata=json.loads(str(metadata)),
    )
