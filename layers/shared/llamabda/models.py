"""Gets models by name: fetched once into a cache, verified, prepared, and put in place as a whole."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llamabda import cached_folder, downloads, exported
from llamabda.catalogue import CATALOGUE, Entry
from llamabda.errors import ModelError

RECORD = ".fetched.json"  # in a model's folder: what it was made of, and sizes and times of its files


class Preparation(Protocol):
    """Turns what was downloaded into what is used, once.

    Of an embedder `source` and `target` are folders, of a generator files. `target` does not exist yet, or is an empty
    folder. `kind` is the entry's `preparation`.
    """

    def __call__(self, source: Path, target: Path, kind: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a model lies in the cache, and what it must have been made of."""

    folder: Path
    key: str

    @property
    def record(self) -> Path:
        return self.folder / RECORD


def fetch(
    name: str,
    *,
    cache: Path,
    preparations: Mapping[str, Preparation] | None = None,
    progress: Callable[[str], None] | None = None,
    offline: bool = False,
    prepared: bool = True,
    catalogue: Mapping[str, Entry] = CATALOGUE,
) -> Path:
    """The folder of an embedder, or the file of a generator, ready to use.

    `name`: one of the catalogue, then what `llamabda models export` made under that name or of that folder, then the
    path or `file:` URL of something on this machine, which is used as it is.
    `preparations`: those that the catalogue's entries name; those of embedders are built in. `prepared=False` gives
    the files as they were published. With a warm cache neither the network is used nor anything hashed.

    ModelError: unknown name, not to be had, not what its SHA-256 says, or offline and not in the cache.
    """
    entry = catalogue.get(name)
    say = progress or _silent
    if entry is None:
        return exported.find_folder(name, cache, say, prepared=prepared) or _local(name, catalogue, prepared=prepared)
    place = _place(entry, cache, prepared=prepared and entry.preparation is not None)
    if not _intact(place):
        if offline:
            raise ModelError(f"model {name} is not in the cache {cache}, and fetching is switched off")
        try:
            with cached_folder.locked(place.folder, wait=lambda file: say(_waiting(entry.name, file))):
                if not _intact(place):  # another process may have been faster
                    _make(entry, place, cache, preparations or {}, say, prepared=prepared)
        except OSError as exc:
            raise ModelError(f"model {name} cannot be put into the cache {cache}: {exc}") from exc
    return place.folder if entry.kind == "embedder" else place.folder / _generator_file(entry, prepared=prepared)


def prepare(
    source: Path,
    *,
    files: Sequence[str],
    kind: str,
    version: int,
    preparation: Preparation,
    cache: Path,
    progress: Callable[[str], None] | None = None,
    offline: bool = False,
) -> Path:
    """The folder that `preparation` makes, once, of a model's folder on this machine.

    It is made anew when one of `files`, as their sizes and times tell, or `version` is another. ModelError: the
    preparation fails, or `offline` and it is not in the cache.
    """
    say = progress or _silent
    source = source.absolute()
    try:
        place = _place_of(source, files, cache, f"{kind} {version}")
        if _intact(place):
            return place.folder
        if offline:
            raise ModelError(f"model {source}, prepared, is not in the cache {cache}")
        with cached_folder.locked(place.folder, wait=lambda file: say(_waiting(str(source), file))):
            if not _intact(place):
                say(f"preparing {source} ({kind}), once; takes some seconds")
                with cached_folder.workshop(place.folder) as work:
                    target = work / "target"
                    target.mkdir()
                    preparation(source, target, kind)
                    _write_record(place, target)
                    cached_folder.swap(target, place.folder)
                say(f"{source} is ready in {place.folder}")
    except OSError as exc:
        raise ModelError(f"model {source} cannot be put into the cache {cache}: {exc}") from exc
    return place.folder


def _place_of(source: Path, files: Sequence[str], cache: Path, recipe: str) -> _Place:
    found = {name: (status.st_size, status.st_mtime_ns) for name in files for status in [(source / name).stat()]}
    made_of = json.dumps({"recipe": recipe, "source": str(source), "files": found})
    slug = re.sub(r"[^0-9A-Za-z._-]+", "--", source.name)
    folder = f"{slug}-{hashlib.sha256(str(source).encode()).hexdigest()[:12]}"  # names of folders are not unique
    return _Place(cache / folder, hashlib.sha256(made_of.encode()).hexdigest())


def _silent(_line: str) -> None:
    pass


def _waiting(name: str, file: Path) -> str:
    return f"waiting for another process that is fetching {name} (lock file {file})"


