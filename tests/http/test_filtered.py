"""Metadata filters over HTTP."""

from __future__ import annotations

import pytest

from tests.http.problem import checked

DOCS = [
    {"id": "old", "text": "The harbour opens at six.", "metadata": {"year": 2020, "lang": "en", "tags": ["sea"]}},
    {"id": "new", "text": "The harbour opens at eight.", "metadata": {"year": 2026, "lang": "en"}},
    {"id": "pt", "text": "The harbour is called porto.", "metadata": {"year": 2026, "lang": "pt"}},
    {"id": "bare", "text": "The harbour has no date."},
]


@pytest.fixture
def found(client, alice):
    assert client.post("/training/train", json={"docs": DOCS}, headers=alice.headers).json()["indexed"] == len(DOCS)

    def search(filter):
        body = {"query": "harbour opens", "top_k": 10, "filter": filter}
        reply = client.post("/search", json=body, headers=alice.headers)
        assert reply.status_code == 200, reply.text
        return {hit["doc_id"] for hit in reply.json()["hits"]}

    return search


@pytest.mark.parametrize(
    ("filter", "ids"),
    [
        ({"year": 2026}, {"new", "pt"}),
        ({"year": {"$eq": 2026}, "lang": "en"}, {"new"}),
        ({"lang": {"$ne": "en"}}, {"pt", "bare"}),
        ({"lang": {"$in": ["pt", "fr"]}}, {"pt"}),
        ({"year": {"$gt": 2020}}, {"new", "pt"}),
        ({"year": {"$gte": 2020, "$lt": 2026}}, {"old"}),
        ({"year": {"$lte": 2026}}, {"old", "new", "pt"}),
        ({"tags": "sea"}, {"old"}),
        ({"year": {"$exists": False}}, {"bare"}),
        ({"$or": [{"tags": "sea"}, {"$and": [{"year": 2026}, {"lang": "pt"}]}]}, {"old", "pt"}),
        ({"year": 1999}, set()),
    ],
)
def test_only_documents_that_pass_are_found(found, filter, ids):
    assert found(filter) == ids


def test_a_question_is_answered_from_what_passes_only(client, alice, found):
    def ask(filter):
        body = {"question": "When does the harbour open?", "mode": "extractive", "filter": filter}
        return client.post("/ask/question", json=body, headers=alice.headers).json()

    assert {cited["doc_id"] for cited in ask({"year": 2020})["citations"]} == {"old"}
    assert "eight" in ask({"year": 2026, "lang": "en"})["answer"]
    assert not ask({"year": 1999})["answered"]


@pytest.mark.parametrize("path", ["/search", "/ask/question"])
@pytest.mark.parametrize(
    ("filter", "loc"),
    [
        ("year", ["body", "filter"]),
        ({"year": {"$regex": "x"}}, ["body", "filter", "year", "$regex"]),
        ({"$or": [{"a": 1}, {"b": {"$in": []}}]}, ["body", "filter", "$or", 1, "b", "$in"]),
        ({"a": None}, ["body", "filter", "a"]),
    ],
)
def test_a_malformed_filter_is_a_422_that_points_at_the_place(client, alice, path, filter, loc):
    text = {"/search": "query", "/ask/question": "question"}[path]
    reply = client.post(path, json={text: "harbour", "filter": filter}, headers=alice.headers)
    assert loc in [error["loc"] for error in checked(reply, 422)["errors"]]


def test_metadata_alone_makes_a_new_version(client, alice, found):
    changed = {**DOCS[0], "metadata": {"year": 2021}}
    (document,) = client.post("/training/train", json={"docs": [changed]}, headers=alice.headers).json()["documents"]
    assert (document["state"], document["generation"]) == ("ready", 2)
    assert found({"year": 2020}) == set()
    assert found({"year": 2021}) == {"old"}
