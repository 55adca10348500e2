"""One cluster: requests to it, and what its failures mean."""

from __future__ import annotations

import json
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from opensearchpy import OpenSearch, RequestsHttpConnection
from opensearchpy.exceptions import ConnectionError as Unconnected
from opensearchpy.exceptions import ConnectionTimeout, SerializationError, SSLError, TransportError
from requests import PreparedRequest, ReadTimeout, Response
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import ReadTimeoutError

from llamabda import time_left
from llamabda.errors import DependencyFailed
from llamabda.time_left import TimeIsUp
from llamabda.types import Deadline

T = TypeVar("T")

# The client writes requests, and so questions and documents, into its log.
logging.getLogger("opensearch").setLevel(logging.CRITICAL)

LEAST_SECONDS = 0.05  # with less time left a request is not sent
CONNECT_SECONDS = 3.0  # a host may have several addresses, which are tried one after the other
PART_BYTES = 1 << 16
POOL = 32  # connections that are kept
FIRST_PAUSE = 0.1  # seconds before something is tried again; doubled each time, and drawn from its half to its whole
LONGEST_PAUSE = 5.0
RETRIED = frozenset({429, 502, 503, 504})
_BLOCKED = "cluster_block_exception"
# Kinds of failure whose own words hold nothing of a request, or that are said better in ours.
_REASONS = {
    _BLOCKED: "it takes no changes: a block is set, as when its disks are almost full",
    "index_not_found_exception": "the index is not there (any more): run `llamabda reindex`",
    "index_closed_exception": "the index is closed",
    "search_phase_execution_exception": "no shard of the index can answer",
    "mapper_parsing_exception": "a field does not fit the index's mapping",
    "strict_dynamic_mapping_exception": "the index's mapping lacks a field: run `llamabda reindex --anew`",
    "rejected_execution_exception": "it has too much to do",
    "resource_already_exists_exception": "it is there already",
    "invalid_alias_name_exception": "an index has this name",
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
    ca_certs: str = ""  # a file of certificates, in place of those that are trusted anyway
    timeout: float = 10.0  # seconds for one request


class Failed(DependencyFailed):
    """`status`: of the reply; 0 when there was none. `kind`: OpenSearch's name for what went wrong, or ""."""

    def __init__(self, message: str, *, status: int = 0, kind: str = "", passing: bool | None = None) -> None:
        super().__init__(message, dependency="index")
        self.status = status
        self.kind = kind
        # whether the same request may succeed a moment later
        self.passing = (not status or status in RETRIED) if passing is None else passing


class _Bounded(HTTPAdapter):
    """The time for a reply is that for all of it, and not for each part of it that comes."""

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Response:
        began = time.monotonic()
        response = super().send(request, True, timeout, verify, cert, proxies)
        parts = []
        try:
            while part := response.raw.read1(PART_BYTES, decode_content=True):
                parts.append(part)
                if time.monotonic() - began > timeout[1]:
                    response.close()
                    raise ReadTimeout("the reply did not end in time")
        except ReadTimeoutError as exc:
            raise ReadTimeout("the reply stalled") from exc
        response._content = b"".join(parts)  # what reading it at once would have kept
        return response


class _Requests(RequestsHttpConnection):
    """Speaks to the host that was named, and to nobody else."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _Bounded(pool_maxsize=POOL))
        self.session.max_redirects = 0
        if more.get("ca_certs"):
            # else a REQUESTS_CA_BUNDLE in the environment would take the place of the authority that was named
            self.session.trust_env = False


class _Signing(AuthBase):
    """AWS4Auth keeps what it works on in itself: one request at a time."""

    def __init__(self, access: Access) -> None:
        import boto3
        from requests_aws4auth import AWS4Auth

        found = boto3.Session().get_credentials()
        if found is None:
            raise Failed("there are no AWS credentials to sign requests to the index with", passing=False)
        self._auth = AWS4Auth(region=access.region, service=access.service, refreshable_credentials=found)
        self._lock = threading.Lock()

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        with self._lock:
            signed: PreparedRequest = self._auth(request)
            return signed


class Connection:
    """Safe to share between threads. Nothing is asked of the cluster before the first call."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._made: OpenSearch | None = None
        self._lock = threading.Lock()

    @property
    def host(self) -> str:
        return f"{self._access.host}:{self._access.port}{self._access.path}"

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | str | None = None,
        *,
        params: Mapping[str, str] | None = None,
        deadline: Deadline | None = None,
    ) -> dict[str, Any]:
        """What the cluster replies. Failed for anything but success."""
        timeout = time_left.at_most(self._access.timeout)
        if deadline is not None:
            timeout = min(timeout, deadline.remaining())
        if timeout < LEAST_SECONDS:
            raise Failed("there was no time left to ask the index", passing=False)
        limits: Any = (min(CONNECT_SECONDS, timeout), timeout)
        try:
            client = self._client()
            reply = time_left.bounded(
                lambda: client.transport.perform_request(
                    method, path, params={**(params or {}), "request_timeout": limits}, body=body
                ),
                timeout,
            )
        except DependencyFailed:
            raise
        except TimeIsUp:
            raise Failed(f"the index did not answer within {timeout:.1f} s") from None
        except (TransportError, SerializationError) as exc:
            raise translated(exc, timeout) from None  # its text may hold the request
        except Exception as exc:  # noqa: BLE001  (a border: what signing raises has no common root, and may hold secrets)
            raise Failed(f"the index cannot be asked: {type(exc).__name__}") from None
        if not isinstance(reply, dict):
            raise Failed("the index answers with something else: does OPENSEARCH_HOST name an OpenSearch server?")
        return reply

    def patiently(self, ask: Callable[[], T], deadline: Deadline) -> T:
        """Asks again while the failure may pass and there is time. The request must do no harm when made twice."""
        pause = FIRST_PAUSE
        first: Failed | None = None
        while True:
            try:
                return ask()
            except Failed as exc:
                # the first says more than the last, which may only have had too little time
                first = first or exc
                if not exc.passing:
                    raise first if not exc.status and first.status else exc from None
                if not wait(pause, deadline):
                    raise first from None
            pause = min(2 * pause, LONGEST_PAUSE)

    def deadline(self, *, requests: float = 1.0) -> Deadline:
        """For work that nobody waits for with a clock: as long as so many requests may take."""
        return Deadline.after(time_left.at_most(requests * self._access.timeout))

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def _client(self) -> OpenSearch:
        with self._lock:
            if self._made is None:
                access = self._access
                self._made = OpenSearch(
                    hosts=[
                        {"host": access.host, "port": access.port, "url_prefix": access.path, "use_ssl": access.tls}
                    ],
                    http_auth=_credentials(access),
                    verify_certs=access.tls,
                    ca_certs=access.ca_certs or None,
                    connection_class=_Requests,
                    pool_maxsize=POOL,
                    max_retries=0,
                    timeout=access.timeout,
                )
            return self._made


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
        if "CERTIFICATE_VERIFY_FAILED" in str(exc) or isinstance(exc.info, ssl.SSLCertVerificationError):
            return Failed(
                "the certificate of the index cannot be verified: OPENSEARCH_CA_CERTS names a private authority's",
                passing=False,
            )
        return Failed("there is no TLS connection to the index: check OPENSEARCH_HOST and its port")
    if isinstance(exc, Unconnected):
        return Failed("the index cannot be reached: check OPENSEARCH_HOST, and that it is running")
    if isinstance(exc, SerializationError):
        return Failed("the index answers with what is no JSON: does OPENSEARCH_HOST name an OpenSearch server?")
    status = exc.status_code if isinstance(exc, TransportError) and isinstance(exc.status_code, int) else 0
    return refused(status, exc.info if isinstance(exc, TransportError) else None)


