from __future__ import annotations

import pytest

from llamabda.errors import DependencyFailed
from llamabda.search import CANDIDATES, ROUNDS, WIDER, Search
from llamabda.types import Chunk, Deadline, Weights
from tests.ask_fakes import LiveGenerations, WordEmbedder, WordIndex, chunk, word_space


def search_over(*chunks: Chunk, live: dict[str, int] | None = None) -> tuple[Search, WordIndex, LiveGenerations]:
    embedder = WordEmbedder()
    index = WordIndex(embedder, chunks)
    generations = {(c.tenant, c.doc_id): c.generation for c in chunks}
    if live is not None:
        generations = {("t", doc_id): generation for doc_id, generation in live.items()}
    catalog = LiveGenerations(generations)
    return Search(space=lambda: word_space(embedder, index), catalog=catalog), index, catalog  # type: ignore[arg-type]  # it only reads


def found(search: Search, question: str, *, top_k: int = 5, **more: object) -> list[str]:
    arguments = {"tenants": ["t"], "top_k": top_k, "deadline": Deadline.after(60), **more}
    return [hit.chunk.id for hit in search(question, **arguments).hits]  # type: ignore[arg-type]  # a test's shorthand


def test_the_best_chunk_comes_first() -> None:
    search, _, _ = search_over(chunk("a", "green tea"), chunk("b", "black coffee beans"))
    assert found(search, "coffee beans")[0] == "b#1.0"


def test_an_empty_collection_has_no_hits() -> None:
    search, _, _ = search_over()
    assert found(search, "anything") == []


def test_other_tenants_documents_are_not_found() -> None:
    search, _, _ = search_over(chunk("a", "green tea"), chunk("b", "green tea", tenant="other"))
    assert found(search, "green tea") == ["a#1.0"]


def test_a_replaced_generation_is_not_shown() -> None:
    old, new = chunk("a", "green tea", generation=1), chunk("a", "red tea", generation=2)
    search, _, _ = search_over(old, new, live={"a": 2})
    assert found(search, "green tea") == ["a#2.0"]


def test_a_deleted_document_is_not_shown() -> None:
    search, _, _ = search_over(chunk("a", "green tea"), chunk("b", "green tea"), live={"b": 1})
    assert found(search, "green tea") == ["b#1.0"]


def test_live_chunks_crowded_out_by_replaced_ones_are_found_by_a_wider_search() -> None:
    stale = [chunk("a", "green tea", generation=1, ordinal=i) for i in range(2 * CANDIDATES)]
    search, index, _ = search_over(*stale, chunk("b", "some green leaf"), live={"a": 2, "b": 1})
    assert found(search, "green tea") == ["b#1.0"]
    assert index.limits == [CANDIDATES * WIDER**i for i in range(ROUNDS)]


def test_without_replaced_hits_one_search_is_enough() -> None:
    search, index, _ = search_over(chunk("a", "green tea"))
    found(search, "tea")
    assert index.limits == [CANDIDATES]


def test_a_document_replaced_between_search_and_catalog_is_found_by_the_next_search() -> None:
    old, new = chunk("a", "green tea", generation=1), chunk("a", "green tea leaves", generation=2)
    search, index, catalog = search_over(old, live={"a": 1})
    asked = catalog.live

    def swap(documents: object) -> object:
        if len(index.stored) == 1:
            index.stored.append(new)
            catalog.generations[("t", "a")] = 2
        return asked(documents)  # type: ignore[arg-type]  # passed on as it came

    catalog.live = swap  # type: ignore[method-assign,assignment]  # the moment that matters
    assert found(search, "green tea") == ["a#2.0"]


def test_weights_of_the_request_are_used() -> None:
    search, _, _ = search_over(chunk("a", "tea tea tea pot"), chunk("b", "tea"))
    by_vector = search("tea", tenants=["t"], top_k=2, weights=Weights(0, 1), deadline=Deadline.after(60)).hits
    assert [h.chunk.doc_id for h in by_vector] == ["b", "a"]
    assert by_vector[0].score == pytest.approx(1.0)


def test_timings_name_the_stages() -> None:
    search, _, _ = search_over(chunk("a", "tea"))
    assert set(search("tea", tenants=["t"], top_k=1, deadline=Deadline.after(60)).timings) == {"embed", "search"}


def test_after_the_deadline_the_search_fails_clearly() -> None:
    search, _, _ = search_over(chunk("a", "tea"))
    with pytest.raises(DependencyFailed, match="deadline"):
        search("tea", tenants=["t"], top_k=1, deadline=Deadline.after(0))
