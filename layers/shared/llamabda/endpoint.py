"""The base address of an HTTP API. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}
EXAMPLE = "http://127.0.0.1:8080/v1"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`path` begins with a slash, or is empty, and does not end with one."""

    scheme: str  # "http" or "https"
    host: str  # without brackets
    port: int
    path: str

    @classmethod
    def parse(cls, url: str, example: str = EXAMPLE) -> Endpoint:
        """ValueError says what is wrong, without repeating the address: it might hold a password."""
        if not url.isascii() or any(c <= " " or c == "\x7f" for c in url):
            raise ValueError(f"an address of printable ASCII characters without spaces, like {example}")
        try:
            parts = urlsplit(url)
        except ValueError:  # its text quotes what stands between brackets
            raise ValueError(f"an address whose brackets, if any, hold an IPv6 address, like {example}") from None
        if parts.scheme not in PORTS:
            raise ValueError(f"an address that begins with http:// or https://, like {example}")
        if "@" in parts.netloc:
            raise ValueError("no user name or password in the address: there are settings for them")
        if "?" in url or "#" in url:
            raise ValueError(f"an address without ? and #, like {example}")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0 or not parts.hostname:
            raise ValueError(f"an address with a host, and a port from 1 to 65535 if it has one, like {example}")
        return cls(parts.scheme, parts.hostname, port or PORTS[parts.scheme], parts.path.rstrip("/"))

    @property
    def root(self) -> str:
        """The path before the version, where servers keep what is not part of the API."""
        return self.path.removesuffix("/v1")

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there does not leave this machine."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"
