"""The signing key's file."""

from __future__ import annotations

import base64
import hashlib
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from llamabda import jws
from llamabda.adapters.key_file import KeyFileSigner
from llamabda.errors import ConfigurationError
from llamabda.tokens import TokenVerifier, mint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "signing-key.pem"


def signer_at(path: Path) -> KeyFileSigner:
    return KeyFileSigner(path, keep=3600)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def put(path: Path, content: bytes, permissions: int = 0o600) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(permissions)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_first_run_makes_a_key_that_only_its_owner_can_read(path: Path, umask: int):
    before = os.umask(umask)
    try:
        signer_at(path)
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert os.listdir(path.parent) == [path.name]


def test_a_second_run_has_the_same_key_and_leaves_the_file_alone(path: Path):
    first = signer_at(path)
    before = path.stat()
    second = signer_at(path)
    assert second.public_jwks() == first.public_jwks()
    assert path.stat() == before


def test_two_places_have_two_keys(tmp_path: Path):
    assert signer_at(tmp_path / "one.pem").key().kid != signer_at(tmp_path / "two.pem").key().kid


def test_the_public_set_is_a_signing_key_without_private_parts_under_its_thumbprint(path: Path):
    signer = signer_at(path)
    (jwk,) = signer.public_jwks()["keys"]
    assert set(jwk) == {"kty", "n", "e", "kid", "use", "alg"}
    assert (jwk["kty"], jwk["use"], jwk["alg"]) == ("RSA", "sig", "RS256")
    canonical = f'{{"e":"{jwk["e"]}","kty":"RSA","n":"{jwk["n"]}"}}'.encode()
    expected = base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).decode().rstrip("=")
    assert jwk["kid"] == signer.key().kid == expected


def test_the_thumbprint_is_that_of_the_standards_example():
    example = (  # RFC 7638, section 3.1
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj"
        "hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ"
        "vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK"
        "nqDKgw"
    )
    key = rsa.RSAPublicNumbers(65537, int.from_bytes(jws.decode(example), "big")).public_key()
    assert jws.public_jwk(key)["kid"] == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert jws.public_jwk(key)["n"] == example


def test_signatures_verify_under_the_public_set(path: Path):
    signer = signer_at(path)
    public = jwt.PyJWK(signer.public_jwks()["keys"][0]).key
    assert public.key_size == 2048
    public.verify(signer.key().sign(b"message"), b"message", PKCS1v15(), SHA256())


def test_a_changed_public_set_does_not_change_the_signer(path: Path):
    signer = signer_at(path)
    kid = signer.key().kid
    signer.public_jwks()["keys"][0].clear()
    assert signer.public_jwks()["keys"][0]["kid"] == kid


@pytest.mark.parametrize("permissions", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o777])
def test_a_file_that_others_can_touch_is_refused_with_the_remedy_that_helps(path: Path, permissions: int):
    kid = signer_at(path).key().kid
    path.chmod(permissions)
    with pytest.raises(ConfigurationError) as caught:
        signer_at(path)
    remedy = f"chmod 600 {path}"
    assert caught.value.message.endswith(remedy)
    assert f"{permissions:04o}" in caught.value.message
    subprocess.run(remedy.split(), check=True)
    assert signer_at(path).key().kid == kid


def pem(key, encryption=None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


UNUSABLE = {
    "empty": b"",
    "garbage": b"secret garbage",
    "cut": pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))[:900],
    "1,024 bits": pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
    "an elliptic curve": pem(ec.generate_private_key(ec.SECP256R1())),
    "encrypted": pem(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"password")),
    "public": ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "huge": b"a" * 10_000_000,
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_file_without_a_usable_key_is_refused_and_left_as_it_is(path: Path, kind: str):
    content = UNUSABLE[kind]
    put(path, content)
    with pytest.raises(ConfigurationError) as caught:
        signer_at(path)
    assert str(path) in caught.value.message
    assert "RSA" in caught.value.message
    assert "garbage" not in caught.value.message
    assert path.read_bytes() == content


