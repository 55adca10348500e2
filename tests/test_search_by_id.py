"""An id in a question leads to its document: over the real index, with vectors that a reader can compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from llamabda import filters
from llamabda.adapters.sqlite import filtering, masks
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.index import SqliteIndex
from llamabda.admission import Admission
from llamabda.ask import Ask
from llamabda.filters import Filter
from llamabda.search import CANDIDATES, CANDIDATES_PER_HIT, WIDER, Search
from llamabda.types import Chunk, Deadline, Found, Hit, Reply
from tests.ask_fakes import LiveGenerations, chunk, word_space
from tests.fakes import WordEmbedder


class Counted:
    """The real index, and how often it was searched."""

    def __init__(self, index: SqliteIndex) -> None:
        self.index = index
        self.searches = 0

    def search(self, *args: object, **more: object) -> list[Found]:
        self.searches += 1
        return self.index.search(*args, **more)  # type: ignore[arg-type]  # passed on


class Collection:
    """Chunks in an index under `folder`; the latest generation of each document that was added is live."""

    def __init__(self, folder: Path, *chunks: Chunk) -> None:
        self.embedder = WordEmbedder()
        self.index = SqliteIndex(Database(folder / "i.db"), cache=folder / "cache", dim=self.embedder.dim)
        self.catalog = LiveGenerations({})
        self.counted = Counted(self.index)
        self.search = Search(space=lambda: word_space(self.embedder, self.counted), catalog=self.catalog)  # type: ignore[arg-type,return-value]  # it only reads
        self.add(*chunks)

    def add(self, *chunks: Chunk) -> None:
        if chunks:
            self.index.add(chunks, self.embedder.embed_documents([c.text for c in chunks]))
        for c in chunks:
            self.catalog.generations[c.tenant, c.doc_id] = c.generation

    def hits(self, question: str, *, top_k: int = 5, **more: object) -> tuple[Hit, ...]:
        arguments = {"tenants": ["t"], "top_k": top_k, "deadline": Deadline.after(60), **more}
        return self.search(question, **arguments).hits  # type: ignore[arg-type]  # a test's shorthand

    def found(self, question: str, **more: object) -> list[str]:
        return [hit.chunk.id for hit in self.hits(question, **more)]

    def ask(self, question: str) -> Reply:
        ask = Ask(
            search=self.search,
            generator=lambda: None,
            admission=Admission(waiting=1),
        )
        return ask(question, tenants=["t"], top_k=5, max_tokens=10, deadline=Deadline.after(60))


def known(doc_id: str, text: str, metadata: Mapping[str, object], **more: object) -> Chunk:
    return replace(chunk(doc_id, text, **more), metadata=metadata)  # type: ignore[arg-type]  # a test's shorthand


TECHNIQUE = known("a", "Nothing here says what it is.", {"id": "T1406"})
CHILD = known("b", "Nothing of the question either.", {"id": "T1406.001", "parent_id": "T1406"})
WORDS = chunk("c", "which mitigations for whom: mitigations, mitigations for all of them")


@pytest.mark.parametrize("question", ["which mitigations for T1406?", "which mitigations for t1406", "(T1406)"])
def test_an_id_leads_to_its_document_whatever_its_words_say(tmp_path, question):
    found = Collection(tmp_path, WORDS, CHILD, TECHNIQUE).found(question)
    assert found[:2] == ["a#1.0", "b#1.0"]


def test_a_longer_id_is_another_id(tmp_path):
    assert Collection(tmp_path, WORDS, CHILD, TECHNIQUE).found("which mitigations for T1406.001?")[0] == "b#1.0"


def test_the_document_s_own_id_is_an_id(tmp_path):
    collection = Collection(tmp_path, WORDS, chunk("reports/INC-42.pdf", "The crane stood still."))
    assert collection.found("which mitigations for inc-42?")[0] == "reports/INC-42.pdf#1.0"


def test_the_rest_of_the_list_is_what_is_found_without_ids(tmp_path):
    collection = Collection(tmp_path, WORDS, CHILD, TECHNIQUE, chunk("d", "mitigations"))
    assert collection.found("mitigations of T1406", top_k=4)[2:] == ["c#1.0", "d#1.0"]
    assert len(collection.found("mitigations of T1406", top_k=1)) == 1


def test_scores_fall_from_first_to_last_and_stay_in_bounds(tmp_path):
    hits = Collection(tmp_path, WORDS, CHILD, TECHNIQUE).hits("which mitigations for T1406?")
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] <= scores[0] <= 1
    assert [hit.named for hit in hits] == [2, 1, 0]


@pytest.mark.parametrize("question", ["which mitigations for T9999?", "which mitigations for B2B?"])
def test_an_id_that_no_document_is_known_by_changes_nothing(tmp_path, question):
    collection = Collection(tmp_path, WORDS, CHILD, TECHNIQUE)
    plain = question.replace("T9999", "zzzz").replace("B2B", "zzzz")
    assert collection.found(question) == collection.found(plain)
    assert all(hit.named == 0 for hit in collection.hits(question))


def test_a_question_without_ids_searches_as_often_as_ever(tmp_path):
    collection = Collection(tmp_path, WORDS, TECHNIQUE)
    collection.found("which mitigations for all?")
    assert collection.counted.searches == 1


def test_an_unknown_id_costs_one_search(tmp_path):
    collection = Collection(tmp_path, WORDS, TECHNIQUE)
    collection.found("which mitigations for T9999?")
    assert collection.counted.searches == 1


def test_a_foreign_document_of_that_id_is_not_found(tmp_path):
    collection = Collection(tmp_path, WORDS, known("x", "foreign", {"id": "T1406"}, tenant="other"))
    assert collection.found("which mitigations for T1406?") == ["c#1.0"]
    assert collection.found("which mitigations for T1406?", tenants=["t", "other"])[0] == "x#1.0"


def test_the_caller_s_filter_holds_for_ids_too(tmp_path):
    draft = known("x", "draft", {"id": "T1406", "state": "draft"})
    collection = Collection(tmp_path, WORDS, draft, known("y", "final", {"id": "T1406", "state": "final"}))
    final = filters.parse({"state": "final"})
    assert collection.found("which mitigations for T1406?", filter=final) == ["y#1.0"]
    assert collection.found("which mitigations for T1406?", filter=filters.parse({"state": "none"})) == []


def test_a_replaced_version_s_ids_lead_nowhere(tmp_path):
    collection = Collection(tmp_path, WORDS, TECHNIQUE)
    collection.add(known("a", "It was renamed.", {"id": "T2000"}, generation=2))
    assert collection.found("which mitigations for T1406?")[0] == "c#1.0"
    assert collection.found("which mitigations for T2000?")[0] == "a#2.0"


def test_a_deleted_document_s_id_leads_nowhere(tmp_path):
    collection = Collection(tmp_path, WORDS, TECHNIQUE)
    del collection.catalog.generations["t", "a"]
    assert collection.found("which mitigations for T1406?") == ["c#1.0"]


def test_of_no_document_two_versions_are_shown_when_it_is_replaced_in_between(tmp_path):
    collection = Collection(tmp_path, TECHNIQUE)
    asked = collection.counted.search

    def replacing(*args: object, **more: object) -> list[Found]:
        found = asked(*args, **more)  # type: ignore[arg-type]  # passed on as it came
        if collection.catalog.generations["t", "a"] == 1:
            collection.add(replace(TECHNIQUE, generation=2))
        return found

    collection.counted.search = replacing  # type: ignore[method-assign]  # the moment that matters
    assert collection.found("what is T1406?") == ["a#2.0"]


def test_every_id_gets_its_document_even_among_thousands_that_refer_to_another(tmp_path):
    crowd = [known(f"n{n}", "what is it then", {"customer_id": "C7"}) for n in range(CANDIDATES + 50)]
    shop = known("shop", "far away", {"id": "C7"})
    collection = Collection(tmp_path, *crowd, shop, TECHNIQUE)
    found = [hit.chunk.doc_id for hit in collection.hits("what is C7 or T1406, what is it then?", top_k=3)]
    assert found[:2] == ["shop", "a"]
    assert found[2].startswith("n")


def test_an_id_is_support_enough_for_an_answer_from_its_document_alone(tmp_path):
    reply = Collection(tmp_path, WORDS, CHILD, TECHNIQUE).ask("which mitigations for T1406?")
    assert reply.answered
    assert reply.answer == "Nothing here says what it is. [1]"
    assert [citation.hit.chunk.doc_id for citation in reply.citations] == ["a"]


def test_an_unknown_id_is_refused(tmp_path):
    collection = Collection(tmp_path, chunk("c", "the harbour opens at eight"), TECHNIQUE)
    assert not collection.ask("who built T9999?").answered


def test_a_mere_reference_is_not_enough_for_what_has_nothing_to_do_with_it(tmp_path):
    collection = Collection(tmp_path, known("room", "the projector hangs from the ceiling", {"room_id": "B12"}))
    assert not collection.ask("what does vitamin B12 do for nerves?").answered
    assert collection.ask("where hangs the projector of B12?").answered


def test_after_the_deadline_no_further_id_is_looked_up(tmp_path):
    """The hits of the plain search are there by then: they are worth more than an error, which this once was."""
    collection = Collection(tmp_path, WORDS, CHILD, TECHNIQUE)
    deadline = Deadline.after(60)
    asked = collection.counted.search

    def late(*args: object, **more: object) -> list[Found]:
        found = asked(*args, **more)
        object.__setattr__(deadline, "at", 0.0)
        return found

    collection.counted.search = late  # type: ignore[method-assign]  # time passes while it searches
    hits = collection.hits("which mitigations for T1406?", deadline=deadline)
    assert [hit.chunk.id for hit in hits] == collection.found("which mitigations for zzzz?")
    assert {hit.named for hit in hits} == {0}
    assert collection.counted.searches == 2  # one of them of the question without an id


def test_hits_are_found_without_ids_when_time_is_over_among_them(tmp_path):
    collection = Collection(tmp_path, WORDS, CHILD, TECHNIQUE)
    deadline = Deadline.after(60)
    asked = collection.counted.search

    def late(*args: object, **more: object) -> list[Found]:
        if collection.counted.searches:  # by id
            object.__setattr__(deadline, "at", 0.0)
        return asked(*args, **more)  # type: ignore[arg-type]  # passed on as it came

    collection.counted.search = late  # type: ignore[method-assign]  # time passes while it searches
    hits = collection.hits("which mitigations for T1406?", deadline=deadline)
    assert hits[0].chunk.id == "c#1.0"
    assert {hit.named for hit in hits} == {0}


def test_each_filter_of_a_question_is_evaluated_once(tmp_path, monkeypatch):
    collection = Collection(tmp_path, WORDS, CHILD, TECHNIQUE)
    evaluated = []

    def counted(db: object, tenant: str, filter: Filter) -> object:
        evaluated.append(filter)
        return filtering.matching(db, tenant, filter)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(masks, "matching", counted)
    wanted = filters.parse({"state": {"$ne": "draft"}})
    collection.found("which mitigations for T1406, T1406.001?", filter=wanted)
    assert evaluated.count(wanted) == 1
    assert len(evaluated) == len({repr(one) for one in evaluated}) == 1 + 1 + 2 * 2  # itself, any id, each id twice


def test_only_searches_that_lost_hits_are_made_wider(tmp_path):
    collection = Collection(tmp_path, WORDS, TECHNIQUE)
    collection.add(replace(WORDS, generation=2))
    limits: list[tuple[bool, int]] = []
    asked = collection.counted.search

    def noted(*args: object, **more: object) -> list[Found]:
        limits.extend((scope.filter is None, scope.limit) for scope in more["scopes"])  # type: ignore[attr-defined]
        return asked(*args, **more)  # type: ignore[arg-type]  # passed on as it came

    collection.counted.search = noted  # type: ignore[method-assign]  # to look on
    assert collection.found("which mitigations for T1406?", top_k=3)[0] == "a#1.0"
    narrow = CANDIDATES_PER_HIT * 3
    assert limits == [
        (True, CANDIDATES), (False, 1), (False, narrow), (False, narrow), (True, CANDIDATES * WIDER),
        (True, CANDIDATES * WIDER**2)
    ]  # fmt: skip


def test_an_index_that_was_made_without_ids_gets_them_when_it_is_opened(tmp_path):
    collection = Collection(tmp_path, WORDS, CHILD, TECHNIQUE)
    with Database(tmp_path / "i.db").write() as db:
        db.execute("DELETE FROM metadata_terms WHERE term LIKE '#%'")
        db.execute("UPDATE meta SET value = '1' WHERE key = 'filters'")
    assert collection.found("which mitigations for T1406?")[0] == "c#1.0"
    reopened = SqliteIndex(Database(tmp_path / "i.db"), cache=tmp_path / "cache", dim=collection.embedder.dim)
    collection.counted.index = reopened
    assert collection.found("which mitigations for T1406?")[:2] == ["a#1.0", "b#1.0"]
