"""Looks for secrets in what an image adds to its base: in its history and in each layer, hidden or not.

`python -m scripts.supply.secrets IMAGE [--base IMAGE]` prints what it finds, without its value, and exits 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from scripts.supply.contents import docker, inspect
from scripts.supply.environment import SupplyError

LARGEST = 20_000_000  # bytes of a file that is searched: longer ones are models and libraries
WHITEOUT = ".wh."  # how a layer says that something is gone

# what it is, what must stand in a text for it to be there at all (looking for that is quick), and how it looks
PATTERNS: tuple[tuple[str, tuple[bytes, ...], re.Pattern[bytes]], ...] = (
    (
        "a private key",  # with its key: libraries hold the first line alone, to recognise one
        (b"PRIVATE KEY-----",),
        re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+(?:[A-Za-z0-9+/=:, -]+\s+){3}"),
    ),
    (
        "an AWS access key",
        (b"AKIA", b"ASIA"),
        re.compile(rb"(?<![A-Z0-9])(?:AKIA|ASIA)(?![A-Z0-9]{9}EXAMPLE)[A-Z0-9]{16}(?![A-Z0-9])"),
    ),
    (
        "an AWS secret key",
        (b"aws_secret_access_key", b"AWS_SECRET_ACCESS_KEY", b"SecretAccessKey"),
        re.compile(
            rb"(?:aws_secret_access_key|AWS_SECRET_ACCESS_KEY|SecretAccessKey)['\"]?\s*[=:]\s*"
            rb"['\"]?(?![^'\"\s]*EXAMPLE)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])"
        ),
    ),
    (
        "a token of GitHub",
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
        re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})\b"),
    ),
    ("a token of a package index", (b"pypi-",), re.compile(rb"\bpypi-[A-Za-z0-9_-]{60,}")),
    ("a token of a model hub", (b"hf_",), re.compile(rb"\bhf_[A-Za-z0-9]{34}\b")),
    ("a token of a chat", (b"xox",), re.compile(rb"\bxox[abprs]-[0-9]{8,}-[A-Za-z0-9-]{20,}")),
    ("a key of a model's API", (b"sk-",), re.compile(rb"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{40,}")),
)
# files that hold credentials, or say where packages come from
NAMES = re.compile(
    r"(^|/)(\.env(\..+)?|\.netrc|_netrc|\.pypirc|\.npmrc|pip\.conf|uv\.toml|\.git-credentials|\.dockercfg|"
    r"id_(rsa|dsa|ecdsa|ed25519)|signing-key\.pem|\.aws/(credentials|config)|\.docker/config\.json|\.git/config)$"
)
PASSWORD_IN_ADDRESS = re.compile(rb"https?://[^/\s:@'\"]+:[^/\s@'\"]+@")
INDEX_OPTION = re.compile(
    rb"(?:--(?:extra-)?index-url|(?:PIP|UV)_(?:EXTRA_)?INDEX(?:_URL)?|TORCH_INDEX_URL)[= ]+['\"]?\w+://"
)


@dataclass(frozen=True, slots=True)
class Finding:
    where: str
    what: str


def in_text(where: str, text: bytes, hosts: Iterable[str] = ()) -> Iterator[Finding]:
    """What looks like a secret in the bytes of a file, and the hosts that must not be named."""
    for what, signs, pattern in PATTERNS:
        if any(sign in text for sign in signs) and pattern.search(text):
            yield Finding(where, what)
    for host in hosts:
        if host.encode() in text and re.search(rb"(?<![\w.-])" + re.escape(host.encode()) + rb"(?![\w-])", text):
            yield Finding(where, "the host of a package index of this machine")


def in_commands(where: str, text: bytes, hosts: Iterable[str] = ()) -> Iterator[Finding]:
    """The same for commands and variables, which have no examples: any password, and any index, is one too many."""
    yield from in_text(where, text, hosts)
    if PASSWORD_IN_ADDRESS.search(text):
        yield Finding(where, "an address with a password")
    if INDEX_OPTION.search(text):
        yield Finding(where, "the address of a package index")


def in_layer(layer: tarfile.TarFile, where: str, hosts: Sequence[str] = ()) -> Iterator[Finding]:
    for member in layer:
        path = str(PurePosixPath(member.name)).lstrip("/")
        if PurePosixPath(path).name.startswith(WHITEOUT) or member.isdir():
            continue
        place = f"{where}: {path}"
        if NAMES.search(path):
            yield Finding(place, "a file of credentials or settings")
        taken = layer.extractfile(member) if member.isreg() and member.size <= LARGEST else None
        if taken is not None:
            yield from in_text(place, taken.read(), hosts)


def in_saved(saved: Path, *, base: Sequence[str] = (), hosts: Sequence[str] = ()) -> list[Finding]:
    """Of what `docker save` wrote of an image: its history, its variables, and the layers that are none of `base`'s."""
    found: list[Finding] = []
    with tarfile.open(saved) as archive:
        (manifest,) = json.loads(_member(archive, "manifest.json"))
        config = json.loads(_member(archive, manifest["Config"]))
        for number, step in enumerate(config.get("history", [])):
            found += in_commands(f"history, step {number}", str(step.get("created_by", "")).encode(), hosts)
        for key in ("Env", "Cmd", "Entrypoint", "Labels"):
            told = json.dumps(config.get("config", {}).get(key))
            found += in_commands(f"configuration, {key}", told.encode(), hosts)
        layers = zip(manifest["Layers"], config["rootfs"]["diff_ids"], strict=True)
        for number, (path, digest) in enumerate(layers):
            if digest in base:
                continue
            stream = archive.extractfile(path)
            assert stream is not None
            with tarfile.open(fileobj=stream, mode="r|*") as layer:
                found += in_layer(layer, f"layer {number}", hosts)
    return found


def _member(archive: tarfile.TarFile, path: str) -> bytes:
    stream = archive.extractfile(path)
    assert stream is not None
    return stream.read()


def index_hosts() -> tuple[str, ...]:
    """The hosts of the package indexes that pip uses on this machine, but for the one that it uses anyway."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    told = [listed, *(value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_")))]
    found = {urlsplit(address).hostname for text in told for address in re.findall(r"https?://[^\s'\"]+", text)}
    return tuple(sorted(host for host in found - {public_host()} if host))


def public_host() -> str:
    """Of the index that pip asks where nothing is configured: packages name it in what they say of themselves."""
    nothing = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    told = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**nothing, "PIP_CONFIG_FILE": os.devnull},
    ).stdout
    address = re.search(r"\(default\s+(https://[^\s)]+)", told)
    return "" if address is None else urlsplit(address[1]).hostname or ""


def of(image: str, base: str = "") -> list[Finding]:
    """SupplyError when the engine does not have them."""
    below = inspect(base).layers if base else ()
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "image.tar"
        docker("save", "--output", str(saved), image)
        return in_saved(saved, base=below, hosts=index_hosts())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("image")
    parser.add_argument("--base", default="", help="the image that it stands on, whose layers are left out")
    given = parser.parse_args(argv)
    try:
        found = of(given.image, given.base)
    except SupplyError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    for one in found:
        print(f"{one.where}: {one.what}")
    print(f"{len(found)} findings in what {given.image} adds to {given.base or 'nothing'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
