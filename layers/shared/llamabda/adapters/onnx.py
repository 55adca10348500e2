"""The embedder port over onnxruntime and tokenizers: starts fast, needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llamabda.errors import DependencyFailed, ModelError
from llamabda.iso639 import codes
from llamabda.onnx_session import opened, readable

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILES = ("model.onnx", "tokenizer.json", "embedder.json")


@dataclass(frozen=True, slots=True)
class Description:
    """What `embedder.json` says of a model."""

    name: str
    dim: int
    max_tokens: int
    background: float
    ceiling: float
    fingerprint: str
    query_prompt: str
    document_prompt: str
    languages: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> Description:
        try:
            content: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            found = cls(
                name=str(content["name"]),
                dim=int(content["dim"]),
                max_tokens=int(content["max_tokens"]),
                background=float(content["background"]),
                ceiling=float(content.get("ceiling", 1.0)),
                fingerprint=str(content["fingerprint"]),
                query_prompt=str(content["prompts"]["query"]),
                document_prompt=str(content["prompts"]["document"]),
                languages=codes(content.get("languages")),
            )
            if not 0 <= found.background < found.ceiling <= 1:
                raise ValueError(f"background {found.background} and ceiling {found.ceiling} are no range of cosines")
            return found
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ModelError(f"{file} does not describe an embedding model: {exc!r}") from exc


class OnnxEmbedder:
    """Embeds one text at a time: no padding is computed, and a text's vector cannot depend on its batch mates.

    `folder` is one that `llamabda.bert_onnx.prepare` or `llamabda.export` made. `threads` documents are embedded at
    the same time, each by one thread: that keeps every core at work without the threads of one text waiting for each
    other. A question comes alone: all threads share it, which gives the same vector a fifth sooner.
    """

    def __init__(self, folder: Path, *, threads: int) -> None:
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise ModelError(
                f"{folder} is not an embedding model prepared for onnxruntime: it has no {', '.join(missing)}; "
                "use a name of `llamabda models list`, or make one of another model with `llamabda models export`"
            )
        import onnxruntime

        self._about = Description.read(folder / "embedder.json")
        self._tokenizer = tokenizer(folder / "tokenizer.json", max_tokens=self._about.max_tokens)
        onnxruntime.disable_telemetry_events()
        self._threads = max(1, threads)
        self._alone = opened(folder / "model.onnx", threads=1)
        self._shared = opened(folder / "model.onnx", threads=threads) if threads > 1 else self._alone
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="embed")

    @property
    def dim(self) -> int:
        return self._about.dim

    @property
    def fingerprint(self) -> str:
        return self._about.fingerprint

    @property
    def background(self) -> float:
        return self._about.background

    @property
    def ceiling(self) -> float:
        return self._about.ceiling

    @property
    def languages(self) -> tuple[str, ...]:
        return self._about.languages

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim) float32, unit length. DependencyFailed when the model cannot be run."""
        prompted = [self._about.document_prompt + text for text in texts]
        vectors = np.empty((len(prompted), self.dim), np.float32)
        parallel = len(prompted) > 1 and self._threads > 1
        embed = partial(self._embed, session=self._alone)
        results = self._pool.map(embed, prompted) if parallel else map(embed, prompted)
        for row, vector in enumerate(results):
            vectors[row] = vector
        return vectors

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """(dim,) float32, unit length. DependencyFailed when the model cannot be run."""
        return self._embed(self._about.query_prompt + text, self._shared)

    def _embed(self, text: str, session: Any) -> NDArray[np.float32]:
        clean = readable(text, tokens=self._about.max_tokens)
        try:
            ids = np.array([self._tokenizer.encode(clean).ids], np.int64)
            (vectors,) = session.run(["embedding"], {"input_ids": ids})
        except Exception as exc:
            raise DependencyFailed(
                f"the embedding model {self._about.name} failed: {exc}", dependency="embedder"
            ) from exc
        vector: NDArray[np.float32] = vectors[0]
        return vector


def tokenizer(file: Path, *, max_tokens: int) -> Any:
    """A `tokenizers.Tokenizer` that cuts and does not pad. ModelError when the file does not hold one."""
    import tokenizers

    try:
        loaded = tokenizers.Tokenizer.from_file(str(file))
    except Exception as exc:
        raise ModelError(f"{file} cannot be loaded: {exc}") from exc
    loaded.no_padding()
    loaded.enable_truncation(max_tokens)
    return loaded
