"""What lies in an image, read once from the stream of its files."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from scripts.supply.environment import SupplyError

HEAD = 65_536  # bytes of a model file that are kept: its description stands at the beginning
PIECE = 1 << 20
MODEL_SUFFIXES = (".gguf", ".onnx", ".safetensors")
_METADATA = ("METADATA", "RECORD")
_NAMES = ("os-release", "status", "copyright", "embedder.json", "modules.json")


@dataclass(frozen=True, slots=True)
class File:
    size: int
    sha256: str  # hex


@dataclass(frozen=True, slots=True)
class Contents:
    """Regular files by path, without a leading "/"; of some of them what is in them, of models the first bytes."""

    files: Mapping[str, File] = field(default_factory=dict)
    texts: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """`id`: "sha256:..." of its configuration. `created`: RFC 3339."""

    name: str
    id: str
    created: str
    architecture: str  # amd64, arm64
    variables: Mapping[str, str]
    layers: tuple[str, ...]  # diff ids, "sha256:..."


def read(stream: tarfile.TarFile) -> Contents:
    files, texts = {}, {}
    for member in stream:
        taken = stream.extractfile(member) if member.isreg() else None
        if taken is None:
            continue
        path = str(PurePosixPath(member.name)).lstrip("/")
        keep = _kept(path)
        digest, kept = hashlib.sha256(), b""
        while piece := taken.read(PIECE):
            digest.update(piece)
            if len(kept) < keep:
                kept += piece[: keep - len(kept)]
        files[path] = File(member.size, digest.hexdigest())
        if keep:
            texts[path] = kept
    return Contents(files, texts)


def _kept(path: str) -> int:
    name, parent = PurePosixPath(path).name, PurePosixPath(path).parent.name
    if parent.endswith(".dist-info") and name in _METADATA:
        return 1 << 24
    if path.endswith(".gguf"):
        return HEAD
    if name in _NAMES and (path.startswith(("etc/", "usr/lib/", "var/lib/dpkg/", "usr/share/doc/", "opt/"))):
        return 1 << 25
    return 0


def inspect(name: str) -> Image:
    """SupplyError when there is no such image, or no engine."""
    (found,) = json.loads(docker("image", "inspect", name))
    environment = dict(one.split("=", 1) for one in found["Config"].get("Env") or () if "=" in one)
    layers = tuple(found["RootFS"].get("Layers") or ())
    return Image(name, found["Id"], found["Created"], found["Architecture"], environment, layers)


@contextmanager
def opened(name: str) -> Iterator[tarfile.TarFile]:
    """All files of an image, as a container would see them. Nothing runs in it."""
    container = docker("create", name).strip()
    try:
        with _piped("docker", "export", container) as stream:
            yield stream
    finally:
        docker("rm", "--force", container)


@contextmanager
def _piped(*command: str) -> Iterator[tarfile.TarFile]:
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|*") as stream:
            yield stream


def docker(*command: str) -> str:
    try:
        done = subprocess.run(["docker", *command], capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        raise SupplyError("there is no docker command") from exc
    if done.returncode:
        raise SupplyError(f"docker {command[0]} failed: {done.stderr.strip()[:300]}")
    return done.stdout
