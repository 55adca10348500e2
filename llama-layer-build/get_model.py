#!/usr/bin/env python3
"""Puts one GGUF file where an image wants it, verified, and in another number format if that is asked for.

    python llama-layer-build/get_model.py SOURCE --out FILE [--sha256 HEX] [--requantize Q4_0]

SOURCE is a name of the catalogue (`llamabda models list`), an https address, or a path. Needs this project and, to
requantise, llama-cpp-python. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from llamabda import downloads, models
from llamabda.adapters.llama_cpp import requantize
from llamabda.catalogue import CATALOGUE, File
from llamabda.errors import LlamabdaError, ModelError

MAGIC = b"GGUF"
SHA256 = re.compile(r"[0-9a-f]{64}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def get(source: str, sha256: str, kind: str, out: Path) -> None:
    """ModelError when the file cannot be had, is not what `sha256` says, is no GGUF file, or cannot be converted."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="llamabda-model-", dir=out.parent) as folder:
        found = _found(source, sha256, Path(folder))
        with found.open("rb") as file:
            magic = file.read(len(MAGIC))
        if magic != MAGIC:
            raise ModelError(f"{source} is no GGUF file: it begins with {magic!r}")
        if kind:
            say(f"converting to {kind}")
            requantize(found, out, kind)
        else:
            shutil.copyfile(found, out)
    say(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


def _found(source: str, sha256: str, folder: Path) -> Path:
    if source in CATALOGUE:
        if CATALOGUE[source].kind != "generator":
            raise ModelError(f"{source} is no language model: `llamabda models list` names them")
        return models.fetch(source, cache=folder, preparations={"Q4_0": requantize}, progress=say)
    if "://" in source:
        if not sha256:
            raise ModelError(f"a file from elsewhere is taken only by its SHA-256: give --sha256 for {source}")
        file = File("model.gguf", source, sha256, _size(source))
        downloads.download([file], folder, parts=folder / "parts", download_size=0, report=say)
        return folder / file.path
    path = Path(source).expanduser()
    if not path.is_file():
        raise ModelError(f"there is no model {source}: give a name of the catalogue, an https address, or a file")
    if sha256:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != sha256:
            raise ModelError(f"{source} is not the file that was expected: its SHA-256 is {digest}, not {sha256}")
    return path


def _size(address: str) -> int:
    """Bytes, as the server says."""
    downloads.check_scheme(address)
    request = urllib.request.Request(address, method="HEAD", headers={"Accept-Encoding": "identity"})  # noqa: S310
    try:
        opener = urllib.request.build_opener(downloads.SameSafety)
        with opener.open(request, timeout=downloads.TIMEOUT_SECONDS) as reply:
            size = int(reply.headers.get("Content-Length") or 0)
    except (urllib.error.URLError, OSError, ValueError) as exc:
        raise ModelError(f"{address} cannot be reached: {exc}") from exc
    if size <= 0:
        raise ModelError(f"{address} does not say how large it is")
    return size


def _hex(value: str) -> str:
    if value and not SHA256.fullmatch(value.lower()):
        raise argparse.ArgumentTypeError(f"{value!r} is no SHA-256 of 64 hexadecimal digits")
    return value.lower()


def main() -> int:
    parser = argparse.ArgumentParser(description="Gets one GGUF file, verified.")
    parser.add_argument("source", help="a name of the catalogue, an https address, or a path")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--sha256", type=_hex, default="", help="of the file; needed for an address")
    parser.add_argument("--requantize", default="", metavar="KIND", help="a number format, such as Q4_0")
    given = parser.parse_args()
    try:
        get(given.source, given.sha256, given.requantize, given.out)
    except (LlamabdaError, OSError) as exc:
        say(f"error: {exc}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
