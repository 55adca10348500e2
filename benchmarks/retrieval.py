"""The embedded index at 10k and 100k chunks, beside a numpy matrix and SQLite's own FTS5."""

from __future__ import annotations

import re
import shutil
import sqlite3
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import OURS, Row, Samples, in_turns, seconds
from benchmarks.plan import Plan
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.index import SqliteIndex
from llamabda.filters import Scope
from llamabda.types import Chunk

NUMPY = "numpy fp32 `@` + argpartition"
FTS5 = "SQLite FTS5 (row ids and rank only)"
BOTH = "numpy + FTS5"
_TENANT = "bench"
_TOP = 10
_LIMIT = 100  # candidates that each of the two searches hands to the fusion
_NOISE = 0.02  # per coordinate of 384: a copy's cosine with its original is about 0.93
_PER_DOCUMENT = 500  # chunks of one `add`


@dataclass(frozen=True, slots=True)
class Collection:
    """n chunks: their texts, and their vectors (n, dim) float32 of unit length."""

    texts: list[str]
    vectors: NDArray[np.float32]

    def chunks(self, first: int, beyond: int) -> list[Chunk]:
        return [
            Chunk(_TENANT, f"doc-{at // _PER_DOCUMENT}", 1, at, 0, len(self.texts[at]), self.texts[at], "", {})
            for at in range(first, beyond)
        ]


def run(plan: Plan) -> Iterator[Row]:
    originals, questions, asked = questions_and_vectors(plan)
    for size in (1_000, 10_000) if plan.quick else (10_000, 100_000):
        yield from _at_size(plan, multiplied(plan, originals, size), questions, asked)


def questions_and_vectors(plan: Plan) -> tuple[NDArray[np.float32], list[str], NDArray[np.float32]]:
    """Vectors of real texts, questions, and the questions' vectors."""
    from llamabda.adapters.onnx import OnnxEmbedder

    embedder = OnnxEmbedder(plan.embedder_folder, threads=plan.threads)
    count = min(len(plan.corpus.documents), 200 if plan.quick else 2000)
    plan.say(f"embedding {count} texts")
    originals = embedder.embed_documents(plan.corpus.texts(count))
    questions = list(plan.corpus.questions[: 20 if plan.quick else 50])
    return originals, questions, np.stack([embedder.embed_query(question) for question in questions])


def multiplied(plan: Plan, originals: NDArray[np.float32], size: int) -> Collection:
    """Real vectors again and again, each a little off, with a different window of the text each was made from."""
    draw = np.random.default_rng(4)
    pieces = plan.corpus.windows(size, documents=len(originals))
    owners = np.array([number for number, _ in pieces])
    vectors = originals[owners] + draw.normal(0, _NOISE, (size, originals.shape[1])).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Collection([text for _, text in pieces], vectors.astype(np.float32))


