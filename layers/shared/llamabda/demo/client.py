"""A few HTTP calls to a server on this machine, with nothing but the standard library."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from llamabda.errors import DependencyFailed

TIMEOUT_SECONDS = 120.0  # ingestion of the samples on a slow machine


class Refused(Exception):
    """The server answered, but not with success. `status`: the HTTP one."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Client:
    """`token` is sent once it is set."""

    def __init__(self, url: str) -> None:
        self.token: str | None = None
        self._url = url
        # whatever proxy the environment names, the loopback address is not behind it
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        """The JSON of a reply. Refused, or DependencyFailed when there is none."""
        return json.loads(self.text(path))

    def post(self, path: str, body: object) -> Any:
        return json.loads(self._send(path, json.dumps(body).encode()))

    def text(self, path: str) -> str:
        return self._send(path, None).decode("utf-8")

    def _send(self, path: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self._url + path, data=body, headers=headers)  # noqa: S310  (our own address)
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as reply:
                content: bytes = reply.read()
                return content
        except urllib.error.HTTPError as exc:
            with exc:
                raise Refused(exc.code, exc.read(10_000).decode("utf-8", "replace")) from exc
        except (urllib.error.URLError, ConnectionError, TimeoutError) as exc:
            raise DependencyFailed(f"the server does not answer at {self._url}: {exc}", dependency="server") from exc
