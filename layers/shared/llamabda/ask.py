"""Ask: an answer from the passages, each sentence with the passage that supports it, or a plain "not found"."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from llamabda import citations, prompt, support
from llamabda.admission import Admission
from llamabda.citations import Part
from llamabda.draft import Draft, Passages, read
from llamabda.errors import LlamabdaError
from llamabda.filters import Filter
from llamabda.language import Language, language
from llamabda.ports import Generation, Generator
from llamabda.search import Search, SearchResult
from llamabda.types import Citation, Deadline, FinishReason, Hit, Mode, Reply, Usage, Weights

RESERVE_SECONDS = 1.0  # kept from the generator: half to check its last sentences, half to send the reply
LEAST_SECONDS = 3.0  # with less time left there is no use in starting to generate

_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "deadline": "deadline"}

REFUSALS: dict[Language, str] = {
    "en": "I could not find an answer to this in the documents.",
    "pt": "Não encontrei uma resposta para isso nos documentos.",
}


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What the search found, best first."""

    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Extract:
    """The best supported sentences, before anything is generated."""

    answer: str
    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """The next part of the answer, with its citations' numbers in it: put together, they are the whole answer.

    `citations`: those that are cited here for the first time.
    """

    text: str
    citations: tuple[Citation, ...]


Event: TypeAlias = Retrieved | Extract | Delta | Reply


class Leaving:
    """Call it, from any thread, when nobody waits for the answer any more: the model stops at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gone = False
        self._generation: Generation | None = None

    def __call__(self) -> None:
        with self._lock:
            self._gone = True
            generation = self._generation
        if generation is not None:
            generation.close()

    def hold(self, generation: Generation) -> None:
        """This is what to stop."""
        with self._lock:
            self._generation = generation
            gone = self._gone
        if gone:
            generation.close()


@dataclass(frozen=True, slots=True)
class Ask:
    search: Search
    generator: Callable[[], Generator | None]
    admission: Admission

    def __call__(
        self,
        question: str,
        *,
        tenants: Sequence[str],
        top_k: int,
        max_tokens: int,
        mode: Mode = "auto",
        weights: Weights | None = None,
        filter: Filter | None = None,
        deadline: Deadline,
        leaving: Leaving | None = None,
    ) -> Reply:
        """The last of `events`."""
        return last(
            self.events(
                question,
                tenants=tenants,
                top_k=top_k,
                max_tokens=max_tokens,
                mode=mode,
                weights=weights,
                filter=filter,
                deadline=deadline,
                leaving=leaving,
            )
        )

    def events(
        self,
        question: str,
        *,
        tenants: Sequence[str],
        top_k: int,
        max_tokens: int,
        mode: Mode = "auto",
        weights: Weights | None = None,
        filter: Filter | None = None,
        deadline: Deadline,
        leaving: Leaving | None = None,
    ) -> Iterator[Event]:
        """Retrieved, then Extract when the model may still say more, then Deltas, then the Reply.

        A citation's number is a place in the hits that were Retrieved. With a reranker these come after the extract was
        looked for: when the hits that it put first state nothing, they are those that were found without it.

        Busy, before anything else, when the model is wanted and too many wait for it already. What fails while it
        writes comes through in mode "generated" only; else the extract answers.
        """
        clock = _Clock()
        generator = None if mode == "extractive" else self.generator()
        with nullcontext() if generator is None else self.admission.place():
            found = self.search(
                question, tenants=tenants, top_k=top_k, weights=weights, filter=filter, deadline=deadline
            )
            if found.before is None:
                yield Retrieved(found.hits)
            clock.take(found)
            spoken = language(question)
            passages, answer, cited = _extract(question, found, deadline)
            clock.lap("extract")
            if found.before is not None:
                yield Retrieved(passages.hits if cited else found.hits)
            if not cited:
                yield from _whole(_refusal(spoken, clock))
                return
            reply = Reply(answer, True, "extractive", "stop", cited, None, Usage(), clock.total())
            if generator is None:
                yield from _whole(reply)
                return
            yield Extract(answer, cited)
            if deadline.remaining() < LEAST_SECONDS:
                yield from _whole(replace(reply, finish_reason="deadline", timings=clock.total()))
                return

            draft = Draft(passages, found.embedder, Deadline(deadline.at - RESERVE_SECONDS / 2))
            asked = prompt.build(question, [hit.chunk.text for hit in passages.hits], language=spoken)
            generation: Generation | None = None
            said = _Said()
            try:
                generation = generator.generate(
                    asked, max_tokens=max_tokens, deadline=Deadline(deadline.at - RESERVE_SECONDS)
                )
                if leaving is not None:
                    leaving.hold(generation)
                for _ in draft.accepted(generation):
                    yield from said.more(*citations.assemble(draft.parts, passages.hits))
            except LlamabdaError:
                if mode == "generated":
                    raise
                if not draft.parts:
                    generator = None  # it had no part in the answer
            finally:
                if generation is not None:
                    generation.close()
            reply = _finished(reply, draft, generator, generation, clock)
            yield from said.more(reply.answer, reply.citations)
            yield reply


def last(events: Iterable[Event]) -> Reply:
    """The reply that events end with."""
    for event in events:
        if isinstance(event, Reply):
            return event
    raise AssertionError("events ended without a reply")


def _whole(reply: Reply) -> Iterator[Event]:
    yield Delta(reply.answer, reply.citations)
    yield reply


@dataclass(slots=True)
class _Said:
    """What of the answer the deltas hold already."""

    text: str = ""
    cited: frozenset[int] = frozenset()

    def more(self, answer: str, cited: tuple[Citation, ...]) -> Iterator[Delta]:
        """What an answer, which begins with what was said, has beyond it."""
        if len(answer) > len(self.text):
            new = tuple(citation for citation in cited if citation.n not in self.cited)
            yield Delta(answer[len(self.text) :], new)
            self.text, self.cited = answer, self.cited | {citation.n for citation in new}


@dataclass(slots=True)
class _Clock:
    """Milliseconds per stage."""

    began: float = field(default_factory=time.perf_counter)
    last: float = field(default_factory=time.perf_counter)
    timings: dict[str, float] = field(default_factory=dict)

    def take(self, found: SearchResult) -> None:
        self.timings.update(found.timings)
        self.last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.timings[stage] = 1000 * (now - self.last)
        self.last = now

    def total(self) -> dict[str, float]:
        return {**self.timings, "total": 1000 * (time.perf_counter() - self.began)}


def _extract(question: str, found: SearchResult, deadline: Deadline) -> tuple[Passages, str, tuple[Citation, ...]]:
    """What the hits answer. When a reranker's best state nothing, what those from before it do: refusing is not its."""
    embedder = found.embedder
    if not support.answerable(found.fused, background=embedder.background, ceiling=embedder.ceiling):
        return Passages(found.hits, (), None, None, ()), "", ()
    passages = read(question, found.hits, embedder, deadline)
    answer, cited = _cited(passages)
    if not cited and found.before is not None:
        passages = read(question, found.before, embedder, deadline)
        answer, cited = _cited(passages)
    return passages, answer, cited


