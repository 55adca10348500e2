"""What every Reranker promises, over onnxruntime, with networks made here whose scores are known."""

from __future__ import annotations

import json
import re
import shutil
import threading

import numpy as np
import pytest

from llamabda.adapters.onnx_reranker import OnnxReranker
from llamabda.cross_encoder_onnx import prepare
from llamabda.errors import DependencyFailed, ModelError
from llamabda.models import fetch
from llamabda.types import Deadline
from llamabda.wiring_models import cache_dir
from tests import cross_encoders

QUESTION = "When does the harbour office open?"
TEXTS = (
    "The harbour office opens at eight in the morning.",
    "Green tea is grown in the hills.",
    "The office does open when the harbour does.",
    "Banks close at noon, and the harbour at dusk.",
    "",
    "open open open",
    "A universidade exige frequência mínima.",
)
PLACES = 64  # of the random networks
QUANTISED = 0.15  # how far 8 bits move a score of these networks at most


@pytest.fixture(scope="session")
def tokenizer_folder():
    return fetch("sentence-transformers/all-MiniLM-L6-v2", cache=cache_dir() / "models", prepared=False)


@pytest.fixture(scope="session")
def made(tokenizer_folder, tmp_path_factory):
    """A source folder and the prepared one, by kind."""
    root = tmp_path_factory.mktemp("cross-encoders")
    folders = {}
    for kind in ("bert", "xlm-roberta", "overlap"):
        source, target = root / kind, root / f"{kind}-prepared"
        if kind == "overlap":
            cross_encoders.overlap(source, tokenizer_folder)
        else:
            cross_encoders.random(source, tokenizer_folder, model_type=kind, places=PLACES)
        prepare(source, target)
        folders[kind] = (source, target)
    return folders


@pytest.fixture(scope="session")
def bert(made):
    return OnnxReranker(made["bert"][1], threads=2)


@pytest.fixture(scope="session")
def overlap(made):
    return OnnxReranker(made["overlap"][1], threads=2)


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder):
    import tokenizers

    found = tokenizers.Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    found.no_padding()
    found.no_truncation()
    found.encode_special_tokens = True
    return found


def scores(reranker, texts, question=QUESTION):
    return reranker.scores(question, texts, deadline=Deadline.after(600))


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_scores_are_those_of_the_network_but_for_quantisation(made, tokenizer, kind):
    source, target = made[kind]
    pairs = [tokenizer.encode(QUESTION, text) for text in TEXTS]
    expected = [cross_encoders.reference(source, pair.ids, pair.type_ids) for pair in pairs]
    found = scores(OnnxReranker(target, threads=2), TEXTS)
    assert np.ptp(expected) > 2 * QUANTISED  # a network that gives all the same would prove nothing
    np.testing.assert_allclose(found, expected, atol=QUANTISED)
    assert np.corrcoef(found, expected)[0, 1] > 0.98


def test_question_and_passage_are_told_apart(made, bert, tokenizer):
    pairs = [tokenizer.encode(QUESTION, text) for text in TEXTS]
    alike = [cross_encoders.reference(made["bert"][0], pair.ids, [0] * len(pair.ids)) for pair in pairs]
    assert max(abs(scores(bert, TEXTS) - alike)) > 3 * QUANTISED  # so the types take part in the graph's scores


def test_texts_that_hold_more_of_the_questions_words_score_higher(overlap):
    texts = ["harbour", "harbour office", "the harbour office", "the harbour office does open", "green tea"]
    found = scores(overlap, texts)
    assert found[4] < found[0] < found[1] < found[2] < found[3]
    # of nine tokens, [CLS] and [SEP] included, so many stand in both parts
    held = np.array([1, 2, 3, 5, 0])
    assert np.corrcoef(found, held)[0, 1] > 0.97


def test_scores_are_finite_float32_one_for_each_text(bert):
    found = scores(bert, TEXTS)
    assert (found.shape, found.dtype) == ((len(TEXTS),), np.float32)
    assert np.isfinite(found).all()
    assert scores(bert, []).shape == (0,)


