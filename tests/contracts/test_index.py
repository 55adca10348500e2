"""What every index promises."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamabda import filters, identifiers
from llamabda.adapters.opensearch import Connection, Layout, OpenSearchIndex, serverless
from llamabda.adapters.opensearch.mapping import SpaceType
from llamabda.adapters.opensearch.serverless import ServerlessIndex
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.index import SqliteIndex
from llamabda.errors import InvalidInput
from llamabda.ports import Index
from llamabda.types import Chunk, GenerationKey, ScoredChunk, TextMatches
from tests import filter_oracle as oracle
from tests.opensearch_proxy import Proxy, like_serverless

DIM = 4
ENGINE = "lucene"  # "faiss" is native code, which servers made of jars lack


def opensearch_index(space: SpaceType) -> Callable[[pytest.FixtureRequest, Path], Index]:
    def make(request: pytest.FixtureRequest, folder: Path) -> Index:
        connection = Connection(request.getfixturevalue("opensearch"))
        name = f"contract-{secrets.token_hex(6)}"
        request.addfinalizer(lambda: (connection.call("DELETE", f"/{name}*"), connection.close()))
        index = OpenSearchIndex(connection, name, dim=DIM, layout=Layout(ENGINE, space))
        index.make()
        return index

    return make


def serverless_index(request: pytest.FixtureRequest, folder: Path) -> Index:
    """Against the real server, behind what refuses the things that collections refuse."""
    server = request.getfixturevalue("opensearch")
    running = Proxy(server, before=like_serverless).running()
    connection, name = Connection(running.__enter__()), f"contract-{secrets.token_hex(6)}"

    def remove() -> None:
        connection.close()
        running.__exit__(None, None, None)
        Connection(server).call("DELETE", f"/{name}*")

    request.addfinalizer(remove)
    request.getfixturevalue("monkeypatch").setattr(serverless, "POLL_SECONDS", 0.02)
    index = ServerlessIndex(connection, name, dim=DIM, layout=Layout(ENGINE, "l2", shards=3))
    index.make()
    return index


MAKERS: dict[str, Callable[[pytest.FixtureRequest, Path], Index]] = {
    "sqlite": lambda _, folder: SqliteIndex(Database(folder / "index.db"), cache=folder / "cache", dim=DIM),
    "opensearch-l2": opensearch_index("l2"),
    "opensearch-cosinesimil": opensearch_index("cosinesimil"),
    "opensearch-innerproduct": opensearch_index("innerproduct"),
    "opensearch-serverless": serverless_index,
}


@pytest.fixture(params=MAKERS)
def index(request, tmp_path) -> Index:
    return MAKERS[request.param](request, tmp_path)


def chunk(text: str, doc_id: str = "d", *, tenant: str = "t", generation: int = 1, ordinal: int = 0) -> Chunk:
    return Chunk(tenant, doc_id, generation, ordinal, 3, 3 + len(text), text, "f" * 64, {"page": ordinal, "tag": "ção"})


def unit(*numbers: float) -> np.ndarray:
    vector = np.zeros(DIM, np.float32)
    vector[: len(numbers)] = numbers
    return vector / np.linalg.norm(vector)


def add(index: Index, *chunks: Chunk, vectors: list[np.ndarray] | None = None) -> None:
    index.add(chunks, np.stack(vectors or [unit(1)] * len(chunks)))


def by_words(index: Index, query: str, **asked) -> TextMatches:
    (found,) = index.search(query, None, tenants=asked["tenants"], scopes=[scope(**asked)])
    return found.texts


def by_vector(index: Index, vector: np.ndarray, **asked) -> tuple[ScoredChunk, ...]:
    (found,) = index.search("", vector, tenants=asked["tenants"], scopes=[scope(**asked)])
    return found.nearest


def scope(*, limit: int, filter: filters.Filter | None = None, tenants: object = None) -> filters.Scope:
    return filters.Scope(limit, filter)


def text(index: Index, query: str, *tenants: str, limit: int = 10) -> list[str]:
    return [m.chunk.text for m in by_words(index, query, tenants=tenants or ("t",), limit=limit).matches]


def test_an_empty_index_finds_nothing(index):
    found = by_words(index, "anything", tenants=("t",), limit=5)
    assert (found.matches, found.bound) == ((), 0.0)
    assert list(by_vector(index, unit(1), tenants=("t",), limit=5)) == []


def test_what_was_added_is_found_at_once_and_whole(index):
    wanted = chunk("o prazo é de dez dias", ordinal=2)
    add(index, wanted)
    assert by_words(index, "prazo", tenants=("t",), limit=5).matches[0].chunk == wanted
    assert by_vector(index, unit(1), tenants=("t",), limit=5)[0].chunk == wanted


@pytest.mark.parametrize(
    ("query", "stored"),
    [
        ("ferias", "Férias coletivas"),
        ("FÉRIAS", "as férias"),
        ("running", "he runs"),
        ("ﬁne", "a fine day"),
        ("Ⅷ", "viii"),
        ("t1406", "Technique T1406 obfuscation"),
        ("straße", "Strasse"),
        ("данных", "база данных"),
    ],
)
def test_words_meet_whatever_their_case_accents_and_endings(index, query, stored):
    add(index, chunk(stored), chunk("unrelated", "other"))
    assert text(index, query) == [stored]


def bm25(idf: float, average: float, *terms: tuple[int, int]) -> list[float]:
    """`terms`: how often the term occurs, and of how many."""
    return [idf * count / (count + 1.2 * (0.25 + 0.75 * length / average)) for count, length in terms]


def test_scores_are_bm25_over_all_readable_tenants(index):
    add(index, chunk("apple pear", "1"), chunk("apple apple plum plum", "2"), chunk("pear", "3", tenant="shared"))
    found = by_words(index, "apple", tenants=("t", "shared"), limit=10)
    idf = np.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    assert [m.score for m in found.matches] == pytest.approx(bm25(idf, (2 + 4 + 1) / 3, (2, 4), (1, 2)), rel=1e-5)
    assert [m.chunk.doc_id for m in found.matches] == ["2", "1"]
    assert found.bound == pytest.approx(idf, rel=1e-5)


def test_statistics_are_those_of_the_readable_tenants_where_the_index_tells_them_apart(index):
    add(index, chunk("apple pear", "1"), chunk("plum", "2"))
    alone = by_words(index, "apple", tenants=("t",), limit=10)
    add(index, *(chunk("apple", f"{n}", tenant="stranger") for n in range(8)))
    found = by_words(index, "apple", tenants=("t",), limit=10)
    assert [m.chunk for m in found.matches] == [m.chunk for m in alone.matches]
    if isinstance(index, OpenSearchIndex):
        idf = np.log(1 + (10 - 9 + 0.5) / (9 + 0.5))
        assert found.bound == pytest.approx(idf, rel=1e-5)
        assert [m.score for m in found.matches] == pytest.approx(bm25(idf, 11 / 10, (1, 2)), rel=1e-5)
    else:
        assert found == alone


def test_a_word_that_does_not_occur_raises_the_bound_once_and_changes_no_score(index):
    add(index, chunk("apple", "1"), chunk("pear", "2"))
    alone = by_words(index, "apple", tenants=("t",), limit=5)
    more = by_words(index, "apple xyzzy apple xyzzy", tenants=("t",), limit=5)
    assert more.matches == alone.matches
    assert more.bound == pytest.approx(alone.bound + np.log(1 + (2 + 0.5) / 0.5), rel=1e-5)


def test_a_chunk_is_found_by_its_context_too_and_comes_back_without_it(index):
    add(index, replace(chunk("expire on 31 March"), context="Paid leave"), chunk("unrelated", "other"))
    (match,) = by_words(index, "leave", tenants=("t",), limit=5).matches
    assert match.chunk.text == "expire on 31 March"
    assert match.chunk.context == ""


def test_vector_scores_are_cosines_best_first(index):
    vectors = [unit(1, 0), unit(1, 1), unit(-1, 0)]
    add(index, *(chunk(str(at), str(at)) for at in range(3)), vectors=vectors)
    found = by_vector(index, unit(1, 0.2), tenants=("t",), limit=3)
    assert [match.chunk.doc_id for match in found] == ["0", "1", "2"]
    assert [match.score for match in found] == pytest.approx([float(unit(1, 0.2) @ v) for v in vectors], abs=1e-6)


def test_only_readable_tenants_are_searched_even_when_others_match_better(index):
    add(index, chunk("secret plan", "a", tenant="stranger"), chunk("plan", "b"), chunk("plan", "c", tenant="shared"))
    assert text(index, "secret plan", "t") == ["plan"]
    assert {m.chunk.tenant for m in by_vector(index, unit(1), tenants=("t", "shared"), limit=9)} == {"t", "shared"}
    assert list(by_vector(index, unit(1), tenants=(), limit=9)) == []


def test_the_limit_holds_and_ties_are_in_order_of_arrival(index):
    add(index, *(chunk("same", str(at)) for at in range(20)))
    found = by_vector(index, unit(1), tenants=("t",), limit=7)
    assert [match.chunk.doc_id for match in found] == [str(at) for at in range(7)]
    assert len(text(index, "same", limit=3)) == 3


def test_adding_again_replaces(index):
    add(index, chunk("old words"))
    assert text(index, "old") == ["old words"]
    add(index, chunk("new words"))
    assert text(index, "old") == []
    assert text(index, "words") == ["new words"]
    assert by_words(index, "words", tenants=("t",), limit=5).bound == pytest.approx(np.log(1 + 0.5 / 1.5), rel=1e-5)


def test_deleting_takes_exactly_one_generation(index):
    add(index, chunk("first", generation=1), chunk("second", generation=2), chunk("third", "e"))
    assert sorted(text(index, "first second third")) == ["first", "second", "third"]
    index.delete([GenerationKey("t", "d", 1), GenerationKey("t", "never", 1), GenerationKey("u", "d", 2)])
    assert sorted(text(index, "first second third")) == ["second", "third"]
    assert {m.chunk.text for m in by_vector(index, unit(1), tenants=("t",), limit=9)} == {"second", "third"}


def test_deleting_everything_leaves_an_empty_index_that_can_be_filled_again(index):
    add(index, chunk("first"))
    assert text(index, "first") == ["first"]
    index.delete([GenerationKey("t", "d", 1)])
    assert text(index, "first") == []
    add(index, chunk("again", generation=2))
    assert text(index, "again") == ["again"]


def test_chunks_are_listed_in_order_page_by_page(index):
    add(index, *(chunk(f"part {at}", ordinal=at) for at in (3, 0, 2, 1)))
    key = GenerationKey("t", "d", 1)
    assert [c.ordinal for c in index.chunks(key, limit=3)] == [0, 1, 2]
    assert [c.ordinal for c in index.chunks(key, limit=3, after=2)] == [3]
    assert list(index.chunks(GenerationKey("u", "d", 1), limit=3)) == []


@pytest.mark.parametrize("shape", [(1, DIM + 1), (2, DIM), (DIM,)])
def test_vectors_of_a_wrong_shape_are_refused_and_nothing_is_written(index, shape):
    with pytest.raises(InvalidInput, match="shape"):
        index.add([chunk("x")], np.zeros(shape, np.float32))
    assert text(index, "x") == []


def test_a_query_vector_of_a_wrong_dimension_is_refused(index):
    with pytest.raises(InvalidInput, match="shape"):
        by_vector(index, np.zeros(DIM + 1, np.float32), tenants=("t",), limit=1)


@pytest.mark.parametrize("query", ["", "!!!", "\x00", '" OR 1=1 --', "NEAR(a b)", "*", "ação " * 2000])
def test_any_query_text_is_only_by_words(index, query):
    add(index, chunk("something else"))
    assert text(index, query) == []


def test_many_small_additions_equal_one_large_one(index):
    rng = np.random.default_rng(7)
    words = [f"w{n}" for n in range(60)]
    texts = [" ".join(rng.choice(words, 12)) for _ in range(300)]
    vectors = rng.normal(size=(300, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for at, body in enumerate(texts):
        add(index, chunk(body, f"{at:03}"), vectors=[vectors[at]])
        if at % 7 == 0:
            text(index, "w1")
        if at % 11 == 10:
            index.delete([GenerationKey("t", f"{at - 3:03}", 1)])
    gone = {f"{at - 3:03}" for at in range(300) if at % 11 == 10}
    left = [at for at in range(300) if f"{at:03}" not in gone]
    add(index, *(chunk(texts[at], f"{at:03}", tenant="whole") for at in left), vectors=[vectors[at] for at in left])
    for query in ("w1 w2 w3", "w50", "w7 w8"):
        small, whole = (
            [(m.chunk.doc_id, round(m.score, 5)) for m in by_words(index, query, tenants=(t,), limit=400).matches]
            for t in ("t", "whole")
        )
        assert sorted(small) == sorted(whole)
        assert small
    target = unit(0.3, -0.2, 0.9, 0.1)
    small, whole = ([m.chunk.doc_id for m in by_vector(index, target, tenants=(t,), limit=50)] for t in ("t", "whole"))
    assert small == whole


def test_threads_may_write_and_read_at_once(index):
    def work(number: int) -> None:
        for at in range(15):
            add(index, chunk(f"common word{number}x{at}", f"{number}-{at}"))
            assert text(index, f"word{number}x{at}") == [f"common word{number}x{at}"]

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(text(index, "common", limit=200)) == 90


# -- metadata filters


def tagged(metadata: dict[str, object], doc_id: str, *, tenant: str = "t") -> Chunk:
    return Chunk(tenant, doc_id, 1, 0, 0, 5, "apple", "f" * 64, metadata)


def both(index: Index, filter: dict[str, object], *, limit: int = 100, tenants: tuple[str, ...] = ("t",)) -> list[str]:
    """The documents that pass, by either search, which must agree."""
    wanted = filters.parse(filter)
    (found,) = index.search("apple", unit(1), tenants=tenants, scopes=[filters.Scope(limit, wanted)])
    assert {m.chunk.id for m in found.texts.matches} == {m.chunk.id for m in found.nearest}
    return sorted(m.chunk.doc_id for m in found.nearest)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(oracle.METADATA, min_size=1, max_size=6), st.lists(oracle.FILTERS, min_size=1, max_size=8))
def test_a_filter_leaves_exactly_the_documents_whose_metadata_passes(index, documents, wanted):
    index.delete([GenerationKey("t", f"{n}", 1) for n in range(6)])
    add(index, *(tagged(metadata, f"{n}") for n, metadata in enumerate(documents)))
    for filter in wanted:
        assert both(index, filter) == [f"{n}" for n, m in enumerate(documents) if oracle.passes(filter, m)]


def test_a_filter_acts_before_the_best_are_taken_and_leaves_scores_as_they_are(index):
    chunks = [tagged({"n": n}, f"{n:03}") for n in range(200)]
    add(index, *chunks, vectors=[unit(1, n / 100) for n in range(200)])
    found = by_vector(index, unit(1), tenants=("t",), limit=2, filter=filters.parse({"n": {"$gte": 150}}))
    assert [m.chunk.doc_id for m in found] == ["150", "151"]
    everything = by_words(index, "apple", tenants=("t",), limit=1)
    some = by_words(index, "apple", tenants=("t",), limit=1, filter=filters.parse({"n": 7}))
    assert [m.chunk.doc_id for m in some.matches] == ["007"]
    assert some.matches[0].score == everything.matches[0].score
    assert some.bound == everything.bound


def test_a_filter_that_was_asked_before_sees_what_was_written_since(index):
    wanted = {"$and": [{"n": {"$gte": 1}}, {"state": {"$ne": "draft"}}]}
    add(index, tagged({"n": 1}, "a"), tagged({"n": 1, "state": "draft"}, "b"))
    for _ in range(2):
        assert both(index, wanted) == ["a"]
    add(index, tagged({"n": 2}, "c"))
    assert both(index, wanted) == ["a", "c"]
    index.delete([GenerationKey("t", "a", 1)])
    assert both(index, wanted) == ["c"]
    assert both(index, {"n": {"$gte": 1}}) == ["b", "c"]
    assert both(index, wanted, tenants=("t", "nobody")) == ["c"]


def test_a_part_that_was_asked_alone_counts_in_the_whole(index):
    add(index, *(tagged({"n": n, "even": n % 2 == 0}, f"{n}") for n in range(6)))
    even, few, none = {"even": True}, {"n": {"$lt": 3}}, {"n": 9}
    assert both(index, even) == ["0", "2", "4"]
    assert both(index, {"$and": [even, few]}) == ["0", "2"]
    assert both(index, few) == ["0", "1", "2"]
    assert both(index, {"$and": [few, even, {"n": {"$ne": 0}}]}) == ["2"]
    assert both(index, none) == []
    assert both(index, {"$and": [none, even, {"n": {"$gte": 0}}]}) == []


def test_a_filter_never_reaches_another_tenant(index):
    add(index, tagged({"a": 1}, "mine"), tagged({"a": 1}, "theirs", tenant="u"))
    assert both(index, {"a": 1}) == ["mine"]
    assert both(index, {"a": {"$ne": 2}}) == ["mine"]
    assert both(index, {"a": 1}, tenants=("t", "u")) == ["mine", "theirs"]


def test_what_looks_like_a_query_in_a_filter_is_a_value(index):
    evil = "x' OR '1'='1"
    add(index, tagged({evil: evil, "plain": 1}, "evil"), tagged({"plain": 1}, "other"))
    assert both(index, {evil: evil}) == ["evil"]
    assert both(index, {"plain": evil}) == []
    assert both(index, {"%": "%"}) == []


# -- ids: terms that an index keeps beside those of the metadata filters


def by_id(index: Index, wanted: filters.Filter, *tenants: str) -> list[str]:
    """The documents with a term, by either search, which must agree."""
    (found,) = index.search("apple", unit(1), tenants=tenants or ("t",), scopes=[filters.Scope(100, wanted)])
    assert {m.chunk.id for m in found.texts.matches} == {m.chunk.id for m in found.nearest}
    return sorted(m.chunk.id for m in found.nearest)


def test_a_document_is_found_by_its_own_id_and_by_those_it_refers_to(index):
    add(index, tagged({"id": "T1406", "mitigation_ids": ["M1", "M2"]}, "a"), tagged({"caseId": "t1406"}, "x/M1.pdf"))
    assert by_id(index, identifiers.own("t1406")) == ["a#1.0"]
    assert by_id(index, identifiers.known("t1406")) == ["a#1.0", "x/M1.pdf#1.0"]
    assert by_id(index, identifiers.own("m1")) == ["x/M1.pdf#1.0"]
    assert by_id(index, identifiers.known("m2")) == ["a#1.0"]
    assert by_id(index, identifiers.known("t140")) == []


def test_an_id_never_reaches_another_tenant(index):
    add(index, tagged({"id": "A1"}, "mine"), tagged({"id": "A1"}, "A1", tenant="u"))
    assert by_id(index, identifiers.own("a1")) == ["mine#1.0"]
    assert by_id(index, identifiers.known("a1"), "t", "u") == ["A1#1.0", "mine#1.0"]
    assert by_id(index, identifiers.known("a1"), "v") == []


def test_an_id_joins_with_filters(index):
    add(index, tagged({"id": "A1", "year": 1}, "a"), tagged({"ref_id": "A1", "year": 2}, "b"), tagged({"year": 2}, "c"))
    year = filters.parse({"year": 2})
    known = identifiers.known("a1")
    assert by_id(index, filters.And((year, known))) == ["b#1.0"]
    assert by_id(index, filters.And((known, filters.Not(identifiers.own("a1"))))) == ["b#1.0"]
    assert by_id(index, filters.Or((year, known))) == ["a#1.0", "b#1.0", "c#1.0"]


def test_a_generation_has_its_own_ids_until_it_is_deleted(index):
    old, new = tagged({"id": "A1"}, "d"), replace(tagged({"id": "B2"}, "d"), generation=2)
    add(index, old, new)
    assert by_id(index, identifiers.own("a1")) == ["d#1.0"]
    assert by_id(index, identifiers.own("b2")) == ["d#2.0"]
    index.delete([old.key])
    assert by_id(index, identifiers.own("a1")) == []
    assert by_id(index, identifiers.own("b2")) == ["d#2.0"]


def test_what_a_filter_can_say_never_asks_for_an_id(index):
    add(index, tagged({"id": "A1"}, "a"))
    for key in ("#is:a1", "#id:a1", "is:a1"):
        assert both(index, {key: {"$exists": True}}) == []
