"""Files into documents, with progress that means something."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from llamabda import wiring
from llamabda.chunking import Chunking
from llamabda.cli.files import File
from llamabda.errors import LlamabdaError
from llamabda.ingest import Ingest, Trained
from llamabda.types import NewDocument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamabda.cli.console import Console
    from llamabda.ports import Embedder
    from llamabda.space import Space

BATCH_CHARS = 200_000  # of text handed over together: small files share batches, and a crash loses little
MAX_FILE_BYTES = 500_000_000  # read whole into memory
MAX_ID_CHARS = 512  # as over HTTP


class CountingEmbedder:
    """An embedder that tells how many texts it has embedded."""

    def __init__(self, inner: Embedder, count: Callable[[int], None]) -> None:
        self._inner = inner
        self._count = count

    @property
    def dim(self) -> int:
        return self._inner.dim

    @property
    def fingerprint(self) -> str:
        return self._inner.fingerprint

    @property
    def background(self) -> float:
        return self._inner.background

    @property
    def ceiling(self) -> float:
        return self._inner.ceiling

    @property
    def languages(self) -> tuple[str, ...]:
        return self._inner.languages

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = self._inner.embed_documents(texts)
        self._count(len(texts))
        return vectors

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self._inner.embed_query(text)


class Training:
    """Takes files one by one, indexes them in batches, and keeps what became of each."""

    def __init__(self, tenant: str, chunking: Chunking, *, total: int, console: Console) -> None:
        self.results: list[Trained] = []
        self._languages: dict[str, str | None] = {}  # of each document that was read
        self._tenant = tenant
        self._chunking = chunking
        self._total = total
        self._console = console
        self._batch: list[NewDocument] = []
        self._ids: set[str] = set()
        self._embedded = 0
        self._began = time.monotonic()
        self._ingest: Ingest = replace(wiring.ingest(), writable=self._space)

    def _space(self) -> Space:
        space = wiring.writable_space()
        return replace(space, embedder=CountingEmbedder(space.embedder, self._count))

    @property
    def notices(self) -> list[str]:
        """What whoever ingests these should be told."""
        taken = [result.id for result in self.results if result.state != "failed"]
        told = wiring.language_check().notice([self._languages.get(doc_id) for doc_id in taken])
        return [] if told is None else [told]

    @property
    def failed(self) -> list[Trained]:
        return [result for result in self.results if result.state == "failed"]

    def add(self, file: File) -> None:
        """Reads a file. What goes wrong is kept as its result."""
        try:
            document = NewDocument(self._checked(file.id), self._read(file), source=f"file:{file.id}")
        except LlamabdaError as error:
            self._fail(file, error.message)
            return
        except OSError as exc:
            self._fail(file, f"{str(file.path)[-200:]!r} cannot be read: {exc.strerror or exc}")
            return
        self._ids.add(document.id)
        self._batch.append(document)
        if sum(len(document.text) for document in self._batch) >= BATCH_CHARS:
            self.finish()

    def finish(self) -> None:
        """Indexes what has been read so far."""
        batch, self._batch = self._batch, []
        if batch:
            languages = wiring.language_check().languages(document.text for document in batch)
            self._languages.update(zip((document.id for document in batch), languages, strict=True))
            self._ingest.train(self._tenant, batch, chunking=self._chunking, progress=self._done)

    def report(self) -> None:
        """How it went, at the end."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        ready = [result for result in self.results if result.state in ("ready", "unchanged")]
        chunks = sum(result.chunks for result in ready)
        rate = self._embedded / seconds
        same = sum(result.state == "unchanged" for result in ready)
        self._console.note(
            f"{len(ready)} of {self._total} files, {chunks} chunks, {seconds:.1f} s, {rate:.0f} chunks/s"
            + (f"; {same} unchanged" if same else "")
        )
        if waiting := sum(result.state in ("queued", "processing") for result in self.results):
            self._console.note(f"{waiting} are stored but not ready; a running server goes on with them")
        for result in self.failed:
            self._console.note(f"failed: {result.id}: {result.error}")
        for notice in self.notices:
            self._console.note(notice)

    def _read(self, file: File) -> str:
        size = file.path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise LlamabdaError(f"{file.id!r} has {size:,} bytes: at most {MAX_FILE_BYTES:,} can be read")
        return wiring.extractor().extract(file.path.read_bytes(), name=file.path.name)

    def _checked(self, doc_id: str) -> str:
        if doc_id in self._ids:
            raise LlamabdaError(f"two files would get the id {doc_id!r}: ingest the folder above them instead")
        if len(doc_id) > MAX_ID_CHARS or any(unicodedata.category(char) == "Cc" for char in doc_id):
            raise LlamabdaError(f"{doc_id[:100]!r} cannot be an id: {MAX_ID_CHARS} characters, no control characters")
        return doc_id

    def _fail(self, file: File, why: str) -> None:
        self._done(Trained(file.id, "failed", 0, None, why))

    def _done(self, result: Trained) -> None:
        self.results.append(result)
        self._show()

    def _count(self, chunks: int) -> None:
        self._embedded += chunks
        self._show()

    def _show(self) -> None:
        rate = self._embedded / max(time.monotonic() - self._began, 1e-3)
        failed = f", {len(self.failed)} failed" if self.failed else ""
        self._console.progress(
            f"{len(self.results)} of {self._total} files, {self._embedded} chunks, {rate:.0f} chunks/s{failed}"
        )
