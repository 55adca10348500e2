"""A loaded model: tokens in, the most likely next token out. Not thread-safe but for tokenizing."""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llamabda.adapters.llama_cpp.interrupt import Interrupt, asks
from llamabda.adapters.llama_cpp.library import last_error, library
from llamabda.errors import ModelError
from llamabda.types import Deadline

# Tokens that one call evaluates at most: this bounds how late a deadline is noticed, under a second here, since the
# batches before a deadline are smaller. Two processors, quiet: 64 evaluates 230 tokens a second, 256 evaluates 268.
BATCH_TOKENS = 256
# A batch is made smaller when it would not be done before the deadline, but not smaller than this.
MIN_BATCH_TOKENS = 8
SEQUENCE = 0

_INTERRUPTED = 2  # what llama_decode gives when the callback told it to stop
_ABORTED = "the model's context cannot be evaluated (llama_decode gave {code}): {reason}"


class Engine:
    def __init__(self, path: Path, *, n_ctx: int, threads: int) -> None:
        """ModelError, naming the file, when it is missing, broken or of a kind that does not continue texts."""
        if not path.is_file():
            raise ModelError(f"there is no model file at {path}: set MODEL_PATH to a GGUF file")
        self._llama = llama = library()
        model_parameters = llama.llama_model_default_params()
        # Not mapped: the fast kernels keep the weights in an order of their own, so a mapped file stands in memory a
        # second time (SmolLM2-135M Q4_0: 201 MB resident instead of 145) to load 0.1 s sooner.
        model_parameters.load_mode = llama.LLAMA_LOAD_MODE_NONE
        model_parameters.n_gpu_layers = 0
        last_error()
        model = llama.llama_model_load_from_file(os.fsencode(path), model_parameters)
        if not model:
            raise ModelError(f"{path} cannot be loaded as a GGUF model: {last_error()}")
        self._model = model
        held = [lambda: llama.llama_model_free(model)]
        freed = weakref.finalize(self, _release, held)
        freed.atexit = False  # at exit a daemon thread may still be inside; the system takes it all back
        if llama.llama_model_has_encoder(model) or not llama.llama_model_has_decoder(model):
            raise ModelError(f"{path} holds no model that continues texts: use a decoder-only chat model")
        trained = int(llama.llama_model_n_ctx_train(model))
        self.context_size = min(n_ctx, trained) if trained > 0 else n_ctx  # tokens
        self._context = self._new_context(path, threads)
        context = self._context
        held.insert(0, lambda: llama.llama_free(context))
        self._vocab = llama.llama_model_get_vocab(model)
        self._memory = llama.llama_get_memory(self._context)
        self._vocab_size = int(llama.llama_vocab_n_tokens(self._vocab))
        self._asks = llama.ggml_abort_callback(asks())
        self._stop: Interrupt | None = None
        self._seen: list[int] = []  # the tokens whose state is in the memory
        self._seconds_per_token = 0.0  # of prefill; 0: not measured yet
        self.name = self._metadata(b"general.name") or path.stem
        self.template: str | None = self._text(llama.llama_model_chat_template(model, None))

    def _new_context(self, path: Path, threads: int) -> Any:
        llama = self._llama
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = self.context_size
        parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.n_outputs_max = 1  # we only ever read the last token's logits
        # on where the model's shapes allow it: a quarter more prefill, a tenth more decoding
        parameters.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_AUTO
        parameters.swa_full = True  # else the state before a sliding window is gone and no prefix can be re-used
        parameters.no_perf = True
        context = llama.llama_init_from_model(self._model, parameters)
        if not context:
            raise ModelError(f"no context of {self.context_size} tokens can be made for {path}: {last_error()}")
        return context

    # -- text and tokens

    def tokens(self, text: str, *, control: bool) -> list[int]:
        """`control`: whether special tokens in the text are taken as such. If not, the result holds none."""
        data = text.encode("utf-8", "replace")  # lone surrogates become "?"
        size = len(data) + 8
        buffer = (self._llama.llama_token * size)()
        count = self._llama.llama_tokenize(self._vocab, data, len(data), buffer, size, False, control)
        if count < 0:
            raise ModelError(f"a text of {len(data)} bytes cannot be tokenized (llama_tokenize gave {count})")
        found = [int(token) for token in buffer[:count]]
        if control:
            return found
        # some vocabularies put a control token together from plain pieces: it must not come from data
        return [token for token in found if not self._is_control(token)]

    def _is_control(self, token: int) -> bool:
        llama = self._llama
        return bool(llama.llama_vocab_is_control(self._vocab, token) or llama.llama_vocab_is_eog(self._vocab, token))

    def is_end(self, token: int) -> bool:
        return bool(self._llama.llama_vocab_is_eog(self._vocab, token))

    @property
    def opening(self) -> list[int]:
        """What the model wants before every text."""
        wants = self._llama.llama_vocab_get_add_bos(self._vocab)
        return [int(self._llama.llama_vocab_bos(self._vocab))] if wants else []

    def special(self, which: str) -> str:
        """The text of a special token, "bos" or "eos"; empty when the model has none."""
        token = int(getattr(self._llama, f"llama_vocab_{which}")(self._vocab))
        return (self._text(self._llama.llama_vocab_get_text(self._vocab, token)) or "") if token >= 0 else ""

    def piece(self, token: int) -> bytes:
        """The bytes of a token, perhaps only a part of a character; none for a control token."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = int(self._llama.llama_token_to_piece(self._vocab, token, buffer, size, 0, False))
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    # -- evaluation

    def prefill(self, tokens: Sequence[int], *, stop: Interrupt, deadline: Deadline) -> int | None:
        """Evaluates a prompt, re-using the state of the longest prefix that it shares with what was evaluated before.

        Returns how many tokens were re-used; None when `stop` was set or the deadline came first. What was evaluated by
        then is kept for next time. `stop` counts for what is evaluated after it, too.
        """
        self._stop = stop  # held: llama.cpp reads its bytes
        self._llama.llama_set_abort_callback(self._context, self._asks, stop.address)
        # the last token is always evaluated: its logits are what we are after
        shared = min(_common_prefix(self._seen, tokens), len(tokens) - 1)
        if not self._llama.llama_memory_seq_rm(self._memory, SEQUENCE, shared, -1):
            self.forget()  # recurrent models keep one state only
            shared = 0
        del self._seen[shared:]
        at = shared
        while at < len(tokens):
            if stop() or deadline.passed():
                return None
            part = tokens[at : at + self._batch_size(deadline)]
            began = time.monotonic()
            if not self.evaluate(part):
                return None
            self._seconds_per_token = (time.monotonic() - began) / len(part)
            at += len(part)
        return shared

    def _batch_size(self, deadline: Deadline) -> int:
        if self._seconds_per_token == 0.0:
            return BATCH_TOKENS
        return max(MIN_BATCH_TOKENS, min(BATCH_TOKENS, int(deadline.remaining() / self._seconds_per_token)))

    def evaluate(self, tokens: Sequence[int]) -> bool:
        """Continues the evaluated text by at most BATCH_TOKENS tokens. False: it was interrupted, nothing is added."""
        llama = self._llama
        buffer = (llama.llama_token * len(tokens))(*tokens)
        code = llama.llama_decode(self._context, llama.llama_batch_get_one(buffer, len(tokens)))
        if code == _INTERRUPTED:
            if not llama.llama_memory_seq_rm(self._memory, SEQUENCE, len(self._seen), -1):
                self.forget()
            return False
        if code != 0:
            self.forget()
            raise ModelError(_ABORTED.format(code=code, reason=last_error()))
        self._seen.extend(tokens)
        return True

    def best(self) -> int:
        """The most likely next token."""
        logits = self._llama.llama_get_logits_ith(self._context, -1)
        if not logits:
            raise ModelError(f"the model gives no result: {last_error()}")
        return int(np.ctypeslib.as_array(logits, shape=(self._vocab_size,)).argmax())

    def forget(self) -> None:
        """Drops all state."""
        self._llama.llama_memory_clear(self._memory, False)
        self._seen.clear()

    # -- metadata

    def _metadata(self, key: bytes) -> str | None:
        buffer = ctypes.create_string_buffer(256)
        length = self._llama.llama_model_meta_val_str(self._model, key, buffer, len(buffer))
        return self._text(buffer.value) if length > 0 else None

    @staticmethod
    def _text(data: bytes | None) -> str | None:
        return data.decode("utf-8", "replace") if data else None


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


def _release(held: list[Callable[[], None]]) -> None:
    for free in held:
        free()