def test_a_score_depends_neither_on_the_other_texts_nor_on_its_place(bert):
    together = scores(bert, TEXTS)
    np.testing.assert_array_equal(together, [scores(bert, [text])[0] for text in TEXTS])
    np.testing.assert_array_equal(together, scores(bert, TEXTS[::-1])[::-1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t ",
        "\0",
        "a\0b",
        "👩‍👩‍👧 🏳️‍🌈",
        "日本語の文章",
        "\u202eright to left",
        "\ud83d",
        "half \udc00 pair",
        "[PAD]" * 9,
    ],
    ids=ascii,
)
def test_any_string_has_a_score_as_question_and_as_text(bert, text):
    assert np.isfinite(scores(bert, ["before", text, "after"])).all()
    assert np.isfinite(scores(bert, TEXTS, text)).all()
    np.testing.assert_array_equal(scores(bert, [TEXTS[0], text])[0], scores(bert, TEXTS[:1])[0])


@pytest.mark.parametrize("control", ["[SEP]", "[CLS]", "[MASK]"])
def test_words_that_stand_for_control_tokens_are_text(made, tokenizer, bert, control):
    text = f"tea {control} harbour"
    pair = tokenizer.encode(QUESTION, text)
    assert pair.ids.count(tokenizer.token_to_id(control)) == (2 if control == "[SEP]" else control == "[CLS]")
    expected = cross_encoders.reference(made["bert"][0], pair.ids, pair.type_ids)
    assert scores(bert, [text])[0] == pytest.approx(expected, abs=QUANTISED)


def test_of_a_long_passage_the_end_is_cut_and_nothing_of_the_question(made, tokenizer, bert):
    words = [f"word{n}" for n in range(400)]
    long, longer = " ".join(words), " ".join([*words, "harbour"] * 500)
    (found,) = scores(bert, [long])
    assert found == scores(bert, [longer])[0]
    whole = tokenizer.encode(QUESTION, long)
    ids, types = [*whole.ids[: PLACES - 1], whole.ids[-1]], whole.type_ids[:PLACES]
    assert types.count(0) == len(tokenizer.encode(QUESTION).ids)
    assert found == pytest.approx(cross_encoders.reference(made["bert"][0], ids, types), abs=QUANTISED)


def test_a_question_that_leaves_no_room_is_cut_to_half(bert):
    asked = [f"word{n}" for n in range(300)]
    found = scores(bert, TEXTS, " ".join(asked))
    assert len(set(found.tolist())) == len(TEXTS)  # the passages are still read
    np.testing.assert_array_equal(found, scores(bert, TEXTS, " ".join([*asked, "tea"] * 20)))


def test_texts_of_200_000_characters_are_scored(bert):
    assert np.isfinite(scores(bert, ["tea [SEP] \ud83d" * 20_000] * 3, "office " * 30_000)).all()


def test_after_the_deadline_nothing_is_scored(bert):
    assert bert.scores(QUESTION, TEXTS, deadline=Deadline.after(0)).shape == (0,)


def test_the_deadline_stops_between_two_texts_and_what_was_scored_is_given(made):
    """The clock is the deadline's own: it passes when it has been looked at so often."""

    class Countdown:
        def __init__(self, looks: int) -> None:
            self.looks, self.lock = looks, threading.Lock()

        def passed(self) -> bool:
            with self.lock:
                self.looks -= 1
                return self.looks < 0

    one = OnnxReranker(made["bert"][1], threads=1)
    found = one.scores(QUESTION, TEXTS, deadline=Countdown(4))  # one look before the first text
    np.testing.assert_array_equal(found, scores(one, TEXTS)[:3])


