"""Models exported by torch: the packaged one, and small ones of other kinds, made here with random weights."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from llamabda import exported
from llamabda.adapters.onnx import OnnxEmbedder
from llamabda.cli import main
from llamabda.errors import InvalidInput, ModelError
from llamabda.models import fetch
from llamabda.wiring_models import models_dir

torch = pytest.importorskip("torch", reason="exporting models is not tested: torch is not installed")

from llamabda.export import Wishes, check, export  # noqa: E402  (after the skip)

PUBLISHED = "sentence-transformers/all-MiniLM-L6-v2"
SIZE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
COMMON = {**SIZE, "vocab_size": 30_522, "max_position_embeddings": 130, "pad_token_id": 0, "initializer_range": 0.3}
TEXTS = ["The harbour opens at eight.", "A universidade exige frequência mínima.", "", "word " * 400, "日本語 👍"]

pytestmark = pytest.mark.filterwarnings("default")  # torch's and its friends' own


@pytest.fixture(scope="session")
def published():
    return fetch(PUBLISHED, cache=models_dir(), prepared=False)


@pytest.fixture
def save(tmp_path, published):
    """Saves a transformers model with the packaged tokenizer and further modules: the folder."""

    def save(model, *modules, name="made", prompts=None, **options):
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Transformer
        from transformers import PreTrainedTokenizerFast

        bare, folder = tmp_path / "bare" / name, tmp_path / name
        model.save_pretrained(bare)
        tokens = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("unk", "pad", "cls", "sep", "mask")}
        PreTrainedTokenizerFast(tokenizer_file=str(published / "tokenizer.json"), **tokens).save_pretrained(bare)
        first = Transformer(str(bare), max_seq_length=128, **options)
        SentenceTransformer(modules=[first, *modules], prompts=prompts, device="cpu").save(str(folder))
        return folder

    return save


@pytest.fixture
def bert(save):
    """A small BERT with mean pooling."""
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    return save(BertModel(BertConfig(**COMMON | {"num_hidden_layers": 1})), Pooling(48, "mean"))


@pytest.fixture
def made(tmp_path):
    """Exports into a cache of the test."""

    def run(folder, name="made", **wishes):
        return export(str(folder), name=name, cache=tmp_path / "cache", threads=2, wishes=Wishes(**wishes), say=print)

    return run


def original(folder):
    from llamabda.adapters.sentence_transformers import SentenceTransformersEmbedder

    return SentenceTransformersEmbedder(str(folder), threads=2)


def cosines(one, other):
    return (one * other).sum(axis=1)


def about(folder):
    return json.loads((folder / "embedder.json").read_text())


def test_the_packaged_model_keeps_its_vectors_and_is_described(minilm_export, published):
    found, expected = OnnxEmbedder(minilm_export, threads=2), original(published)
    texts = [*check.DOCUMENTS, *check.UNRELATED]
    agreement = cosines(found.embed_documents(texts), expected.embed_documents(texts))
    assert agreement.mean() >= 0.985
    assert agreement.min() >= 0.95
    said = about(minilm_export)
    assert (said["dim"], said["max_tokens"], said["precision"]) == (384, 256, "int8")
    assert said["prompts"] == {"query": "", "document": ""}
    assert said["background"] == pytest.approx(expected.background, abs=0.01)
    assert said["agreement"]["mean"] == pytest.approx(agreement.mean(), abs=0.005)
    assert re.fullmatch(r"minilm-int8-[0-9a-f]{12}", said["fingerprint"])
    assert (minilm_export / "model.onnx").stat().st_size < 0.3 * (published / "model.safetensors").stat().st_size


def test_it_is_recorded_what_an_export_was_made_of(minilm_export, published):
    (found,) = exported.every(minilm_export.parent.parent)
    assert (found.name, found.folder, found.original) == ("minilm", minilm_export, published)
    assert found.source["files"]["model.safetensors"]["size"] == 90_868_376
    assert re.fullmatch(r"[0-9a-f]{64}", found.source["digest"])
    assert not found.outdated
    versions = json.loads((minilm_export / exported.RECORD).read_text())["versions"]
    assert versions["torch"].startswith(torch.__version__.split("+")[0])


def test_an_export_tells_nothing_about_where_it_was_made(minilm_export):
    content = (minilm_export / "model.onnx").read_bytes()
    assert b"site-packages" not in content
    assert str(Path.home()).encode() + b"/" not in content


def kinds():
    """Architectures by name: a model, the modules after it, and prompts."""
    import transformers as t
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

    return {
        "XLM-R, mean, dense, normalised": (
            lambda: t.XLMRobertaModel(t.XLMRobertaConfig(**COMMON)),
            lambda: [Pooling(48, "mean"), Dense(48, 24), Normalize()],
            {"query": "query: ", "passage": "passage: "},
        ),
        "MPNet, first token": (lambda: t.MPNetModel(t.MPNetConfig(**COMMON)), lambda: [Pooling(48, "cls")], None),
        "DistilBERT, mean": (
            lambda: t.DistilBertModel(
                t.DistilBertConfig(
                    vocab_size=30_522, dim=48, n_layers=2, n_heads=4, hidden_dim=96, initializer_range=0.3
                )
            ),
            lambda: [Pooling(48, "mean")],
            {"query": "search: ", "document": ""},
        ),
        "a decoder, last token": (
            lambda: t.Qwen3Model(t.Qwen3Config(**COMMON, num_key_value_heads=2, head_dim=12)),
            lambda: [Pooling(48, "lasttoken"), Normalize()],
            {"query": "Find: "},
        ),
    }


@pytest.mark.parametrize(
    "kind", ["XLM-R, mean, dense, normalised", "MPNet, first token", "DistilBERT, mean", "a decoder, last token"]
)
def test_other_architectures_keep_their_vectors_and_prompts(save, made, kind):
    model, modules, prompts = kinds()[kind]
    torch.manual_seed(1)
    folder = save(model(), *modules(), prompts=prompts)
    found = OnnxEmbedder(made(folder, precision="float32").folder, threads=2)
    expected = original(folder)
    assert found.dim == expected.dim
    assert cosines(found.embed_documents(TEXTS), expected.embed_documents(TEXTS)).min() > 0.9999
    for text in TEXTS:
        assert found.embed_query(text) @ expected.embed_query(text) > 0.9999
    assert np.allclose(found.embed_query("x"), found.embed_documents(["x"])[0]) == (not prompts)


def test_exporting_twice_gives_the_same_model(bert, made):
    first = made(bert)
    content = (first.folder / "model.onnx").read_bytes()
    again = made(bert)
    assert again.folder == first.folder
    assert (again.folder / "model.onnx").read_bytes() == content
    assert again.about == first.about


def test_what_the_user_says_is_taken_over_and_what_the_card_says_otherwise(bert, made):
    (bert / "README.md").write_text("---\nlanguage: [pt, en]\nlicense: mit\n---\n")
    card = made(bert).about
    assert (card["languages"], card["licence"]) == (["pt", "en"], "MIT")
    wishes = {"languages": ("de",), "licence": "Apache-2.0", "background": 0.7, "max_tokens": 9, "query_prompt": "q: "}
    said = made(bert, **wishes)
    assert (said.about["languages"], said.about["licence"], said.about["background"]) == (["de"], "Apache-2.0", 0.7)
    embedder = OnnxEmbedder(said.folder, threads=1)
    long = "one two three four five six seven"
    np.testing.assert_array_equal(embedder.embed_documents([long])[0], embedder.embed_documents([long + " more"])[0])
    np.testing.assert_array_equal(embedder.embed_query("x"), embedder.embed_documents(["q: x"])[0])


def test_a_limit_above_the_models_is_refused(bert, made):
    with pytest.raises(InvalidInput, match="128"):
        made(bert, max_tokens=129)


def test_where_int8_is_too_far_the_model_stays_float32_and_says_so(bert, made, monkeypatch):
    monkeypatch.setattr(check, "CLOSE_ORDER", 1.1)
    found = made(bert)
    assert found.about["precision"] == "float32"
    assert "too far" in found.notes[0]
    assert "-float32-" in OnnxEmbedder(found.folder, threads=1).fingerprint


def test_a_graph_that_gives_other_vectors_is_not_put_in_place(bert, made, monkeypatch):
    good = made(bert)
    content = (good.folder / "model.onnx").read_bytes()
    monkeypatch.setattr(check, "EXACT", 1.1)
    with pytest.raises(ModelError, match="does not give its vectors"):
        made(bert)
    assert (good.folder / "model.onnx").read_bytes() == content
    assert [path.name for path in good.folder.parent.iterdir() if path.is_dir()] == [good.folder.name]


def test_a_folder_that_was_changed_after_the_export_is_noticed(bert, made, tmp_path):
    made(bert)
    lines: list[str] = []
    fetch("made", cache=tmp_path / "cache", progress=lines.append)
    assert lines == []
    weights = bert / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with weights.open("ab") as file:
        file.write(b"more")
    fetch("made", cache=tmp_path / "cache", progress=lines.append)
    assert "changed since it was exported" in lines[0]


def test_code_that_comes_with_a_model_is_never_run(bert, made, tmp_path):
    modules = json.loads((bert / "modules.json").read_text())
    modules[0]["type"] = "own_code.Own"
    (bert / "modules.json").write_text(json.dumps(modules))
    ran = tmp_path / "ran"
    (bert / "own_code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(ModelError, match=r"made comes with code of its own \(own_code.Own\)"):
        made(bert)
    assert not ran.exists()


def test_code_named_by_the_configuration_of_transformers_is_never_run(bert, made, tmp_path):
    config = json.loads((bert / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own_code.Own", "AutoModel": "own_code.Own"}}
    (bert / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (bert / "own_code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(ModelError, match="made"):
        made(bert)
    assert not ran.exists()


class Trap:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


def test_pickled_weights_are_read_but_nothing_in_them_is_run(bert, made, tmp_path):
    from safetensors.torch import load_file

    safe = bert / "model.safetensors"
    torch.save(load_file(safe), bert / "pytorch_model.bin")
    safe.unlink()
    assert made(bert).about["dim"] == 48
    ran = tmp_path / "ran"
    torch.save({"embeddings.word_embeddings.weight": Trap(ran)}, bert / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load"):
        made(bert)
    assert not ran.exists()
    (bert / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(ran), protocol=2))
    with pytest.raises(ModelError, match="cannot load"):
        made(bert)
    assert not ran.exists()


def test_prompts_that_are_left_out_of_the_mean_are_refused(save, made):
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel

    folder = save(BertModel(BertConfig(**COMMON)), Pooling(48, "mean", include_prompt=False), prompts={"query": "q: "})
    with pytest.raises(ModelError, match="include_prompt"):
        made(folder)
    assert made(folder, query_prompt="").about["prompts"] == {"query": "", "document": ""}


def test_a_model_that_cuts_questions_elsewhere_is_refused(save, made):
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel

    folder = save(BertModel(BertConfig(**COMMON)), Pooling(48, "mean"), query_length=8)
    with pytest.raises(ModelError, match="gives other tokens than the model does, for a query"):
        made(folder)


def test_two_towers_are_refused(tmp_path, made):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    towers = [[StaticEmbedding(Tokenizer(WordLevel({"a": 0}, "a")), embedding_dim=4)] for _ in range(2)]
    SentenceTransformer(modules=[Router.for_query_document(*towers)], device="cpu").save(str(tmp_path / "two"))
    with pytest.raises(ModelError, match=r"two cannot be exported: .*Router.*EMBED_BACKEND=sentence_transformers"):
        made(tmp_path / "two")


@pytest.mark.parametrize("broken", ["model.safetensors", "config.json", "modules.json", "tokenizer.json"])
def test_a_damaged_folder_is_named(bert, made, broken):
    (bert / broken).write_bytes(b"{")
    with pytest.raises(ModelError, match=re.escape(str(bert))):
        made(bert)


def test_a_model_for_dot_products_says_that_cosine_is_used(bert, made):
    file = bert / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"similarity_fn_name": "dot"}))
    assert "dot similarity" in made(bert).notes[0]


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A model hub that nobody answers for, and an empty cache of its library."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("owner/model", "owner/model is neither a folder here nor in the cache"),
        ("./no/such/folder", "neither a folder here nor a name of the model hub"),
    ],
)
def test_a_model_that_cannot_be_had_ends_the_command_with_5(model, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LLAMABDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLAMABDA_HOME", str(tmp_path / "home"))
    assert main(["models", "export", model]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_the_command_exports_and_says_what_comes_next(bert, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LLAMABDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLAMABDA_HOME", str(tmp_path / "home"))
    assert main(["models", "export", str(bert), "--name", "own/small", "--languages", "pt,en"]) == 0
    out, err = capsys.readouterr()
    for word in ("own/small", "dimension", "48", "pt, en", "cosine to the original", "background", "small-int8-"):
        assert word in out
    assert "EMBED_MODEL_NAME=own/small, then `llamabda reindex`" in err
    assert main(["models", "export", str(bert), "--name", "own/small", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert OnnxEmbedder(Path(said["path"]), threads=1).fingerprint == said["fingerprint"]
    shutil.rmtree(bert)
    assert main(["models", "list", "--json"]) == 0
    rows = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)["models"]}
    assert rows["own/small"] == "ready"
