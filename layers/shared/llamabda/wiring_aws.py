"""AWS by the settings: clients, and what stands on them. Part of the composition root."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llamabda.aws_clients import BoundedClient
from llamabda.background import Once
from llamabda.errors import ConfigurationError
from llamabda.jwks_address import FileAddress, S3Address
from llamabda.settings import settings
from llamabda.tokens import JwksSource

if TYPE_CHECKING:
    from llamabda.adapters.kms import KmsSigner
    from llamabda.adapters.s3 import S3Objects
    from llamabda.adapters.sqs import SqsQueue
    from llamabda.ports import AttemptStore, Catalog, Embeddings, Metrics, SessionStore, TextStore, UserStore
    from llamabda.publication import DocumentStore, NamedKey
    from llamabda.receipts import Receipts

CONNECT_SECONDS = 1.0
READ_SECONDS = 3.0
OBJECT_READ_SECONDS = 15.0  # S3 may send an object of hundreds of megabytes
ATTEMPTS = 3  # of one request, the first one included
POOL = 40  # connections that are kept: as many as a server has threads
# A key set is asked for again, where a key is not in it, after so many seconds. Looking at a file costs nothing;
# elsewhere one failure when a process starts must not last long.
FILE_REFETCH_SECONDS = 0.0
REFETCH_SECONDS = 10.0


def on_lambda() -> bool:
    return bool(os.environ.get("AWS_LAMBDA_FUNCTION_NAME"))


def required_on_lambda(*names: str) -> None:
    """ConfigurationError on Lambda, where what a process keeps in files is lost: one of these settings must be set."""
    if on_lambda():
        raise ConfigurationError(
            f"{' or '.join(names)} is not set: on Lambda nothing that is kept in files lasts, so it must be"
        )


def client(service: str, *, read_timeout: float = READ_SECONDS) -> Any:
    """A boto3 client, whose calls end by the deadline of what is under way.

    Credentials are looked for as every AWS tool does. ConfigurationError when none can be made.

    Each has a session of its own: making two at once from one session is not safe.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    for name in ("boto3", "botocore", "urllib3"):  # whose debugging lines hold whole requests: texts, hashes, digests
        logging.getLogger(name).setLevel(logging.WARNING)
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=read_timeout,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        tcp_keepalive=True,
        max_pool_connections=POOL,
    )
    try:
        made = boto3.session.Session().client(
            service,
            region_name=os.environ.get("AWS_REGION") or None,  # which boto3 does not read itself
            endpoint_url=settings().aws_endpoint_url or None,
            config=config,
        )
    except (BotoCoreError, ValueError) as exc:  # ValueError: an address in the environment that is none
        advice = "set AWS_REGION" if type(exc).__name__ == "NoRegionError" else str(exc)
        raise ConfigurationError(f"AWS's {service} cannot be used: {advice}") from exc
    return BoundedClient(made)


dynamodb = Once(lambda: client("dynamodb"))
kms = Once(lambda: client("kms"))
sqs = Once(lambda: client("sqs"))
s3 = Once(lambda: client("s3", read_timeout=OBJECT_READ_SECONDS))


def users() -> UserStore:
    from llamabda.adapters.dynamodb.users import DynamoUserStore

    return DynamoUserStore(dynamodb(), settings().users_table)


def sessions() -> SessionStore:
    from llamabda.adapters.dynamodb.sessions import DynamoSessionStore

    return DynamoSessionStore(dynamodb(), settings().users_table)


def attempts() -> AttemptStore:
    from llamabda.adapters.dynamodb.attempts import DynamoAttemptStore

    return DynamoAttemptStore(dynamodb(), settings().users_table)


def texts() -> TextStore:
    from llamabda.adapters.s3 import S3TextStore

    return S3TextStore(s3(), settings().text_bucket)


def objects() -> S3Objects:
    """What is read from buckets."""
    from llamabda.adapters.s3 import S3Objects

    return S3Objects(s3())


def signer() -> KmsSigner:
    from llamabda.adapters.kms import KmsSigner

    return KmsSigner(kms(), settings().kms_key_ids)


def kms_keys(ids: Sequence[str]) -> Callable[[], Sequence[NamedKey]]:
    """The public halves of keys."""
    from llamabda.adapters.kms import KmsSigner

    return KmsSigner(kms(), ids).keys


def documents(bucket: str) -> DocumentStore:
    """Where an issuer's documents lie."""
    from llamabda.adapters.s3 import S3Documents

    return S3Documents(s3(), bucket)


def public_content() -> Callable[[str], bytes]:
    """What an address shows to everybody."""
    from llamabda.adapters.public_address import fetch

    return fetch


def jwks() -> tuple[JwksSource, float]:
    """The source that JWKS_URL names, and after how many seconds it may be asked again."""
    from llamabda.adapters.jwks import file_source, http_source, s3_source

    address = settings().key_set_address
    if address is None:
        raise ConfigurationError("JWKS_URL is not set")
    if isinstance(address, FileAddress):
        return file_source(address), FILE_REFETCH_SECONDS
    if isinstance(address, S3Address):
        return s3_source(address, s3()), REFETCH_SECONDS
    return http_source(address), REFETCH_SECONDS


def metrics() -> Metrics:
    from llamabda.adapters.emf import EmfMetrics

    return EmfMetrics(os.environ["AWS_LAMBDA_FUNCTION_NAME"])


def receipts() -> Receipts | None:
    """None where the runtime does not say how much memory it has: an emulator need not."""
    from llamabda.receipts import Receipts

    memory = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")  # MB
    if not memory.isdecimal() or int(memory) == 0:
        return None
    return Receipts(int(memory), "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64")


@Once
def queue() -> SqsQueue:
    from llamabda.adapters.sqs import SqsQueue

    return SqsQueue(sqs(), settings().queue_url, settings().dead_letter_url)


def catalog() -> Catalog:
    from llamabda.adapters.dynamodb.catalog import DynamoCatalog

    return DynamoCatalog(dynamodb(), settings().catalog_table)


def embeddings() -> Embeddings:
    from llamabda.adapters.dynamodb.embeddings import DynamoEmbeddings

    return DynamoEmbeddings(dynamodb(), settings().catalog_table)