def cached(entry: Entry, cache: Path) -> bool:
    """Whether it is there, ready to use."""
    return _intact(_place(entry, cache, prepared=entry.preparation is not None))


def _local(name: str, catalogue: Mapping[str, Entry], *, prepared: bool) -> Path:
    path = exported.local_path(name)
    if name and path.exists():
        if prepared and exported.is_original(path):
            raise ModelError(
                f"{path} is a sentence-transformers folder that was not exported yet: run `llamabda models export "
                f"{path}`, or set EMBED_BACKEND=sentence_transformers to run it with torch"
            )
        return path
    raise ModelError(
        f"unknown model {name!r}: neither a file or folder here, nor exported (`llamabda models export` takes any "
        f"sentence-transformers model), nor in the catalogue; known names: {', '.join(sorted(catalogue))}"
    )


def _place(entry: Entry, cache: Path, *, prepared: bool) -> _Place:
    made_of = {
        "files": {file.path: file.sha256 for file in entry.files},
        "preparation": [entry.preparation, entry.preparation_version] if prepared else None,
        "about": _about(entry),
    }
    slug = re.sub(r"[^0-9A-Za-z._-]+", "--", entry.name) + ("" if prepared or entry.preparation is None else ".source")
    return _Place(cache / slug, hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest())


def _about(entry: Entry) -> dict[str, Any]:
    """What a preparation of an embedder cannot know from the files."""
    return {
        "name": entry.name,
        "licence": entry.licence,
        "languages": list(entry.languages),
        "background": entry.background,
        "ceiling": entry.ceiling,
        "prompts": dict(entry.prompts),
    }


def _generator_file(entry: Entry, *, prepared: bool) -> str:
    file = entry.files[0].path
    if not (prepared and entry.preparation):
        return file
    return f"{re.sub(r'[.](Q|q|F|f|BF|bf|IQ|iq)[0-9][^.]*[.]gguf$|[.]gguf$', '', file)}.{entry.preparation}.gguf"


def _intact(place: _Place) -> bool:
    """Whether the model is there as it was put there."""
    try:
        record = json.loads(place.record.read_text(encoding="utf-8"))
        if record["key"] != place.key:
            return False
        return cached_folder.unchanged(place.folder, record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _make(
    entry: Entry,
    place: _Place,
    cache: Path,
    preparations: Mapping[str, Preparation],
    say: Callable[[str], None],
    *,
    prepared: bool,
) -> None:
    """Downloads and prepares beside the final place, then moves there in one step."""
    prepare = _preparation(entry, preparations) if prepared else None
    with cached_folder.workshop(place.folder) as work:
        source, target = work / "source", work / "target"
        source.mkdir()
        _check_space(entry, work)
        parts = cache / ".parts"
        downloads.download(entry.files, source, parts=parts, download_size=entry.download_size, report=say)
        if prepare is None or entry.preparation is None:
            target = source
        else:
            target.mkdir()
            say(f"preparing {entry.name} ({entry.preparation}), once; takes some seconds")
            if entry.kind == "generator":
                file = _generator_file(entry, prepared=True)
                prepare(source / entry.files[0].path, target / file, entry.preparation)
            else:
                (source / "about.json").write_text(json.dumps(_about(entry)), encoding="utf-8")
                prepare(source, target, entry.preparation)
        _write_record(place, target)
        cached_folder.swap(target, place.folder)
    say(f"{entry.name} is ready in {place.folder}")


def _preparation(entry: Entry, preparations: Mapping[str, Preparation]) -> Preparation | None:
    if entry.preparation is None:
        return None
    if entry.preparation in preparations:
        return preparations[entry.preparation]
    from llamabda import bert_onnx, packed_e5

    built_in: Mapping[str, Preparation] = {bert_onnx.KIND: bert_onnx.prepare, packed_e5.KIND: packed_e5.prepare}
    if entry.preparation in built_in:
        return built_in[entry.preparation]
    raise ModelError(f"model {entry.name} needs the preparation {entry.preparation!r}, which this installation lacks")


def _check_space(entry: Entry, folder: Path) -> None:
    needed = 2 * entry.size + entry.download_size
    free = downloads.free_space(folder)
    if free < needed:
        raise ModelError(
            f"model {entry.name} needs {downloads.megabytes(needed)} of disk space while it is fetched, "
            f"{downloads.megabytes(free)} are free at {folder.parent}"
        )


def _write_record(place: _Place, folder: Path) -> None:
    files = cached_folder.taken_down(folder, (path for path in folder.rglob("*") if path.is_file()))
    (folder / RECORD).write_text(json.dumps({"key": place.key, "files": files}, indent=1), encoding="utf-8")
