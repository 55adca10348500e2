"""One cluster: requests to it, and what its failures mean."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from opensearchpy import OpenSearch, RequestsHttpConnection
from opensearchpy.exceptions import ConnectionError as Unconnected
from opensearchpy.exceptions import ConnectionTimeout, SerializationError, SSLError, TransportError

from llamabda.errors import DependencyFailed
from llamabda.types import Deadline

T = TypeVar("T")

# The client writes requests, and so questions and documents, into its log.
logging.getLogger("opensearch").setLevel(logging.CRITICAL)

LEAST_SECONDS = 0.05  # with less time left a request is not sent
FIRST_PAUSE = 0.1  # seconds before something is tried again; doubled each time, and drawn from its half to its whole
LONGEST_PAUSE = 5.0
RETRIED = frozenset({429, 502, 503, 504})
_REASONS = {
    "cluster_block_exception": "it takes no changes: a block is set, as when its disks are almost full",
    "index_not_found_exception": "the index is not there (any more): run `llamabda reindex`",
    "search_phase_execution_exception": "no shard of the index can answer",
    "mapper_parsing_exception": "a field does not fit the index's mapping",
    "strict_dynamic_mapping_exception": "the index's mapping lacks a field: it was not made by this version",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Where a cluster is, and how to be let in. `service`: "es" or "aoss" when requests are signed for AWS, else ""."""

    host: str
    port: int
    tls: bool
    path: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    service: str = ""
    region: str = ""
    ca_certs: str = ""  # a file of certificates, beside those that are trusted anyway
    timeout: float = 10.0  # seconds for one request


class Failed(DependencyFailed):
    """`status`: of the reply; 0 when there was none. `kind`: OpenSearch's name for what went wrong, or ""."""

    def __init__(self, message: str, *, status: int = 0, kind: str = "") -> None:
        super().__init__(message, dependency="index")
        self.status = status
        self.kind = kind

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed a moment later. A cluster that is full stays so for longer."""
        return self.kind != "cluster_block_exception" and (not self.status or self.status in RETRIED)


class _Requests(RequestsHttpConnection):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        if more.get("ca_certs"):
            # else a REQUESTS_CA_BUNDLE in the environment would take the place of the authority that was named
            self.session.trust_env = False


class Connection:
    """Safe to share between threads."""

    def __init__(self, access: Access) -> None:
        self._timeout = access.timeout
        self._client = OpenSearch(
            hosts=[{"host": access.host, "port": access.port, "url_prefix": access.path, "use_ssl": access.tls}],
            http_auth=_credentials(access),
            verify_certs=access.tls,
            ca_certs=access.ca_certs or None,
            connection_class=_Requests,
            pool_maxsize=32,
            max_retries=0,
            timeout=access.timeout,
        )

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | str | None = None,
        *,
        params: Mapping[str, str] | None = None,
        deadline: Deadline | None = None,
    ) -> Any:
        """What the cluster replies, as JSON values. Failed for anything but success."""
        timeout = self._timeout if deadline is None else min(self._timeout, deadline.remaining())
        if timeout < LEAST_SECONDS:
            raise Failed("there was no time left to ask the index")
        try:
            return self._client.transport.perform_request(
                method, path, params={**(params or {}), "request_timeout": timeout}, body=body
            )
        except (TransportError, SerializationError) as exc:
            raise translated(exc, timeout) from None  # its text may hold the request

    def patiently(self, ask: Callable[[], T], deadline: Deadline) -> T:
        """Asks again while the failure may pass and there is time. The request must do no harm when made twice."""
        pause = FIRST_PAUSE
        while True:
            try:
                return ask()
            except Failed as exc:
                if not exc.passing or not wait(pause, deadline):
                    raise
            pause = min(2 * pause, LONGEST_PAUSE)

    def deadline(self, *, requests: float = 1.0) -> Deadline:
        """For work that nobody waits for with a clock: as long as so many requests may take."""
        return Deadline.after(requests * self._timeout)

    def close(self) -> None:
        self._client.close()


def wait(pause: float, deadline: Deadline) -> bool:
    """Between half of `pause` and all of it; False, at once, when there is no time for that."""
    seconds = random.uniform(pause / 2, pause)  # noqa: S311  (not a secret)
    if deadline.remaining() < seconds + LEAST_SECONDS:
        return False
    time.sleep(seconds)
    return True


def translated(exc: Exception, timeout: float) -> Failed:
    """What a failure means, in words that hold neither the request nor credentials."""
    if isinstance(exc, ConnectionTimeout):
        return Failed(f"the index did not answer within {timeout:.1f} s")
    if isinstance(exc, SSLError):
        return Failed(
            "the certificate of the index cannot be verified: OPENSEARCH_CA_CERTS names the authority's", status=495
        )
    if isinstance(exc, Unconnected):
        return Failed("the index cannot be reached: check OPENSEARCH_HOST, and that it is running")
    if isinstance(exc, SerializationError):
        return Failed("the index answers with what is no JSON: does OPENSEARCH_HOST name an OpenSearch server?")
    status = exc.status_code if isinstance(exc, TransportError) and isinstance(exc.status_code, int) else 0
    return refused(status, exc.info if isinstance(exc, TransportError) else None)


def refused(status: int, info: object) -> Failed:
    """What a reply with an error means. `info`: its body."""
    error = info.get("error", info) if isinstance(info, dict) else None
    kind, reason = _cause(error)
    if status in (401, 403) and kind != "cluster_block_exception":
        return Failed(
            f"the index refuses these credentials (status {status}): check OPENSEARCH_USER and OPENSEARCH_PASS, or "
            "the policy of the role that signs",
            status=status,
            kind=kind,
        )
    if status == 429 and kind != "cluster_block_exception":
        return Failed("the index has too much to do (status 429)", status=status, kind=kind)
    said = _REASONS.get(kind) or reason or "without a reason"
    return Failed(
        f"the index cannot do this (status {status}, {kind or 'no error type'}): {said}", status=status, kind=kind
    )


def _cause(error: object) -> tuple[str, str]:
    """Type and reason; of several, those of the innermost that is known."""
    if isinstance(error, str):
        return "", error[:200]
    if not isinstance(error, dict):
        return "", ""
    kind, reason = str(error.get("type") or ""), str(error.get("reason") or "")[:200]
    for inner in (error.get("caused_by"), *(error.get("root_cause") or ())):
        found, why = _cause(inner)
        if found in _REASONS and kind not in ("cluster_block_exception", "index_not_found_exception"):
            return found, why
    return kind, reason


def _credentials(access: Access) -> Any:
    if access.service:
        import boto3
        from requests_aws4auth import AWS4Auth

        found = boto3.Session().get_credentials()
        if found is None:
            raise Failed("there are no AWS credentials to sign requests to the index with")
        return AWS4Auth(region=access.region, service=access.service, refreshable_credentials=found)
    return (access.user, access.password) if access.user else None


def lines(*objects: Mapping[str, Any]) -> str:
    """Newline-delimited JSON."""
    return "".join(
        json.dumps(one, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n" for one in objects
    )
