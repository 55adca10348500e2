"""What is known of a server, and how it is asked."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from llamabda.adapters.openai.connection import (
    Call,
    Connector,
    Line,
    Unreachable,
    call,
    earlier,
    failed,
)
from llamabda.adapters.openai.messages import Message, estimate, estimated
from llamabda.adapters.openai.refusal import BUSY, Refusal, refusal
from llamabda.adapters.openai.rest import Rest
from llamabda.endpoint import Endpoint
from llamabda.errors import Busy, DependencyFailed, LlamabdaError
from llamabda.types import Deadline

logger = logging.getLogger("llamabda.generator")

PROBE_SECONDS = 3.0  # for everything that costs a server no thought: its models, a tokenization
MAX_NAME = 256  # characters of a model's

Kind: TypeAlias = Literal["llama-server", "vllm", "other"]


@dataclass(frozen=True, slots=True)
class Facts:
    model: str  # as requests name it
    context_size: int  # tokens
    kind: Kind  # who can count tokens, and how


class Server:
    """One OpenAI-compatible server. Safe to share between threads; nothing is sent before it is asked for."""

    def __init__(self, endpoint: Endpoint, *, model: str, api_key: str, n_ctx: int) -> None:
        """`model`: empty for the first that the server lists. `n_ctx`: tokens, for servers that do not say."""
        self._endpoint = endpoint
        self._model = model
        self._key = api_key
        self._n_ctx = n_ctx
        self._connector = Connector(endpoint)
        self._facts: Facts | None = None
        self.rest = Rest(str(endpoint))
        self.takes_stream_options = True

    @property
    def key(self) -> str:
        return self._key

    @property
    def model(self) -> str:
        """Empty while it is not known."""
        facts = self._facts
        return facts.model if facts else self._model

    def __str__(self) -> str:
        return str(self._endpoint)

    def forget(self) -> None:
        """It may be another one by now."""
        self._facts = None

    def refresh(self, line: Line, deadline: Deadline) -> None:
        """Asks again; what was known stays until there is an answer. Errors: those of `facts`."""
        self._facts = self._probed(line, deadline)

    def facts(self, line: Line, deadline: Deadline) -> Facts:
        """Asks once. Errors: those of `ask`; DependencyFailed when the server names no model."""
        facts = self._facts
        if facts is None:
            facts = self._facts = self._probed(line, deadline)
        return facts

    def _probed(self, line: Line, deadline: Deadline) -> Facts:
        listed = self.ask("GET", f"{self._endpoint.path}/models", None, line, deadline)
        if isinstance(listed, Refusal) and not (self._model and listed.means_absent):
            raise listed.error()
        models = [] if isinstance(listed, Refusal) else _models(listed)
        if not self._model and not models:
            raise failed(f"{self} lists no model: is it an OpenAI-compatible server? Else set GENERATOR_MODEL")
        model = self._model or str(models[0]["id"])
        entry = next((entry for entry in models if entry["id"] == model), {})
        size = _size(entry.get("max_model_len"))
        if size:
            return Facts(model, size, "vllm")
        size = self._context_of_llama_server(line, deadline)
        return Facts(model, size, "llama-server") if size else Facts(model, self._n_ctx, "other")

    def _context_of_llama_server(self, line: Line, deadline: Deadline) -> int:
        """0 when it is another one: what stands at this path there is no fault."""
        try:
            properties = self.ask("GET", f"{self._endpoint.root}/props", None, line, deadline)
        except (Busy, Unreachable):
            raise
        except DependencyFailed:
            return 0
        defaults = None if isinstance(properties, Refusal) else properties.get("default_generation_settings")
        return _size(defaults.get("n_ctx")) if isinstance(defaults, dict) else 0

    def count(self, text: str, line: Line, deadline: Deadline) -> int:
        """Tokens of a text as it stands in a message; estimated where the server cannot count."""
        facts = self.facts(line, deadline)
        if facts.kind == "llama-server":
            return self._tokenized(facts, {"content": text, "add_special": False}, line, deadline) or estimate(text)
        if facts.kind == "vllm":
            body = {"model": facts.model, "prompt": text, "add_special_tokens": False}
            return self._tokenized(facts, body, line, deadline) or estimate(text)
        return estimate(text)

    def measure(self, messages: Sequence[Message], line: Line, deadline: Deadline) -> int:
        """Tokens of a chat as the model gets it; estimated where the server cannot count."""
        facts = self.facts(line, deadline)
        if facts.kind == "llama-server":
            laid_out = self.ask("POST", f"{self._endpoint.root}/apply-template", chat(facts, messages), line, deadline)
            prompt = None if isinstance(laid_out, Refusal) else laid_out.get("prompt")
            if isinstance(prompt, str):
                # the format writes its own opening token
                body = {"content": prompt, "add_special": True, "parse_special": True}
                return self._tokenized(facts, body, line, deadline) or estimated(messages)
        elif facts.kind == "vllm":
            return self._tokenized(facts, chat(facts, messages), line, deadline) or estimated(messages)
        return estimated(messages)

    def _tokenized(self, facts: Facts, body: Mapping[str, object], line: Line, deadline: Deadline) -> int:
        """0 when the server does not count after all; it is not asked again."""
        counted = self.ask("POST", f"{self._endpoint.root}/tokenize", body, line, deadline)
        if not isinstance(counted, Refusal):
            tokens = counted.get("tokens")
            return len(tokens) if isinstance(tokens, list) else _size(counted.get("count"))
        if counted.status in (404, 405, 501):
            self._facts = replace(facts, kind="other")
        return 0

    def complete(self, body: Mapping[str, object], line: Line, deadline: Deadline) -> Call:
        """Begins a completion; the caller looks at its status, and tells `rest` how it went on."""
        self.rest.enter(deadline)
        try:
            reply = self._open("POST", f"{self._endpoint.path}/chat/completions", body, line, deadline)
        except DependencyFailed:
            self.rest.tried()
            raise
        if reply.status != 200:
            self.rest.tried()
        return reply

    def refused(self, refused: Refusal) -> LlamabdaError:
        """What to raise. A server that is busy stays known, and gets the rest that it asked for."""
        if refused.status not in BUSY:
            self.forget()
        elif refused.rest:
            self.rest.asked(refused.rest)
        return refused.error()

    def ask(
        self, method: str, path: str, body: Mapping[str, object] | None, line: Line, deadline: Deadline
    ) -> dict[str, object] | Refusal:
        """The JSON object that it answers with, or its refusal.

        TimeoutError at the deadline; Unreachable when nobody is there, or answers within PROBE_SECONDS; Busy and
        DependencyFailed for refusals that concern every request; Interrupted when the line was ended.
        """
        self.rest.check()
        limit = earlier(deadline, PROBE_SECONDS)
        try:
            reply = self._open(method, path, body, line, limit)
            if reply.status != 200:
                refused = refusal(reply, server=str(self), key=self._key)
                if refused.means_absent:
                    return refused
                if refused.rest:
                    self.rest.asked(refused.rest)
                raise refused.error()
            try:
                document = json.loads(reply.whole())
            finally:
                reply.close()
        except TimeoutError:
            if deadline.passed():
                raise
            self._unreached()
            raise Unreachable(f"{self} does not answer within {PROBE_SECONDS:g} s", dependency="generator") from None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise failed(f"{self} answers with what is not a JSON object: is GENERATOR_URL right?")
        return document

    def _open(self, method: str, path: str, body: Mapping[str, object] | None, line: Line, deadline: Deadline) -> Call:
        headers = {"Accept": "application/json, text/event-stream"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode("ascii")
        try:
            return call(
                self._connector,
                self._endpoint,
                method,
                path,
                body=data,
                headers=headers,
                line=line,
                deadline=deadline,
            )
        except Unreachable:
            self._unreached()
            raise

    def _unreached(self) -> None:
        self.forget()
        self.rest.unreached()


def chat(facts: Facts, messages: Sequence[Message]) -> dict[str, object]:
    """What every request about a chat says. Thinking is switched off where the server is known to have the switch."""
    body: dict[str, object] = {"model": facts.model, "messages": list(messages)}
    if facts.kind != "other":
        body["chat_template_kwargs"] = {"enable_thinking": False}
    return body


def _models(listed: Mapping[str, object]) -> list[dict[str, object]]:
    """Those with a name that can be shown: it goes into replies and logs."""
    data = listed.get("data")
    entries = data if isinstance(data, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and _is_name(entry.get("id"))]


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def _size(value: object) -> int:
    """A count of tokens; 0 for anything that is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else 0
