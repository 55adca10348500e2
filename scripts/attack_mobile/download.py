"""The bundle from where MITRE publishes it."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Callable
from http.client import HTTPMessage
from typing import IO

from .progress import Progress

URL = "https://raw.githubusercontent.com/mitre-attack/attack-stix-data/master/mobile-attack/mobile-attack.json"
TIMEOUT = 30.0  # seconds without a byte
MAX_BYTES = 200_000_000
_PIECE = 65_536


class DownloadError(Exception):
    """It could not be fetched."""


class _StaySecure(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise DownloadError(f"{req.full_url} redirects to {newurl[:200]}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str = URL, *, progress: Callable[[int], Progress] = lambda total: Progress("download", total)) -> bytes:
    """The whole file. `progress` is made once its size in bytes is known (0: it is not told)."""
    opener = urllib.request.build_opener(_StaySecure)
    try:
        with opener.open(url, timeout=TIMEOUT) as reply:
            told = reply.headers.get("Content-Length", "")
            expected = int(told) if told.isdecimal() else 0
            shown = progress(expected)
            pieces: list[bytes] = []
            while piece := reply.read(_PIECE):
                pieces.append(piece)
                shown.add(len(piece))
                if shown.done > MAX_BYTES:
                    raise DownloadError(f"{url} is larger than {MAX_BYTES:,} bytes: that is not the bundle")
            shown.close()
    except (OSError, http.client.HTTPException) as exc:
        why = str(getattr(exc, "reason", None) or exc) or type(exc).__name__
        raise DownloadError(f"cannot download {url}: {why}") from exc
    if expected and shown.done < expected:
        raise DownloadError(f"the download of {url} broke off after {shown.done:,} of {expected:,} bytes")
    return b"".join(pieces)
