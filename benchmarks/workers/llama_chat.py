"""The naive stack's generator: `llama_cpp.Llama.create_chat_completion`, with the thread counts and context of ours.

Imports nothing of ours.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.workers.loop import memory, serve

_model: Any = None


def load(path: str, n_ctx: int, threads: int) -> float:
    """Seconds."""
    global _model  # noqa: PLW0603 -- one model per worker
    start = time.perf_counter()
    from llama_cpp import Llama

    _model = Llama(path, n_ctx=n_ctx, n_threads=threads, n_threads_batch=threads, verbose=False)
    return time.perf_counter() - start


def run(system: str, passages: list[str], question: str, max_tokens: int) -> dict[str, float]:
    """Tokens a second until the first piece of text, and from there to the last one. Every token is read anew."""
    user = "\n\n".join([*passages, question])
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    _model.reset()  # or it would re-use what the prompt before had in common, and its rate were not one of reading
    start = time.perf_counter()
    times = [
        time.perf_counter()
        for part in _model.create_chat_completion(messages, max_tokens=max_tokens, temperature=0.0, stream=True)
        if part["choices"][0]["delta"].get("content")
    ]
    read = _model.n_tokens - len(times)  # what the context holds now, without what was generated
    return {
        "tokens": read,
        "prefill": read / (times[0] - start) if times else 0.0,
        "decode": (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0,
    }


if __name__ == "__main__":
    serve({f.__name__: f for f in (load, run, memory)})
