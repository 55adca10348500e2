"""Makes the folder that the onnx embedder loads out of any sentence-transformers model, and checks it against that.

The whole pipeline of the model goes through torch's exporter (`graph`), its own tokenizer is taken along (`tokens`),
the weight matrices become int8 (`int8`), and what comes out is compared with what went in (`check`). Only what passes
is put in place. Needs torch, which serving does not.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llamabda import __version__, cached_folder, exported
from llamabda.errors import ConfigurationError, Conflict, ModelError

if TYPE_CHECKING:
    from llamabda.export.check import Agreement, Vectors
    from llamabda.export.original import Original

# what only this needs, and what carries it
LEAST_SPREAD = 0.05  # of the cosines between unrelated texts and the same text
PACKAGES = {
    "torch": "torch",
    "sentence_transformers": "sentence-transformers",
    "transformers": "transformers",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime": "onnxruntime",
}

Precision: TypeAlias = Literal["int8", "float32"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the model's files do not say, or say otherwise. None: as they say."""

    precision: Precision = "int8"
    background: float | None = None  # cosine; None: measured
    query_prompt: str | None = None
    document_prompt: str | None = None
    max_tokens: int | None = None  # can only lower the limit
    languages: tuple[str, ...] | None = None  # ISO 639
    licence: str | None = None  # SPDX


@dataclass(frozen=True, slots=True)
class Export:
    """What was made. `about` is its embedder.json; `notes` are sentences that the user should read."""

    name: str
    folder: Path
    about: Mapping[str, Any]
    notes: tuple[str, ...]


def export(
    model: str, *, name: str, cache: Path, threads: int, wishes: Wishes | None = None, say: Callable[[str], None]
) -> Export:
    """Puts the model into the cache, where `models.fetch(name)` finds it. Takes a minute, more for large models.

    `model`: a folder as sentence-transformers saves it, or a name of the model hub. What was exported under this name
    before is replaced, at once and only by something that passed.

    ConfigurationError: torch or another package that only this needs is not installed. ModelError: the model cannot be
    had or loaded, does something that the graph cannot, or the graph does not give the vectors of the original.
    Conflict: the name is that of an export of another model.
    """
    require_packages()
    from llamabda.export.original import Original

    wanted = wishes or Wishes()
    say(f"loading {model}")
    original = Original.load(model, threads=threads, wishes=wanted)
    place = exported.place(name, cache)
    try:
        with (
            cached_folder.locked(place, wait=lambda file: say(f"waiting for another export of {name} ({file})")),
            cached_folder.workshop(place) as work,
        ):
            known = exported.find(name, cache)
            if known is not None and known.name == name and not known.is_of(model):
                raise Conflict(f"{name} is already the name of an export of {known.of}; give this one another name")
            made, about, notes = _make(original, name, work, wanted, threads, say)
            exported.write_record(made, name, original.source, versions())
            cached_folder.swap(made, place)
    except OSError as exc:
        raise ModelError(f"model {name} cannot be put into the cache {cache}: {exc}") from exc
    return Export(name, place, about, (*original.notes, *notes))


def require_packages() -> None:
    """ConfigurationError that says what to install."""
    missing = [carrier for package, carrier in PACKAGES.items() if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigurationError(
            f"exporting a model needs packages that are not installed ({', '.join(missing)}): install torch, then "
            "llamabda[export]; models of the catalogue need neither (`llamabda models list`)"
        )


def versions() -> dict[str, str]:
    return {"llamabda": __version__} | {carrier: version(carrier) for carrier in PACKAGES.values()}


def _make(
    original: Original, name: str, work: Path, wishes: Wishes, threads: int, say: Callable[[str], None]
) -> tuple[Path, dict[str, Any], list[str]]:
    """The folder that passed, its description, and notes. Float32 comes first: a graph that is wrong must not be taken
    for one that int8 made inexact."""
    from llamabda.export import check, graph, int8, tokens

    original_vectors = check.vectors_of(original)
    exact = work / "float32"
    exact.mkdir()
    tokens.write(original, exact / "tokenizer.json")
    say("laying out the graph")
    graph.write(original, exact / "model.onnx")
    say("checking it against the original")
    about, agreement = _described(original, name, exact, "float32", original_vectors, wishes, threads)
    check.require_the_same(agreement, original.name)
    if wishes.precision == "float32":
        return exact, about, []
    small = work / "int8"
    small.mkdir()
    (small / "tokenizer.json").write_bytes((exact / "tokenizer.json").read_bytes())
    say("turning the weights into int8")
    int8.write(exact / "model.onnx", small / "model.onnx")
    say("checking that against the original")
    quantised, agreement = _described(original, name, small, "int8", original_vectors, wishes, threads)
    if check.close_enough(agreement):
        return small, quantised, []
    return exact, about, [f"int8 is too far from the original ({agreement}), so it stays float32"]


def _described(
    original: Original,
    name: str,
    folder: Path,
    precision: Precision,
    expected: Vectors,
    wishes: Wishes,
    threads: int,
) -> tuple[dict[str, Any], Agreement]:
    """Writes embedder.json. What it says of the vectors is measured, so the model runs twice: the second time, it is
    the folder as it will be used."""
    from llamabda.adapters.onnx import OnnxEmbedder
    from llamabda.adapters.sentence_transformers import cosine_scale
    from llamabda.export import check

    about: dict[str, Any] = {
        "name": name,
        "dim": original.dim,
        "max_tokens": original.max_tokens,
        "prompts": {"query": original.query_prompt, "document": original.document_prompt},
        "background": 0.0,
        "ceiling": 1.0,
        "fingerprint": "",
        "languages": list(original.languages),
        "licence": original.licence,
        "precision": precision,
    }
    about["fingerprint"] = fingerprint_of(about, folder)
    file = folder / exported.DESCRIPTION
    file.write_text(json.dumps(about), encoding="utf-8")
    embedder = OnnxEmbedder(folder, threads=threads)
    agreement = check.compare(embedder, expected)
    low, high = cosine_scale(embedder)
    about["background"] = round(low, 3) if wishes.background is None else wishes.background
    about["ceiling"] = round(min(1.0, max(high, about["background"] + LEAST_SPREAD)), 3)
    about["agreement"] = asdict(agreement)
    file.write_text(json.dumps(about, indent=1), encoding="utf-8")
    return about, agreement


def fingerprint_of(about: Mapping[str, Any], folder: Path) -> str:
    """Of all that decides a vector: the graph with its weights, the tokenizer, the limit and the prompts."""
    digest = sha256(json.dumps([about["max_tokens"], about["prompts"]], sort_keys=True).encode())
    for path in sorted(folder.iterdir()):
        if path.name != exported.DESCRIPTION:
            digest.update(f"{path.name} {cached_folder.sha256(path)}".encode())
    last = str(about["name"]).rstrip("/").rsplit("/", 1)[-1].lower()
    slug = re.sub(r"[^0-9a-z]+", "-", last).strip("-")[:40]
    return f"{slug}-{about['precision']}-{digest.hexdigest()[:12]}"