def _at_size(plan: Plan, collection: Collection, questions: Sequence[str], asked: NDArray[np.float32]) -> list[Row]:
    size = len(collection.texts)
    label = f"{size // 1000}k chunks"
    with tempfile.TemporaryDirectory(prefix="llamabda-bench-") as name:
        folder = Path(name)
        plan.say(f"retrieval: building the indexes of {label}")
        built = seconds(lambda: _build(folder, collection))
        fts = sqlite3.connect(folder / "fts.db")
        built_fts = seconds(lambda: _build_fts(fts, collection))
        rebuilt = _opened(folder, collection, asked[0])  # the first reader makes the cache
        opened = [_opened(folder, collection, asked[0]) for _ in range(3)]
        index = _index(folder, collection)
        plan.say(f"retrieval: searching {label}")

        def ours(work: Callable[[int], object]) -> Callable[[], float]:
            return lambda: statistics.median(1e3 * seconds(partial(work, at)) for at in range(len(questions)))

        def vector(at: int) -> object:
            return index.search("", asked[at], tenants=[_TENANT], scopes=[Scope(_TOP)])

        def text(at: int) -> object:
            return index.search(questions[at], None, tenants=[_TENANT], scopes=[Scope(_LIMIT)])

        def both(at: int) -> object:
            return index.search(questions[at], asked[at], tenants=[_TENANT], scopes=[Scope(_LIMIT)])

        matrix = collection.vectors
        expressions = [_fts_expression(question) for question in questions]
        scan = {OURS: ours(vector), NUMPY: ours(lambda at: _numpy_top(matrix, asked[at], _TOP))}
        words = {OURS: ours(text), FTS5: ours(lambda at: _fts_top(fts, expressions[at]))}
        hybrid = {
            OURS: ours(both),
            BOTH: ours(lambda at: (_numpy_top(matrix, asked[at], _LIMIT), _fts_top(fts, expressions[at]))),
        }
        same = sum(
            {hit.chunk.ordinal for hit in index.search("", vector, tenants=[_TENANT], scopes=[Scope(_TOP)])[0].nearest}
            == set(_numpy_top(matrix, vector, _TOP).tolist())
            for vector in asked
        )
        for contenders in (scan, words, hybrid):
            for work in contenders.values():
                work()  # warm-up
        found = [in_turns(contenders, plan.rounds) for contenders in (scan, words, hybrid)]
        fts.close()
    scanned, worded, hybrids = found
    return [
        _row(
            f"nearest {_TOP} of {label}",
            "ms",
            scanned,
            aim="<= 15 ms" if size == 100_000 else "",
            note=f"exact; same {_TOP} as numpy for {same} of {len(asked)} questions; ours also reads the chunks' texts",
        ),
        _row(f"BM25, best {_LIMIT} of {label}", "ms", worded, note="ours also reads the chunks' texts"),
        _row(f"both searches, {_LIMIT} each, {label}", "ms", hybrids),
        _row(f"indexing {label}, vectors given", "chunks/s", _rates(size, built, built_fts), higher=True),
        _row(f"first search after a start, {label}", "ms", {OURS: tuple(s * 1e3 for s in opened)}),
        _row(f"first search with the cache deleted, {label}", "ms", {OURS: (rebuilt * 1e3,)}),
    ]


def _rates(size: int, built: float, built_fts: float) -> dict[str, tuple[float, ...]]:
    return {OURS: (size / built,), "SQLite FTS5 (text only, one transaction)": (size / built_fts,)}


def _row(
    what: str,
    unit: str,
    found: dict[str, tuple[float, ...]],
    *,
    aim: str = "",
    note: str = "",
    higher: bool = False,
) -> Row:
    rivals = tuple(Samples(name, values) for name, values in found.items() if name != OURS)
    return Row("retrieval", what, unit, Samples(OURS, found[OURS]), rivals, higher, aim, note)


def _index(folder: Path, collection: Collection) -> SqliteIndex:
    database = Database(folder / "index.db", dependency="index")
    return SqliteIndex(database, cache=folder / "cache", dim=collection.vectors.shape[1])


def _build(folder: Path, collection: Collection) -> None:
    index = _index(folder, collection)
    size = len(collection.texts)
    for first in range(0, size, _PER_DOCUMENT):
        beyond = min(size, first + _PER_DOCUMENT)
        index.add(collection.chunks(first, beyond), collection.vectors[first:beyond])


def _opened(folder: Path, collection: Collection, vector: NDArray[np.float32]) -> float:
    """Seconds from nothing to the first answer."""
    if not (folder / "seen").exists():
        shutil.rmtree(folder / "cache", ignore_errors=True)
        (folder / "seen").touch()
    return seconds(lambda: _index(folder, collection).search("", vector, tenants=[_TENANT], scopes=[Scope(_TOP)]))


def _numpy_top(matrix: NDArray[np.float32], vector: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    scores = matrix @ vector
    best = np.argpartition(scores, -count)[-count:]
    return best[np.argsort(-scores[best])]


def _build_fts(db: sqlite3.Connection, collection: Collection) -> None:
    db.execute("CREATE VIRTUAL TABLE found USING fts5(text, tokenize = 'porter unicode61 remove_diacritics 2')")
    with db:
        db.executemany("INSERT INTO found (rowid, text) VALUES (?, ?)", enumerate(collection.texts))


def _fts_expression(question: str) -> str:
    return " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question))


def _fts_top(db: sqlite3.Connection, expression: str) -> list[tuple[int, float]]:
    query = "SELECT rowid, rank FROM found WHERE found MATCH ? ORDER BY rank LIMIT ?"
    return db.execute(query, (expression, _LIMIT)).fetchall()
