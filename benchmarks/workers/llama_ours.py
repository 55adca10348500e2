"""Our generator."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.workers.loop import memory, serve

if TYPE_CHECKING:
    from llamabda.ports import Generator

_model: Generator


def load(path: str, n_ctx: int, threads: int) -> float:
    """Seconds."""
    global _model  # noqa: PLW0603 -- one model per worker
    start = time.perf_counter()
    from llamabda.adapters.llama_cpp import LlamaCppGenerator

    _model = LlamaCppGenerator(Path(path), n_ctx=n_ctx, threads=threads, max_queue=1)
    return time.perf_counter() - start


def run(system: str, passages: list[str], question: str, max_tokens: int) -> dict[str, float]:
    """Tokens a second until the first piece of text, and from there to the last token."""
    from llamabda.types import Deadline, Prompt

    prompt = Prompt(system, tuple(passages), question)
    start = time.perf_counter()
    generation = _model.generate(prompt, max_tokens=max_tokens, deadline=Deadline.after(600))
    first = 0.0
    for _ in generation:
        first = first or time.perf_counter()
    end = time.perf_counter()
    first = first or end
    read = generation.prompt_tokens - generation.cached_tokens
    return {
        "tokens": generation.prompt_tokens,
        "prefill": read / (first - start),
        "decode": (generation.completion_tokens - 1) / (end - first) if generation.completion_tokens > 1 else 0.0,
    }


if __name__ == "__main__":
    serve({f.__name__: f for f in (load, run, memory)})
