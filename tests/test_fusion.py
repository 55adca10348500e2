from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabda.fusion import FULL_COVERAGE, above, coverage, fuse
from llamabda.types import ScoredChunk, TextMatches, Weights
from tests.ask_fakes import chunk

A, B, C = (chunk(name, f"text of {name}") for name in "abc")


def matches(bound: float, **scores: float) -> TextMatches:
    found = [ScoredChunk({"a": A, "b": B, "c": C}[name], score) for name, score in scores.items()]
    return TextMatches(tuple(sorted(found, key=lambda m: -m.score)), bound)


def nearest(**cosines: float) -> list[ScoredChunk]:
    found = [ScoredChunk({"a": A, "b": B, "c": C}[name], cosine) for name, cosine in cosines.items()]
    return sorted(found, key=lambda n: -n.score)


def test_the_score_is_the_stated_sum() -> None:
    # text of a: 2 / 2 * min(1, 3 * 2 / 10) = .6; vector of a: (.6 - .2) / .8 = .5
    hits = fuse(matches(10.0, a=2.0), nearest(a=0.6), background=0.2, limit=5, weights=Weights(0.4, 0.6))
    assert hits[0].score == pytest.approx(0.4 * 0.6 + 0.6 * 0.5)
    assert (hits[0].text_score, hits[0].cosine) == (pytest.approx(0.6), 0.6)


def test_weights_need_not_sum_to_one() -> None:
    one = fuse(matches(4.0, a=2.0, b=1.0), nearest(b=0.9, a=0.1), background=0.0, limit=5, weights=Weights(0.4, 0.6))
    two = fuse(matches(4.0, a=2.0, b=1.0), nearest(b=0.9, a=0.1), background=0.0, limit=5, weights=Weights(2, 3))
    assert [(h.chunk.id, pytest.approx(h.score)) for h in one] == [(h.chunk.id, h.score) for h in two]


@pytest.mark.parametrize(("weights", "first"), [(Weights(1, 0), "a"), (Weights(0, 1), "b")])
def test_a_weight_of_zero_silences_one_search(weights: Weights, first: str) -> None:
    hits = fuse(matches(4.0, a=2.0, b=1.0), nearest(b=0.9, a=0.1), background=0.0, limit=1, weights=weights)
    assert [h.chunk.doc_id for h in hits] == [first]


def test_words_that_found_a_crumb_count_less_than_words_that_found_the_query() -> None:
    assert coverage(matches(100.0, a=1.0)) < coverage(matches(2.0, a=1.0)) == 1.0
    assert coverage(matches(1 / FULL_COVERAGE, a=0.5)) == pytest.approx(0.5)


def test_a_chunk_that_only_the_words_found_counts_as_near_as_the_last_of_the_nearest() -> None:
    hits = fuse(matches(1.0, a=1.0), nearest(b=0.8, c=0.4), background=0.0, limit=3, weights=Weights(1, 1))
    found = {h.chunk.doc_id: h for h in hits}
    assert found["a"].score == pytest.approx((1 + 0.4) / 2)
    assert found["a"].cosine == 0.0


def test_nothing_found_gives_no_hits() -> None:
    assert fuse(TextMatches((), 0.0), [], background=0.1, limit=10) == []


def test_equal_scores_come_in_order_of_id() -> None:
    hits = fuse(matches(1.0, c=1.0, a=1.0, b=1.0), nearest(c=0.5, b=0.5, a=0.5), background=0.0, limit=3)
    assert [h.chunk.doc_id for h in hits] == ["a", "b", "c"]


scores = st.lists(st.floats(0, 50), min_size=0, max_size=12)
cosines = st.lists(st.floats(-1, 1), min_size=0, max_size=12)


@given(scores, cosines, st.floats(0, 100), st.floats(0, 0.99), st.floats(0, 5), st.floats(0.01, 5), st.integers(1, 20))
def test_scores_stay_within_bounds_and_no_chunk_comes_twice(
    words: list[float], near: list[float], more: float, background: float, text: float, vector: float, limit: int
) -> None:
    bm25 = sorted(words, reverse=True)
    found = TextMatches(
        tuple(ScoredChunk(chunk(f"d{i}", "x"), s) for i, s in enumerate(bm25)), max(bm25, default=0.0) + more
    )
    close = [ScoredChunk(chunk(f"d{i + 5}", "x"), c) for i, c in enumerate(sorted(near, reverse=True))]
    hits = fuse(found, close, background=background, limit=limit, weights=Weights(text, vector))
    assert len(hits) == min(limit, len({m.chunk.id for m in [*found.matches, *close]}))
    assert len({h.chunk.id for h in hits}) == len(hits)
    assert all(0 <= h.score <= 1 + 1e-9 and 0 <= h.text_score <= 1 for h in hits)
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


@given(st.floats(-1, 1), st.floats(0, 0.99))
def test_a_cosine_above_the_background_lies_between_zero_and_one(cosine: float, background: float) -> None:
    assert 0 <= above(cosine, background) <= 1
    assert (above(cosine, background) > 0) == (cosine > background) or above(cosine, background) == 0


def test_scores_of_a_narrower_search_are_measured_by_the_whole() -> None:
    everything, some = matches(10.0, a=4.0, b=2.0), matches(10.0, b=2.0)
    of_all = fuse(everything, nearest(a=0.9, b=0.5), background=0.1, limit=5)
    of_some = fuse(some, nearest(b=0.5), background=0.1, limit=5, whole=everything)
    assert of_some == [h for h in of_all if h.chunk.doc_id == "b"]
    changed = fuse(matches(10.0, b=8.0), [], background=0.1, limit=5, weights=Weights(1, 0), whole=everything)
    assert changed[0].score <= 1  # the collection changed between the two searches
