"""Llamabda's HTTP API as this script needs it: one request after another, each tried again while there is hope."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage
from ipaddress import ip_address
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

TIMEOUT = 90.0  # seconds of one request; training waits for up to 20
ATTEMPTS = 6
LONGEST_WAIT = 60.0  # seconds between two attempts, whatever the server asks for
MAX_REPLY = 64_000_000  # bytes
_PASSING = frozenset((429, 500, 502, 503, 504))  # what may go well another time


class UsageError(Exception):
    """An argument makes no sense."""


class ApiError(Exception):
    """The API cannot be reached, or does not answer as it should."""


class Unauthorized(ApiError):
    """The token is not accepted."""


class Rejected(ApiError):
    """A reply of another 4xx. `problem` is its body, {} when that is no JSON object."""

    def __init__(self, message: str, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token goes to the address that was given and nowhere else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


@dataclass(slots=True)
class Api:
    """`base`: the API's address without a trailing slash. `say` gets a line when there is a wait.

    Raises UsageError when the address or the token cannot be one.
    """

    base: str
    token: str = field(repr=False)
    say: Callable[[str], None]
    pause: Callable[[float], None] = time.sleep
    _opener: urllib.request.OpenerDirector = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.base = _checked(self.base)
        if not re.fullmatch(r"[!-~]{1,8192}", self.token):
            raise UsageError("the token must be one word of visible ASCII characters, as /auth/login returned it")
        # a proxy from the environment has no business between two programs on one machine
        direct = [urllib.request.ProxyHandler({})] if is_local(self.base) else []
        self._opener = urllib.request.build_opener(_NoRedirects, *direct)

    def train(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._object("POST", "/training/train", body)

    def document(self, doc_id: str) -> dict[str, Any] | None:
        """None: there is none."""
        try:
            return self._object("GET", f"/documents/{quote(doc_id, safe='')}")
        except Rejected as exc:
            if exc.status == 404:
                return None
            raise

    def documents(self, **query: str) -> Iterator[dict[str, Any]]:
        """The caller's own, page by page."""
        cursor: str | None = None
        while True:
            asked = {"limit": "200", **query, **({"cursor": cursor} if cursor else {})}
            page = self._object("GET", f"/documents?{urlencode(asked)}")
            documents = page.get("documents")
            if not isinstance(documents, list):
                raise ApiError(f"GET {self.base}/documents answered without a list of documents: is this Llamabda?")
            yield from documents
            following = page.get("next_cursor")
            if not following or following == cursor:
                return
            cursor = str(following)

    def delete(self, doc_id: str) -> None:
        """Gone already is as good."""
        try:
            self._send("DELETE", f"/documents/{quote(doc_id, safe='')}")
        except Rejected as exc:
            if exc.status != 404:
                raise

    def _object(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        found = _object(self._send(method, path, body))
        if found is None:
            raise ApiError(f"{method} {self.base}{path} did not answer with a JSON object: is this Llamabda?")
        return found

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """The body of a reply of 2xx."""
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(1, ATTEMPTS + 1):
            wait = float(2 ** (attempt - 1))
            headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
            if data is not None:
                headers["Content-Type"] = "application/json"
            request = urllib.request.Request(self.base + path, data, headers, method=method)  # noqa: S310  (see _checked)
            try:
                with self._opener.open(request, timeout=TIMEOUT) as reply:
                    return _whole(reply)
            except urllib.error.HTTPError as exc:
                problem = _problem(exc)
                if exc.code not in _PASSING:
                    raise self._refused(method, path, exc, problem) from exc
                why = f"{exc.code} {problem.get('detail') or exc.reason}"
                wait = _retry_after(exc.headers.get("Retry-After"), wait)
            except (OSError, http.client.HTTPException) as exc:  # URLError and timeouts are OSErrors
                why = str(getattr(exc, "reason", None) or exc) or type(exc).__name__
            if attempt < ATTEMPTS:
                wait = min(wait, LONGEST_WAIT)
                self.say(f"{method} {self.base}{path.partition('?')[0]}: {why}; trying again in {wait:.0f} s")
                self.pause(wait)
        raise ApiError(f"{method} {self.base}{path.partition('?')[0]} failed {ATTEMPTS} times, at last with: {why}")

    def _refused(self, method: str, path: str, exc: urllib.error.HTTPError, problem: Mapping[str, Any]) -> ApiError:
        what = f"{method} {self.base}{path.partition('?')[0]}"
        if exc.code in (401, 403):
            return Unauthorized(
                f"{what} refused the token ({exc.code}): it may have expired; get a new one from POST /auth/login"
            )
        if exc.code < 400:
            return ApiError(
                f"{what} points somewhere else ({exc.code}), where the token will not be sent: "
                "give the address that the API really has"
            )
        detail = problem.get("detail") or exc.reason
        errors = problem.get("errors")
        first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
        loc = first.get("loc")
        place = f" ({'.'.join(map(str, loc))}: {first.get('msg')})" if isinstance(loc, list) else ""
        return Rejected(f"{what} answered {exc.code}: {detail}{place}", exc.code, problem)


def is_local(address: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _whole(reply: http.client.HTTPResponse) -> bytes:
    """The body, which may not be longer than MAX_REPLY. IncompleteRead when it was cut off on the way."""
    body = reply.read(MAX_REPLY)
    told = reply.headers.get("Content-Length", "")
    if told.isdigit() and len(body) < min(int(told), MAX_REPLY):
        raise http.client.IncompleteRead(body, int(told) - len(body))
    return body


def _problem(error: urllib.error.HTTPError) -> dict[str, Any]:
    """What the server says of an error, if that arrives."""
    try:
        with error:
            return _object(error.read(MAX_REPLY)) or {}
    except (OSError, http.client.HTTPException):
        return {}


def _checked(address: str) -> str:
    wrong = f"--api takes an address like http://127.0.0.1:8000, not {address[:200]!r}"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as exc:
        raise UsageError(f"{wrong}: {exc}") from exc
    if not usable or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", address):
        raise UsageError(wrong)
    if parts.username is not None or parts.password is not None:
        raise UsageError("--api must not hold a user name or a password: the token says who you are")
    return address.rstrip("/")


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _retry_after(value: str | None, otherwise: float) -> float:
    """Seconds, from a number of them or a date."""
    if value is None:
        return otherwise
    if value.strip().isdecimal():
        return max(1.0, float(value))
    try:
        return max(1.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return otherwise
