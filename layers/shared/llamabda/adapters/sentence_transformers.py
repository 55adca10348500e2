"""The embedder port over sentence-transformers and torch: any model that library loads, slower to start and to run."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llamabda.errors import ConfigurationError, DependencyFailed, ModelError
from llamabda.iso639 import codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamabda.ports import Embedder

BATCH_SIZE = 16
# Tokenizing is linear in the text while only the first tokens count: what lies beyond is not looked at.
CHARACTERS_PER_TOKEN = 64

# On different subjects: their cosines tell what this model gives to texts that have nothing to do with each other.
UNRELATED = (
    "The bakery on the corner sells rye bread on Saturdays.",
    "Volcanic rocks cool quickly when lava meets sea water.",
    "Her lawyer asked the court to postpone the hearing.",
    "Insulin lowers the amount of sugar in the blood.",
    "The striker scored twice in the second half of the match.",
    "Interest rates rose after the central bank's announcement.",
    "A sonnet has fourteen lines and a fixed rhyme scheme.",
    "Replace the air filter of the engine every two years.",
    "Migrating geese fly in a formation shaped like a V.",
    "The compiler reports an error when a variable has no type.",
    "Medieval castles were often built on top of steep hills.",
    "Water the tomatoes early in the morning, never at noon.",
)


class SentenceTransformersEmbedder:
    """`name_or_folder`: a folder as sentence-transformers saves it, or a name that the library finds in its own cache
    or on the model hub. `threads`: torch's, for the whole process. `languages`: the model's, where its card is not to
    be asked.
    """

    def __init__(self, name_or_folder: str, *, threads: int, languages: Sequence[str] = ()) -> None:
        self._model = load(name_or_folder, threads=threads)
        self._name = name_or_folder
        self._dim = int(self._model.get_embedding_dimension())
        self._fingerprint = _fingerprint(name_or_folder, self._model)
        self._languages = codes(languages) or _languages(self._model)
        self._lock = threading.Lock()  # the tokenizer keeps settings between calls
        self._background, self._ceiling = cosine_scale(self)

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def background(self) -> float:
        return self._background

    @property
    def ceiling(self) -> float:
        return self._ceiling

    @property
    def languages(self) -> tuple[str, ...]:
        return self._languages

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim) float32, unit length. DependencyFailed when the model cannot be run."""
        if not texts:
            return np.empty((0, self._dim), np.float32)
        return self._encode(self._model.encode_document, texts)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """(dim,) float32, unit length. DependencyFailed when the model cannot be run."""
        vector: NDArray[np.float32] = self._encode(self._model.encode_query, [text])[0]
        return vector

    def _encode(self, encode: Any, texts: Sequence[str]) -> NDArray[np.float32]:
        limit = (self._model.max_seq_length or 512) * CHARACTERS_PER_TOKEN
        # Lone surrogates are not characters and no tokenizer takes them: "?" stands for them.
        clean = [text[:limit].encode("utf-8", "replace").decode("utf-8") for text in texts]
        try:
            with self._lock:
                vectors = encode(clean, batch_size=BATCH_SIZE, normalize_embeddings=True, show_progress_bar=False)
        except (RuntimeError, ValueError, TypeError) as exc:
            raise DependencyFailed(f"the embedding model {self._name} failed: {exc}", dependency="embedder") from exc
        return np.ascontiguousarray(vectors, dtype=np.float32)


def load(name_or_folder: str, *, threads: int, **options: Any) -> Any:
    """A `sentence_transformers.SentenceTransformer` on the CPU. Code that comes with a model is never run.

    `options` go to its constructor. ConfigurationError when the packages are not installed, ModelError when the model
    cannot be loaded.
    """
    if Path(name_or_folder).is_dir() and not (Path(name_or_folder) / "modules.json").is_file():
        raise ModelError(f"{name_or_folder} is not a folder that sentence-transformers saved: it has no modules.json")
    try:
        import sentence_transformers
        import torch
        import transformers
    except ImportError as exc:
        raise ConfigurationError(
            f"EMBED_BACKEND=sentence_transformers needs {exc.name}, which is not installed: install torch, then "
            "llamabda[sentence-transformers]; or use EMBED_BACKEND=onnx"
        ) from exc
    transformers.utils.logging.disable_progress_bar()  # or loading draws one on stderr
    torch.set_num_threads(max(1, threads))
    _refuse_code(name_or_folder)
    try:
        model = sentence_transformers.SentenceTransformer(
            name_or_folder, device="cpu", trust_remote_code=False, **options
        )
    except Exception as exc:  # of the library, of torch, of a model's own dependencies
        if "trust_remote_code" in str(exc):
            raise ModelError(f"{name_or_folder} comes with code of its own, which is never run here") from exc
        raise ModelError(f"sentence-transformers cannot load {name_or_folder}: {exc}") from exc
    _complete_prompts(model)
    return model


def _refuse_code(folder: str) -> None:
    """Older releases of the library run what a folder's modules.json names without asking."""
    file = Path(folder) / "modules.json"
    try:
        kinds = [str(module["type"]) for module in json.loads(file.read_text("utf-8"))] if file.is_file() else []
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ModelError(f"{file} does not list the modules of a model: {exc!r}") from exc
    foreign = [kind for kind in kinds if not kind.startswith("sentence_transformers.")]
    if foreign:
        raise ModelError(f"{folder} comes with code of its own ({', '.join(foreign)}), which is never run here")


def _complete_prompts(model: Any) -> None:
    """Documents get the first prompt of these that a model has. So the library says as well, but it puts an empty
    "document" before a model's own "passage" and then finds that."""
    first = next((model.prompts[key] for key in ("document", "passage", "corpus") if model.prompts.get(key)), "")
    model.prompts.setdefault("query", "")
    model.prompts["document"] = first


def cosine_scale(embedder: Embedder) -> tuple[float, float]:
    """The cosines of a question and an unrelated document, in [0, .9], and of a question and a document of the same
    words."""
    documents = embedder.embed_documents(UNRELATED)
    cosines = np.stack([embedder.embed_query(text) for text in UNRELATED]) @ documents.T
    others = cosines[~np.eye(len(UNRELATED), dtype=bool)]
    low = float(np.clip(others.mean(), 0.0, 0.9))
    return low, float(np.clip(cosines.diagonal().mean(), low + 0.05, 1.0))


def _languages(model: Any) -> tuple[str, ...]:
    """What the model's card says, if it has one that can be read."""
    found = codes(model.model_card_data.language)
    card = getattr(model, "_model_card_text", None)  # the library keeps what it read, and reads nothing out of it
    if found or not isinstance(card, str) or not card.startswith("---"):
        return found
    import huggingface_hub
    import yaml

    try:
        return codes(getattr(huggingface_hub.ModelCard(card).data, "language", None))
    except (ValueError, TypeError, yaml.YAMLError):
        return ()


def _fingerprint(name: str, model: Any) -> str:
    """Of the weights and of what else decides a vector: length limit and prompts."""
    digest = hashlib.sha256(repr((model.max_seq_length, sorted(model.prompts.items()))).encode())
    for key, tensor in model.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().contiguous().float().numpy().data)
    slug = re.sub(r"[^0-9a-z]+", "-", re.split(r"/|--", name.rstrip("/"))[-1].removesuffix(".source").lower()).strip(
        "-"
    )[:40]
    return f"{slug}-st-{digest.hexdigest()[:12]}"
