"""`llamabda ask` and `llamabda search`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from llamabda import filters, rendering, wiring
from llamabda.ask import Delta, Event, Extract
from llamabda.cli.console import Console
from llamabda.cli.start import checked_tenant, load_embedder, load_generator, load_reranker, readable
from llamabda.errors import InvalidInput, TooLarge
from llamabda.filters import Filter
from llamabda.settings import settings
from llamabda.types import Deadline, Reply

REFUSED = 4


def ask(arguments: Namespace, console: Console) -> int:
    """4 when the documents hold no answer."""
    question = _asked(arguments.question)
    tenants = readable(checked_tenant(arguments.tenant))
    load_embedder(console)
    load_reranker(console)
    if arguments.mode != "extractive":
        load_generator(console)
    shown = _Streamed(console)
    for event in wiring.ask().events(
        question,
        tenants=tenants,
        top_k=arguments.top_k,
        max_tokens=arguments.max_tokens,
        mode=arguments.mode,
        filter=_filter(arguments.filter),
        deadline=Deadline.after(settings().ask_deadline_seconds),
    ):
        shown.take(event)
    reply = shown.reply
    if console.json:
        console.data(rendering.reply(reply))
        return 0 if reply.answered else REFUSED
    for cited in reply.citations:
        chunk = cited.hit.chunk
        console.result()
        console.result(f"[{cited.n}] {chunk.doc_id}, characters {chunk.start} to {chunk.end}")
        console.quote(chunk.text)
    how = f"written by {reply.model}" if reply.mode == "generated" else "sentences of the documents"
    console.note(f"\n{how if reply.answered else 'no answer'}, {reply.timings.get('total', 0):.0f} ms")
    return 0 if reply.answered else REFUSED


class _Streamed:
    """Prints an answer as it comes; with --json only the end counts."""

    reply: Reply

    def __init__(self, console: Console) -> None:
        self._console = console

    def take(self, event: Event) -> None:
        match event:
            case Extract() if not self._console.json:
                self._console.progress("found an answer; the model is writing ...")
            case Delta(text) if not self._console.json:
                self._console.piece(text)
            case Reply():
                if not self._console.json:
                    self._console.result()
                self.reply = event


def search(arguments: Namespace, console: Console) -> int:
    query = _asked(arguments.query)
    tenants = readable(checked_tenant(arguments.tenant))
    load_embedder(console)
    load_reranker(console)
    deadline = Deadline.after(settings().ask_deadline_seconds)
    wanted = _filter(arguments.filter)
    found = wiring.search()(query, tenants=tenants, top_k=arguments.top_k, filter=wanted, deadline=deadline)
    if console.json:
        console.data(rendering.hits(found.hits))
        return 0
    for hit in found.hits:
        console.result(f"{hit.score:.3f}  {hit.chunk.doc_id}, characters {hit.chunk.start} to {hit.chunk.end}")
        console.quote(hit.chunk.text)
        console.result()
    if not found.hits:
        console.note("nothing found: is anything ingested? (`llamabda docs list`)")
    return 0


def _filter(text: str | None) -> Filter | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as exc:
        message = f"--filter {text[:100]!r} is not JSON: write it like '{{\"year\": 2026}}'"
        raise InvalidInput(message, loc=("filter",)) from exc
    return filters.parse(value, loc=("filter",))


def _asked(text: str) -> str:
    if text == "-":
        text = sys.stdin.read()
    limit = settings().max_question_chars
    if len(text) > limit:
        raise TooLarge(f"the question has {len(text):,} characters: at most {limit:,} (MAX_QUESTION_CHARS)")
    if not text.strip():
        raise InvalidInput("the question is empty", loc=("question",))
    # arguments that are no Unicode arrive with lone surrogates
    return text.encode("utf-8", "replace").decode().replace("\x00", " ")