def test_threads_get_the_scores_of_their_own_questions(bert):
    questions = [QUESTION, "Where is tea grown?", "Quando abre?", "open"]
    expected = [scores(bert, TEXTS, question) for question in questions]
    found = {}

    def run(row):
        found[row] = [scores(bert, TEXTS, questions[row]) for _ in range(5)]

    threads = [threading.Thread(target=run, args=(row,)) for row in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for row, wanted in enumerate(expected):
        for once in found[row]:
            np.testing.assert_array_equal(once, wanted)


def test_a_model_that_cannot_be_run_is_a_failed_dependency(made, tmp_path):
    shutil.copytree(made["bert"][1], tmp_path / "model")
    (tmp_path / "model" / "reranker.json").write_text(json.dumps({"name": "it", "max_tokens": PLACES + 50}))
    reranker = OnnxReranker(tmp_path / "model", threads=1)
    with pytest.raises(DependencyFailed, match="the reranker it failed"):
        scores(reranker, ["word " * 200])


class Answering:
    """A session whose network gives this, whatever it is asked."""

    def __init__(self, answer):
        self.answer = answer

    def run(self, outputs, given):
        return [self.answer]


@pytest.mark.parametrize("shape", [(), (1,), (1, 2), (0, 1)], ids=str)
def test_scores_of_another_shape_are_a_failed_dependency(made, shape):
    reranker = OnnxReranker(made["bert"][1], threads=1)
    reranker._session = Answering(np.zeros(shape, np.float32))
    with pytest.raises(DependencyFailed, match=f"the shape {re.escape(str(shape))} for a pair"):
        scores(reranker, TEXTS)


def test_a_question_that_the_tokenizer_fails_at_is_a_failed_dependency(made):
    reranker = OnnxReranker(made["bert"][1], threads=1)

    class Failing:
        def encode(self, text, **options):
            raise IndexError("beyond the vocabulary")

    reranker._tokenizer = Failing()
    with pytest.raises(DependencyFailed, match="beyond the vocabulary"):
        scores(reranker, TEXTS)


def test_scores_while_the_process_ends_are_a_failed_dependency(made):
    reranker = OnnxReranker(made["bert"][1], threads=1)
    reranker._pool.shutdown()
    with pytest.raises(DependencyFailed, match="failed"):
        scores(reranker, TEXTS)


@pytest.mark.parametrize("damaged", ["model.onnx", "tokenizer.json", "reranker.json"])
def test_a_damaged_or_missing_file_is_named(tmp_path, made, damaged):
    shutil.copytree(made["bert"][1], tmp_path / "model")
    (tmp_path / "model" / damaged).write_bytes(b"{}")
    with pytest.raises(ModelError, match=damaged):
        OnnxReranker(tmp_path / "model", threads=1)
    (tmp_path / "model" / damaged).unlink()
    with pytest.raises(ModelError, match=damaged):
        OnnxReranker(tmp_path / "model", threads=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "deberta-v2"}, "model_type is 'deberta-v2', known is 'bert', 'roberta', 'xlm-roberta'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type is 'alibi'"),
        ({"num_hidden_layers": 7}, "does not hold the weights"),
        ({"num_attention_heads": None}, "num_attention_heads"),
    ],
)
def test_a_model_that_cannot_be_prepared_says_what_differs(tmp_path, made, change, message):
    shutil.copytree(made["bert"][0], tmp_path / "source")
    path = tmp_path / "source" / "config.json"
    config = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    with pytest.raises(ModelError, match=re.escape(message)):
        prepare(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_classifier_of_several_labels_is_refused(tmp_path, tokenizer_folder):
    cross_encoders.random(tmp_path / "source", tokenizer_folder, labels=3)
    with pytest.raises(ModelError, match="gives 3 labels"):
        prepare(tmp_path / "source", tmp_path / "target")


def test_an_embedding_model_is_no_reranker(tmp_path, tokenizer_folder):
    with pytest.raises(ModelError, match=r"does not hold the weights.*classifier"):
        prepare(tokenizer_folder, tmp_path / "target")


def test_the_limit_that_the_tokenizer_tells_counts_when_it_is_lower(tmp_path, made):
    shutil.copytree(made["bert"][0], tmp_path / "source")
    for told, limit in ((32, 32), (512, PLACES), (1e30, PLACES)):
        (tmp_path / "source" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": told}))
        prepare(tmp_path / "source", tmp_path / "target")
        assert json.loads((tmp_path / "target" / "reranker.json").read_text())["max_tokens"] == limit
