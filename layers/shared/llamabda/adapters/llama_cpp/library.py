"""The one import of llama.cpp's bindings, and where its log goes."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections import deque
from functools import cache
from typing import Any

logger = logging.getLogger("llamabda.llama_cpp")

SPINS = "500"  # turns of the OpenMP library's waiting loop, some microseconds together
_ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR is 4; 5 continues the line before

# the last error lines, for the message of a load that failed: llama.cpp says why only in its log
_errors: deque[str] = deque(maxlen=4)
_guard = threading.Lock()


@cache
def _load() -> tuple[Any, Any]:
    # llama.cpp's threads meet hundreds of times a token. By default they spin there for long, and when anything else
    # wants the processor (our own embedder does) the one waited for does not run: on two busy processors, prefill is
    # then up to 7 times and decoding up to 100 times slower than with threads that sleep at once. Those cost a quarter
    # of the decoding on an idle machine. A short spin has most of both: 47, 61 and 67 tokens a second idle, and 33, 26
    # and 14 beside one busy program, for no, this and a long one. Read when the OpenMP library is loaded, so before the
    # import.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    import llama_cpp

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # a ctypes function type
    def log(level: int, text: bytes, _data: object) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level == _ERROR_LEVEL and line:
            _errors.append(line)
        if line:
            logger.debug("%s", line)

    # after the import, which sets a callback that prints
    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp, log  # the callback lives as long as the process: C code holds its address


def library() -> Any:
    """The module `llama_cpp`, initialised once. It is untyped."""
    with _guard:
        return _load()[0]


def last_error() -> str:
    """Why the last call failed, as llama.cpp logged it; then forgotten."""
    lines = "; ".join(_errors)
    _errors.clear()
    return lines or "llama.cpp gives no reason"
