"""llama.cpp with nothing around it: `llama_decode` in a loop, arg max of the logits. What Python can at best reach."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from benchmarks.workers.loop import memory, serve

_BATCH = 512
_contexts: list[Any] = []  # without and with flash attention; `tune` leaves the faster one
_model: Any = None
_keep: list[Any] = []  # a callback that ctypes would otherwise free


def load(path: str, n_ctx: int, threads: int) -> float:
    """Seconds, for the model and two contexts."""
    global _model  # noqa: PLW0603 -- one model per worker
    start = time.perf_counter()
    import llama_cpp as llama

    _keep.append(llama.llama_log_callback(lambda *_: None))
    llama.llama_log_set(_keep[0], ctypes.c_void_p(0))
    parameters = llama.llama_model_default_params()
    parameters.n_gpu_layers = 0
    _model = llama.llama_model_load_from_file(path.encode(), parameters)
    for flash in (0, 1):
        settings = llama.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = n_ctx, _BATCH, _BATCH
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type = flash
        settings.no_perf = True
        _contexts.append(llama.llama_init_from_model(_model, settings))
    return time.perf_counter() - start


def tune(text: str) -> bool:
    """Keeps the context that reads faster, the better of two turns each; whether it is the one with flash attention.

    Chosen once and before anything counts: the best of two in every round would be luck in part.
    """
    rates = [0.0, 0.0]
    for at in (0, 1, 0, 1):
        rates[at] = max(rates[at], _run(_contexts[at], text, 1)["prefill"])
    flash = rates[1] > rates[0]
    _contexts[:] = [_contexts[flash]]
    return flash


def run(text: str, max_tokens: int) -> dict[str, float]:
    """Tokens a second for reading the prompt and for writing."""
    return _run(_contexts[0], text, max_tokens)


def _run(context: Any, text: str, max_tokens: int) -> dict[str, float]:
    import llama_cpp as llama
    import numpy as np

    vocabulary = llama.llama_model_get_vocab(_model)
    size = llama.llama_vocab_n_tokens(vocabulary)
    raw = text.encode()
    buffer = (llama.llama_token * (len(raw) + 8))()
    count = llama.llama_tokenize(vocabulary, raw, len(raw), buffer, len(buffer), True, True)
    llama.llama_memory_clear(llama.llama_get_memory(context), False)
    start = time.perf_counter()
    for first in range(0, count, _BATCH):
        part = list(buffer[first : min(count, first + _BATCH)])
        _decode(context, part)
    llama.llama_synchronize(context)
    read = time.perf_counter()
    for _ in range(max_tokens):
        logits = np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), shape=(size,))
        _decode(context, [int(logits.argmax())])
    llama.llama_synchronize(context)
    end = time.perf_counter()
    return {"tokens": count, "prefill": count / (read - start), "decode": max_tokens / (end - read)}


def _decode(context: Any, tokens: list[int]) -> None:
    import llama_cpp as llama

    buffer = (llama.llama_token * len(tokens))(*tokens)  # named: the batch only points to it
    code = llama.llama_decode(context, llama.llama_batch_get_one(buffer, len(tokens)))
    if code != 0:
        raise RuntimeError(f"llama_decode returned {code}")


if __name__ == "__main__":
    serve({f.__name__: f for f in (load, tune, run, memory)})
