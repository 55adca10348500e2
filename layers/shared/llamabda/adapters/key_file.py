"""The signing keys in a file that only its owner can read.

The file holds one or more private keys in PEM, each under a line that says from when on it signs. Of those whose time
has come the latest one signs; the public keys of all are published, so that a key is known before it signs, and tokens
that the one before has signed stay good.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from llamabda import jws
from llamabda.errors import ConfigurationError

KEY_BITS = 2_048
MAX_FILE_BYTES = 65_536  # a key of 8,192 bits has 6,400
OTHERS = stat.S_IRWXG | stat.S_IRWXO
_BLOCK = re.compile(
    rb"(?:^# signs from (\d{1,12})\s*$\s*)?(^-----BEGIN [A-Z ]+-----$.*?^-----END [A-Z ]+-----$)", re.M | re.S
)


@dataclass(frozen=True, slots=True)
class FileKey:
    """One RSA key. `signs_from`: epoch seconds; `kid`: RFC 7638 thumbprint."""

    private: rsa.RSAPrivateKey
    signs_from: int
    jwk: Mapping[str, str]

    @property
    def kid(self) -> str:
        return self.jwk["kid"]

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message, PKCS1v15(), SHA256())


class KeyFileSigner:
    """Signs with the RSA keys in a file, which is made when it is not there, and read again when it changed.

    `keep`: seconds for which a key stays published after the next one signs: as long as a token lives. `clock`: epoch
    seconds. ConfigurationError when the file cannot be made or read, is open to others, or holds anything but RSA keys
    of 2,048 to 8,192 bits.
    """

    def __init__(self, path: Path, *, keep: float, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._keep = keep
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: tuple[FileKey, ...] = ()
        with self._translated():
            if not path.exists():
                _write(path, _pem([_new(0)]), replace=False)
        self.keys()

    def key(self) -> FileKey:
        """The one that signs now."""
        keys = self.keys()
        now = self._clock()
        return next((key for key in reversed(keys) if key.signs_from <= now), keys[0])

    def keys(self) -> tuple[FileKey, ...]:
        """All that are not past use, in the order in which they sign."""
        with self._translated():
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            with self._lock:
                if seen != self._seen:
                    self._keys = _parse(_read(self._path), self._path)
                    self._seen = seen
                keys = self._keys
        now = self._clock()
        ends = [*(key.signs_from + self._keep for key in keys[1:]), float("inf")]
        return tuple(key for key, end in zip(keys, ends, strict=True) if end > now)

    def public_jwks(self) -> Mapping[str, object]:
        current = self.key().kid
        keys = sorted(self.keys(), key=lambda key: key.kid != current)
        return {"keys": [dict(key.jwk) for key in keys]}

    def rotate(self, *, after: float) -> FileKey:
        """Adds a key that is published now and signs `after` seconds from now. Keys past use are dropped.

        Safe while others sign, and rotate.
        """
        with self._translated(), _locked(self._path):
            added = _new(int(self._clock() + after))
            # one that has not signed yet is not needed any more
            kept = [key for key in self.keys() if key.signs_from <= self._clock()]
            _write(self._path, _pem([*kept, added]), replace=True)
        return added

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ConfigurationError(
                f"signing key {self._path}: {exc.strerror}; SIGNING_KEY_FILE must name a file that can be read, or made"
            ) from exc


def _new(signs_from: int) -> FileKey:
    return _file_key(rsa.generate_private_key(public_exponent=65_537, key_size=KEY_BITS), signs_from)


def _file_key(private: rsa.RSAPrivateKey, signs_from: int) -> FileKey:
    return FileKey(private, signs_from, jws.public_jwk(private.public_key()))


def _pem(keys: Sequence[FileKey]) -> bytes:
    return b"".join(
        b"# signs from %d\n" % key.signs_from
        + key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for key in keys
    )


def _write(path: Path, content: bytes, *, replace: bool) -> None:
    """Puts the whole content at `path`; without `replace`, what another process puts there first stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(draft, path)
        else:
            with suppress(FileExistsError):
                os.link(draft, path)  # atomic, and unlike a rename it never replaces
    finally:
        Path(draft).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One rotation at a time, over all processes."""
    handle = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())  # of the file that is read, not of whatever the name means a moment later
        if status.st_mode & OTHERS:
            mode = stat.S_IMODE(status.st_mode)
            raise ConfigurationError(f"signing key {path} is open to others (mode {mode:04o}): chmod 600 {path}")
        return file.read(MAX_FILE_BYTES)


def _parse(content: bytes, path: Path) -> tuple[FileKey, ...]:
    wanted = "expected unencrypted RSA private keys of 2,048 to 8,192 bits in PEM"
    refused = ConfigurationError(f"signing key {path}: {wanted}; remove the file to have one made")
    keys = []
    for signs_from, pem in _BLOCK.findall(content.replace(b"\r\n", b"\n")):
        try:
            key = load_pem_private_key(pem + b"\n", password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise refused from None  # not chained: nothing of the file's content may reach a log
        if not isinstance(key, rsa.RSAPrivateKey) or not jws.MIN_KEY_BITS <= key.key_size <= jws.MAX_KEY_BITS:
            raise refused
        keys.append(_file_key(key, int(signs_from or 0)))
    if not keys:
        raise refused
    return tuple(sorted(keys, key=lambda key: key.signs_from))
