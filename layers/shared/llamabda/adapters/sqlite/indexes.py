"""A folder with one index for each embedding."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.index import SqliteIndex, dimension
from llamabda.types import GenerationKey

_FILE = "index.db"


class SqliteIndexes:
    """The Indexes port over `folder`, a sub-folder for each fingerprint."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: dict[str, SqliteIndex] = {}
        self._lock = threading.Lock()

    def open(self, fingerprint: str, dim: int) -> SqliteIndex:
        with self._lock:
            return self._open(fingerprint, dim)

    def delete(self, keys: Iterable[GenerationKey]) -> None:
        keys = list(keys)
        with self._lock:
            found = [self._found(file) for file in sorted(self._folder.glob(f"*/{_FILE}"))]
        for index in found:
            index.delete(keys)

    def drop(self, fingerprint: str) -> None:
        with self._lock:
            self._opened.pop(fingerprint, None)
            shutil.rmtree(self._folder / fingerprint, ignore_errors=True)

    def _open(self, fingerprint: str, dim: int) -> SqliteIndex:
        index = self._opened.get(fingerprint)
        if index is None:
            folder = self._folder / fingerprint
            database = Database(folder / _FILE, dependency="index")
            index = self._opened[fingerprint] = SqliteIndex(database, cache=folder / "cache", dim=dim)
        return index

    def _found(self, file: Path) -> SqliteIndex:
        fingerprint = file.parent.name
        if fingerprint in self._opened:
            return self._opened[fingerprint]
        return self._open(fingerprint, dimension(Database(file, dependency="index")))
