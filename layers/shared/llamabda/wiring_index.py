"""The index in OpenSearch, by the settings. Part of the composition root."""

from __future__ import annotations

import os
from collections.abc import Mapping

from llamabda.adapters.opensearch import Access, Connection, Layout, OpenSearchIndexes
from llamabda.errors import ConfigurationError
from llamabda.settings import Settings


def opensearch_indexes(given: Settings, *, owner: str) -> OpenSearchIndexes:
    """Nothing is asked of the cluster yet."""
    access = opensearch_access(given, os.environ)
    return OpenSearchIndexes(
        Connection(access),
        alias=given.index_name,
        layout=Layout(given.knn_engine, given.knn_space, given.opensearch_shards, given.opensearch_replicas),
        owner=owner,
        serverless=access.service == "aoss",
    )


def opensearch_access(given: Settings, environment: Mapping[str, str]) -> Access:
    """Where OPENSEARCH_HOST is, and how to be let in: by name and password, or by requests that are signed for AWS.

    ConfigurationError when there is no region to sign for.
    """
    endpoint = given.opensearch_endpoint
    if endpoint is None:
        raise ConfigurationError("OPENSEARCH_HOST is not set")
    # domains are called <name>.<region>.es.amazonaws.com, collections <id>.<region>.aoss.amazonaws.com
    parts = endpoint.host.split(".")
    amazon = parts[-2:] == ["amazonaws", "com"] and len(parts) >= 5 and parts[-3] in ("es", "aoss")
    service = "" if given.opensearch_user else given.opensearch_service or (parts[-3] if amazon else "")
    region = parts[-4] if amazon else environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or ""
    if service and not region:
        raise ConfigurationError("requests to OPENSEARCH_HOST are to be signed: set AWS_REGION to its region")
    return Access(
        endpoint.host,
        endpoint.port,
        endpoint.scheme == "https",
        endpoint.path,
        user=given.opensearch_user,
        password=given.opensearch_pass.get_secret_value(),
        service=service,
        region=region,
        ca_certs=str(given.opensearch_ca_certs.expanduser()) if given.opensearch_ca_certs else "",
        timeout=given.opensearch_timeout,
    )
