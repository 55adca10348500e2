"""Which files are meant by the paths on a command line, and what their documents are called."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamabda.errors import NotFound
from llamabda.file_kinds import promises_text


@dataclass(frozen=True, slots=True)
class File:
    """A file and the id of its document: the path below the folder that was named, with forward slashes."""

    path: Path
    id: str


@dataclass(frozen=True, slots=True)
class Found:
    files: tuple[File, ...]
    skipped: tuple[Path, ...]  # images, archives and the like inside folders


def find(paths: Sequence[Path]) -> Found:
    """Files as named; of folders all that is in them but what is hidden. NotFound names a path that does not exist."""
    files: dict[Path, File] = {}
    skipped: list[Path] = []
    for path in paths:
        if path.is_dir():
            for inner in _walk(path):
                if promises_text(inner.name):
                    files.setdefault(inner.resolve(), File(inner, document_id(inner.relative_to(path))))
                else:
                    skipped.append(inner)
        elif path.exists():
            files.setdefault(path.resolve(), File(path, document_id(Path(path.name))))
        else:
            raise NotFound(f"there is no file or folder {str(path)[:200]!r}")
    return Found(tuple(files.values()), tuple(skipped))


def document_id(relative: Path) -> str:
    """File names need not be Unicode, ids must."""
    return relative.as_posix().encode("utf-8", "replace").decode()


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):  # does not follow links to folders, which could lead in circles
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path
