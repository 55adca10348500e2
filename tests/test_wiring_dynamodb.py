"""CATALOG_TABLE puts the catalog into DynamoDB, and everything goes on as before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llamabda import wiring, wiring_aws
from llamabda.adapters.dynamodb.catalog import DynamoCatalog
from llamabda.adapters.dynamodb.embeddings import DynamoEmbeddings
from llamabda.background import Once
from llamabda.chunking import Chunking
from llamabda.errors import ConfigurationError, DependencyFailed
from llamabda.settings import settings
from llamabda.types import Deadline, NewDocument
from tests import dynamodb_table
from tests.aws import CATALOG, REGION, Aws
from tests.http.conftest import home_at


@pytest.fixture
def home(tmp_path, aws: Aws, monkeypatch) -> Iterator[Path]:
    monkeypatch.setattr(wiring_aws, "dynamodb", Once(wiring_aws.dynamodb._make))
    with home_at(tmp_path, tmp_path / "key.pem"):
        for name, value in {  # after the home, which forgets all settings
            "AWS_ENDPOINT_URL": aws.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_CONFIG_FILE": str(tmp_path / "none"),
            "CATALOG_TABLE": CATALOG,
        }.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()
        yield tmp_path


def test_documents_are_trained_found_replaced_and_deleted(home, aws):
    assert isinstance(wiring.catalog(), DynamoCatalog)
    assert isinstance(wiring.embeddings(), DynamoEmbeddings)
    texts = {"a": "The harbour office opens at eight.", "b": "The ferry leaves at noon."}

    def train(doc_id: str, text: str) -> str:
        document = NewDocument(doc_id, text, {"n": 1})
        (trained,) = wiring.ingest().train("shared", [document], chunking=Chunking())
        return trained.state

    def found(question: str) -> list[str]:
        hits = wiring.search()(question, tenants=("shared",), top_k=5, deadline=Deadline.after(20)).hits
        return [hit.chunk.text for hit in hits if hit.text_score]

    assert [train(doc_id, text) for doc_id, text in texts.items()] == ["ready", "ready"]
    assert found("harbour") == [texts["a"]]
    assert train("a", texts["a"]) == "unchanged"
    assert train("a", "The harbour office is closed.") == "ready"
    assert found("harbour") == ["The harbour office is closed."]
    wiring.ingest().delete("shared", "a")
    assert found("harbour") == []
    assert found("ferry") == [texts["b"]]
    assert wiring.embeddings().documents() == 1
    assert [(check, probe()) for check, probe in wiring.checks().items() if check == "catalog"] == [("catalog", "ok")]
    dynamodb_table.check(aws.client("dynamodb"))


def test_readiness_tells_a_table_that_is_not_there(home, monkeypatch):
    monkeypatch.setenv("CATALOG_TABLE", "nowhere")
    settings.cache_clear()
    with pytest.raises(DependencyFailed, match="nowhere"):
        wiring.checks()["catalog"]()


def test_without_a_region_that_is_told(home, monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(ConfigurationError, match="AWS_REGION"):
        wiring.catalog()
