"""The Generator port over a GGUF file."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from llamabda.adapters.llama_cpp.engine import Engine
from llamabda.adapters.llama_cpp.interrupt import Interrupt
from llamabda.adapters.llama_cpp.layout import PromptLayout
from llamabda.adapters.llama_cpp.template import PLAIN, Layout, layout
from llamabda.adapters.llama_cpp.text import is_loop
from llamabda.adapters.llama_cpp.waiting import Queue, Ticket
from llamabda.errors import InvalidInput, ModelError
from llamabda.pieces import TextAssembler
from llamabda.types import Deadline, FinishReason, Prompt

logger = logging.getLogger(__name__)


class LlamaCppGenerator:
    """Greedy completions, one at a time; `max_queue` more may wait. Safe to share between threads."""

    def __init__(self, path: Path, *, n_ctx: int, threads: int, max_queue: int) -> None:
        """Loads the model, which takes a moment. `n_ctx` in tokens; ModelError names the file and why."""
        self._engine = Engine(path, n_ctx=n_ctx, threads=threads)
        self._layout = PromptLayout(_layout_of(self._engine), self._engine)
        self._queue = Queue(max_queue)

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def context_size(self) -> int:
        return self._engine.context_size

    def count_tokens(self, text: str) -> int:
        return len(self._engine.tokens(text, control=False))

    def generate(
        self, prompt: Prompt, *, max_tokens: int, stop: Sequence[str] = (), deadline: Deadline
    ) -> LlamaCppGeneration:
        """InvalidInput when the question does not fit into the context; Busy when the queue is full.

        The model is waited for at the first piece, no longer than until the deadline. It stays taken until the
        iteration ends, or the generation is closed or dropped.
        """
        if max_tokens < 1:
            raise InvalidInput(
                f"max_tokens is {max_tokens}, it must be at least 1", loc=("body", "max_tokens"), value=max_tokens
            )
        # a completion never takes more than half of the context from the passages
        room = self.context_size - min(max_tokens, self.context_size // 2)
        tokens = self._layout.fit(prompt, room=room)
        limit = min(max_tokens, self.context_size - len(tokens))
        return LlamaCppGeneration(
            self._engine, self._queue, tokens, max_tokens=limit, text=TextAssembler(stop), deadline=deadline
        )


class LlamaCppGeneration:
    """One completion: iterate it once, then read how it went."""

    def __init__(
        self,
        engine: Engine,
        queue: Queue,
        tokens: list[int],
        *,
        max_tokens: int,
        text: TextAssembler,
        deadline: Deadline,
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._tokens = tokens
        self._max_tokens = max_tokens
        self._text = text
        self._deadline = deadline
        self._generated: list[int] = []
        self._turn = threading.Lock()  # one step at a time, and none while it is being closed
        self._stop = Interrupt()
        self._ended = False  # no more tokens will come
        self._released = False
        self._began = 0.0  # seconds, monotonic; 0: its turn has not come
        self.finish_reason: FinishReason = "stop"
        self.prompt_tokens = len(tokens)
        self.cached_tokens = 0
        self.prefill_ms = 0.0
        self.decode_ms = 0.0
        self._ticket: Ticket = queue.enter()
        # a generation that is dropped half-way must not keep the model
        self._given_up = weakref.finalize(self, self._ticket.leave)
        self._given_up.atexit = False

    @property
    def completion_tokens(self) -> int:
        return len(self._generated)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        with self._turn:
            try:
                piece = self._step()
            except BaseException:
                self._end()
                raise
            if piece:
                return piece
            self._end()
            raise StopIteration

    def close(self) -> None:
        self._stop.set()
        self._ticket.withdraw()
        with self._turn:
            self._end()

    def _step(self) -> str:
        """The next piece of text; empty at the end."""
        if self._ended or self._stop():
            return ""
        if not self._began and not self._start():
            return ""
        began = time.monotonic()
        piece = ""
        while not piece and not self._text.stopped and not self._stop():
            token = self._next()
            if token is None:
                self._ended = True
                piece = self._text.feed(b"", final=True)
                break
            piece = self._text.feed(self._engine.piece(token))
        self.decode_ms += (time.monotonic() - began) * 1000
        return piece

    def _start(self) -> bool:
        """Waits for the model and evaluates the prompt. False: it came to nothing."""
        if not self._ticket.wait(self._deadline):
            if not self._stop():
                self.finish_reason = "deadline"
            return False
        self._began = time.monotonic()
        cached = self._engine.prefill(self._tokens, stop=self._stop, deadline=self._deadline)
        self.prefill_ms = (time.monotonic() - self._began) * 1000
        if cached is None:
            self.finish_reason = "stop" if self._stop() else "deadline"
            return False
        self.cached_tokens = cached
        return True

    def _next(self) -> int | None:
        """The next token; None when the completion is over."""
        if self._deadline.passed():
            self.finish_reason = "deadline"
            return None
        if len(self._generated) >= self._max_tokens:
            self.finish_reason = "length"
            return None
        if is_loop(self._generated):
            return None
        # the last one is evaluated only now, so that it is handed out before the next one is begun
        if self._generated and not self._engine.evaluate(self._generated[-1:]):
            return None
        token = self._engine.best()
        if self._engine.is_end(token):
            return None
        self._generated.append(token)
        return token

    def _end(self) -> None:
        if not self._released:
            self._released = True
            if self._began:
                self._queue.took(time.monotonic() - self._began)
            self._given_up()


def _layout_of(engine: Engine) -> Layout:
    """The model's own chat format; a plain one when it has none that can be used."""
    if engine.template is None:
        return PLAIN
    try:
        return layout(engine.template, bos=engine.special("bos"), eos=engine.special("eos"))
    except ModelError as exc:
        logger.warning("%s: %s; a plain layout is used instead", engine.name, exc)
        return PLAIN
