"""Which sentences of the passages answer a question best, and whether anything retrieved answers it at all. Pure.

Measured on questions whose answers are known (English and Portuguese): the best two or three sentences hold the answer
more often than what a small model writes, and are there in milliseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from llamabda.claims import Text
from llamabda.fusion import above
from llamabda.sentences import is_heading
from llamabda.types import Hit

# A sentence's score: its words against the best sentence's, its sense, and the score of the passage it stands in.
WORDS_WEIGHT = 0.4
SENSE_WEIGHT = 0.6
PASSAGE_WEIGHT = 0.3

SENTENCES = 2  # an extract has this many
SHORT_EXTRACT = 600  # code points; the next best sentence is added when the whole stays within

WORTH_ADDING = 0.6  # of the best sentence's score: below, a further sentence seldom adds the answer, but reads as noise

# Relevance below this is refused. Set on one half of the questions: about 6% (squad2) and 1% (faquad) of those that
# their own collection answers fall below it, of those about something else 96% (over scifact) to 100%.
RELEVANCE_BOUND = 0.45

_K1, _B = 1.2, 0.75  # BM25 over the sentences


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a retrieved passage."""

    hit: int  # place of its passage in the result list, from 0
    ordinal: int  # place in the passage, from 0
    content: Text
    sense: float  # where the cosine of question and sentence lies between unrelated (0) and the same (1)


def relevance(hits: Sequence[Hit], *, background: float, ceiling: float = 1.0) -> float:
    """How much the retrieved passages have to do with the question, in [0, 1]; comparable between collections.

    A document that refers to an id which stands in the question has its most telling word: words count in full.
    """
    if not hits:
        return 0.0
    words = max(1.0 if hit.named else hit.text_score for hit in hits)
    sense = above(max(hit.cosine for hit in hits), background, ceiling)
    return 0.3 * words + 0.7 * sense


def answerable(hits: Sequence[Hit], *, background: float, ceiling: float = 1.0) -> bool:
    """Whether the passages may hold an answer. Passages on the question's subject that lack the answer pass: words and
    vectors cannot tell those apart. A document that the question names by its id is on its subject."""
    on_subject = relevance(hits, background=background, ceiling=ceiling) >= RELEVANCE_BOUND
    return on_subject or any(hit.named > 1 for hit in hits)


def named(candidates: Sequence[Sentence], hits: Sequence[Hit]) -> list[Sentence]:
    """The sentences of the documents that the question's ids name most exactly; all of them when it names none."""
    most = max((hits[s.hit].named for s in candidates), default=0)
    return [s for s in candidates if hits[s.hit].named == most]


def rank(terms: Sequence[str], candidates: Sequence[Sentence], hits: Sequence[Hit]) -> list[tuple[float, Sentence]]:
    """Every different sentence with its score for a question of these terms, best first. Headings say nothing."""
    sentences = list({_key(s): s for s in reversed(candidates) if not is_heading(s.content.text)}.values())[::-1]
    words = _bm25(terms, [s.content.terms for s in sentences])
    most = max(words, default=0.0) or 1.0
    scored = [
        (WORDS_WEIGHT * score / most + SENSE_WEIGHT * s.sense + PASSAGE_WEIGHT * hits[s.hit].score, s)
        for score, s in zip(words, sentences, strict=True)
    ]
    return sorted(scored, key=lambda pair: (-pair[0], pair[1].hit, pair[1].ordinal))


def extract(ranked: Sequence[tuple[float, Sentence]]) -> list[Sentence]:
    """The sentences that answer: the best passage's first, those of one passage as they stand there."""
    least = WORTH_ADDING * ranked[0][0] if ranked else 0.0
    best = [sentence for score, sentence in ranked if score >= least]
    chosen = best[:SENTENCES]
    length = sum(len(s.content.text) for s in chosen)
    chosen += [s for s in best[SENTENCES:] if length + len(s.content.text) <= SHORT_EXTRACT][:1]
    first = {hit: place for place, hit in reversed(list(enumerate(s.hit for s in chosen)))}
    return sorted(chosen, key=lambda s: (first[s.hit], s.ordinal))


def _bm25(query: Sequence[str], texts: Sequence[Sequence[str]]) -> list[float]:
    """Scores of texts with the statistics of these texts alone, Lucene's form."""
    if not texts:
        return []
    counts = [Counter(text) for text in texts]
    average = sum(len(text) for text in texts) / len(texts) or 1.0
    scores = [0.0] * len(texts)
    for term in set(query):
        having = sum(term in count for count in counts)
        idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        for i, count in enumerate(counts):
            if frequency := count[term]:
                scores[i] += idf * frequency / (frequency + _K1 * (1 - _B + _B * len(texts[i]) / average))
    return scores


def _key(sentence: Sentence) -> str:
    return " ".join(sentence.content.text.split())
