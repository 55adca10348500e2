"""The signing key in a file that only its owner can read."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
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


class KeyFileSigner:
    """Signs with the RSA key in a PEM file, which is made when it is not there.

    ConfigurationError when the file cannot be made or read, is open to others, or holds no RSA key of 2,048 to 8,192
    bits.
    """

    def __init__(self, path: Path) -> None:
        try:
            if not path.exists():
                _make(path)
            pem = _read(path)
        except OSError as exc:
            raise ConfigurationError(
                f"signing key {path}: {exc.strerror}; SIGNING_KEY_FILE must name a file that can be read, or made"
            ) from exc
        self._key = _load(pem, path)
        self._jwk = jws.public_jwk(self._key.public_key())

    @property
    def kid(self) -> str:
        return self._jwk["kid"]

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message, PKCS1v15(), SHA256())

    def public_jwks(self) -> Mapping[str, object]:
        return {"keys": [dict(self._jwk)]}


def _make(path: Path) -> None:
    """Puts a whole new key at `path`, unless another process is first: then theirs stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65_537, key_size=KEY_BITS)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)  # atomic, and unlike a rename it never replaces
    finally:
        os.unlink(draft)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())  # of the file that is read, not of whatever the name means a moment later
        if status.st_mode & OTHERS:
            mode = stat.S_IMODE(status.st_mode)
            raise ConfigurationError(f"signing key {path} is open to others (mode {mode:04o}): chmod 600 {path}")
        return file.read(MAX_FILE_BYTES)


def _load(pem: bytes, path: Path) -> rsa.RSAPrivateKey:
    wanted = "expected an unencrypted RSA private key of 2,048 to 8,192 bits in PEM"
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # not chained: nothing of the file's content may reach a log
        raise ConfigurationError(f"signing key {path}: {wanted}; remove the file to have one made") from None
    if not isinstance(key, rsa.RSAPrivateKey) or not jws.MIN_KEY_BITS <= key.key_size <= jws.MAX_KEY_BITS:
        raise ConfigurationError(f"signing key {path}: {wanted}; remove the file to have one made")
    return key
