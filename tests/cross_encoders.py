"""Cross-encoders that tests make, as transformers writes them, and what they compute, in plain numpy."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Array = NDArray[np.float32]
VOCABULARY = 30_522  # of MiniLM's tokenizer
SKIPPED = 2  # RoBERTa's first place


def random(
    folder: Path,
    tokenizer: Path,
    *,
    model_type: str = "bert",
    labels: int = 1,
    hidden: int = 64,
    layers: int = 2,
    wide: int = 128,
    places: int = 64,
    seed: int = 7,
) -> Path:
    """A network of random weights, the same at every call."""
    draw = np.random.default_rng(seed)

    def matrix(out: int, into: int) -> Array:
        return (draw.normal(0, 1 / math.sqrt(into), (out, into))).astype(np.float32)

    def bias(out: int) -> Array:
        return draw.normal(0, 0.1, out).astype(np.float32)

    roberta = model_type != "bert"
    weights = {
        "embeddings.word_embeddings.weight": draw.normal(0, 1, (VOCABULARY, hidden)).astype(np.float32),
        "embeddings.position_embeddings.weight": draw.normal(0, 0.3, (places + SKIPPED * roberta, hidden)).astype(
            np.float32
        ),
        "embeddings.token_type_embeddings.weight": draw.normal(0, 0.5, (1 if roberta else 2, hidden)).astype(
            np.float32
        ),
    }
    dense = {"attention.self.query": (hidden, hidden), "attention.self.key": (hidden, hidden)}
    dense |= {"attention.self.value": (hidden, hidden), "attention.output.dense": (hidden, hidden)}
    dense |= {"intermediate.dense": (wide, hidden), "output.dense": (hidden, wide)}
    for layer in range(layers):
        for name, shape in dense.items():
            louder = 3 if name == "attention.output.dense" else 1  # so that the texts count for much
            weights[f"encoder.layer.{layer}.{name}.weight"] = louder * matrix(*shape)
            weights[f"encoder.layer.{layer}.{name}.bias"] = bias(shape[0])
    norms = ["embeddings.LayerNorm"]
    norms += [f"encoder.layer.{n}.{part}.LayerNorm" for n in range(layers) for part in ("attention.output", "output")]
    for name in norms:
        weights[f"{name}.weight"] = 1 + bias(hidden)
        weights[f"{name}.bias"] = bias(hidden)
    head = {"pooler.dense": matrix(hidden, hidden), "classifier": 3 * matrix(labels, hidden)}
    return _write(folder, tokenizer, model_type, weights, head, places, heads=4)


def overlap(folder: Path, tokenizer: Path) -> Path:
    """A network that can be computed by hand: its score rises with the share of the question's words that the passage
    holds, and depends on nothing else.

    Half of a token's numbers are a random sign for each word, each beside its opposite, so that normalisation changes
    nothing; two more tell question (-1) from passage (+1). In the first layer each token looks at those of the same
    word: what it learns is whether they stand in both parts. In the second the first token looks at the question's.
    """
    draw = np.random.default_rng(11)
    codes, hidden = 62, 128
    flag, seen, told = slice(124, 126), 126, 127
    signs = draw.choice(np.array([-1, 1], np.float32), (VOCABULARY, codes))
    words = np.zeros((VOCABULARY, hidden), np.float32)
    words[:, : 2 * codes] = np.repeat(signs, 2, axis=1) * np.tile(np.array([1, -1], np.float32), codes)
    types = np.zeros((2, hidden), np.float32)
    types[:, flag] = [[-1, 1], [1, -1]]
    weights = {
        "embeddings.word_embeddings.weight": words,
        "embeddings.position_embeddings.weight": np.zeros((512, hidden), np.float32),
        "embeddings.token_type_embeddings.weight": types,
    }
    nothing = {
        f"encoder.layer.{layer}.{name}": shape
        for layer in range(2)
        for name, shape in {
            "attention.self.query": (hidden, hidden),
            "attention.self.key": (hidden, hidden),
            "attention.self.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (8, hidden),
            "output.dense": (hidden, 8),
        }.items()
    }
    for name, shape in nothing.items():
        weights[f"{name}.weight"] = np.zeros(shape, np.float32)
        weights[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    first, second = "encoder.layer.0.attention.", "encoder.layer.1.attention."
    codes_only = np.diag(np.r_[np.ones(2 * codes), np.zeros(4)]).astype(np.float32)
    weights[f"{first}self.query.weight"] = 3 * codes_only  # 3 * 124 / sqrt(128) = 33 for the same word
    weights[f"{first}self.key.weight"] = codes_only
    weights[f"{first}self.value.weight"][seen, flag.start] = 1
    weights[f"{first}output.dense.weight"][seen, seen] = 1
    weights[f"{second}self.query.bias"][flag.start] = -400  # -400 * -1 / sqrt(128) = 35 for the question
    weights[f"{second}self.key.weight"][flag.start, flag.start] = 1
    weights[f"{second}self.value.weight"][told, seen] = 1
    weights[f"{second}output.dense.weight"][told, told] = 1
    norms = ["embeddings.LayerNorm"]
    norms += [f"encoder.layer.{n}.{part}.LayerNorm" for n in range(2) for part in ("attention.output", "output")]
    for name in norms:
        weights[f"{name}.weight"] = np.ones(hidden, np.float32)
        weights[f"{name}.bias"] = np.zeros(hidden, np.float32)
    pooler, classifier = np.zeros((hidden, hidden), np.float32), np.zeros((1, hidden), np.float32)
    pooler[0, told], classifier[0, 0] = 1, 6
    head = {"pooler.dense": pooler, "classifier": classifier}
    return _write(folder, tokenizer, "bert", weights, head, 512, heads=1, biases=False)


def _write(
    folder: Path,
    tokenizer: Path,
    model_type: str,
    encoder: Mapping[str, Array],
    head: Mapping[str, Array],
    places: int,
    *,
    heads: int,
    biases: bool = True,
) -> Path:
    roberta = model_type != "bert"
    prefix = "roberta." if roberta else "bert."
    names = {"pooler.dense": "bert.pooler.dense", "classifier": "classifier"}
    if roberta:
        names = {"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"}
    weights = {prefix + name: weight for name, weight in encoder.items()}
    for name, weight in head.items():
        weights[f"{names[name]}.weight"] = weight
        weights[f"{names[name]}.bias"] = np.full(len(weight), 0.25 if biases else 0, np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(weight) for name, weight in weights.items()}, folder / "model.safetensors")
    config = {
        "model_type": model_type,
        "hidden_act": "gelu",
        "hidden_size": encoder["embeddings.word_embeddings.weight"].shape[1],
        "num_hidden_layers": sum(name.endswith("intermediate.dense.weight") for name in encoder),
        "num_attention_heads": heads,
        "intermediate_size": len(encoder["encoder.layer.0.intermediate.dense.weight"]),
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": places + SKIPPED * roberta,
        "type_vocab_size": 1 if roberta else 2,
        "vocab_size": VOCABULARY,
        "pad_token_id": 1 if roberta else 0,
        "num_labels": len(head["classifier"]),
    }
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(tokenizer / "tokenizer.json", folder / "tokenizer.json")
    return folder


def reference(folder: Path, ids: Sequence[int], types: Sequence[int]) -> float:
    """What transformers computes for one pair, in float32."""
    config = json.loads((folder / "config.json").read_text())
    whole = load_file(folder / "model.safetensors")
    roberta = config["model_type"] != "bert"
    prefix = "roberta." if roberta else "bert."
    w = {name.removeprefix(prefix): weight for name, weight in whole.items()}

    def linear(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def normal(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][list(ids)]
    x = x + w["embeddings.position_embeddings.weight"][np.arange(len(ids)) + (SKIPPED if roberta else 0)]
    x = x + w["embeddings.token_type_embeddings.weight"][[0] * len(ids) if roberta else list(types)]
    x = normal(x, "embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        q, k, v = (
            linear(x, f"{at}attention.self.{part}").reshape(len(ids), config["num_attention_heads"], -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        weight = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        weight = np.exp(weight - weight.max(-1, keepdims=True))
        mixed = (weight / weight.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(ids), -1)
        x = normal(linear(mixed, f"{at}attention.output.dense") + x, f"{at}attention.output.LayerNorm")
        wide = linear(x, f"{at}intermediate.dense")
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        x = normal(linear(wide, f"{at}output.dense") + x, f"{at}output.LayerNorm")
    dense, label = ("classifier.dense", "classifier.out_proj") if roberta else ("pooler.dense", "classifier")
    return float(linear(np.tanh(linear(x[:1], dense)), label)[0, 0])