def refused(status: int, info: object) -> Failed:
    """What a reply with an error means. `info`: its body."""
    kinds = _kinds(info.get("error", info) if isinstance(info, dict) else None)
    kind = next((one for one in kinds if one in _REASONS), kinds[0] if kinds else "")
    if any("circuit_breaker" in one or "circuit_breaking" in one for one in kinds):
        return Failed(
            "the index has no memory left for vectors (circuit breaker)", status=status, kind=kind, passing=True
        )
    if kind == _BLOCKED and status not in (403, 429):
        return Failed("the cluster has no manager now", status=status, kind=kind, passing=True)
    if status in (401, 403) and kind != _BLOCKED:
        return Failed(
            f"the index refuses these credentials (status {status}): check OPENSEARCH_USER and OPENSEARCH_PASS, or "
            "the policy of the role that signs",
            status=status,
            kind=kind,
        )
    said = _REASONS.get(kind, "its log says more")
    message = f"the index cannot do this (status {status}, {kind or 'no type of error'}): {said}"
    return Failed(message, status=status, kind=kind, passing=status in RETRIED and kind != _BLOCKED)


def _kinds(error: object, depth: int = 0) -> list[str]:
    """The types of an error and of what caused it, from the outside. Reasons are left: they quote requests."""
    if not isinstance(error, dict) or depth > 5:
        return []
    found = [str(error["type"])] if error.get("type") else []
    root = error.get("root_cause")
    causes = [error.get("caused_by"), *(root if isinstance(root, list) else ())]
    return found + [kind for cause in causes for kind in _kinds(cause, depth + 1)]


def _credentials(access: Access) -> Any:
    if access.service:
        return _Signing(access)
    # as bytes: else whatever is beyond Latin-1 could not be sent
    return (access.user.encode(), access.password.encode()) if access.user else None


def lines(*objects: Mapping[str, Any]) -> str:
    """Newline-delimited JSON."""
    return "".join(f"{json.dumps(one, ensure_ascii=False, separators=(',', ':'))}\n" for one in objects)
