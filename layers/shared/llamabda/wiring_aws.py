"""Clients of AWS, by the environment. Part of the composition root."""

from __future__ import annotations

import os
from typing import Any

from llamabda.background import Once
from llamabda.errors import ConfigurationError

CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0  # single requests take milliseconds, transactions tens of them
ATTEMPTS = 3
POOL = 32  # connections: those of several requests at once, each of which may ask for several things at once


@Once
def dynamodb_client() -> Any:
    """A boto3 client. ConfigurationError when there is no region."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import NoRegionError

    try:
        return boto3.client(
            "dynamodb",
            region_name=os.environ.get("AWS_REGION") or None,  # None: as AWS's own tools find it
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
                max_pool_connections=POOL,
            ),
        )
    except NoRegionError as exc:
        raise ConfigurationError("there is no region to look for DynamoDB in: set AWS_REGION") from exc
