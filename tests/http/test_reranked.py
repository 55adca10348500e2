"""RERANK_MODEL over HTTP: a real cross-encoder through the settings, whose order can be computed by hand."""

from __future__ import annotations

import json
import logging
import shutil
import threading

import pytest

from llamabda import wiring, wiring_models
from llamabda.background import Background
from llamabda.errors import ModelError
from llamabda.models import RECORD, fetch
from llamabda.settings import settings
from tests import cross_encoders
from tests.http.conftest import register
from tests.http.test_observability import metrics

REAL_CACHE = wiring_models.cache_dir() / "models"  # before a test sets another
NAME = "sentence-transformers/all-MiniLM-L6-v2"
QUESTION = "where do old boats rest"
# The embedder of these tests counts words, however often they are said, against the length of a text; the reranker
# wants as many of the question's words as possible, at any length.
DOCS = [
    {"id": "few", "text": "old boats boats boats"},
    {"id": "many", "text": "in winter old boats do rest where " + " ".join(f"reed{n} grows" for n in range(12))},
    {"id": "none", "text": "tea is grown in the hills"},
]


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reranker") / "counting"
    return cross_encoders.overlap(folder, fetch(NAME, cache=REAL_CACHE, prepared=False))


@pytest.fixture
def configured(home, monkeypatch, tmp_path):
    """Sets RERANK_MODEL as a start would find it."""

    def configure(value: object) -> None:
        monkeypatch.setenv("RERANK_MODEL", str(value))
        monkeypatch.setenv("LLAMABDA_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(wiring, "_reranker", Background(wiring_models.load_reranker, name="reranker"))
        settings.cache_clear()

    return configure


def found(client, account, **more) -> list[str]:
    reply = client.post("/search", json={"query": QUESTION, "top_k": 2} | more, headers=account.headers)
    assert reply.status_code == 200, reply.text
    scores = [hit["score"] for hit in reply.json()["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    return [hit["doc_id"] for hit in reply.json()["hits"]]


def trained(client):
    alice = register(client, "alice")
    assert client.post("/training/train", json={"docs": DOCS}, headers=alice.headers).status_code == 200
    return alice


def test_a_configured_reranker_orders_the_hits(client, configured, counting):
    client._transport.client = ("127.0.0.1", 50000)  # so that it may read the metrics
    alice = trained(client)
    assert found(client, alice) == ["few", "many"]
    configured(counting)
    assert wiring._reranker.wait() is not None
    assert found(client, alice) == ["many", "few"]
    reply = client.post("/search", json={"query": QUESTION}, headers=alice.headers)
    assert "rerank;dur=" in reply.headers["server-timing"]
    assert client.get("/health/ready").json()["checks"]["reranker"]["status"] == "ok"
    asked = client.post("/ask/question", json={"question": QUESTION}, headers=alice.headers).json()
    assert "rerank" in asked["timings"]
    assert metrics(client)['llamabda_stage_seconds_count{stage="rerank"}'] == 3


def test_it_is_prepared_once_and_again_when_it_is_another(configured, counting, tmp_path):
    source = shutil.copytree(counting, tmp_path / "mine")
    configured(source)
    with pytest.raises(ModelError, match="not in the cache"):
        wiring_models.prepare_reranker(offline=True)
    folder = wiring_models.prepare_reranker()
    assert {"model.onnx", "tokenizer.json", "reranker.json", RECORD} == {file.name for file in folder.iterdir()}
    before = (folder / "model.onnx").stat().st_ino
    assert wiring_models.prepare_reranker(offline=True) == folder
    assert wiring_models.prepare_reranker() == folder
    assert (folder / "model.onnx").stat().st_ino == before
    (source / "tokenizer_config.json").write_text('{"model_max_length": 40}')
    assert wiring_models.prepare_reranker() == folder
    assert json.loads((folder / "reranker.json").read_text())["max_tokens"] == 40
    assert not [path for path in folder.parent.iterdir() if path.suffix in (".new", ".old")]


def test_a_prepared_folder_is_used_where_it_is(configured, counting, tmp_path):
    configured(counting)
    prepared = shutil.copytree(wiring_models.prepare_reranker(), tmp_path / "prepared")
    for value in (prepared, prepared.as_uri()):
        configured(value)
        assert wiring_models.prepare_reranker(offline=True) == prepared
        assert wiring._reranker.wait() is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "there is no such folder"),
        (lambda folder: folder.mkdir(), "has no config.json, model.safetensors, tokenizer.json"),
        (lambda folder: change(folder, model_type="deberta-v2"), "model_type is 'deberta-v2'"),
    ],
    ids=["missing", "empty", "another architecture"],
)
def test_one_that_cannot_be_used_is_told_and_questions_are_answered_without_it(
    client, configured, counting, tmp_path, caplog, make, message
):
    folder = tmp_path / "broken"
    if message.startswith("model_type"):
        shutil.copytree(counting, folder)
    make(folder)
    configured(folder)
    with pytest.raises(ModelError, match=message):
        wiring._reranker.wait()
    alice = trained(client)
    assert found(client, alice) == ["few", "many"]
    reply = client.get("/health/ready")
    assert (reply.status_code, reply.json()["status"]) == (200, "degraded")
    assert reply.json()["checks"]["reranker"]["status"] == "failed"
    assert str(tmp_path) not in reply.text
    with caplog.at_level(logging.ERROR, logger="llamabda"):
        wiring._report()
    assert f"the reranker could not be loaded: {wiring._reranker._error}" in caplog.text


def change(folder, **values):
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


def test_while_it_loads_answers_come_without_it(client, configured, counting, monkeypatch):
    alice = trained(client)
    configured(counting)
    gate = threading.Event()

    def slow() -> object:
        assert gate.wait(60)
        return wiring_models.load_reranker()

    monkeypatch.setattr(wiring, "_reranker", Background(slow, name="reranker"))
    try:
        assert found(client, alice) == ["few", "many"]
        reply = client.get("/health/ready")
        assert (reply.status_code, reply.json()["checks"]["reranker"]["status"]) == (200, "loading")
    finally:
        gate.set()
    wiring._reranker.wait()
    assert found(client, alice) == ["many", "few"]


def test_without_one_readiness_does_not_speak_of_it(client):
    wiring.space()
    assert "reranker" not in client.get("/health/ready").json()["checks"]
