"""Makes an ONNX model of a cross-encoder, a BERT or RoBERTa with one label, from its safetensors, without torch.

`prepare` reads a folder as transformers writes it and makes the folder that the onnx reranker loads:

    model.onnx       input_ids and, of a BERT, token_type_ids (1, tokens) int64 -> logit (1, 1) float32
    tokenizer.json   as it came
    reranker.json    what else the reranker must know, see `_describe`

The graph takes one pair of question and passage, without padding, and computes as that of the embedders does (see
`bert_onnx`); the head above the first token's vector is float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamabda.bert_onnx import CONTRIB, REQUIRED_FILES, BertGraph, read_json
from llamabda.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KIND = "cross-encoder-onnx-int8"
VERSION = 1  # of the preparation

PREPARED_FILES = ("model.onnx", "tokenizer.json", "reranker.json")
ROBERTA = ("roberta", "xlm-roberta")
LARGEST_LIMIT = 100_000  # tokens: transformers writes 10**30 into tokenizer_config.json where it knows of no limit


def prepare(source: Path, target: Path, kind: str = KIND) -> None:
    """Fills the empty folder `target` from the folder `source`. Takes seconds and about twice the weights in memory.

    ModelError when `source` is not a cross-encoder that this module knows how to build, naming what differs.
    """
    if kind != KIND:
        raise ModelError(f"unknown preparation {kind!r} of a reranker; known: {KIND}")
    missing = [name for name in REQUIRED_FILES if not (source / name).is_file()]
    if missing:
        raise ModelError(f"{source} is not a cross-encoder: it has no {', '.join(missing)}")
    config = read_json(source / "config.json")
    _check(config, source)
    try:
        graph = CrossEncoderGraph(config, source / "model.safetensors").build()
        described = _describe(source, config)
    except KeyError as exc:
        raise ModelError(f"{source / 'config.json'} does not describe a {config['model_type']}: no {exc}") from exc
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.onnx").write_bytes(graph)
    (target / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    (target / "reranker.json").write_text(json.dumps(described, indent=1), encoding="utf-8")


def _check(config: Mapping[str, Any], source: Path) -> None:
    expected = {
        "model_type": ("bert", *ROBERTA),
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute", None),
    }
    for key, values in expected.items():
        if config.get(key) not in values:
            known = ", ".join(repr(value) for value in values if value is not None)
            raise ModelError(f"cannot prepare the reranker {source}: {key} is {config.get(key)!r}, known is {known}")


def _describe(source: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    file = source / "tokenizer_config.json"
    told = (read_json(file) if file.is_file() else {}).get("model_max_length")
    places = config["max_position_embeddings"] - _skipped(config)
    limit = int(told) if isinstance(told, int | float) and 0 < told < LARGEST_LIMIT else places
    return {"name": source.name, "max_tokens": min(limit, places)}


def _skipped(config: Mapping[str, Any]) -> int:
    """RoBERTa counts its places from behind the one that stands for padding."""
    return int(config.get("pad_token_id", 1)) + 1 if config["model_type"] in ROBERTA else 0


class CrossEncoderGraph(BertGraph):
    """An encoder of pairs with a classifier of one label above the first token."""

    prefixes = ("bert.", "roberta.")

    def __init__(self, config: Mapping[str, Any], weights: Path) -> None:
        super().__init__(config, weights)
        self._roberta = config["model_type"] in ROBERTA
        if not self._roberta:
            self.inputs = ("input_ids", "token_type_ids")

    def _places(self) -> str:
        types = self._weight("embeddings.token_type_embeddings.weight")
        if self._roberta:  # it has one type for all
            return self._positions(types[0], skipped=_skipped(self._config))
        typed = self._op("Gather", [self._constant("types", types), "token_type_ids"])
        return self._op("Add", [self._positions(types[0] * 0), typed])

    def _layer(self, x: str, name: str) -> str:
        """Of the last layer only the first token is wanted: it looks at all, but nothing else is computed."""
        import numpy as np

        if name != f"encoder.layer.{self._config['num_hidden_layers'] - 1}.":
            return super()._layer(x, name)
        first = self._op("Gather", [x, self._constant("cls", np.array([0], np.int64))], axis=1)
        weight, bias = (
            [self._weight(f"{name}attention.self.{part}.{kind}") for part in ("query", "key", "value")]
            for kind in ("weight", "bias")
        )
        query = self._matmul(first, name + "query", weight[0])
        both = self._op(
            "Split", [self._matmul(x, name + "kv", np.concatenate(weight[1:]))], outputs=2, axis=-1, num_outputs=2
        )
        attended = self._op(
            "MultiHeadAttention",
            [query, *both.split(","), self._constant(name + "qkv.bias", np.concatenate(bias))],
            domain=CONTRIB,
            num_heads=self._config["num_attention_heads"],
        )
        return self._rest(attended, first, name)

    def _head(self, x: str) -> tuple[str, int]:
        import numpy as np

        # (1, 1, hidden), see `_layer`
        first = self._op("Squeeze", [x, self._constant("only", np.array([1], np.int64))])
        # what transformers calls the pooler is there without the encoder's name in RoBERTa
        dense, label = (
            ("classifier.dense", "classifier.out_proj")
            if self._roberta
            else (f"{self._prefix}pooler.dense", "classifier")
        )
        pooled = self._op("Tanh", [self._linear(first, dense)])
        labels = len(self._named(f"{label}.weight"))
        if labels != 1:
            raise ModelError(
                f"{self._weights_file.parent} gives {labels} labels: a reranker gives one, how well a passage fits"
            )
        return self._linear(pooled, label, name="logit"), 1

    def _linear(self, x: str, weights: str, *, name: str = "") -> str:
        """`x @ weight.T + bias` in float32; x is (1, in)."""
        parts = [self._constant(f"{weights}.{part}", self._named(f"{weights}.{part}")) for part in ("weight", "bias")]
        return self._op("Gemm", [x, *parts], name=name, transB=1)

    def _named(self, name: str) -> NDArray[np.float32]:
        """A weight by its whole name."""
        weight: NDArray[np.float32] = self._weights.get_tensor(name).astype("float32")
        return weight
