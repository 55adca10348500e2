"""Our embedder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.workers.loop import memory, serve

if TYPE_CHECKING:
    from llamabda.ports import Embedder

_model: Embedder


def load(folder: str, threads: int) -> dict[str, float]:
    """Seconds for the import, the model, and the first vector."""
    global _model  # noqa: PLW0603 -- one model per worker
    start = time.perf_counter()
    import onnxruntime  # noqa: F401 -- our adapter imports these two when it is made: counted as import here
    import tokenizers  # noqa: F401

    from llamabda.adapters.onnx import OnnxEmbedder

    imported = time.perf_counter()
    _model = OnnxEmbedder(Path(folder), threads=threads)
    loaded = time.perf_counter()
    _model.embed_query("first")
    done = time.perf_counter()
    return {"import": imported - start, "load": loaded - imported, "first": done - loaded}


def query(questions: list[str]) -> list[float]:
    """Milliseconds for each question, one after the other."""
    found = []
    for question in questions:
        start = time.perf_counter()
        _model.embed_query(question)
        found.append((time.perf_counter() - start) * 1e3)
    return found


def bulk(texts: list[str]) -> float:
    """Texts a second."""
    start = time.perf_counter()
    _model.embed_documents(texts)
    return len(texts) / (time.perf_counter() - start)


def vectors(texts: list[str]) -> list[list[float]]:
    return [[float(x) for x in row] for row in _model.embed_documents(texts)]


def query_vectors(texts: list[str]) -> list[list[float]]:
    return [[float(x) for x in _model.embed_query(text)] for text in texts]


if __name__ == "__main__":
    serve({f.__name__: f for f in (load, query, bulk, vectors, query_vectors, memory)})
