"""Weight matrices as int8 with one scale per column, token tables as int8 with one per row; all else stays float32.

The activations of a matrix product are quantised while it runs, once for all products that share them.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llamabda.bert_onnx import CONTRIB, TABLE_LIMIT, WEIGHT_LIMIT, scales_of
from llamabda.export.graph import save

if TYPE_CHECKING:
    from numpy.typing import NDArray

TABLE_ROWS = 2_000  # from here on it is one of tokens, and large; positions and types stay as they are


def write(source: Path, target: Path) -> None:
    """From a float32 model.onnx of `graph`."""
    import onnx

    model = onnx.load(str(source))
    Quantiser(model).run()
    save(model, target)


class Quantiser:
    """Changes a ModelProto in place."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._graph = model.graph
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._readers: dict[str, list[Any]] = defaultdict(list)
        for node in model.graph.node:
            for value in node.input:
                self._readers[value].append(node)
        self._outputs = {value.name for value in model.graph.output}
        self._quantised: dict[str, tuple[str, str, str]] = {}  # an activation -> its int8 values, scale, zero point
        self._nodes: list[Any] = []
        self._absorbed: set[str] = set()  # outputs of nodes that became part of another

    def run(self) -> None:
        from onnx import helper

        for node in self._graph.node:
            if node.op_type == "MatMul" and self._is_matrix(node.input[1]):
                self._product(node)
            elif node.op_type == "Gather" and self._is_table(node):
                self._look_up(node)
            elif node.output[0] not in self._absorbed:
                self._nodes.append(node)
        used = {value for node in self._nodes for value in node.input} | self._outputs
        constants = [tensor for name, tensor in self._constants.items() if name in used or self._has_subgraphs()]
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        del self._graph.initializer[:]
        self._graph.initializer.extend(constants)
        if not any(opset.domain == CONTRIB for opset in self._model.opset_import):
            self._model.opset_import.append(helper.make_opsetid(CONTRIB, 1))

    def _is_matrix(self, name: str) -> bool:
        return self._is_float(name) and len(self._constants[name].dims) == 2

    def _is_table(self, node: Any) -> bool:
        name = node.input[0]
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        return axis == 0 and self._is_matrix(name) and self._constants[name].dims[0] >= TABLE_ROWS

    def _is_float(self, name: str) -> bool:
        from onnx import TensorProto

        return name in self._constants and self._constants[name].data_type == TensorProto.FLOAT

    def _has_subgraphs(self) -> bool:
        """Then it is not known what they read."""
        return any(a.HasField("g") or a.graphs for node in self._nodes for a in node.attribute)

    def _product(self, node: Any) -> None:
        x, name = node.input
        weight = self._array(name)
        column_scales = scales_of(weight, axis=0, limit=WEIGHT_LIMIT)
        inputs = [
            self._activation(x)[0],
            self._constant(name + ".int8", np.rint(weight / column_scales).astype(np.int8)),
            self._activation(x)[1],
            self._constant(name + ".scale", column_scales[0]),
            self._activation(x)[2],
            self._constant(name + ".zero", np.zeros(weight.shape[1], np.int8)),
        ]
        bias, output = self._bias(node.output[0])
        self._add("MatMulIntegerToFloat", [*inputs, *bias], [output], domain=CONTRIB)

    def _bias(self, product: str) -> tuple[list[str], str]:
        """The constant that is added to a product and to nothing else, and the sum's name."""
        readers = self._readers[product]
        if len(readers) == 1 and readers[0].op_type == "Add" and product not in self._outputs:
            (other,) = [value for value in readers[0].input if value != product] or [""]
            if self._is_float(other) and len(self._constants[other].dims) == 1:
                self._absorbed.add(readers[0].output[0])
                return [other], readers[0].output[0]
        return [], product

    def _activation(self, x: str) -> tuple[str, str, str]:
        if x not in self._quantised:
            self._quantised[x] = (f"{x}.quantised", f"{x}.quantised.scale", f"{x}.quantised.zero")
            self._add("DynamicQuantizeLinear", [x], list(self._quantised[x]))
        return self._quantised[x]

    def _look_up(self, node: Any) -> None:
        from onnx import TensorProto

        name, ids = node.input
        table = self._array(name)
        row_scales = scales_of(table, axis=1, limit=TABLE_LIMIT)
        rows = self._constant(name + ".int8", np.rint(table / row_scales).astype(np.int8))
        scale = self._constant(name + ".scale", row_scales)
        out = node.output[0]
        self._add("Gather", [rows, ids], [out + ".int8"])
        self._add("Cast", [out + ".int8"], [out + ".float"], to=TensorProto.FLOAT)
        self._add("Gather", [scale, ids], [out + ".scale"])
        self._add("Mul", [out + ".float", out + ".scale"], [out])

    def _array(self, name: str) -> NDArray[np.float32]:
        from onnx import numpy_helper

        array: NDArray[np.float32] = numpy_helper.to_array(self._constants[name])
        return array

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def _add(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(op, inputs, outputs, name=f"{op}.{len(self._nodes)}", **attributes))
