"""Where the reranker of RERANK_MODEL is: a folder on this machine, prepared once."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from pathlib import Path

from llamabda import cross_encoder_onnx, models
from llamabda.bert_onnx import REQUIRED_FILES
from llamabda.errors import ModelError

TOLD = (*REQUIRED_FILES, "tokenizer_config.json")  # what a prepared one is made of


def fetch(name: str, *, cache: Path, progress: Callable[[str], None] | None = None, offline: bool = False) -> Path:
    """The folder that the onnx reranker loads.

    `name`: the path or `file:` URL of a folder that holds a cross-encoder as transformers writes it, or what
    `cross_encoder_onnx.prepare` made of one. ModelError: there is none, it cannot be prepared, or it is not in the
    cache and `offline`.
    """
    text = urllib.request.url2pathname(name[5:].removeprefix("//")) if name.startswith("file:") else name
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise ModelError(
            f"RERANK_MODEL={name}: there is no such folder; it takes one that holds {', '.join(REQUIRED_FILES)} of a "
            "cross-encoder"
        )
    if all((folder / file).is_file() for file in cross_encoder_onnx.PREPARED_FILES):
        return folder
    missing = [file for file in REQUIRED_FILES if not (folder / file).is_file()]
    if missing:
        raise ModelError(f"RERANK_MODEL={name} is not a cross-encoder: the folder has no {', '.join(missing)}")
    return models.prepare(
        folder,
        files=[file for file in TOLD if (folder / file).is_file()],
        kind=cross_encoder_onnx.KIND,
        version=cross_encoder_onnx.VERSION,
        preparation=cross_encoder_onnx.prepare,
        cache=cache,
        progress=progress,
        offline=offline,
    )
