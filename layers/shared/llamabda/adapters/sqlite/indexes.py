"""A folder with one index for each build of vectors."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.index import SqliteIndex
from llamabda.types import GenerationKey

log = logging.getLogger("llamabda.indexes")

_FILE = "index.db"


class SqliteIndexes:
    """The Indexes port over `folder`, a sub-folder for each build."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: dict[str, SqliteIndex] = {}
        self._lock = threading.Lock()

    @property
    def place(self) -> str:
        return "home"

    def make(self, build: str, dim: int) -> None:
        self.open(build, dim)

    def open(self, build: str, dim: int) -> SqliteIndex:
        with self._lock:
            index = self._opened.get(build)
            if index is None or not self.there(build):
                folder = self._folder / build
                database = Database(folder / _FILE, dependency="index")
                index = self._opened[build] = SqliteIndex(database, cache=folder / "cache", dim=dim)
            return index

    def there(self, build: str) -> bool:
        return (self._folder / build / _FILE).is_file()

    def names(self) -> frozenset[str]:
        return frozenset(file.parent.name for file in self._folder.glob(f"*/{_FILE}"))

    def delete(self, keys: Iterable[GenerationKey]) -> None:
        keys = list(keys)
        with self._lock:
            for gone in self._opened.keys() - self.names():
                del self._opened[gone]  # dropped by another process
        for build in sorted(self.names()):
            dim = _dimension(self._folder / build / _FILE)
            if dim is None:
                log.warning("%s is not an index: nothing is deleted from it", self._folder / build)
            else:
                self.open(build, dim).delete(keys)

    def drop(self, build: str) -> None:
        with self._lock:
            self._opened.pop(build, None)
            shutil.rmtree(self._folder / build, ignore_errors=True)

    def publish(self, build: str) -> None:
        """The folders' names tell all that there is to tell."""


def _dimension(file: Path) -> int | None:
    """The length of the vectors in an index; None when the file holds none, or is gone. It is not made by looking."""
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'dim'").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else int(row[0])
