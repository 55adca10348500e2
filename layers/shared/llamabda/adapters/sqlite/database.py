"""One SQLite file, shared safely by the threads and processes that open it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llamabda.errors import ConfigurationError, DependencyFailed

BUSY_SECONDS = 30.0  # how long a writer waits for another one: longer than any single write of ours takes


class _Connection(sqlite3.Connection):
    """Closes itself when its thread has ended and it is forgotten."""

    def __del__(self) -> None:
        self.close()


class Database:
    """Write-ahead log, full synchronisation (what was accepted survives a power cut), one connection per thread.

    `dependency` names the port in errors. Raises ConfigurationError when its folder cannot be
    made, DependencyFailed when the file cannot be opened or used.
    """

    def __init__(self, path: Path, *, dependency: str = "database") -> None:
        self.path = path
        self._dependency = dependency
        self._local = threading.local()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as exc:
            raise ConfigurationError(f"the folder {path.parent} cannot be made: {exc.strerror}") from exc
        self._connection()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one consistent state until the block ends. Nest neither in `read` nor in `write`."""
        with self._translated():
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that alone may write: committed when the block ends, rolled back when it raises."""
        with self._translated():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                connection.rollback()  # does nothing after a commit, nor where SQLite has rolled back by itself

    def script(self, sql: str) -> None:
        """Runs statements that change nothing when they were run before (CREATE TABLE IF NOT EXISTS ...)."""
        with self.write() as connection:
            for statement in sql.split(";"):
                if statement.strip():
                    connection.execute(statement)

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        """Brings a table that was made earlier up to date. `columns`: name and declaration, constants of ours."""
        with self.write() as connection:
            known = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            for name, declaration in columns.items():
                if name not in known:
                    connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {declaration}")

    def ping(self) -> None:
        """Raises DependencyFailed when the file cannot be read."""
        with self.read() as connection:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()

    def close(self) -> None:
        """Closes this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with self._translated():
                connection = sqlite3.connect(
                    self.path,
                    timeout=BUSY_SECONDS,
                    isolation_level=None,
                    check_same_thread=False,  # used by its own thread only, but possibly closed by another
                    factory=_Connection,
                )
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
            self.path.chmod(0o600)
            self._local.connection = connection
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # the adapters give it its meaning
        except sqlite3.Error as exc:
            raise DependencyFailed(f"the database {self.path.name} failed: {exc}", dependency=self._dependency) from exc