@pytest.mark.parametrize("encoding", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("bits", [2048, 3072])
def test_a_key_that_was_made_elsewhere_is_used(path: Path, encoding: PrivateFormat, bits: int):
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    put(path, key.private_bytes(Encoding.PEM, encoding, NoEncryption()))
    signer = signer_at(path)
    assert signer.key().kid == jws.public_jwk(key.public_key())["kid"]
    key.public_key().verify(signer.key().sign(b"message"), b"message", PKCS1v15(), SHA256())


def test_a_place_where_no_file_can_be_is_a_configuration_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for impossible in (tmp_path / "file" / "key.pem", tmp_path, tmp_path / ("k" * 300)):
        with pytest.raises(ConfigurationError, match="SIGNING_KEY_FILE"):
            signer_at(impossible)


def test_a_link_to_nowhere_is_not_followed_to_make_a_key(tmp_path: Path):
    link = tmp_path / "key.pem"
    link.symlink_to(tmp_path / "elsewhere.pem")
    with pytest.raises(ConfigurationError):
        signer_at(link)
    assert os.listdir(tmp_path) == ["key.pem"]


def _kid(place: tuple[str, object]) -> str:
    path, barrier = place
    barrier.wait()
    return signer_at(Path(path)).key().kid


def test_processes_that_start_at_once_end_with_the_same_key(path: Path):
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(4) as pool:
        barrier = manager.Barrier(4)
        kids = pool.map(_kid, [(str(path), barrier)] * 4, chunksize=1)
    assert set(kids) == {signer_at(path).key().kid}
    assert os.listdir(path.parent) == [path.name]


def test_importing_the_signer_makes_no_key(tmp_path: Path):
    code = "import llamabda.adapters.key_file, llamabda.auth, llamabda.adapters.argon2, llamabda.tokens"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def kids(signer: KeyFileSigner) -> list[str]:
    return [key["kid"] for key in signer.public_jwks()["keys"]]


def test_a_new_key_is_published_before_it_signs_and_the_old_one_as_long_as_its_tokens_live(path: Path):
    clock = Clock()
    signer = KeyFileSigner(path, keep=3_600, clock=clock)
    old = signer.key().kid
    new = signer.rotate(after=7_200).kid
    assert (signer.key().kid, kids(signer)) == (old, [old, new])
    clock.now += 7_199
    assert signer.key().kid == old
    clock.now += 2
    assert (signer.key().kid, kids(signer)) == (new, [new, old])
    clock.now += 3_600
    assert (signer.key().kid, kids(signer)) == (new, [new])
    assert mode(path) == 0o600


def test_a_running_signer_notices_what_another_process_rotated(path: Path):
    running, other = signer_at(path), signer_at(path)
    old = running.key().kid
    new = other.rotate(after=0).kid
    assert running.key().kid == new
    assert kids(running) == [new, old]


def test_rotating_again_drops_a_key_that_never_signed_and_those_past_use(path: Path):
    clock = Clock()
    signer = KeyFileSigner(path, keep=100, clock=clock)
    first = signer.key().kid
    signer.rotate(after=50)
    second = signer.rotate(after=50).kid
    assert kids(signer) == [first, second]
    clock.now += 200
    third = signer.rotate(after=0).kid
    assert kids(signer) == [third, second]
    assert path.read_bytes().count(b"BEGIN PRIVATE KEY") == 2


def test_a_key_that_was_made_elsewhere_can_be_rotated_away(path: Path):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    put(path, pem(key))
    signer = signer_at(path)
    new = signer.rotate(after=0).kid
    assert kids(signer) == [new, jws.public_jwk(key.public_key())["kid"]]
    key.public_key().verify(signer.keys()[0].sign(b"message"), b"message", PKCS1v15(), SHA256())


def test_a_token_is_signed_by_the_key_that_it_names_whenever_the_rotation_comes(path: Path):
    signer = signer_at(path)
    verifier = TokenVerifier(signer.public_jwks, "i", "a", refetch=0)
    stop = threading.Event()
    failures: list[BaseException] = []

    def load() -> None:
        while not stop.is_set():
            try:
                verifier.verify(mint(signer, claims()))
            except BaseException as exc:  # noqa: BLE001  (handed to the main thread)
                failures.append(exc)
                return

    held = mint(signer, claims())
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        signer_at(path).rotate(after=0)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert verifier.verify(held).username == "alice"


def claims() -> dict[str, object]:
    now = int(time.time())
    return {"iss": "i", "aud": "a", "sub": "alice", "iat": now, "exp": now + 60, "tenant": "t_" + "a" * 26}
