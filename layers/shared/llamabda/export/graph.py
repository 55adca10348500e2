"""The whole pipeline of a model as one ONNX graph: one text's token ids in, its embedding out."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamabda.errors import ModelError

if TYPE_CHECKING:
    from llamabda.export.original import Original

OPSET = 20
INPUT, OUTPUT = "input_ids", "embedding"  # as adapters.onnx calls them
EXAMPLE = "An example is traced: what it holds does not matter, that it has several tokens does."
# what a tokenizer gives besides the ids; of one text alone they are constant
KNOWN_FEATURES = {"input_ids", "attention_mask", "token_type_ids", "modality", "prompt_length"}
SINGLE_FILE = 1_500_000_000  # bytes; a protobuf message ends at 2 GB


def write(original: Original, file: Path) -> None:
    """float32. Larger ones get a second file, `model.onnx.data`. ModelError when the model cannot be laid out."""
    import onnx

    features = original.features(EXAMPLE, "document")
    _require_known(original, features)
    traced = file.with_name("traced.onnx")
    try:
        _trace(original, features, traced)
        model = onnx.load(str(traced))
    finally:
        for left in (traced, traced.with_name(traced.name + ".data")):
            left.unlink(missing_ok=True)
    _clean(model.graph)
    save(model, file)


def save(model: Any, file: Path) -> None:
    import onnx

    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    outside = {"save_as_external_data": True, "location": file.name + ".data"} if size > SINGLE_FILE else {}
    onnx.save_model(model, str(file), **outside)


def _require_known(original: Original, features: Mapping[str, Any]) -> None:
    unknown = sorted(set(features) - KNOWN_FEATURES)
    types = features.get("token_type_ids")
    if types is not None and bool(types.any()):
        unknown.append("token_type_ids other than 0")
    if unknown:
        raise ModelError(
            f"{original.name} cannot be exported: its first module wants {', '.join(unknown)}; "
            "EMBED_BACKEND=sentence_transformers runs it as it is"
        )


def _trace(original: Original, features: Mapping[str, Any], file: Path) -> None:
    import torch

    class Pipeline(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
        """Without a mask: a text alone has no padding."""

        def __init__(self) -> None:
            super().__init__()
            self.model = original.model

        def forward(self, ids: Any) -> Any:
            given = {"input_ids": ids}
            if "token_type_ids" in features:
                given["token_type_ids"] = torch.zeros_like(ids)
            embedding = self.model(given)["sentence_embedding"][:, : original.dim]
            return torch.nn.functional.normalize(embedding, p=2, dim=1)

    tokens = torch.export.Dim("tokens", min=1, max=original.max_tokens)
    try:
        with _quietly(), torch.no_grad():
            program = torch.onnx.export(
                Pipeline().eval(),
                (features["input_ids"],),
                dynamo=True,
                input_names=[f"the_{INPUT}"],  # not the final names: modules of the model may have those
                output_names=[f"the_{OUTPUT}"],
                dynamic_shapes=({1: tokens},),
                opset_version=OPSET,
                verbose=False,
            )
            program.save(str(file))
    except Exception as exc:
        raise ModelError(
            f"{original.name} cannot be exported: torch cannot lay out its graph ({_first_line(exc)}); "
            "EMBED_BACKEND=sentence_transformers runs it as it is"
        ) from exc


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter reports to stdout, to loggers and by warnings; what matters reaches the caller as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _first_line(exc: BaseException) -> str:
    root = exc.__cause__ or exc
    lines = [line for line in str(root).splitlines() if line.strip()] or [type(root).__name__]
    return lines[0][:300]


def _clean(graph: Any) -> None:
    """The final names, and nothing that tells where it was made."""
    names = {INPUT: f"inner.{INPUT}", OUTPUT: f"inner.{OUTPUT}", f"the_{INPUT}": INPUT, f"the_{OUTPUT}": OUTPUT}
    _rename(graph, names)
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
        del value.metadata_props[:]
    del graph.value_info[:]
    del graph.metadata_props[:]


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
        del tensor.metadata_props[:]
    for node in graph.node:
        for at, value in enumerate(node.input):
            node.input[at] = names.get(value, value)
        for at, value in enumerate(node.output):
            node.output[at] = names.get(value, value)
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _rename(inner, names)
