"""How ONNX models are run here, and which text they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamabda.errors import ModelError

# Tokenizing is linear in the text while only the first tokens count: what lies beyond is not looked at.
CHARACTERS_PER_TOKEN = 64


def opened(file: Path, *, threads: int) -> Any:
    """An InferenceSession of `threads` threads. ModelError when the file cannot be loaded."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they reach the caller as exceptions anyway
    # Texts differ in length: an arena would keep the largest buffers of every length it has seen.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Threads that wait for their share spin, but not beyond the end of a text: the language model needs them.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as exc:
        raise ModelError(f"{file} cannot be loaded: {exc}") from exc


def readable(text: str, *, tokens: int) -> str:
    """What a tokenizer can take of a text of which the first `tokens` tokens count.

    It takes no lone surrogates; they are not characters, so "?" stands for them.
    """
    return text[: tokens * CHARACTERS_PER_TOKEN].encode("utf-8", "replace").decode("utf-8")
