"""The models that `llamabda models export` made: where they lie in the cache, and what they were made of."""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamabda import cached_folder

RECORD = ".exported.json"  # in a model's folder, written last: what it was made of
DESCRIPTION = "embedder.json"
FOLDER = "exported"
ORIGINAL = "modules.json"  # what makes a folder one of sentence-transformers
# of a sentence-transformers folder: what can decide a vector
_SUFFIXES = {".json", ".safetensors", ".bin", ".txt", ".model"}


@dataclass(frozen=True, slots=True)
class Exported:
    """`source`: {"kind": "folder", "path", "files", "digest"} or {"kind": "hub", "name", "revision"}.
    `about`: its embedder.json."""

    folder: Path
    name: str
    source: Mapping[str, Any]
    about: Mapping[str, Any]

    @property
    def of(self) -> str:
        """What it was made of: a path, or a name of the hub."""
        return str(self.source["path"] if self.source["kind"] == "folder" else self.source["name"])

    def is_of(self, model: str) -> bool:
        """Whether it was made of this folder, or of this name of the hub."""
        return self.of == (absolute(Path(model)) if self.source["kind"] == "folder" else model)

    @property
    def original(self) -> Path | None:
        """The folder that it was made of; None for one of the hub, or when that is no longer there."""
        return Path(self.of) if self.source["kind"] == "folder" and is_original(Path(self.of)) else None

    @property
    def outdated(self) -> bool:
        """Whether the folder that it was made of holds something else now."""
        if self.original is None:
            return False
        try:
            there = {path.relative_to(self.original).as_posix() for path in _deciding(self.original)}
            known = self.source["files"]
            return there != set(known) or not cached_folder.unchanged(self.original, known)
        except (OSError, KeyError, TypeError):
            return True


def place(name: str, cache: Path) -> Path:
    """Where the model of this name lies, or would."""
    slug = re.sub(r"[^0-9A-Za-z._-]+", "--", name).strip("-.")[-60:]
    return cache / FOLDER / f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def every(cache: Path) -> list[Exported]:
    """In order of name. Folders that cannot be read are left out: exporting again replaces them."""
    found = (_read(record.parent) for record in (cache / FOLDER).glob(f"*/{RECORD}"))
    return sorted((one for one in found if one is not None), key=lambda one: one.name)


def find(name: str, cache: Path) -> Exported | None:
    """By the name that it was given, else by the folder that it was made of."""
    known = every(cache)
    path = absolute(local_path(name))
    matches = [one for one in known if one.name == name] or [one for one in known if one.of == path]
    return matches[0] if matches else None


def find_folder(name: str, cache: Path, say: Callable[[str], None], *, prepared: bool) -> Path | None:
    """The model's folder, or with `prepared=False` the one that it was made of."""
    found = find(name, cache)
    if found is None:
        return None
    if not prepared:
        return found.original
    if found.outdated:
        say(
            f"{found.of} was changed since it was exported, and {name} is still what it was: "
            f"`llamabda models export` makes it anew"
        )
    return found.folder


def is_original(path: Path) -> bool:
    """Whether this is a folder as sentence-transformers saves it, and not one that the onnx embedder loads."""
    return (path / ORIGINAL).is_file() and not (path / DESCRIPTION).is_file()


def local_path(name: str) -> Path:
    """What a path or a `file:` URL names on this machine."""
    text = urllib.request.url2pathname(name[5:].removeprefix("//")) if name.startswith("file:") else name
    return Path(text).expanduser()


def absolute(path: Path) -> str:
    """Links are kept: what a link points to may change."""
    return os.path.abspath(path)


def folder_source(folder: Path) -> dict[str, Any]:
    """What is recorded of a folder. Reads all of it."""
    files = cached_folder.taken_down(folder, _deciding(folder))
    hashes = json.dumps({path: file["sha256"] for path, file in files.items()}, sort_keys=True)
    digest = hashlib.sha256(hashes.encode()).hexdigest()
    return {"kind": "folder", "path": absolute(folder), "digest": digest, "files": files}


def write_record(folder: Path, name: str, source: Mapping[str, Any], versions: Mapping[str, str]) -> None:
    content = {"name": name, "source": source, "versions": versions}
    (folder / RECORD).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _deciding(folder: Path) -> list[Path]:
    """The files that can decide a vector."""

    def counts(path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        return path.suffix in _SUFFIXES and not hidden and path.is_file()

    return [path for path in folder.rglob("*") if counts(path)]


def _read(folder: Path) -> Exported | None:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        about = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        found = Exported(folder, str(record["name"]), dict(record["source"]), dict(about))
        # not one that is stepping aside for its successor, nor one on its way
        return found if found.of and folder == place(found.name, folder.parent.parent) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
