"""What exporting a model costs in quality: `python -m benchmarks.export [--quick] [--most-loss 0.005]`.

The packaged MiniLM is exported by `llamabda models export`, and scifact is searched with the vectors of the exported
model and with those of the original on torch: exact cosines over whole documents (title, space, text) of all its test
queries, no words, no chunks. With --quick, over the documents that a query was judged with and 700 others.

Exit code 1 when more than --most-loss of the original's nDCG@10 is lost, or when it cannot be measured.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import quality
from benchmarks.measure import OURS, Row, Samples, Unavailable
from benchmarks.plan import ROOT, Plan, own_python, rival_python
from benchmarks.workers.client import Worker
from llamabda import models, wiring_models
from llamabda.cpu import available_cpus
from llamabda.errors import LlamabdaError

COLLECTION = "scifact"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
OTHERS = 700
BATCH = 256  # texts of one request to a worker
MOST_LOSS = 0.005  # of the original's nDCG@10


def run(plan: Plan) -> list[Row]:
    if plan.rival_python is None:
        raise Unavailable("exporting needs torch: `python scripts/bench_env.py` makes an environment that has it")
    return [measured(plan.rival_python, plan.threads, quick=plan.quick, say=plan.say)]


def measured(python: Path, threads: int, *, quick: bool, say: Callable[[str], None]) -> Row:
    data = Path(os.environ.get("LLAMABDA_DATA") or ROOT.parent / "shared" / "data")
    if not (data / "retrieval" / COLLECTION).is_dir():
        raise Unavailable(f"no evaluation data at {data}: set LLAMABDA_DATA to its folder")
    questions = quality.questions(data, COLLECTION)
    documents = [(document.id, document.text) for document in quality.corpus(data, COLLECTION)]
    if quick:
        documents = _some(documents, {judged for question in questions for judged, _ in question.relevant})
    published = models.fetch(MODEL, cache=wiring_models.models_dir(), progress=say, prepared=False)
    texts, asked = [text for _, text in documents], [question.text for question in questions]
    with tempfile.TemporaryDirectory(prefix="llamabda-export-") as cache:
        say(f"export: {MODEL}")
        with Worker(python, "exporter", threads=threads) as exporter:
            made = exporter.call("export", folder=str(published), cache=cache, threads=threads)
        found: dict[str, float] = {}
        for name, interpreter, module, folder in (
            ("original", python, "torch_embedder", str(published)),
            ("exported", own_python(), "onnx_embedder", made["folder"]),
        ):
            began = time.monotonic()
            with Worker(interpreter, module, threads=threads) as worker:
                worker.call("load", folder=folder, threads=threads)
                vectors, queries = vectors_of(worker, texts), vectors_of(worker, asked)
            found[name] = documents_ndcg([key for key, _ in documents], vectors, questions, queries)
            say(f"export: {name} nDCG@10 {found[name]:.4f}, {time.monotonic() - began:.0f} s")
    return _row(len(documents), found, str(made["precision"]))


def _row(documents: int, found: Mapping[str, float], precision: str) -> Row:
    loss = 1 - found["exported"] / found["original"]
    return Row(
        "export",
        f"nDCG@10 of vectors alone, {documents:,} documents of {COLLECTION}",
        "",
        Samples(f"{OURS}, {precision}", (found["exported"],)),
        (Samples("the original on torch", (found["original"],)),),
        higher_is_better=True,
        aim=f"loss <= {MOST_LOSS:.1%}",
        note=f"{found['exported']:.4f} of {found['original']:.4f}: loss {loss:.2%}",
    )


def loss_of(row: Row) -> float:
    """The share of the original's figure that is lost; negative where the export is better."""
    ours, original = row.ours.median, row.rivals[0].median
    if ours is None or not original:
        raise Unavailable("the original finds nothing, so nothing can be lost")
    return 1 - ours / original


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"the judged documents and {OTHERS} others only")
    parser.add_argument("--most-loss", type=float, default=MOST_LOSS, help="as a share (%(default)s)")
    parser.add_argument("--rival-python", type=Path, help="interpreter with torch and sentence-transformers")
    given = parser.parse_args(arguments)
    python = rival_python(given.rival_python)
    try:
        if python is None:
            raise Unavailable("exporting needs torch: `python scripts/bench_env.py` makes an environment that has it")
        row = measured(python, available_cpus(), quick=given.quick, say=_say)
        lost = loss_of(row)
    except (LlamabdaError, Unavailable) as exc:
        _say(f"the export could not be measured: {exc}")
        return 1
    print(f"{row.what}: {row.note}; at most {given.most_loss:.2%} may be lost")
    return int(lost > given.most_loss)


def _some(documents: list[tuple[str, str]], judged: set[str]) -> list[tuple[str, str]]:
    """The judged ones and some others, the same ones on every run."""
    others = [key for key, _ in documents if key not in judged]
    kept = judged | set(random.Random(1).sample(others, min(OTHERS, len(others))))
    return [document for document in documents if document[0] in kept]


def vectors_of(worker: Worker, texts: list[str], *, do: str = "vectors") -> NDArray[np.float32]:
    """(n, dim), by whatever the worker calls it."""
    rows = [row for at in range(0, len(texts), BATCH) for row in worker.call(do, texts=texts[at : at + BATCH])]
    return np.array(rows, np.float32)


def documents_ndcg(
    ids: Sequence[str],
    vectors: NDArray[np.float32],
    questions: Sequence[quality.Question],
    queries: NDArray[np.float32],
) -> float:
    best = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :10]
    gains = [
        quality.ndcg([ids[at] for at in row], dict(question.relevant))
        for question, row in zip(questions, best, strict=True)
    ]
    return float(np.mean(gains))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
