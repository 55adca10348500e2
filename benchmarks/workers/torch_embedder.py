"""The naive stack's embedder: sentence-transformers on torch, used as well as it can be on a CPU.

Imports nothing of ours: it runs in an environment that has only the rival.
"""

from __future__ import annotations

import statistics
import time
from importlib.metadata import version
from typing import Any

from benchmarks.workers.loop import memory, serve

_model: Any = None
_BATCHES = (1, 4, 8, 16, 32, 64)


def load(folder: str, threads: int) -> dict[str, float]:
    """Seconds for the import, the model, and the first vector."""
    global _model  # noqa: PLW0603 -- one model per worker
    start = time.perf_counter()
    import sentence_transformers
    import torch

    imported = time.perf_counter()
    torch.set_num_threads(threads)
    _model = sentence_transformers.SentenceTransformer(folder, device="cpu")
    loaded = time.perf_counter()
    _encode(["first"], 1)
    done = time.perf_counter()
    return {"import": imported - start, "load": loaded - imported, "first": done - loaded}


def query(questions: list[str], threads: int) -> list[float]:
    """Milliseconds for each question, one after the other."""
    import torch

    torch.set_num_threads(threads)
    found = []
    for question in questions:
        start = time.perf_counter()
        _encode([question], 1)
        found.append((time.perf_counter() - start) * 1e3)
    return found


def tune(texts: list[str], questions: list[str], threads: int) -> dict[str, int]:
    """The batch size of a few that is fastest with these texts, and whether questions want one thread or all."""
    rates = {size: bulk(texts, size, threads) for size in _BATCHES}
    times = {count: statistics.median(query(questions, count)) for count in (threads, 1)}
    return {"batch": max(rates, key=lambda size: rates[size]), "threads": min(times, key=lambda count: times[count])}


def bulk(texts: list[str], batch: int, threads: int) -> float:
    """Texts a second."""
    import torch

    torch.set_num_threads(threads)
    start = time.perf_counter()
    _encode(texts, batch)
    return len(texts) / (time.perf_counter() - start)


def vectors(texts: list[str]) -> list[list[float]]:
    return [[float(x) for x in row] for row in _encode(texts, 8)]


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "sentence-transformers", "transformers", "numpy")}


def _encode(texts: list[str], batch: int) -> Any:
    import torch

    with torch.inference_mode():
        return _model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)


if __name__ == "__main__":
    serve({f.__name__: f for f in (load, query, tune, bulk, vectors, versions, memory)})
