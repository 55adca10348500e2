"""What every text store promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.texts import SqliteTextStore
from llamabda.ports import TextStore
from llamabda.types import GenerationKey

MAKERS: dict[str, Callable[[Path], TextStore]] = {
    "sqlite": lambda folder: SqliteTextStore(Database(folder / "texts.db")),
}


@pytest.fixture(params=MAKERS)
def texts(request, tmp_path) -> TextStore:
    return MAKERS[request.param](tmp_path)


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
