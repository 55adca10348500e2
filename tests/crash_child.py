"""Trains one document and dies (SIGKILL) at a given SQL statement. Usage: crash_child.py HOME TEXT_FILE STATEMENT

STATEMENT counts from 0 over every statement that the ingestion runs; -1 never dies. Prints the number of statements.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from llamabda.adapters.sqlite.catalog import SqliteCatalog
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.embeddings import SqliteEmbeddings
from llamabda.adapters.sqlite.indexes import SqliteIndexes
from llamabda.adapters.sqlite.queue import SqliteQueue
from llamabda.adapters.sqlite.texts import SqliteTextStore
from llamabda.chunking import Chunking
from llamabda.ingest import Ingest
from llamabda.ports import Embedder
from llamabda.space import Space
from llamabda.types import Embedding, EmbeddingModel, NewDocument


class LengthEmbedder:
    """Vectors that can be computed by hand: the angle grows with the length of the text."""

    dim = 2
    fingerprint = "length"
    background = 0.0
    ceiling = 1.0
    languages: tuple[str, ...] = ()

    def embed_documents(self, texts):
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text):
        angle = len(text) / 1000
        return np.array([np.cos(angle), np.sin(angle)], np.float32)


def open_ingest(home: Path) -> Ingest:
    database = Database(home / "llamabda.db")
    catalog = SqliteCatalog(database)
    embedder, indexes = LengthEmbedder(), SqliteIndexes(home / "index")
    embeddings = SqliteEmbeddings(database)
    build = embeddings.settle(Embedding(embedder.fingerprint, EmbeddingModel("length", "test"))).name
    space = Space(build, embedder, indexes.open(build, embedder.dim))
    texts, queue = SqliteTextStore(database), SqliteQueue(database)
    return Ingest(catalog, lambda: space, lambda: space, texts, queue, indexes, embeddings)


def with_embedder(ingest: Ingest, make: Callable[[], Embedder]) -> Ingest:
    return replace(ingest, writable=lambda: replace(ingest.space(), embedder=make()))


def main() -> None:
    home, text_file, fatal = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    ingest = open_ingest(home)
    count = 0

    def step(_statement: str) -> None:
        nonlocal count
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    index = ingest.space().index
    for database in (ingest.catalog._database, index._database):
        connection: sqlite3.Connection = database._connection()
        connection.set_trace_callback(step)
    ingest.train("t", [NewDocument("doc", text_file.read_text("utf-8"))], chunking=Chunking(200, 20))
    print(count)


if __name__ == "__main__":
    main()
