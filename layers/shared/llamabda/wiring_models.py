"""Models by the settings' names: where they lie, fetched, prepared and loaded. Part of the composition root."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llamabda.cpu import available_cpus
from llamabda.errors import ConfigurationError
from llamabda.settings import settings

if TYPE_CHECKING:
    from llamabda.ports import Embedder, Generator, Reranker
    from llamabda.types import EmbeddingModel

log = logging.getLogger("llamabda")


def cache_dir() -> Path:
    """Where models and the llama.cpp wheel are kept, shared by all homes of this user."""
    own = os.environ.get("LLAMABDA_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or f"{base}/llamabda").expanduser()


def models_dir() -> Path:
    return cache_dir() / "models"


def fetch_embedder(
    model: EmbeddingModel, progress: Callable[[str], None] | None = None, *, offline: bool = False
) -> Path:
    """The folder of an embedding model, fetched and prepared when it is not there yet."""
    from llamabda import models

    prepared = model.backend == "onnx"
    return models.fetch(model.name, cache=models_dir(), progress=progress, offline=offline, prepared=prepared)


def prepare_generator(progress: Callable[[str], None] | None = None, *, offline: bool = False) -> Path | None:
    """The configured GGUF file, fetched and prepared when it is not there yet; None when none is configured."""
    if not settings().model_path:
        return None
    return prepare_model(settings().model_path, progress, offline=offline)


def prepare_model(name: str, progress: Callable[[str], None] | None = None, *, offline: bool = False) -> Path:
    """The folder of an embedder or the file of a generator, whichever `name` is, fetched and prepared."""
    from llamabda import models
    from llamabda.adapters.llama_cpp import requantize

    return models.fetch(name, cache=models_dir(), progress=progress, offline=offline, preparations={"Q4_0": requantize})


def prepare_reranker(progress: Callable[[str], None] | None = None, *, offline: bool = False) -> Path | None:
    """The folder of the configured reranker, prepared when it is not there yet; None when none is configured."""
    from llamabda import rerankers

    if not settings().rerank_model:
        return None
    return rerankers.fetch(settings().rerank_model, cache=models_dir(), progress=progress, offline=offline)


def load_embedder(model: EmbeddingModel) -> Embedder:
    """Takes seconds, and longer where the model has to be fetched first."""
    if model.backend == "sentence_transformers":
        from llamabda.adapters.sentence_transformers import SentenceTransformersEmbedder
        from llamabda.catalogue import CATALOGUE

        known = CATALOGUE.get(model.name)
        if known is not None and all(file.path != "modules.json" for file in known.files):
            raise ConfigurationError(
                f"{model.name} comes packed for onnxruntime: EMBED_BACKEND=sentence_transformers cannot run it, "
                "EMBED_BACKEND=onnx does"
            )
        languages = known.languages if known else ()
        original = fetch_embedder(model, _log_progress)
        return SentenceTransformersEmbedder(str(original), threads=available_cpus(), languages=languages)
    from llamabda.adapters.onnx import OnnxEmbedder

    return OnnxEmbedder(fetch_embedder(model, _log_progress), threads=available_cpus())


def load_generator() -> Generator | None:
    path = prepare_generator(_log_progress)
    if path is None:
        return None
    from llamabda.adapters.llama_cpp import LlamaCppGenerator

    return LlamaCppGenerator(path, n_ctx=settings().n_ctx, threads=available_cpus(), max_queue=settings().max_queue)


def load_reranker() -> Reranker | None:
    folder = prepare_reranker(_log_progress)
    if folder is None:
        return None
    from llamabda.adapters.onnx_reranker import OnnxReranker

    return OnnxReranker(folder, threads=available_cpus())


def _log_progress(line: str) -> None:
    log.info("%s", line)
