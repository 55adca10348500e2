"""The Generator port over any server that speaks OpenAI's chat completions: vLLM, llama-server and others."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from llamabda.adapters.openai.checkup import Checkup
from llamabda.adapters.openai.completion import Completion, tokens
from llamabda.adapters.openai.connection import Interrupted, Line
from llamabda.adapters.openai.messages import Fitted, estimate, fit, neutral
from llamabda.adapters.openai.places import Places
from llamabda.adapters.openai.refusal import refusal
from llamabda.adapters.openai.server import PROBE_SECONDS, Facts, Server, chat
from llamabda.endpoint import Endpoint
from llamabda.errors import InvalidInput, LlamabdaError
from llamabda.pieces import TextAssembler
from llamabda.types import Deadline, FinishReason, Prompt

MAX_STOPS = 4  # that the protocol allows; further ones are looked for here only
ATTEMPTS = 3  # a prompt that was too long after all, or a server that does not know an option


class OpenAiGenerator:
    """Greedy completions by another process. Safe to share between threads.

    Nothing is sent before it is needed, so that a server which is not there (yet) fails single questions only: each
    asks again, but for a few seconds after one found nobody.
    """

    def __init__(self, endpoint: Endpoint, *, model: str, api_key: str, n_ctx: int, max_queue: int) -> None:
        """`model`: empty for the first that the server lists. `n_ctx`: tokens, where the server does not say.

        `max_queue`: how many completions may be open beside one; who comes first is for the server to decide.
        """
        self._server = Server(endpoint, model=model, api_key=api_key, n_ctx=n_ctx)
        self._checkup = Checkup(self._server)
        self._n_ctx = n_ctx
        self._places = Places(max_queue + 1)

    @property
    def name(self) -> str:
        """Empty while it is not known. Of a model that is named by its file, without the folder."""
        name = self._server.model
        return PurePath(name).stem if name.endswith(".gguf") else name

    @property
    def context_size(self) -> int:
        """What the server says; `n_ctx` while it does not."""
        facts = self._facts()
        return facts.context_size if facts else self._n_ctx

    def count_tokens(self, text: str) -> int:
        """Of the text as it is sent; estimated while the server does not count."""
        line = Line()
        try:
            return self._server.count(neutral(text), line, Deadline.after(PROBE_SECONDS)) if text else 0
        except (LlamabdaError, TimeoutError):
            return estimate(text)
        finally:
            line.free()

    def check(self, *, within: float = 2 * PROBE_SECONDS) -> str:
        """ "ok", or "busy" when the server has no time now. DependencyFailed when it does not answer, or refuses us.

        `within`: seconds that it may take. An outcome is given again for a moment, without a request.
        """
        return self._checkup(within)

    def generate(
        self, prompt: Prompt, *, max_tokens: int, stop: Sequence[str] = (), deadline: Deadline
    ) -> OpenAiGeneration:
        """Busy when too many completions are open. Everything else is found out at the first piece."""
        if max_tokens < 1:
            raise InvalidInput(
                f"max_tokens is {max_tokens}, it must be at least 1", loc=("body", "max_tokens"), value=max_tokens
            )
        return OpenAiGeneration(
            self._server, self._places, prompt, max_tokens=max_tokens, stop=tuple(filter(None, stop)), deadline=deadline
        )

    def _facts(self) -> Facts | None:
        line = Line()
        try:
            return self._server.facts(line, Deadline.after(PROBE_SECONDS))
        except (LlamabdaError, TimeoutError):
            return None
        finally:
            line.free()


class OpenAiGeneration:
    """One completion: iterate it once, then read how it went.

    The first piece raises InvalidInput when the question does not fit into the context, Busy when the server has no
    time, DependencyFailed when it cannot be used; a later one DependencyFailed when the answer breaks off.
    """

    def __init__(
        self,
        server: Server,
        places: Places,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: tuple[str, ...],
        deadline: Deadline,
    ) -> None:
        self._server = server
        self._prompt = prompt
        self._max_tokens = max_tokens
        self._stop = stop
        self._deadline = deadline
        self._text = TextAssembler(stop)
        self._turn = threading.Lock()  # one step at a time, and none while it is being closed
        self._line = Line()
        self._completion: Completion | None = None
        self._ended = False
        self._began = self._first = 0.0  # seconds, monotonic; of the first piece
        self.finish_reason: FinishReason = "stop"
        self._measured = 0  # tokens of the prompt by our own count
        self.decode_ms = 0.0
        self.prefill_ms = 0.0
        places.enter()
        # a generation that is dropped half-way must not keep its place, or the server busy
        self._given_up = weakref.finalize(self, _release, self._line, places)
        self._given_up.atexit = False

    @property
    def prompt_tokens(self) -> int:
        told = self._told("prompt_tokens")
        return self._measured if told is None else told

    @property
    def cached_tokens(self) -> int:
        details = self._completion.usage.get("prompt_tokens_details") if self._completion else None
        return (tokens(details, "cached_tokens") or 0) if isinstance(details, dict) else 0

    @property
    def completion_tokens(self) -> int:
        """What the server counted; the number of pieces where it does not say."""
        told = self._told("completion_tokens")
        if told is not None:
            return told
        return self._completion.count if self._completion else 0

    def _told(self, name: str) -> int | None:
        return tokens(self._completion.usage, name) if self._completion else None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        with self._turn:
            try:
                piece = self._step()
            except Interrupted:
                piece = ""
            except TimeoutError:
                if self._began and not self._first:
                    self._server.rest.silent(self._began)
                self.finish_reason = "deadline"
                piece = self._text.feed(b"", final=True) if not self._ended else ""
                self._ended = True
            except BaseException:
                if self._completion is not None and not self._first:
                    self._server.rest.tried()  # it does something, if not what it should
                self._end()
                raise
            if piece:
                return piece
            self._end()
            raise StopIteration

    def close(self) -> None:
        self._line.end()
        with self._turn:
            self._end()

    def _step(self) -> str:
        """The next piece of text; empty at the end."""
        piece = ""
        while not piece and not self._ended and not self._line.ended:
            if self._completion is None:
                self._completion = self._start()
            received = self._completion.next()
            now = time.monotonic()
            if not self._first:
                self._first = now
                self._server.rest.speaks()
                self.prefill_ms = 1000 * (now - self._began)
            self.decode_ms = 1000 * (now - self._first)
            piece = self._text.feed(received.encode("utf-8", "replace"), final=not received)
            if self._text.stopped or not received:
                self._ended = True
                self.finish_reason = "stop" if self._text.stopped else self._completion.finish_reason or "stop"
        return piece

    def _start(self) -> Completion:
        """The reply to our request, once it begins."""
        if self._deadline.passed():
            raise TimeoutError
        self._began = time.monotonic()
        share = 1.0  # of the room that is there, as far as we know
        for attempt in range(1, ATTEMPTS + 1):
            facts = self._server.facts(self._line, self._deadline)
            # a completion never takes more than half of the context from the passages
            room = facts.context_size - min(self._max_tokens, facts.context_size // 2)
            fitted = fit(
                self._prompt,
                room=int(room * share),
                measure=lambda messages: self._server.measure(messages, self._line, self._deadline),
            )
            limit = min(self._max_tokens, facts.context_size - fitted.tokens)
            body = self._request(facts, fitted, limit)
            call = self._server.complete(body, self._line, self._deadline)
            self._measured = fitted.tokens
            if call.status == 200:
                return Completion(call, server=str(self._server), key=self._server.key, max_tokens=limit)
            refused = refusal(call, server=str(self._server), key=self._server.key)
            if refused.names_stream_options and "stream_options" in body:
                self._server.takes_stream_options = False
            elif refused.is_overflow and attempt < ATTEMPTS:
                share /= 2
                self._server.forget()
            else:
                break
        raise self._server.refused(refused)

    def _request(self, facts: Facts, fitted: Fitted, max_tokens: int) -> dict[str, object]:
        body = chat(facts, fitted.messages)
        body |= {"max_tokens": max_tokens, "temperature": 0, "stream": True}
        if self._server.takes_stream_options:
            body["stream_options"] = {"include_usage": True}
        if self._stop:
            body["stop"] = list(self._stop[:MAX_STOPS])
        return body

    def _end(self) -> None:
        self._ended = True
        self._given_up()


def _release(line: Line, places: Places) -> None:
    line.end()
    line.free()
    places.leave()
