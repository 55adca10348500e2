"""A folder of the cache: made beside its place by one process at a time, swapped in whole, and known when changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def locked(folder: Path, *, wait: Callable[[Path], None]) -> Iterator[None]:
    """One process at a time makes `folder`; the lock ends with its process, however that ends.

    `wait` is told the lock file when another process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.with_name(folder.name + ".lock")
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait(file)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` to work in, gone afterwards. To be used under its lock."""
    work = folder.with_name(folder.name + ".new")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed; we hold the lock
    try:
        work.mkdir(parents=True)
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def swap(new: Path, folder: Path) -> None:
    """A folder cannot replace a filled one: the old one steps aside first."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def taken_down(folder: Path, files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What `unchanged` compares with: path within the folder -> size in bytes, whole seconds of mtime, SHA-256."""
    found = {}
    for path in sorted(files):
        status = path.stat()
        found[path.relative_to(folder).as_posix()] = {
            "size": status.st_size,
            "mtime": int(status.st_mtime),
            "sha256": sha256(path),
        }
    return found


def unchanged(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether these files are as they were. Sizes and times are looked at; only where a time differs (a copied folder)
    the file is hashed. OSError, KeyError or TypeError when a file or an entry is missing."""
    for path, file in files.items():
        status = (folder / path).stat()
        if status.st_size != file["size"]:
            return False
        if int(status.st_mtime) != file["mtime"] and sha256(folder / path) != file["sha256"]:
            return False
    return True


def sha256(file: Path) -> str:
    """Hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
