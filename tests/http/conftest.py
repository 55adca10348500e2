"""The local app over a home of its own: real stores, real tokens, a hand-computable embedder, no language model."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from llamabda_functions.local.app import create_local_app

from llamabda import wiring, wiring_aws
from llamabda.adapters.opensearch import Access, Connection
from llamabda.background import Background, Once
from llamabda.settings import Settings, settings
from tests.fakes import WordEmbedder

PASSWORD = "secret123-never-shown"
HARBOUR = "The harbour office opens at eight in the morning."


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One key for all tests: making one takes as long as the rest of a test."""
    return tmp_path_factory.mktemp("key") / "key.pem"


@contextmanager
def home_at(folder: Path, signing_key: Path) -> Iterator[Path]:
    """Fresh settings and providers over a folder; whatever the developer's environment says does not count."""
    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(name.upper(), raising=False)
        patch.setenv("LLAMABDA_HOME", str(folder))
        patch.setenv("SIGNING_KEY_FILE", str(signing_key))
        patch.setenv("MODEL_PATH", "")
        patch.setenv("MAX_BODY_BYTES", "200000")
        patch.chdir(folder)  # no .env here
        settings.cache_clear()
        for module in (wiring, wiring_aws):
            for name, provider in list(vars(module).items()):
                if isinstance(provider, Once):
                    patch.setattr(module, name, Once(provider._make))
        patch.setattr(wiring, "load_embedder", lambda _model: WordEmbedder())
        patch.setattr(wiring, "_space", Background(wiring._loaded_spaces, name="embedder"))
        yield folder
    settings.cache_clear()


@pytest.fixture
def home(tmp_path: Path, signing_key: Path) -> Iterator[Path]:
    with home_at(tmp_path, signing_key) as folder:
        yield folder


@pytest.fixture
def client(home: Path) -> TestClient:
    return TestClient(create_local_app())


@dataclass(frozen=True)
class Account:
    username: str
    tenant: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def register(client: TestClient, username: str) -> Account:
    """Registers and logs in."""
    credentials = {"username": username, "password": PASSWORD}
    registered = client.post("/auth/register", json=credentials)
    assert registered.status_code == 201, registered.text
    token = client.post("/auth/login", json=credentials).json()["access_token"]
    return Account(username, registered.json()["tenant"], token)


@pytest.fixture
def alice(client: TestClient) -> Account:
    return register(client, "alice")


@pytest.fixture
def harbour(client: TestClient, alice: Account) -> str:
    """The id of a document of alice's."""
    doc = {"id": "notes/harbour", "text": HARBOUR, "metadata": {"lang": "en"}}
    assert client.post("/training/train", json={"docs": [doc]}, headers=alice.headers).status_code == 200
    return "notes/harbour"


@pytest.fixture(params=["embedded", "opensearch"])
def index_settings(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Settings of either index."""
    if request.param == "embedded":
        yield {}
    else:
        with opensearch_settings(request.getfixturevalue("opensearch")) as chosen:
            yield chosen


@contextmanager
def opensearch_settings(server: Access) -> Iterator[dict[str, str]]:
    """Those of indexes of a name of their own, which are removed afterwards."""
    name = f"http-{secrets.token_hex(6)}"
    try:
        yield {"OPENSEARCH_HOST": f"http://{server.host}:{server.port}", "KNN_ENGINE": "lucene", "INDEX_NAME": name}
    finally:
        Connection(server).call("DELETE", f"/{name}-*")
