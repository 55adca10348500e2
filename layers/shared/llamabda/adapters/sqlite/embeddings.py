"""Which vectors readers search, beside the catalog: both change in the same transactions."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterable, Sequence
from datetime import datetime

from llamabda.adapters.sqlite.database import Database
from llamabda.errors import DependencyFailed
from llamabda.types import Build, Embedding, EmbeddingModel, GenerationKey

# builds: a name is never given again, so that nobody can take one build's index for another's. `since`: of its state;
#   of a build that is being made, when somebody last worked on it.
# vectors: which generations have all their vectors in which build.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS builds (
    name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, model TEXT NOT NULL, backend TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('building', 'live', 'retired', 'dropping')), since REAL NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS one_live_build ON builds (state) WHERE state = 'live';
CREATE TABLE IF NOT EXISTS vectors (
    tenant TEXT NOT NULL, doc_id TEXT NOT NULL, generation INTEGER NOT NULL, build TEXT NOT NULL,
    PRIMARY KEY (tenant, doc_id, generation, build)
) WITHOUT ROWID
"""
# installation: one row. `place`: of the indexes that `vectors` speaks of.
_INSTALLATION = """
CREATE TABLE IF NOT EXISTS installation (
    one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL, place TEXT NOT NULL
)
"""
# before builds had names, the embedding's fingerprint stood at the end of a recipe, and was the name of its index
_CUT = "(instr(recipe, '/') + instr(substr(recipe, instr(recipe, '/')), ':'))"
_FROM_RECIPES = f"""
INSERT INTO vectors SELECT tenant, id, live_generation, substr(recipe, {_CUT}) FROM documents
    WHERE live_generation IS NOT NULL AND recipe LIKE '%:%/%:_%';
INSERT INTO builds SELECT build, build, '', '', 'retired', CAST(strftime('%s', 'now') AS REAL)
    FROM vectors GROUP BY build;
UPDATE builds SET state = 'live'
    WHERE name = (SELECT build FROM vectors GROUP BY build ORDER BY count(*) DESC, build LIMIT 1);
UPDATE documents SET recipe = substr(recipe, 1, {_CUT} - 2) WHERE recipe LIKE '%:%/%:%'
"""  # noqa: S608  (constants)
_LACKING = (
    "FROM documents d WHERE d.live_generation IS NOT NULL AND NOT EXISTS (SELECT 1 FROM vectors v WHERE"
    " v.tenant = d.tenant AND v.doc_id = d.id AND v.generation = d.live_generation AND v.build = ?)"
)
_MADE = (
    "FROM vectors v JOIN documents d ON d.tenant = v.tenant AND d.id = v.doc_id AND d.live_generation = v.generation"
)
_KNOWN = "SELECT 1 FROM builds WHERE name = ? AND state != 'dropping'"
_BUILD = "SELECT name, fingerprint, model, backend FROM builds"


