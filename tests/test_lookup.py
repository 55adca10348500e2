"""The order of hits when the question names documents by id."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from llamabda.lookup import named_first
from llamabda.types import Hit
from tests.ask_fakes import chunk


def hit(doc_id: str, score: float, *, ordinal: int = 0, **metadata: object) -> Hit:
    return Hit(replace(chunk(doc_id, "text", ordinal=ordinal), metadata=metadata), score)


def order(ids: list[str], named: list[Hit], others: list[Hit] | None = None, *, limit: int = 10) -> list[str]:
    found = named_first(ids, named, others or [], limit=limit)
    return [f"{one.chunk.doc_id}.{one.chunk.ordinal}" for one in found]


def test_the_document_itself_comes_before_those_that_refer_to_it_and_these_before_the_rest():
    named = [hit("b", 0.9, parent_id="A1"), hit("a1", 0.2), hit("a1", 0.3, ordinal=1)]
    assert order(["a1"], named, [hit("x", 0.8), named[0]]) == ["a1.1", "a1.0", "b.0", "x.0"]


def test_every_id_gets_its_best_before_any_gets_its_second():
    named = [*(hit("a1", 0.9 - n / 10, ordinal=n) for n in range(3)), hit("b2", 0.1), hit("c", 0.5, ref_id="C3")]
    assert order(["a1", "b2", "c3"], named) == ["a1.0", "b2.0", "c.0", "a1.1", "a1.2"]


def test_a_document_that_refers_to_all_ids_counts_like_one_that_is_an_id():
    pair = hit("pair", 0.6, left_id="A1", right_id="B2")
    found = named_first(["a1", "b2"], [hit("a1", 0.5), hit("b2", 0.4), pair, hit("c", 0.9, left_id="A1")], [], limit=9)
    assert [(one.chunk.doc_id, one.named) for one in found] == [("a1", 2), ("b2", 2), ("pair", 2), ("c", 1)]


def test_an_id_that_nothing_is_known_by_does_not_count():
    found = named_first(["a1", "zz9"], [hit("c", 0.9, left_id="A1")], [], limit=9)
    assert [(one.chunk.doc_id, one.named) for one in found] == [("c", 1)]


def test_a_score_is_raised_to_the_best_one_behind_it():
    found = named_first(["a1"], [hit("a1", 0.25)], [hit("x", 0.75), hit("y", 0.5)], limit=9)
    assert [one.score for one in found] == [0.75, 0.75, 0.5]


def test_what_no_id_leads_to_stays_as_it_is():
    others = [hit("x", 0.75), hit("y", 0.5)]
    assert named_first(["a1"], [], others, limit=9) == others


REFERENCES = {"a1": ["B2"], "b2": [], "c": ["A1", "B2"], "d": ["C3"], "e": []}
DOCUMENTS = st.builds(
    lambda doc_id, score, ordinal: hit(doc_id, score, ordinal=ordinal, ref_ids=REFERENCES[doc_id]),
    st.sampled_from(sorted(REFERENCES)),
    st.floats(0, 1),
    st.integers(0, 3),
)


def _key(one: Hit) -> str:
    return one.chunk.id


@given(
    st.lists(st.sampled_from(["a1", "b2", "c3", "d4"]), unique=True),
    st.lists(DOCUMENTS, unique_by=_key),
    st.lists(DOCUMENTS, unique_by=_key),
    st.integers(1, 12),
)
def test_the_list_is_whole_descending_and_names_each_chunk_once(ids, named, others, limit):
    others = sorted(others, key=lambda one: -one.score)
    found = named_first(ids, named, others, limit=limit)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert len({one.chunk.id for one in found}) == len(found) <= limit
    kinds = [one.named > 0 for one in found]
    assert kinds == sorted(kinds, reverse=True)
    led_to = {one.chunk.id for one in named if set(ids) & set(map(str.lower, known_as(one.chunk.doc_id)))}
    assert len(found) == min(limit, len(led_to | {one.chunk.id for one in others}))


def known_as(doc_id: str) -> list[str]:
    return [doc_id, *REFERENCES[doc_id]]
