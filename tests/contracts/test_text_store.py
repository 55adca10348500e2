"""What every text store promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llamabda.adapters.s3 import S3TextStore
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.texts import SqliteTextStore
from llamabda.ports import TextStore
from llamabda.types import GenerationKey
from tests.aws import TEXTS

MAKERS: dict[str, Callable[[pytest.FixtureRequest], TextStore]] = {
    "sqlite": lambda request: SqliteTextStore(Database(request.getfixturevalue("tmp_path") / "texts.db")),
    "s3": lambda request: S3TextStore(request.getfixturevalue("aws").client("s3"), TEXTS),
}


@pytest.fixture(params=MAKERS)
def texts(request) -> TextStore:
    return MAKERS[request.param](request)


@pytest.mark.parametrize("text", ["plain", "", "ção \U0001f600 e\u0301", "a\x00b", "line\r\nline", "x" * 1_000_000])
def test_a_text_comes_back_exactly(texts, text):
    key = GenerationKey("t", "d/é", 1)
    texts.put(key, text)
    assert texts.get(key) == text


def test_generations_documents_and_tenants_are_apart(texts):
    keys = [GenerationKey(t, d, g) for t in ("a", "b") for d in ("x", "y") for g in (1, 2)]
    for key in keys:
        texts.put(key, str(key))
    texts.delete(keys[:3])
    assert [texts.get(key) for key in keys] == [None] * 3 + [str(key) for key in keys[3:]]


def test_putting_again_replaces_and_deleting_what_is_not_there_is_fine(texts):
    key = GenerationKey("t", "d", 1)
    texts.delete([key])
    texts.put(key, "one")
    texts.put(key, "two")
    assert texts.get(key) == "two"


def test_what_looks_like_another_key_is_not_it(texts):
    """Ids are anybody's to choose: what separates the parts of a key may be in them, and they may be long."""
    ids = ["a/1", "a", "a/", "/a", "../a", "a.txt", "a#1", "é" * 1_000, "é" * 999, " ", ".", "a\x00"]
    keys = [GenerationKey("t", doc_id, generation) for doc_id in ids for generation in (1, 11)]
    for number, key in enumerate(keys):
        texts.put(key, str(number))
    assert [texts.get(key) for key in keys] == [str(number) for number in range(len(keys))]
    texts.delete(keys[::2])
    assert [texts.get(key) for key in keys[::2]] == [None] * len(ids)
    assert None not in [texts.get(key) for key in keys[1::2]]


def test_more_are_deleted_than_one_request_can_name(texts):
    keys = [GenerationKey("t", str(number), 1) for number in range(2_001)]
    here = [keys[0], keys[999], keys[1_000], keys[2_000]]
    for key in here:
        texts.put(key, "x")
    texts.delete(iter([*keys, keys[0]]))
    assert [texts.get(key) for key in here] == [None] * 4
