"""What every Embedder promises, over onnxruntime (prepared without torch, and exported with it) and over
sentence-transformers, with the default model."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import threading
from collections import defaultdict

import numpy as np
import pytest

from llamabda.adapters.onnx import Description, OnnxEmbedder
from llamabda.bert_onnx import prepare
from llamabda.catalogue import CATALOGUE
from llamabda.errors import ConfigurationError, ModelError
from llamabda.models import fetch
from llamabda.wiring_models import cache_dir

NAME = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = (
    "The cat sleeps on the warm windowsill all afternoon.",
    "A kitten naps in the sun by the window.",
    "The central bank raised interest rates by half a point.",
    "Monetary policy was tightened again this quarter.",
    "Photosynthesis turns light into chemical energy in plants.",
    "A universidade exige frequência mínima de setenta e cinco por cento.",
    "To reset the router, hold the button down for ten seconds. " * 12,
    "OK",
)
INSTALLED = importlib.util.find_spec("sentence_transformers") is not None
without_torch = pytest.mark.skipif(
    not INSTALLED,
    reason="the sentence_transformers adapter is not tested: its package is not installed (it needs torch)",
)


@pytest.fixture(scope="session")
def prepared():
    return fetch(NAME, cache=cache_dir() / "models")


@pytest.fixture(scope="session")
def source():
    return fetch(NAME, cache=cache_dir() / "models", prepared=False)


@pytest.fixture(scope="session")
def onnx(prepared):
    return OnnxEmbedder(prepared, threads=2)


@pytest.fixture(scope="session")
def torch(source):
    from llamabda.adapters.sentence_transformers import SentenceTransformersEmbedder

    return SentenceTransformersEmbedder(str(source), threads=2)


@pytest.fixture(scope="session")
def exported(minilm_export):
    """The same model, made by `llamabda models export`."""
    return OnnxEmbedder(minilm_export, threads=2)


@pytest.fixture(params=["onnx", "torch", "exported"] if INSTALLED else ["onnx"])
def embedder(request):
    return request.getfixturevalue(request.param)


def test_documents_give_one_unit_row_each(embedder):
    vectors = embedder.embed_documents(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((len(TEXTS), embedder.dim), np.float32)
    assert embedder.dim == 384
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_documents_give_no_rows(embedder):
    vectors = embedder.embed_documents([])
    assert (vectors.shape, vectors.dtype) == ((0, embedder.dim), np.float32)


def test_a_query_gives_one_unit_vector(embedder):
    vector = embedder.embed_query(TEXTS[0])
    assert (vector.shape, vector.dtype) == ((embedder.dim,), np.float32)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_the_same_text_gives_the_same_vector(embedder):
    np.testing.assert_array_equal(embedder.embed_documents(TEXTS), embedder.embed_documents(TEXTS))


def test_a_vector_depends_neither_on_its_batch_mates_nor_on_its_place(embedder):
    together = embedder.embed_documents(TEXTS)
    alone = np.concatenate([embedder.embed_documents([text]) for text in TEXTS])
    turned = embedder.embed_documents(TEXTS[::-1])[::-1]
    np.testing.assert_allclose(together, alone, atol=2e-6)
    np.testing.assert_allclose(together, turned, atol=2e-6)


def test_this_model_embeds_questions_as_it_embeds_documents(embedder):
    np.testing.assert_allclose(embedder.embed_query(TEXTS[0]), embedder.embed_documents(TEXTS[:1])[0], atol=2e-6)


def test_texts_on_one_subject_are_closer_than_those_on_two(embedder):
    vectors = embedder.embed_documents(TEXTS)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.4 > cosines[0, 2]
    assert cosines[2, 3] > 0.4 > cosines[1, 3]


def test_unrelated_texts_lie_about_the_background(embedder):
    vectors = embedder.embed_documents([TEXTS[0], TEXTS[2], TEXTS[4]])
    cosines = (vectors @ vectors.T)[np.triu_indices(3, 1)]
    assert 0 <= embedder.background < 0.1
    assert abs(cosines.mean() - embedder.background) < 0.1


def test_a_text_beyond_the_limit_is_cut_there(embedder):
    words = [f"word{n}" for n in range(300)]
    long, longer = " ".join(words), " ".join([*words, "suddenly", "elephants"] * 2_000)
    np.testing.assert_allclose(embedder.embed_query(long), embedder.embed_query(longer), atol=2e-6)
    assert not np.allclose(embedder.embed_query(long), embedder.embed_query(" ".join(words[:20])), atol=1e-3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t ",
        "\0",
        "a\0b",
        "👩‍👩‍👧 🏳️‍🌈",
        "日本語の文章",
        "e\u0301",
        "\u202eright to left",
        "\ud83d",
        "half \udc00 pair",
        "[SEP] [MASK]",
    ],
    ids=ascii,
)
def test_any_string_has_a_vector(embedder, text):
    vectors = embedder.embed_documents(["before", text, "after"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[[0, 2]], embedder.embed_documents(["before", "after"]), atol=2e-6)


def test_the_languages_that_the_model_knows_are_told(embedder):
    assert embedder.languages in {("en",), ()}  # of the original files nothing says so


def test_a_prepared_model_says_which_languages_it_knows(onnx):
    assert onnx.languages == ("en",)


@pytest.mark.parametrize(
    ("said", "expected"), [({}, ()), ({"languages": ["pt-BR", "en"]}, ("pt", "en")), ({"languages": "mul"}, ("mul",))]
)
def test_a_description_may_say_which_languages_or_not(tmp_path, prepared, said, expected):
    content = json.loads((prepared / "embedder.json").read_text("utf-8"))
    del content["languages"]
    (tmp_path / "embedder.json").write_text(json.dumps(content | said), "utf-8")
    assert Description.read(tmp_path / "embedder.json").languages == expected


@without_torch
def test_a_model_card_says_which_languages_a_model_knows(tmp_path, source):
    from llamabda.adapters.sentence_transformers import SentenceTransformersEmbedder

    shutil.copytree(source, tmp_path / "model")
    card = tmp_path / "model" / "README.md"
    for text, expected in (
        ("---\nlanguage:\n- pt\n- no\n---\n# A", ("pt", "no")),
        ("---\n: [\n---\n", ()),
        ("# A", ()),
    ):
        card.write_text(text, "utf-8")
        assert SentenceTransformersEmbedder(str(tmp_path / "model"), threads=1).languages == expected
    known = SentenceTransformersEmbedder(str(tmp_path / "model"), threads=1, languages=("en",))
    assert known.languages == ("en",)


def test_a_fingerprint_is_a_short_name(embedder):
    assert re.fullmatch(r"[0-9a-z-]{1,64}", embedder.fingerprint)


def test_threads_get_the_vectors_of_their_own_texts(embedder):
    expected = embedder.embed_documents(TEXTS)
    found = defaultdict(list)

    def run(row):
        for _ in range(5):
            found[row].append(embedder.embed_query(TEXTS[row]))

    threads = [threading.Thread(target=run, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for row in range(4):
        np.testing.assert_allclose(found[row], [expected[row]] * 5, atol=2e-6)


@without_torch
def test_both_adapters_agree_but_are_not_taken_for_each_other(onnx, torch):
    sentences = TEXTS[:-1]  # a single word loses most by int8: .97
    cosines = (onnx.embed_documents(sentences) * torch.embed_documents(sentences)).sum(axis=1)
    assert cosines.min() >= 0.98
    assert onnx.embed_query(TEXTS[-1]) @ torch.embed_query(TEXTS[-1]) >= 0.95
    assert onnx.fingerprint != torch.fingerprint
    assert onnx.background == pytest.approx(torch.background, abs=0.02)


@pytest.mark.skipif(INSTALLED, reason="sentence-transformers is installed")
def test_without_the_package_the_message_says_what_to_install(source):
    from llamabda.adapters.sentence_transformers import SentenceTransformersEmbedder

    with pytest.raises(ConfigurationError, match="install torch"):
        SentenceTransformersEmbedder(str(source), threads=1)


def test_a_folder_that_is_not_prepared_is_named(tmp_path, source):
    with pytest.raises(ModelError, match=re.escape("model.onnx")):
        OnnxEmbedder(source, threads=1)
    from llamabda.adapters.sentence_transformers import SentenceTransformersEmbedder

    with pytest.raises(ModelError, match=re.escape("modules.json")):
        SentenceTransformersEmbedder(str(tmp_path), threads=1)


@pytest.mark.parametrize("damaged", ["model.onnx", "tokenizer.json", "embedder.json"])
def test_a_damaged_file_is_named(tmp_path, prepared, damaged):
    shutil.copytree(prepared, tmp_path / "model")
    (tmp_path / "model" / damaged).write_bytes(b"{}")
    with pytest.raises(ModelError, match=damaged):
        OnnxEmbedder(tmp_path / "model", threads=1)


def test_preparing_twice_gives_the_same_model(tmp_path, source, prepared):
    shutil.copytree(source, tmp_path / "source")
    entry = CATALOGUE[NAME]
    about = {"name": NAME, "background": entry.background, "prompts": dict(entry.prompts)}
    (tmp_path / "source" / "about.json").write_text(json.dumps(about))
    prepare(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target" / "model.onnx").read_bytes() == (prepared / "model.onnx").read_bytes()
    described = [json.loads((folder / "embedder.json").read_text()) for folder in (tmp_path / "target", prepared)]
    assert described[0]["fingerprint"] == described[1]["fingerprint"]
    assert described[0]["max_tokens"] == 256


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "t5"}, "model_type is 't5'"),
        ("config.json", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("config.json", {"num_hidden_layers": 7}, "does not hold the weights"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling is"),
    ],
)
def test_a_model_that_cannot_be_prepared_says_what_differs(tmp_path, source, file, change, message):
    shutil.copytree(source, tmp_path / "source")
    path = tmp_path / "source" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=message):
        prepare(tmp_path / "source", tmp_path / "target")


def test_a_folder_without_weights_names_what_is_missing(tmp_path):
    with pytest.raises(ModelError, match=re.escape("model.safetensors")):
        prepare(tmp_path, tmp_path / "target")
