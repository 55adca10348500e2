"""Makes an ONNX model of a sentence-transformers BERT from its safetensors, without torch.

`prepare` reads a folder as sentence-transformers writes it and makes the folder that the onnx embedder loads:

    model.onnx       input_ids (1, tokens) int64 -> embedding (1, dim) float32 of unit length
    tokenizer.json   as it came
    embedder.json    what else the embedder must know, see `_describe`

The graph takes one text, without padding: so there is no mask, and a text's vector cannot depend on its batch mates.
Pooling and normalisation are inside. Weight matrices are int8 with one scale per column, activations are quantised
while it runs; the token table is int8 with one scale per token. All else is float32.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamabda.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KIND = "onnx-int8"
VERSION = 1  # of the preparation: a change in what the graph computes makes it a different model (see `_fingerprint`)

# Weights use 7 of the 8 bits: CPUs without VNNI add two products in 16 bits, which full int8 weights would saturate.
WEIGHT_LIMIT = 63
TABLE_LIMIT = 127  # the token table is only looked up, never multiplied in integers
CONTRIB = "com.microsoft"  # onnxruntime's own operators: fused attention, normalisation and GELU
OPSET = 21
IR_VERSION = 10

REQUIRED_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def prepare(source: Path, target: Path, kind: str = KIND) -> None:
    """Fills the empty folder `target` from the folder `source`. Takes seconds and about twice the weights in memory.

    `source/about.json`, when there, tells what the weights do not: name, languages, licence, background, prompts.
    ModelError when `source` is not a BERT that this module knows how to build, naming what differs.
    """
    if kind != KIND:
        raise ModelError(f"unknown preparation {kind!r} of an embedding model; known: {KIND}")
    missing = [name for name in REQUIRED_FILES if not (source / name).is_file()]
    if missing:
        raise ModelError(f"{source} is not a sentence-transformers BERT: it has no {', '.join(missing)}")
    config = read_json(source / "config.json")
    _check(config, source)
    target.mkdir(parents=True, exist_ok=True)
    graph = EmbedderGraph(config, source / "model.safetensors", pooling=_pooling(source))
    (target / "model.onnx").write_bytes(graph.build())
    (target / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    (target / "embedder.json").write_text(json.dumps(_describe(source, config), indent=1), encoding="utf-8")


def _check(config: Mapping[str, Any], source: Path) -> None:
    expected = {
        "model_type": ("bert",),
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute", None),
    }
    for key, values in expected.items():
        if config.get(key) not in values:
            raise ModelError(
                f"cannot prepare {source} for onnxruntime: {key} is {config.get(key)!r}, known is {values[0]!r}; "
                "EMBED_BACKEND=sentence_transformers runs every architecture"
            )


def _pooling(source: Path) -> str:
    """ "mean" or "cls"."""
    file = source / "1_Pooling" / "config.json"
    config = read_json(file) if file.is_file() else {"pooling_mode_mean_tokens": True}
    modes = [key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on]
    known = {"mean_tokens": "mean", "cls_token": "cls"}
    if len(modes) != 1 or modes[0] not in known:
        raise ModelError(f"cannot prepare {source}: pooling is {modes}, known is one of {list(known)}")
    return known[modes[0]]


def _describe(source: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    about = read_json(source / "about.json") if (source / "about.json").is_file() else {}
    sentence = source / "sentence_bert_config.json"
    max_tokens = (read_json(sentence) if sentence.is_file() else {}).get("max_seq_length")
    name = about.get("name", source.name)
    return {
        "name": name,
        "dim": config["hidden_size"],
        "max_tokens": min(max_tokens or config["max_position_embeddings"], config["max_position_embeddings"]),
        "prompts": about.get("prompts", {"query": "", "document": ""}),
        "background": about.get("background", 0.0),
        "ceiling": about.get("ceiling", 1.0),
        "fingerprint": _fingerprint(name, source),
        "languages": about.get("languages", []),
        "licence": about.get("licence", ""),
    }


def _fingerprint(name: str, source: Path) -> str:
    digest = hashlib.sha256(f"{KIND} {VERSION}".encode())
    for file in REQUIRED_FILES:
        with (source / file).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    slug = re.sub(r"[^0-9a-z]+", "-", name.rsplit("/", 1)[-1].lower()).strip("-")[:40]
    return f"{slug}-int8-{digest.hexdigest()[:12]}"


def read_json(file: Path) -> dict[str, Any]:
    """ModelError when the file cannot be read, or holds no object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ModelError(f"{file} cannot be read as JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise ModelError(f"{file} must hold a JSON object")
    return content


class BertGraph(ABC):
    """Lays out the operators of one BERT encoder; what stands above it, and what goes in, is for others to say."""

    inputs: tuple[str, ...] = ("input_ids",)
    prefixes: tuple[str, ...] = ("bert.",)  # what the names of the encoder's weights may begin with

    def __init__(self, config: Mapping[str, Any], weights: Path) -> None:
        self._config = config
        self._weights_file = weights
        self._weights: Any = None  # the open safetensors file, while the graph is built
        self._prefix = ""
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def build(self) -> bytes:
        """The model, serialised. ModelError when a weight is missing."""
        from onnx import TensorProto, helper
        from safetensors import SafetensorError, safe_open

        config = self._config
        try:
            with safe_open(self._weights_file, "numpy") as weights:
                self._weights = weights
                names = set(weights.keys())
                known = (prefix for prefix in self.prefixes if f"{prefix}embeddings.LayerNorm.weight" in names)
                self._prefix = next(known, "")
                x = self._embeddings()
                for layer in range(config["num_hidden_layers"]):
                    x = self._layer(x, f"encoder.layer.{layer}.")
                output, width = self._head(x)
        except SafetensorError as exc:
            raise ModelError(f"{self._weights_file} does not hold the weights of its config.json: {exc}") from exc
        graph = helper.make_graph(
            self._nodes,
            "bert",
            [helper.make_tensor_value_info(name, TensorProto.INT64, [1, "tokens"]) for name in self.inputs],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, width])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="llamabda")
        serialised: bytes = model.SerializeToString()
        return serialised

    def _embeddings(self) -> str:
        import numpy as np
        from onnx import TensorProto

        table = self._weight("embeddings.word_embeddings.weight")
        scales = scales_of(table, axis=1, limit=TABLE_LIMIT)
        rows = np.rint(table / scales).astype(np.int8)
        looked_up = self._op("Gather", [self._constant("words", rows), "input_ids"])
        scale = self._op("Gather", [self._constant("words.scale", scales), "input_ids"])
        words = self._op("Mul", [self._op("Cast", [looked_up], to=TensorProto.FLOAT), scale])
        return self._normalised(words, self._places(), "embeddings.LayerNorm", bias=None)

    def _places(self) -> str:
        """What is added to the words for where they stand and of which type they are, (1, tokens, hidden)."""
        # Every token is of type 0: its row is the same everywhere, so it goes into the positions.
        return self._positions(self._weight("embeddings.token_type_embeddings.weight")[0])

    def _positions(self, added: NDArray[np.float32], *, skipped: int = 0) -> str:
        """(1, tokens, hidden). The first token stands at `skipped`; `added` (hidden,) is added to each."""
        import numpy as np

        positions = self._weight("embeddings.position_embeddings.weight")[skipped:] + added
        first = self._constant("first", np.array([0], np.int64))
        length = self._op("Shape", ["input_ids"], start=1, end=2)
        sliced = self._op("Slice", [self._constant("positions", positions), first, length, first])
        return self._op("Unsqueeze", [sliced, first])

    def _layer(self, x: str, name: str) -> str:
        import numpy as np

        parts = [f"{name}attention.self.{part}." for part in ("query", "key", "value")]
        packed = np.concatenate([self._weight(part + "weight") for part in parts])
        bias = np.concatenate([self._weight(part + "bias") for part in parts])
        projected = self._op("Split", [self._matmul(x, name + "qkv", packed)], outputs=3, axis=-1, num_outputs=3)
        attended = self._op(
            "MultiHeadAttention",
            [*projected.split(","), self._constant(name + "qkv.bias", bias)],
            domain=CONTRIB,
            num_heads=self._config["num_attention_heads"],
        )
        return self._rest(attended, x, name)

    def _rest(self, attended: str, x: str, name: str) -> str:
        """What a layer does with `x` once it has attended."""
        x = self._dense_and_norm(attended, x, name + "attention.output.")
        wide = self._matmul(x, name + "intermediate.dense", self._weight(name + "intermediate.dense.weight"))
        wide_bias = self._constant(name + "intermediate.dense.bias", self._weight(name + "intermediate.dense.bias"))
        gelu = self._op("BiasGelu", [wide, wide_bias], domain=CONTRIB)
        return self._dense_and_norm(gelu, x, name + "output.")

    def _dense_and_norm(self, x: str, residual: str, name: str) -> str:
        dense = self._matmul(x, name + "dense", self._weight(name + "dense.weight"))
        return self._normalised(dense, residual, name + "LayerNorm", bias=name + "dense.bias")

    def _normalised(self, x: str, residual: str, name: str, *, bias: str | None) -> str:
        inputs = [
            x,
            residual,
            *(self._constant(f"{name}.{p}", self._weight(f"{name}.{p}")) for p in ("weight", "bias")),
        ]
        if bias is not None:
            inputs.append(self._constant(bias, self._weight(bias)))
        return self._op("SkipLayerNormalization", inputs, domain=CONTRIB, epsilon=self._config["layer_norm_eps"])

    def _matmul(self, x: str, name: str, weight: NDArray[np.float32]) -> str:
        """`x @ weight.T`; `weight` is (out, in) as torch keeps it."""
        import numpy as np

        scales = scales_of(weight, axis=1, limit=WEIGHT_LIMIT)
        columns = np.rint(weight / scales).astype(np.int8).T
        inputs = [
            x,
            self._constant(name + ".int8", columns),
            self._constant(name + ".scale", scales[:, 0]),
            self._constant(name + ".zero", np.zeros(len(scales), np.int8)),
        ]
        return self._op("DynamicQuantizeMatMul", inputs, domain=CONTRIB)

    @abstractmethod
    def _head(self, x: str) -> tuple[str, int]:
        """What stands above the encoder: the name of the output, and how many numbers it has."""

    def _weight(self, name: str) -> NDArray[np.float32]:
        weight: NDArray[np.float32] = self._weights.get_tensor(self._prefix + name).astype("float32")
        return weight

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        import numpy as np
        from onnx import numpy_helper

        self._constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def _op(self, op: str, inputs: list[str], *, outputs: int = 1, name: str = "", **attributes: Any) -> str:
        """Adds an operator and gives the name of its output (of several: joined by commas)."""
        from onnx import helper

        name = name or f"{op}.{len(self._nodes)}"
        names = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return ",".join(names)


class EmbedderGraph(BertGraph):
    """An encoder with pooling ("mean" or "cls") and normalisation above it."""

    def __init__(self, config: Mapping[str, Any], weights: Path, *, pooling: str) -> None:
        super().__init__(config, weights)
        self._pooling = pooling

    def _head(self, x: str) -> tuple[str, int]:
        import numpy as np

        axis = self._constant("tokens_axis", np.array([1], np.int64))
        if self._pooling == "mean":
            pooled = self._op("ReduceMean", [x, axis], keepdims=0)
        else:
            pooled = self._op("Gather", [x, self._constant("cls", np.array(0, np.int64))], axis=1)
        return self._op("LpNormalization", [pooled], name="embedding", axis=-1, p=2), self._config["hidden_size"]


def scales_of(weight: NDArray[np.float32], *, axis: int, limit: int) -> NDArray[np.float32]:
    """One scale per row, (rows, 1): the row's largest magnitude becomes `limit`."""
    import numpy as np

    largest: NDArray[np.float32] = np.abs(weight).max(axis=axis, keepdims=True)
    scales: NDArray[np.float32] = (np.maximum(largest, np.finfo(np.float32).tiny) / limit).astype(np.float32)
    return scales