class SqliteEmbeddings:
    """The Embeddings port over two tables of the catalog's database, whose own tables must be there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def owner(self) -> str:
        with self._database.write() as db:
            return _installation(db)[0]

    def moved(self, place: str) -> bool:
        with self._database.write() as db:
            if _installation(db)[1] == place:
                return False
            had = db.execute(f"SELECT EXISTS (SELECT 1 {_MADE})").fetchone()[0]
            db.execute("UPDATE installation SET place = ?", (place,))
            db.execute("DELETE FROM vectors")
            return bool(had)

    def live(self) -> Build | None:
        with self._database.read() as db:
            return _live(db)

    def settle(self, embedding: Embedding) -> Build | None:
        with self._database.write() as db:
            live = _live(db)
            if live is not None and live.embedding.fingerprint == embedding.fingerprint:
                _name(db, live.name, embedding.model)
            elif live is None or _documents(db) == 0:
                _make_live(db, _prepared(db, embedding))
            return _live(db)

    def begin(self, embedding: Embedding, *, anew: bool = False) -> Build:
        with self._database.write() as db:
            if anew:
                return Build(_prepared(db, embedding, states="('building')"), embedding)
            live = _live(db)
            if live is not None and live.embedding.fingerprint == embedding.fingerprint:
                _name(db, live.name, embedding.model)
                return Build(live.name, embedding)
            return Build(_prepared(db, embedding), embedding)

    def unmade(self, build: str, *, limit: int, after: GenerationKey | None = None) -> Sequence[GenerationKey]:
        last = ("", "") if after is None else (after.tenant, after.doc_id)
        with self._database.read() as db:
            rows = db.execute(
                f"SELECT d.tenant, d.id, d.live_generation {_LACKING}"
                " AND (d.tenant, d.id) > (?, ?) ORDER BY d.tenant, d.id LIMIT ?",
                (build, *last, limit),
            ).fetchall()
        return [GenerationKey(*row) for row in rows]

    def left(self, build: str) -> int:
        with self._database.read() as db:
            return int(db.execute(f"SELECT count(*) {_LACKING}", (build,)).fetchone()[0])

    def documents(self) -> int:
        with self._database.read() as db:
            return _documents(db)

    def made(self, keys: Iterable[GenerationKey], build: str) -> None:
        with self._database.write() as db:
            db.execute("UPDATE builds SET since = ? WHERE name = ? AND state = 'building'", (time.time(), build))
            db.executemany(
                "INSERT OR IGNORE INTO vectors SELECT tenant, id, live_generation, ? FROM documents"  # noqa: S608
                f" WHERE tenant = ? AND id = ? AND live_generation = ? AND EXISTS ({_KNOWN})",
                [(build, *_row(key), build) for key in keys],
            )

    def adopt(self, build: str) -> bool:
        with self._database.write() as db:
            known = db.execute(_KNOWN, (build,)).fetchone()
            if known is None or db.execute(f"SELECT 1 {_LACKING} LIMIT 1", (build,)).fetchone():
                return False
            _make_live(db, build)
        return True

    def names(self) -> frozenset[str]:
        with self._database.read() as db:
            return frozenset(str(row[0]) for row in db.execute("SELECT name FROM builds"))

    def discard(self, *, retired_before: datetime, unfinished_before: datetime) -> Sequence[str]:
        with self._database.write() as db:
            db.execute(
                "UPDATE builds SET state = 'dropping' WHERE (state = 'retired' AND since < ?)"
                " OR (state = 'building' AND since < ?)",
                (retired_before.timestamp(), unfinished_before.timestamp()),
            )
            names = [str(row[0]) for row in db.execute("SELECT name FROM builds WHERE state = 'dropping'")]
            db.executemany("DELETE FROM vectors WHERE build = ?", [(name,) for name in names])
        return names

    def dropped(self, build: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM builds WHERE name = ? AND state = 'dropping'", (build,))

    def lost(self, build: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM vectors WHERE build = ?", (build,))


def create(database: Database) -> None:
    """Makes the tables. Those of the catalog must be there."""
    with database.read() as db:
        there = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'one_live_build'").fetchone() is not None
    if not there:
        database.script(_SCHEMA + ";" + _FROM_RECIPES)


def check(db: sqlite3.Connection, build: str) -> None:
    """Within a transaction. DependencyFailed when readers search other vectors than those of this build."""
    live = _live(db)
    if build and live is not None and live.name != build:
        raise DependencyFailed(
            f"the embedding model has changed to {live.embedding.model.name} meanwhile: the document is made again",
            dependency="embedder",
        )


def mark(db: sqlite3.Connection, key: GenerationKey, build: str) -> None:
    """Within a transaction: the generation has its vectors in this build, if there is such a build."""
    db.execute(
        f"INSERT OR IGNORE INTO vectors SELECT ?, ?, ?, ? WHERE EXISTS ({_KNOWN})",
        (*_row(key), build, build),
    )


def has(db: sqlite3.Connection, tenant: str, doc_id: str, generation: int, build: str) -> bool:
    """Within a transaction: whether it has."""
    return not build or (
        db.execute(
            "SELECT 1 FROM vectors WHERE tenant = ? AND doc_id = ? AND generation = ? AND build = ?",
            (tenant, doc_id, generation, build),
        ).fetchone()
        is not None
    )


def forget(db: sqlite3.Connection, keys: Iterable[GenerationKey]) -> None:
    """Within a transaction: these generations are gone."""
    db.executemany(
        "DELETE FROM vectors WHERE tenant = ? AND doc_id = ? AND generation = ?", [_row(key) for key in keys]
    )


def _installation(db: sqlite3.Connection) -> tuple[str, str]:
    """Name and place. Before there was a choice, indexes were in the home."""
    db.execute(_INSTALLATION)
    db.execute("INSERT OR IGNORE INTO installation VALUES (1, ?, 'home')", (secrets.token_hex(8),))
    name, place = db.execute("SELECT name, place FROM installation").fetchone()
    return str(name), str(place)


def _live(db: sqlite3.Connection) -> Build | None:
    row = db.execute(f"{_BUILD} WHERE state = 'live'").fetchone()
    return None if row is None else Build(row[0], Embedding(row[1], EmbeddingModel(row[2], row[3])))


def _documents(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT count(*) FROM documents WHERE live_generation IS NOT NULL").fetchone()
    return int(row[0])


def _name(db: sqlite3.Connection, build: str, model: EmbeddingModel) -> None:
    """The same model may have come under another name."""
    db.execute("UPDATE builds SET model = ?, backend = ? WHERE name = ?", (model.name, model.backend, build))


def _prepared(db: sqlite3.Connection, embedding: Embedding, *, states: str = "('building', 'retired')") -> str:
    """The newest build of this embedding, if there is one, else a new one. It is being made from now on."""
    row = db.execute(
        f"SELECT name FROM builds WHERE fingerprint = ? AND state IN {states} ORDER BY since DESC LIMIT 1",  # noqa: S608
        (embedding.fingerprint,),
    ).fetchone()
    if row is not None:
        db.execute("UPDATE builds SET state = 'building', since = ? WHERE name = ?", (time.time(), row[0]))
        _name(db, row[0], embedding.model)
        return str(row[0])
    name = f"{embedding.fingerprint}.{secrets.token_hex(4)}"
    db.execute(
        "INSERT INTO builds VALUES (?, ?, ?, ?, 'building', ?)",
        (name, embedding.fingerprint, embedding.model.name, embedding.model.backend, time.time()),
    )
    return name


def _make_live(db: sqlite3.Connection, build: str) -> None:
    now = time.time()
    db.execute("UPDATE builds SET state = 'retired', since = ? WHERE state = 'live' AND name != ?", (now, build))
    db.execute("UPDATE builds SET state = 'live', since = ? WHERE name = ?", (now, build))


def _row(key: GenerationKey) -> tuple[str, str, int]:
    return key.tenant, key.doc_id, key.generation
