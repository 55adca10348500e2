"""Hits in a reranker's order: over a reranker that prefers short texts, so that a reader can see the order."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from llamabda.admission import Admission
from llamabda.ask import REFUSALS, Ask, Delta, Retrieved, last
from llamabda.errors import DependencyFailed
from llamabda.ports import Reranker
from llamabda.reranking import RERANK_CANDIDATES, RERANK_SECONDS, RERANK_SHARE, reranked
from llamabda.search import Search
from llamabda.types import Chunk, Deadline, Hit, Reply
from tests.ask_fakes import LiveGenerations, WordEmbedder, WordIndex, chunk, word_space


@dataclass
class Shortest:
    """The fewer characters, the better; 0 for three. Scores `most` texts, as if the time was over then."""

    most: int = 10_000
    fails: Exception | None = None
    asked: list[tuple[str, tuple[str, ...], float]] = field(default_factory=list)  # question, texts, seconds

    def scores(self, question: str, texts: Sequence[str], *, deadline: Deadline) -> NDArray[np.float32]:
        self.asked.append((question, tuple(texts), deadline.remaining()))
        if self.fails is not None:
            raise self.fails
        return np.array([3 - len(text) for text in texts[: self.most]], np.float32)


def search_over(*chunks: Chunk, reranker: Reranker | None = None, off: bool = False) -> Search:
    embedder = WordEmbedder()
    index = WordIndex(embedder, chunks)
    catalog = LiveGenerations({(c.tenant, c.doc_id): c.generation for c in chunks})
    provider = None if off else lambda: reranker
    return Search(space=lambda: word_space(embedder, index), catalog=catalog, reranker=provider)  # type: ignore[arg-type]  # it only reads


LONG, MIDDLE, SHORT = (
    chunk("long", "green tea leaves from the hills"),
    chunk("middle", "green tea, black tea"),
    chunk("short", "a tea pot"),
)
QUESTION = "green tea leaves"


def found(search: Search, *, top_k: int = 5, seconds: float = 60) -> list[str]:
    hits = search(QUESTION, tenants=["t"], top_k=top_k, deadline=Deadline.after(seconds)).hits
    return [hit.chunk.doc_id for hit in hits]


def hit(name: str, score: float, *, named: int = 0) -> Hit:
    return Hit(chunk(name, name), score, text_score=score, cosine=score, named=named)


def test_without_a_reranker_the_order_of_the_fusion_stays() -> None:
    for search in (search_over(LONG, MIDDLE, SHORT, off=True), search_over(LONG, MIDDLE, SHORT)):
        result = search(QUESTION, tenants=["t"], top_k=2, deadline=Deadline.after(60))
        assert [hit.chunk.doc_id for hit in result.hits] == ["long", "middle"]
        assert set(result.timings) == {"embed", "search"}
        assert result.fused == result.hits


def test_the_order_is_the_rerankers_and_it_is_asked_once() -> None:
    reranker = Shortest()
    search = search_over(LONG, MIDDLE, SHORT, reranker=reranker)
    result = search(QUESTION, tenants=["t"], top_k=5, deadline=Deadline.after(60))
    assert [hit.chunk.doc_id for hit in result.hits] == ["short", "middle", "long"]
    assert [hit.chunk.doc_id for hit in result.fused] == ["long", "middle", "short"]
    assert [(asked, texts) for asked, texts, _ in reranker.asked] == [(QUESTION, (LONG.text, MIDDLE.text, SHORT.text))]
    assert set(result.timings) == {"embed", "search", "rerank"}


def test_a_hit_beyond_top_k_can_become_the_first() -> None:
    assert found(search_over(LONG, MIDDLE, SHORT, reranker=Shortest()), top_k=1) == ["short"]


def test_the_best_candidates_are_read_and_the_others_follow_as_they_were() -> None:
    chunks = [chunk(f"{n:02}", "green " * (40 - n) + "tea leaves") for n in range(30)]
    reranker = Shortest()
    names = found(search_over(*chunks, reranker=reranker), top_k=30)
    fused = found(search_over(*chunks), top_k=30)
    assert len(reranker.asked[0][1]) == RERANK_CANDIDATES
    assert names[RERANK_CANDIDATES:] == fused[RERANK_CANDIDATES:]
    assert names[:RERANK_CANDIDATES] == sorted(fused[:RERANK_CANDIDATES], reverse=True)


def test_with_top_k_below_the_candidates_all_candidates_are_read() -> None:
    chunks = [chunk(f"{n:02}", "tea " * (n + 1)) for n in range(25)]
    reranker = Shortest()
    assert len(found(search_over(*chunks, reranker=reranker), top_k=3)) == 3
    assert len(reranker.asked[0][1]) == RERANK_CANDIDATES


def test_scores_are_logistic_and_fall_from_first_to_last() -> None:
    hits = [hit("seven77", 0.9), hit("abc", 0.5), hit("a", 0.4)]
    read = reranked(Shortest(), "?", hits, limit=5, deadline=Deadline.after(60))
    assert [h.chunk.doc_id for h in read] == ["a", "abc", "seven77"]
    assert [h.score for h in read] == pytest.approx([1 / (1 + math.exp(-2)), 0.5, 1 / (1 + math.exp(4))])
    assert [(h.text_score, h.cosine) for h in read] == [(0.4, 0.4), (0.5, 0.5), (0.9, 0.9)]


@pytest.mark.parametrize("length", [2, 2_000])
def test_scores_of_any_size_stay_within_0_and_1(length: int) -> None:
    hits = [hit("x" * length, 0.9), hit("y" * (length + 1), 0.5)]
    for most, least in [reranked(Shortest(), "?", hits, limit=5, deadline=Deadline.after(60))]:
        assert 0 <= least.score <= most.score <= 1


def test_hits_whose_document_the_question_names_stay_first_and_are_not_read() -> None:
    reranker = Shortest()
    hits = [hit("named long", 0.3, named=2), hit("named", 0.3, named=1), hit("abcdef", 0.3), hit("a", 0.2)]
    read = reranked(reranker, "?", hits, limit=5, deadline=Deadline.after(60))
    assert [h.chunk.doc_id for h in read] == ["named long", "named", "a", "abcdef"]
    assert reranker.asked[0][1] == ("abcdef", "a")
    assert [h.score for h in read] == sorted((h.score for h in read), reverse=True)


def test_when_the_named_hits_fill_the_list_nothing_is_read() -> None:
    reranker = Shortest()
    hits = [hit("one", 0.3, named=2), hit("two", 0.3, named=1), hit("three", 0.3), hit("4", 0.2)]
    assert reranked(reranker, "?", hits, limit=2, deadline=Deadline.after(60)) == hits[:2]
    assert reranker.asked == []


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_hits_are_not_read(count: int) -> None:
    reranker = Shortest()
    hits = [hit("one", 0.3)][:count]
    assert reranked(reranker, "?", hits, limit=5, deadline=Deadline.after(60)) == hits
    assert reranker.asked == []


def test_hits_for_which_time_does_not_suffice_follow_as_they_were() -> None:
    hits = [hit("abcdef", 0.9), hit("abc", 0.8), hit("ab", 0.7), hit("a", 0.001)]
    read = reranked(Shortest(most=2), "?", hits, limit=5, deadline=Deadline.after(60))
    assert [h.chunk.doc_id for h in read] == ["abc", "abcdef", "ab", "a"]
    assert [h.score for h in read] == pytest.approx([0.5, 1 / (1 + math.exp(3)), 1 / (1 + math.exp(3)), 0.001])


@pytest.mark.parametrize("scored", [0, 1])
def test_when_hardly_any_was_read_in_time_nothing_changes(scored: int) -> None:
    hits = [hit("abcdef", 0.9), hit("abc", 0.8), hit("ab", 0.7)]
    assert reranked(Shortest(most=scored), "?", hits, limit=2, deadline=Deadline.after(60)) == hits[:2]


@pytest.mark.parametrize(
    "failure",
    [DependencyFailed("the reranker broke", dependency="reranker"), IndexError("the reranker broke")],
    ids=["as promised", "as nobody foresaw"],
)
def test_a_reranker_that_fails_changes_nothing_and_is_logged(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="llamabda"):
        names = found(search_over(LONG, MIDDLE, SHORT, reranker=Shortest(fails=failure)))
    assert names == ["long", "middle", "short"]
    assert "the reranker broke" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "given"), [(4.0, 4.0 * RERANK_SHARE), (900.0, RERANK_SECONDS)], ids=["a share", "at most"]
)
def test_reading_gets_a_share_of_the_time_that_is_left(seconds: float, given: float) -> None:
    reranker = Shortest()
    found(search_over(LONG, MIDDLE, SHORT, reranker=reranker), seconds=seconds)
    assert 0 < reranker.asked[0][2] <= given
    assert given <= RERANK_SECONDS


def ask_over(*chunks: Chunk, reranker: Reranker | None) -> Ask:
    search = search_over(*chunks, reranker=reranker)
    return Ask(search=search, generator=lambda: None, admission=Admission(waiting=1))


def answer(ask: Ask, *, top_k: int) -> str:
    return ask(
        QUESTION, tenants=["t"], top_k=top_k, max_tokens=50, mode="extractive", deadline=Deadline.after(60)
    ).answer


def test_what_is_refused_does_not_depend_on_the_reranker() -> None:
    answers = chunk("a", "Green tea leaves are brewed at eighty degrees for three minutes.")
    beside = chunk("b", "Hot pot.")
    plain = ask_over(answers, beside, reranker=None)
    turned = ask_over(answers, beside, reranker=Shortest())
    assert "[1]" in answer(plain, top_k=1)
    assert answer(turned, top_k=1) == "Hot pot. [1]"  # bad advice, but no refusal
    assert answer(ask_over(beside, reranker=None), top_k=1) == REFUSALS["en"]
    none = [replace(c, text="Coffee beans are black.") for c in (answers, beside)]
    assert answer(ask_over(*none, reranker=Shortest()), top_k=1) == REFUSALS["en"]


def test_what_a_reranker_puts_first_and_states_nothing_is_no_refusal() -> None:
    answers = chunk("a", "Green tea leaves are brewed at eighty degrees for three minutes.")
    heading = chunk("b", "# Tea")
    assert answer(ask_over(answers, heading, reranker=None), top_k=1) == f"{answers.text} [1]"
    events = list(
        ask_over(answers, heading, reranker=Shortest()).events(
            QUESTION, tenants=["t"], top_k=1, max_tokens=50, mode="extractive", deadline=Deadline.after(60)
        )
    )
    lists = [[hit.chunk.doc_id for hit in event.hits] for event in events if isinstance(event, Retrieved)]
    assert lists == [["a"]]  # once, as the citations' numbers are places in it
    reply = last(events)
    assert reply.answer == f"{answers.text} [1]"
    assert [(c.n, c.hit.chunk.doc_id) for c in reply.citations] == [(1, "a")]
    headings = ask_over(heading, chunk("c", "# Green tea leaves"), reranker=Shortest())
    refused = list(
        headings.events(QUESTION, tenants=["t"], top_k=1, max_tokens=50, mode="extractive", deadline=Deadline.after(60))
    )
    assert [type(event) for event in refused] == [Retrieved, Delta, Reply]
    assert last(refused).answer == REFUSALS["en"]


def test_passages_are_read_in_the_rerankers_order() -> None:
    one = chunk("a", "Green tea leaves are brewed at eighty degrees for three minutes.")
    two = chunk("b", "Green tea leaves are brewed slowly.")
    first = ask_over(one, two, reranker=Shortest())(
        QUESTION, tenants=["t"], top_k=2, max_tokens=50, mode="extractive", deadline=Deadline.after(60)
    )
    assert [c.hit.chunk.doc_id for c in first.citations if c.n == 1] == ["b"]
    assert first.timings["rerank"] > 0
