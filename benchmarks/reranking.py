"""What re-ranking gains and costs. `RERANK_MODEL=folder python -m benchmarks.reranking [--quick]`.

gain    nDCG@10 and milliseconds a question (median, one at a time) over all test queries of scifact and faquad, with
        and without the cross-encoder of RERANK_MODEL, over the same index. It reads all candidates, however long that
        takes: what it would gain with enough time does not depend on what else the machine does.
cost    milliseconds for all candidates of a question, passages of 120 words, with a network of MiniLM-L6's size: the
        embedding model's own encoder under a head of random weights. It ranks no better than chance, but costs what a
        trained one costs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import OURS, Row, Samples, Section, Unavailable
from benchmarks.plan import ROOT, Plan, own_python
from benchmarks.quality import ndcg, questions, say, train
from llamabda.reranking import RERANK_CANDIDATES
from llamabda.settings import settings
from llamabda.types import Deadline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamabda.ports import Reranker
    from llamabda.search import Search

COLLECTIONS = ("scifact", "faquad")
TOP_K = 40  # chunks, of which the ten best documents are taken
SECONDS = 600.0
WITHOUT = "RERANK_MODEL is not set: what re-ranking gains was not measured. See docs/reranking.md for what it takes."


@dataclass(frozen=True, slots=True)
class Unhurried:
    """A reranker that takes its time."""

    reranker: Reranker

    def scores(self, question: str, texts: Sequence[str], *, deadline: Deadline) -> NDArray[np.float32]:
        return self.reranker.scores(question, texts, deadline=Deadline.after(SECONDS))


def run(plan: Plan) -> Iterator[Row | Section]:
    row = _cost(plan)
    if row is not None:
        yield row
    if not settings().rerank_model:
        yield Section("reranking", WITHOUT)
        return
    plan.say("reranking: every query of the collections, with and without")
    command = [str(own_python()), "-m", "benchmarks.reranking", *(["--quick"] if plan.quick else [])]
    with tempfile.TemporaryDirectory(prefix="llamabda-bench-") as home:
        environment = os.environ | {"LLAMABDA_HOME": home}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, check=False)
    if done.returncode:
        raise Unavailable(f"benchmarks.reranking ended with {done.returncode}; its messages stand above")
    yield Section("reranking", done.stdout)


def _cost(plan: Plan) -> Row | None:
    from llamabda.adapters.onnx_reranker import OnnxReranker
    from llamabda.cross_encoder_onnx import prepare

    if not (plan.published_folder / "model.safetensors").is_file():
        plan.say("reranking: the cost is left out, since the embedding model's encoder is not there as safetensors")
        return None
    passages = [text for _, text in plan.corpus.windows(RERANK_CANDIDATES, documents=len(plan.corpus.documents))]
    asked = plan.corpus.questions[: 3 if plan.quick else 10]
    with tempfile.TemporaryDirectory(prefix="llamabda-bench-") as name:
        source, target = Path(name) / "source", Path(name) / "prepared"
        _with_a_head(plan.published_folder, source)
        prepare(source, target)
        reranker = OnnxReranker(target, threads=plan.threads)
    found = []
    for number in range(plan.rounds + 1):
        began = time.perf_counter()
        for question in asked:
            reranker.scores(question, passages, deadline=Deadline.after(SECONDS))
        if number:  # the first warms up
            found.append(1000 * (time.perf_counter() - began) / len(asked))
    what = f"re-ranking {RERANK_CANDIDATES} passages of 120 words"
    return Row("reranking", what, "ms", Samples(OURS, tuple(found)), note="the embedding model's encoder, random head")


def _with_a_head(published: Path, target: Path) -> None:
    """A cross-encoder of random judgement out of an embedding model."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    draw = np.random.default_rng(5)
    weights = load_file(published / "model.safetensors")
    hidden = len(weights["embeddings.LayerNorm.weight"])
    for name, shape in {"pooler.dense": (hidden, hidden), "classifier": (1, hidden)}.items():
        weights[f"{name}.weight"] = draw.normal(0, hidden**-0.5, shape).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    target.mkdir()
    save_file(weights, target / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        (target / name).write_bytes((published / name).read_bytes())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reranking", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="faquad alone")
    given = parser.parse_args(arguments)
    data = Path(os.environ.get("LLAMABDA_DATA") or ROOT.parent / "shared" / "data")
    if not data.is_dir():
        print(f"no evaluation data at {data}: set LLAMABDA_DATA to its folder", file=sys.stderr)
        return 5
    if not settings().rerank_model:
        print(WITHOUT, file=sys.stderr)
        return 5
    lines = [
        "| collection | queries | nDCG@10 fused | re-ranked | better, worse | ms a question fused | re-ranked |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(prefix="llamabda-reranking-") as home:
        os.environ.setdefault("LLAMABDA_HOME", home)
        settings.cache_clear()
        lines += [_compared(data, name) for name in (COLLECTIONS[-1:] if given.quick else COLLECTIONS)]
    print("\n".join(lines))
    return 0


def _compared(data: Path, name: str) -> str:
    from llamabda import wiring

    train(data, name)
    while wiring.checks()["reranker"]() == "loading":
        time.sleep(0.1)
    loaded = wiring.reranker()
    assert loaded is not None  # RERANK_MODEL is set, and the check raises what went wrong
    unhurried = Unhurried(loaded)
    plain = replace(wiring.search(), reranker=None)
    reading = replace(plain, reranker=lambda: unhurried)
    gains: list[tuple[float, float]] = []
    times: list[tuple[float, float]] = []
    for question in questions(data, name):
        (fused, fused_ms), (read, read_ms) = (_found(search, question.text, name) for search in (plain, reading))
        relevant = dict(question.relevant)
        gains.append((ndcg(fused, relevant), ndcg(read, relevant)))
        times.append((fused_ms, read_ms))
        say(f"{name}: {len(gains)} queries", end="\r")
    means = [statistics.mean(column) for column in zip(*gains, strict=True)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    better, worse = sum(b > a for a, b in gains), sum(b < a for a, b in gains)
    say(f"{name}: nDCG@10 {means[0]:.4f}, re-ranked {means[1]:.4f}")
    return (
        f"| {name} | {len(gains)} | {means[0]:.3f} | {means[1]:.3f} | {better}, {worse} | {medians[0]:.0f} "
        f"| {medians[1]:.0f} |"
    )


def _found(search: Search, text: str, tenant: str) -> tuple[list[str], float]:
    """Documents, best first, and milliseconds."""
    began = time.perf_counter()
    result = search(text, tenants=[tenant], top_k=TOP_K, deadline=Deadline.after(SECONDS))
    milliseconds = 1000 * (time.perf_counter() - began)
    return list(dict.fromkeys(hit.chunk.doc_id for hit in result.hits)), milliseconds


if __name__ == "__main__":
    sys.exit(main())
