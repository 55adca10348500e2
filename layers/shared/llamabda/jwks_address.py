"""Where an issuer's JWK set is: the address that JWKS_URL holds. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from llamabda.endpoint import Endpoint

EXAMPLE = "https://tokens.example.org/.well-known/jwks.json"
_EXAMPLES = f"{EXAMPLE}, s3://bucket/jwks.json or file:///path/jwks.json"


@dataclass(frozen=True, slots=True)
class FileAddress:
    path: str  # absolute

    def __str__(self) -> str:
        return f"file://{self.path}"


@dataclass(frozen=True, slots=True)
class S3Address:
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


JwksAddress = FileAddress | S3Address | Endpoint


def parse(url: str) -> JwksAddress:
    """ValueError says what is wrong, without repeating the address.

    `http:` only where what travels stays on this machine or in its own network: to a loopback address, or to a name
    without a dot, as the services of a compose network have. Whoever can change a JWK set on its way can make tokens.
    """
    scheme = url.partition(":")[0].lower()
    if scheme == "file":
        return _file(url)
    if scheme == "s3":
        return _s3(url)
    if scheme not in ("http", "https"):
        raise ValueError(f"an address like {_EXAMPLES}")
    found = Endpoint.parse(url, example=EXAMPLE)
    if found.scheme == "http" and not found.is_loopback and ("." in found.host or ":" in found.host):
        raise ValueError(f"https, except for this machine and for names without a dot, like {EXAMPLE}")
    return found


def _file(url: str) -> FileAddress:
    parts = urlsplit(url)
    path = unquote(parts.path)
    plain = parts.netloc in ("", "localhost") and not parts.query and not parts.fragment
    if not plain or not PurePosixPath(path).is_absolute() or "\0" in path or path.endswith("/"):
        raise ValueError("the whole path of a file, like file:///path/jwks.json")
    return FileAddress(path)


def _s3(url: str) -> S3Address:
    found = re.fullmatch(r"(?i:s3)://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.{1,1024})", url)
    if found is None:
        raise ValueError("a bucket and a key in it, like s3://bucket/jwks.json")
    return S3Address(found[1], found[2])
