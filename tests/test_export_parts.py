"""Parts of the export that need no torch: int8, the comparison, and model cards."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from llamabda.errors import ModelError
from llamabda.export import check, fingerprint_of, int8
from llamabda.export.card import Card
from llamabda.export.check import Vectors, compare

ROWS, WIDTH = int8.TABLE_ROWS, 16


def model_of(nodes, outputs, **constants):
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "tokens"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def quantised(tmp_path):
    """Writes a model, quantises it, and runs both: operators, and the outputs of each."""

    def run(model):
        source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
        onnx.save(model, source)
        int8.write(source, target)
        found = onnx.load(target)
        ids = np.array([[1, 5, 1999, 5]], np.int64)
        sessions = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in (source, target)]
        return found.graph, *(session.run(None, {"ids": ids}) for session in sessions)

    return run


def operators(graph):
    return [node.op_type for node in graph.node]


def test_products_share_the_quantised_activation_and_take_their_bias_along(quantised):
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "a"], ["xa"]),
        helper.make_node("Add", ["bias", "xa"], ["first"]),
        helper.make_node("MatMul", ["x", "b"], ["second"]),
    ]
    model = model_of(
        nodes,
        ["first", "second"],
        table=random(ROWS, WIDTH),
        a=random(WIDTH, 8, seed=1),
        b=random(WIDTH, 8, seed=2),
        bias=random(8, seed=3),
    )
    graph, expected, found = quantised(model)
    assert operators(graph).count("DynamicQuantizeLinear") == 1
    assert operators(graph).count("MatMulIntegerToFloat") == 2
    assert {"MatMul", "Add"} & set(operators(graph)) == set()
    assert {tensor.name for tensor in graph.initializer} & {"table", "a", "b"} == set()
    for one, other in zip(expected, found, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999
        assert np.abs(one - other).max() < 0.05 * np.abs(one).max()


def test_a_sum_stays_where_the_product_is_used_otherwise_too(quantised):
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "a"], ["xa"]),
        helper.make_node("Add", ["xa", "bias"], ["sum"]),
        helper.make_node("Mul", ["sum", "xa"], ["out"]),
    ]
    model = model_of(nodes, ["out"], table=random(ROWS, WIDTH), a=random(WIDTH, 8, seed=1), bias=random(8, seed=3))
    graph, (expected,), (found,) = quantised(model)
    assert "Add" in operators(graph)
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.999


def test_what_is_no_weight_matrix_and_no_large_table_stays_as_it_is(quantised):
    nodes = [
        helper.make_node("Gather", ["positions", "few"], ["p"]),
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "stack"], ["y"]),
        helper.make_node("Transpose", ["y"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["y", "t"], ["scores"]),
        helper.make_node("Gemm", ["p", "dense"], ["out"]),
    ]
    model = model_of(
        nodes,
        ["scores", "out"],
        table=random(ROWS, WIDTH),
        positions=random(ROWS - 1, WIDTH),
        few=np.array([0, 3], np.int64),
        stack=random(1, WIDTH, WIDTH, seed=1),
        dense=random(WIDTH, 4, seed=2),
    )
    graph, expected, found = quantised(model)
    assert operators(graph).count("MatMul") == 2
    assert {"positions", "stack", "dense"} <= {tensor.name for tensor in graph.initializer}
    np.testing.assert_array_equal(expected[1], found[1])
    assert np.corrcoef(expected[0].ravel(), found[0].ravel())[0, 1] > 0.999


def test_whatever_changes_a_vector_changes_the_fingerprint_and_nothing_else_does(tmp_path):
    about = {"name": "own/Small Model", "precision": "int8", "max_tokens": 8, "prompts": {"query": "", "document": ""}}
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "tokenizer.json").write_text("{}")
    first = fingerprint_of(about, tmp_path)
    assert first.startswith("small-model-int8-")
    (tmp_path / "embedder.json").write_text("{}")
    assert fingerprint_of(about | {"background": 0.5, "licence": "MIT"}, tmp_path) == first
    others = [
        fingerprint_of(about | change, tmp_path)
        for change in ({"max_tokens": 9}, {"prompts": {"query": "q: ", "document": ""}}, {"precision": "float32"})
    ]
    for file, content in (("tokenizer.json", b"[]"), ("model.onnx", b"Graph"), ("model.onnx.data", b"weights")):
        (tmp_path / file).write_bytes(content)
        others.append(fingerprint_of(about, tmp_path))
    assert len({first, *others}) == 7


class Fixed:
    """Gives vectors as they were put in."""

    fingerprint, background, dim = "fixed", 0.0, 32

    def __init__(self, vectors):
        self.vectors = vectors

    def embed_documents(self, texts):
        return self.vectors.documents[: len(texts)]

    def embed_query(self, text):
        return self.vectors.queries[check.QUERIES.index(text)]


def vectors(seed=0):
    found = random(len(check.DOCUMENTS) + len(check.UNRELATED) + len(check.QUERIES), 32, seed=seed)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return Vectors(found[: -len(check.QUERIES)], found[-len(check.QUERIES) :])


def test_a_model_agrees_with_itself():
    agreement = compare(Fixed(vectors()), vectors())
    assert (agreement.mean, agreement.least, agreement.order, agreement.neighbours) == (1, 1, 1, 1)
    check.require_the_same(agreement, "model")
    assert check.close_enough(agreement)


def test_another_model_does_not_agree():
    agreement = compare(Fixed(vectors(seed=1)), vectors())
    assert abs(agreement.order) < 0.1
    assert not check.close_enough(agreement)
    with pytest.raises(ModelError, match="does not give its vectors"):
        check.require_the_same(agreement, "model")


def test_one_wrong_text_is_enough_to_refuse_a_graph():
    wrong = vectors()
    wrong.documents[7] = wrong.documents[8]
    agreement = compare(Fixed(wrong), vectors())
    assert agreement.mean > 0.97
    with pytest.raises(ModelError):
        check.require_the_same(agreement, "model")


def test_similarities_in_another_order_are_not_close_enough_however_close_the_vectors():
    narrow = vectors().documents * 0.05 + np.eye(32, dtype=np.float32)[0]
    moved = narrow + 0.01 * random(*narrow.shape, seed=3)
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (narrow, moved)]
    expected, found = (Vectors(each, each[: len(check.QUERIES)]) for each in unit)
    agreement = compare(Fixed(found), expected)
    assert agreement.mean > 0.99
    assert not check.close_enough(agreement)


def test_no_numbers_are_no_vectors():
    broken = vectors()
    broken.documents[0] = np.nan
    with pytest.raises(ModelError):
        compare(Fixed(broken), vectors())


@pytest.mark.parametrize(
    ("text", "card"),
    [
        ("---\nlanguage: pt\nlicense: mit\n---\n# Model", Card(("pt",), "MIT")),
        (
            "---\nlanguage:\n- en\n- pt\n- multilingual\n- no\nlicense: apache-2.0\n---\n",
            Card(("en", "pt", "mul", "no"), "Apache-2.0"),
        ),
        ("---\nlanguage: [en, pt-BR]\n---\n", Card(("en", "pt"))),
        ("---\nlicense: other-1.0\n---", Card((), "other-1.0")),
        ("---\nlanguage: 3\n---\n", Card()),
        ("---\n- a list\n---\n", Card()),
        ("---\n: [broken\n---\n", Card()),
        ("# No front matter\n---\nlicense: mit\n---\n", Card()),
        ("", Card()),
    ],
)
def test_a_card_says_languages_and_licence_or_nothing(text, card):
    assert Card.parse(text) == card
