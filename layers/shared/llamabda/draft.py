"""What of a generated text may be shown: each sentence is held against the passages while the text is being written."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llamabda import support
from llamabda.analysis import tokens, words
from llamabda.citations import Growing, Part, Statement
from llamabda.claims import Text, supports
from llamabda.fusion import above
from llamabda.language import is_function_word
from llamabda.ports import Embedder, Generation
from llamabda.sentences import sentences
from llamabda.support import Sentence
from llamabda.types import Deadline, Hit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

READ_HITS = 5  # passages whose sentences are read; more of them costs milliseconds and finds no more answers
READ_SENTENCES = 60
EMBED_SECONDS = 1.0  # with less time left, sentences are ranked without their vectors
SAID_BOUND = 0.9  # a sentence of the extract whose content is generated to this share need not be shown again
BESIDE_THE_POINT = 0.1  # a generated answer this much farther from the question than the extract does not answer it
LOOP_CHARS, LOOP_TIMES = 24, 3  # a text that ends with the same characters for the third time goes on for ever
_ENDED = re.compile(r"[.!?…。！？\])\"'”’»]\s*$")


@dataclass(frozen=True, slots=True)
class Passages:
    """The passages that were read, as sentences, with a vector for each sentence when there was time."""

    hits: tuple[Hit, ...]
    sentences: tuple[Sentence, ...]
    vectors: NDArray[np.float32] | None
    asked: NDArray[np.float32] | None  # the question's vector
    extract: tuple[Sentence, ...]


def read(question: str, hits: tuple[Hit, ...], embedder: Embedder, deadline: Deadline) -> Passages:
    """Cuts the best passages into sentences and finds those that answer the question."""
    texts = [
        (place, ordinal, hit.chunk.text[span.start : span.end])
        for place, hit in enumerate(hits[:READ_HITS])
        for ordinal, span in enumerate(sentences(hit.chunk.text))
    ][:READ_SENTENCES]
    vectors = asked = None
    cosines = [hits[place].cosine for place, _, _ in texts]
    if texts and deadline.remaining() > EMBED_SECONDS:
        vectors = embedder.embed_documents([text for _, _, text in texts])
        asked = embedder.embed_query(question)
        cosines = [float(c) for c in vectors @ asked]
    read = [
        Sentence(place, ordinal, _text(text), above(cosine, embedder.background, embedder.ceiling))
        for (place, ordinal, text), cosine in zip(texts, cosines, strict=True)
    ]
    extract = support.extract(support.rank(tokens(question), support.named(read, hits), hits))
    return Passages(hits, tuple(read), vectors, asked, tuple(extract))


def _text(text: str) -> Text:
    terms = tuple(tokens(text))
    content = frozenset(t for t, word in zip(terms, words(text), strict=True) if not is_function_word(word))
    return Text(text, terms, content)


@dataclass(slots=True)
class Draft:
    """The sentences of one generated text that may be shown, in `parts`."""

    passages: Passages
    embedder: Embedder
    deadline: Deadline  # for holding sentences against the passages
    late: bool = False  # it passed before all of them were
    parts: list[Part] = field(default_factory=list)
    check_ms: float = 0.0  # spent on holding sentences against the passages

    def accepted(self, generation: Generation) -> Iterator[Part]:
        """Each supported sentence, once the next begins. Stops when the model repeats itself, and at the deadline."""
        text = ""
        done = 0
        growing = Growing(len(self.passages.hits))
        seen: set[str] = set()
        for piece in generation:
            text += piece
            if _loops(text):
                return
            statements = growing.statements(text, done)
            if not any(map(str.isalpha, statements[-1].text if statements else "")):
                continue  # no next sentence has begun: the last may still grow, or get its number
            for statement in statements[done - growing.settled : -1]:
                if statement.text in seen:
                    return
                seen.add(statement.text)
                if self._over():
                    return
                yield from self._taken(statement)
            done = max(done, growing.settled + len(statements) - 1)
        statements = growing.statements(text, done)
        if generation.finish_reason != "stop" and not _ENDED.search(text):
            statements = statements[:-1]  # cut off in the middle of a sentence
        for statement in statements[done - growing.settled :]:
            if statement.text not in seen:
                if self._over():
                    return
                yield from self._taken(statement)

    def _over(self) -> bool:
        self.late = self.deadline.passed()
        return self.late

    def _taken(self, statement: Statement) -> list[Part]:
        began = time.perf_counter()
        part = self._part(statement)
        self.check_ms += 1000 * (time.perf_counter() - began)
        if part is None:
            return []
        self.parts.append(part)
        return [part]

    def _part(self, statement: Statement) -> Part | None:
        passages = self.passages
        if passages.vectors is None or passages.asked is None:
            return None
        vector = self.embedder.embed_documents([statement.text])[0]
        nearest = max(s.sense for s in passages.extract)
        sense = above(float(vector @ passages.asked), self.embedder.background, self.embedder.ceiling)
        if not self.parts and sense < nearest - BESIDE_THE_POINT:
            return None  # true perhaps, but not what was asked: the extract says more
        places = self._support(statement, passages.vectors @ vector)
        return Part(statement.text, places) if places else None

    def _support(self, statement: Statement, near: NDArray[np.float32]) -> tuple[int, ...]:
        """The passages the model named, if they support the sentence; if none does, the one that supports it best.

        `near`: the cosine of the sentence and each sentence of the passages.
        """
        claim = _text(statement.text)
        scores: dict[int, float] = {}
        for place, hit in enumerate(self.passages.hits[:READ_HITS]):
            rows = [i for i, s in enumerate(self.passages.sentences) if s.hit == place]
            parts = [self.passages.sentences[i].content for i in rows]
            nearness = [above(float(near[i]), self.embedder.background) for i in rows]
            scores[place] = supports(claim, _text(hit.chunk.text), parts, nearness)
        named = tuple(n - 1 for n in statement.cited if scores.get(n - 1, 0.0) > 0)
        best = max(scores, key=lambda place: scores[place], default=0)
        return named or ((best,) if scores.get(best, 0.0) > 0 else ())

    def unsaid(self) -> list[Part]:
        """The sentences of the extract that the accepted ones do not say already."""
        said = frozenset[str]().union(*(_text(part.text).content for part in self.parts))
        return [
            Part(s.content.text, (s.hit,))
            for s in self.passages.extract
            if len(s.content.content & said) < SAID_BOUND * len(s.content.content)
        ]


def _loops(text: str) -> bool:
    """Whether a text has got stuck: its last words stand in it again and again. Small models do that."""
    tail = text[-LOOP_CHARS:]
    return len(text) >= LOOP_TIMES * LOOP_CHARS and text.count(tail) >= LOOP_TIMES