def _cited(passages: Passages) -> tuple[str, tuple[Citation, ...]]:
    return citations.assemble([Part(s.content.text, (s.hit,)) for s in passages.extract], passages.hits)


def _refusal(spoken: Language, clock: _Clock) -> Reply:
    return Reply(REFUSALS[spoken], False, "extractive", "stop", (), None, Usage(), clock.total())


def _finished(
    extractive: Reply, draft: Draft, generator: Generator | None, generation: Generation | None, clock: _Clock
) -> Reply:
    """The generated sentences and what of the extract they leave unsaid; the extract when none is supported."""
    if generation is None or generator is None:
        return replace(extractive, timings=clock.total())
    clock.lap("queue")
    written = {"prefill": generation.prefill_ms, "decode": generation.decode_ms, "check": draft.check_ms}
    clock.timings["queue"] = max(0.0, clock.timings["queue"] - sum(written.values()))  # what is left was waiting
    clock.timings.update(written)
    usage = Usage(generation.prompt_tokens, generation.cached_tokens, generation.completion_tokens)
    finish = "deadline" if draft.late else _FINISH.get(generation.finish_reason, "stop")
    reply = replace(extractive, model=generator.name or None, usage=usage, finish_reason=finish, timings=clock.total())
    if not draft.parts:
        return reply
    answer, cited = citations.assemble([*draft.parts, *draft.unsaid()], draft.passages.hits)
    return replace(reply, answer=answer, mode="generated", citations=cited)
