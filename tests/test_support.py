from __future__ import annotations

from dataclasses import replace

import pytest

from llamabda.claims import Text
from llamabda.support import RELEVANCE_BOUND, SHORT_EXTRACT, Sentence, answerable, extract, named, rank, relevance
from llamabda.types import Hit
from tests.ask_fakes import chunk


def hit(score: float = 0.5, *, text: float = 0.0, cosine: float = 0.0) -> Hit:
    return Hit(chunk("d", "passage"), score, text_score=text, cosine=cosine)


def sentence(text: str, cosine: float, *, of: int = 0, ordinal: int = 0) -> Sentence:
    return Sentence(of, ordinal, Text(text, tuple(text.lower().split()), frozenset(text.lower().split())), cosine)


def test_the_sentence_with_the_question_s_words_and_sense_comes_first() -> None:
    ranked = rank(
        ["rollo", "leader"],
        [sentence("ships came", 0.1), sentence("rollo was leader", 0.8, ordinal=1)],
        [hit()],
    )
    # .4 * (best BM25 / best BM25) + .6 * .8 + .3 * .5
    assert ranked[0][0] == pytest.approx(0.4 + 0.48 + 0.15)
    assert ranked[0][1].content.text == "rollo was leader"
    assert ranked[1][0] == pytest.approx(0.06 + 0.15)


def test_a_sentence_in_two_overlapping_passages_counts_once_in_the_first() -> None:
    ranked = rank(["x"], [sentence("the  same", 0.5, of=0), sentence("the same", 0.5, of=1)], [hit(), hit()])
    assert [s.hit for _, s in ranked] == [0]


def test_no_sentences_give_no_extract() -> None:
    assert extract(rank(["x"], [], [])) == []


def test_an_extract_has_two_sentences_and_a_third_only_when_short() -> None:
    long = ["a" * 300, "b" * 250, "c" * 100, "d" * 40]
    ranked = [(1 - i / 10, sentence(text, 0, ordinal=9 - i)) for i, text in enumerate(long)]
    chosen = extract(ranked)
    assert [s.content.text[0] for s in chosen] == ["d", "b", "a"]  # in the order of the passage; c would be too long
    assert sum(len(s.content.text) for s in chosen) <= SHORT_EXTRACT


def test_a_further_sentence_far_below_the_best_is_left_out() -> None:
    ranked = [(1.0, sentence("best", 0)), (0.61, sentence("near", 0, ordinal=1)), (0.59, sentence("far", 0, ordinal=2))]
    assert [s.content.text for s in extract(ranked)] == ["best", "near"]


def test_a_heading_is_no_answer() -> None:
    ranked = rank(["fee"], [sentence("## The fee", 0.9), sentence("the fee is 90 reais", 0.5, ordinal=1)], [hit()])
    assert [s.content.text for _, s in ranked] == ["the fee is 90 reais"]


def test_an_extract_begins_with_the_best_passage() -> None:
    ranked = [(0.9, sentence("best", 0, of=2)), (0.8, sentence("second", 0, of=0)), (0.7, sentence("z" * 600, 0))]
    assert [s.hit for s in extract(ranked)] == [2, 0]


def test_relevance_is_the_stated_sum_of_the_best_of_each() -> None:
    hits = [hit(text=0.5, cosine=0.1), hit(text=0.2, cosine=0.6)]
    assert relevance(hits, background=0.2) == pytest.approx(0.3 * 0.5 + 0.7 * 0.5)


def test_what_has_nothing_to_do_with_the_question_is_refused() -> None:
    assert not answerable([], background=0.0)
    assert not answerable([hit(text=0.1, cosine=0.3)], background=0.0)
    assert not answerable([hit(text=1.0, cosine=(RELEVANCE_BOUND - 0.31) / 0.7)], background=0.0)
    assert answerable([hit(text=1.0, cosine=(RELEVANCE_BOUND - 0.29) / 0.7)], background=0.0)


def test_a_document_that_is_what_the_question_names_may_hold_the_answer() -> None:
    assert answerable([hit(), replace(hit(), named=2)], background=0.0)


def test_a_reference_to_what_the_question_names_counts_as_words_in_full() -> None:
    referring = replace(hit(cosine=(RELEVANCE_BOUND - 0.29) / 0.7), named=1)
    assert relevance([referring], background=0.0) == pytest.approx(0.3 + RELEVANCE_BOUND - 0.29)
    assert answerable([referring], background=0.0)
    assert not answerable([replace(referring, cosine=(RELEVANCE_BOUND - 0.31) / 0.7)], background=0.0)


@pytest.mark.parametrize(("levels", "read"), [((0, 0, 0), (0, 1, 2)), ((0, 1, 1), (1, 2)), ((2, 1, 0), (0,))])
def test_only_the_documents_that_ids_name_most_exactly_are_read(levels: tuple[int, ...], read: tuple[int, ...]) -> None:
    hits = [replace(hit(), named=level) for level in levels]
    candidates = [sentence(f"sentence {place}", 0.5, of=place) for place in range(3)]
    assert tuple(s.hit for s in named(candidates, hits)) == read


def test_no_sentences_name_nothing() -> None:
    assert named([], []) == []
