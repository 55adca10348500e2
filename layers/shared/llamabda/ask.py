"""Ask: an answer from the passages, each sentence with the passage that supports it, or a plain "not found"."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from llamabda import citations, prompt, support
from llamabda.citations import Part
from llamabda.draft import Draft, read
from llamabda.errors import LlamabdaError
from llamabda.language import Language, language
from llamabda.ports import Embedder, Generation, Generator
from llamabda.search import Search, SearchResult
from llamabda.types import Citation, Deadline, FinishReason, Hit, Mode, Reply, Usage, Weights

RESERVE_SECONDS = 1.0  # kept from the generator, to check its last sentence and send the reply
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
    """A generated sentence that the passages support, with its citations' numbers in it; a part of the final answer."""

    text: str


Event: TypeAlias = Retrieved | Extract | Delta | Reply


@dataclass(frozen=True, slots=True)
class Ask:
    search: Search
    embedder: Callable[[], Embedder]
    generator: Callable[[], Generator | None]

    def __call__(
        self,
        question: str,
        *,
        tenants: Sequence[str],
        top_k: int,
        max_tokens: int,
        mode: Mode = "auto",
        weights: Weights | None = None,
        deadline: Deadline,
    ) -> Reply:
        """The last of `events`."""
        for event in self.events(
            question,
            tenants=tenants,
            top_k=top_k,
            max_tokens=max_tokens,
            mode=mode,
            weights=weights,
            deadline=deadline,
        ):
            if isinstance(event, Reply):
                return event
        raise AssertionError("events ended without a reply")

    def events(
        self,
        question: str,
        *,
        tenants: Sequence[str],
        top_k: int,
        max_tokens: int,
        mode: Mode,
        weights: Weights | None,
        deadline: Deadline,
    ) -> Iterator[Event]:
        """Retrieved, then Extract when there is one, then a Delta for each generated sentence shown, then the Reply.

        Busy and DependencyFailed of the generator come through in mode "generated" only; else the extract answers.
        """
        clock = _Clock()
        found = self.search(question, tenants=tenants, top_k=top_k, weights=weights, deadline=deadline)
        yield Retrieved(found.hits)
        clock.take(found)
        embedder = self.embedder()
        spoken = language(question)
        if not support.answerable(found.hits, background=embedder.background):
            yield _refusal(spoken, clock)
            return

        passages = read(question, found.hits, embedder, deadline)
        parts = [Part(s.content.text, (s.hit,)) for s in passages.extract]
        answer, cited = citations.assemble(parts, found.hits)
        clock.lap("extract")
        if not cited:
            yield _refusal(spoken, clock)
            return
        yield Extract(answer, cited)
        reply = Reply(answer, True, "extractive", "stop", cited, None, Usage(), clock.total())
        generator = None if mode == "extractive" else self.generator()
        if generator is None:
            yield reply
            return
        if deadline.remaining() < LEAST_SECONDS:
            yield replace(reply, finish_reason="deadline", timings=clock.total())
            return

        draft = Draft(passages, embedder)
        asked = prompt.build(question, [hit.chunk.text for hit in found.hits], language=spoken)
        generation: Generation | None = None
        try:
            generation = generator.generate(
                asked, max_tokens=max_tokens, deadline=Deadline(deadline.at - RESERVE_SECONDS)
            )
            for text in draft.accepted(generation):
                yield Delta(text)
        except LlamabdaError:
            if mode == "generated":
                raise
        finally:
            if generation is not None:
                generation.close()
        yield _finished(reply, draft, generator.name, generation, clock)


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


def _refusal(spoken: Language, clock: _Clock) -> Reply:
    return Reply(REFUSALS[spoken], False, "extractive", "stop", (), None, Usage(), clock.total())


def _finished(extractive: Reply, draft: Draft, model: str, generation: Generation | None, clock: _Clock) -> Reply:
    """The generated sentences and what of the extract they leave unsaid; the extract when none is supported."""
    if generation is None:
        return replace(extractive, timings=clock.total())
    clock.timings["prefill"] = generation.prefill_ms
    clock.timings["decode"] = generation.decode_ms
    usage = Usage(generation.prompt_tokens, generation.cached_tokens, generation.completion_tokens)
    finish = _FINISH.get(generation.finish_reason, "stop")
    reply = replace(extractive, model=model, usage=usage, finish_reason=finish, timings=clock.total())
    if not draft.parts:
        return reply
    answer, cited = citations.assemble([*draft.parts, *draft.unsaid()], draft.passages.hits)
    return replace(reply, answer=answer, mode="generated", citations=cited)
