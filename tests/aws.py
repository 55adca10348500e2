"""AWS as the tests have it: moto's server, with the tables that the template describes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from scripts.local import template
from scripts.local.aws import make_server

if TYPE_CHECKING:
    from botocore.client import BaseClient

REGION = "eu-west-1"
USERS, CATALOG, TEXTS = "users-of-the-tests", "catalog-of-the-tests", "texts-of-the-tests"


@dataclass(frozen=True)
class Aws:
    """An account that nothing else uses, empty but for the tables USERS and CATALOG and the bucket TEXTS."""

    endpoint: str

    def client(self, service: str, **config: Any) -> BaseClient:
        """A boto3 client as the product makes them, but for its address. `config`: more of botocore's Config."""
        import boto3
        from botocore.config import Config

        given = {"connect_timeout": 2, "read_timeout": 10, "retries": {"total_max_attempts": 3, "mode": "standard"}}
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(**{**given, **config}),
        )


@pytest.fixture(scope="session")
def aws_server() -> Iterator[str]:
    """The address of a moto server."""
    server = make_server("127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def aws(aws_server: str) -> Aws:
    """Emptied for each test."""
    httpx.post(f"{aws_server}/moto-api/reset").raise_for_status()
    account = Aws(aws_server)
    described = template.read()
    tables = account.client("dynamodb")
    for logical, name in (("UsersTable", USERS), ("CatalogTable", CATALOG)):
        tables.create_table(TableName=name, **template.table(described, logical))
    account.client("s3").create_bucket(Bucket=TEXTS, CreateBucketConfiguration={"LocationConstraint": REGION})
    return account
