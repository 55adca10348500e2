"""The model as sentence-transformers runs it, and what its files say about it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from llamabda import exported
from llamabda.adapters.sentence_transformers import load
from llamabda.errors import InvalidInput, ModelError
from llamabda.export.card import Card

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamabda.export import Wishes

Role: TypeAlias = Literal["query", "document"]

HUB_SECONDS = 20.0  # that the hub may take to say whether it has a model
MOST_TOKENS = 8192  # some tokenizers claim limits of 10^30


@dataclass(frozen=True, slots=True)
class Original:
    """`model` is a SentenceTransformer in float32; the prompts are those that it uses now."""

    name: str
    model: Any
    source: Mapping[str, Any]  # see exported.Exported
    dim: int
    max_tokens: int
    query_prompt: str
    document_prompt: str
    languages: tuple[str, ...]
    licence: str
    notes: tuple[str, ...]

    @classmethod
    def load(cls, name: str, *, threads: int, wishes: Wishes) -> Original:
        """`name`: a folder or a name of the hub. Nothing of a folder is looked up in the network."""
        # Plain operators instead of torch's fused attention: the graph has half as many nodes then.
        options: dict[str, Any] = {"model_kwargs": {"attn_implementation": "eager"}}
        source: dict[str, Any]
        card: Card | None
        if Path(name).is_dir():
            source = exported.folder_source(Path(name))
            card = Card.read(Path(name) / "README.md")
            options["local_files_only"] = True
        else:
            revision, card = _ask_hub(name)
            source = {"kind": "hub", "name": name, "revision": revision}
            options |= {"revision": revision} if revision else {"local_files_only": True}
        model = load(name, threads=threads, **options).float().eval()
        _require_one_way(name, model)
        if card is None:
            card = Card.parse(getattr(model, "_model_card_text", None) or "")
        model.max_seq_length = _limit(model, wishes.max_tokens)
        if wishes.query_prompt is not None:
            model.prompts["query"] = wishes.query_prompt
        if wishes.document_prompt is not None:
            model.prompts["document"] = wishes.document_prompt
        _require_prompts_in_the_mean(name, model)
        return cls(
            name=name,
            model=model,
            source=source,
            dim=int(model.get_embedding_dimension()),
            max_tokens=int(model.max_seq_length),
            query_prompt=model.prompts["query"],
            document_prompt=model.prompts["document"],
            languages=card.languages if wishes.languages is None else wishes.languages,
            licence=card.licence if wishes.licence is None else wishes.licence,
            notes=tuple(_notes(model)),
        )

    def vectors(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        """(n, dim) float32, unit length, one text at a time as the graph takes them."""
        encode = self.model.encode_query if role == "query" else self.model.encode_document
        try:
            found = encode(list(texts), batch_size=1, normalize_embeddings=True, show_progress_bar=False)
        except Exception as exc:
            raise ModelError(f"{self.name} cannot embed: {exc}") from exc
        return np.asarray(found, np.float32)

    def features(self, text: str, role: Role) -> dict[str, Any]:
        """What the first module is given for a text."""
        prompt = self.query_prompt if role == "query" else self.document_prompt
        found: dict[str, Any] = self.model.preprocess([text], prompt=prompt or None, task=role)
        return found


def _ask_hub(name: str) -> tuple[str | None, Card | None]:
    """The commit to load and the model's card; None when the hub cannot be reached, for what an earlier run left in
    the library's own cache. One request tells: the library itself would try every file for a minute."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        info = HfApi().model_info(name, timeout=HUB_SECONDS)
    except HFValidationError as exc:
        raise ModelError(f"{name!r} is neither a folder here nor a name of the model hub (owner/model)") from exc
    except HfHubHTTPError as exc:
        raise ModelError(f"the model hub does not give {name}: {exc}") from exc
    except Exception as exc:  # of whichever HTTP library the client stands on
        if not _in_library_cache(name):
            raise ModelError(
                f"{name} is neither a folder here nor in the cache of the model hub's library, and the hub cannot be "
                f"reached: {exc}; where a network is, save the model into a folder and name that"
            ) from exc
        return None, None
    return info.sha, Card.of(dict(info.card_data.items()) if info.card_data else {})


def _in_library_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def _require_one_way(name: str, model: Any) -> None:
    """ModelError when not every text takes the same way through the model."""
    if any(kind.__name__ == "Router" for module in model for kind in type(module).__mro__):
        raise _cannot(name, "it may send queries and documents through different modules (Router)")
    if getattr(model.tokenizer, "backend_tokenizer", None) is None:
        raise _cannot(name, f"its tokenizer ({type(model.tokenizer).__name__}) has no fast version in transformers")


def _require_prompts_in_the_mean(name: str, model: Any) -> None:
    prompted = model.prompts["query"] or model.prompts["document"]
    if prompted and any(getattr(module, "include_prompt", True) is False for module in model):
        raise _cannot(name, "it leaves the prompt out when it pools (include_prompt is false)")


def _cannot(name: str, why: str) -> ModelError:
    return ModelError(f"{name} cannot be exported: {why}; EMBED_BACKEND=sentence_transformers runs it as it is")


def _limit(model: Any, wanted: int | None) -> int:
    """Tokens of a text: the model's limit where it has a believable one, else that of its positions."""
    limit = model.max_seq_length
    if not limit or limit > MOST_TOKENS:
        config = getattr(model, "config", None)
        limit = min(getattr(config, "max_position_embeddings", MOST_TOKENS), MOST_TOKENS)
    if wanted is None:
        return int(limit)
    if wanted > limit:
        raise InvalidInput(f"max_tokens is {wanted}, the model takes {limit} at most", loc=("max_tokens",))
    return wanted


def _notes(model: Any) -> list[str]:
    if str(getattr(model, "similarity_fn_name", "cosine")) not in ("cosine", "None"):
        return [
            f"the model was made for {model.similarity_fn_name} similarity; texts are compared by cosine here, which "
            "may rank them otherwise"
        ]
    return []
