"""Questions one at a time, and many texts: our embedder beside sentence-transformers on torch."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from benchmarks.measure import OURS, Row, Samples, Unavailable, in_turns
from benchmarks.plan import Plan, own_python
from benchmarks.workers.client import Worker

RIVAL = "sentence-transformers on torch"


def run(plan: Plan) -> list[Row]:
    questions = list(plan.corpus.questions[: 20 if plan.quick else 60])
    texts = plan.corpus.texts(24 if plan.quick else 128)
    with ExitStack() as stack:
        ours = stack.enter_context(Worker(own_python(), "onnx_embedder", threads=plan.threads))
        ours.call("load", folder=str(plan.embedder_folder), threads=plan.threads)
        query: dict[str, Callable[[], float]] = {
            OURS: lambda: statistics.median(ours.call("query", questions=questions))
        }
        bulk: dict[str, Callable[[], float]] = {OURS: lambda: float(ours.call("bulk", texts=texts))}
        note, batch_note = "", ""
        if plan.rival_python is not None:
            rival = stack.enter_context(Worker(plan.rival_python, "torch_embedder", threads=plan.threads))
            rival.call("load", folder=str(plan.published_folder), threads=plan.threads)
            plan.say("embedding: looking for the rival's best settings")
            best = rival.call("tune", texts=texts[:64], questions=questions, threads=plan.threads)
            query[RIVAL] = lambda: statistics.median(rival.call("query", questions=questions, threads=best["threads"]))
            bulk[RIVAL] = lambda: float(rival.call("bulk", texts=texts, batch=best["batch"], threads=plan.threads))
            batch_note = f"its best batch size here: {best['batch']}; {_agreement(ours, rival, texts[:24])}"
            note = f"its best thread count here: {best['threads']}"
        for work in (*query.values(), *bulk.values()):
            work()  # warm-up
        plan.say("embedding: questions one at a time")
        asked = in_turns(query, plan.rounds)
        plan.say("embedding: many texts")
        written = in_turns(bulk, plan.rounds)
    return [
        _row("one question of 10-20 words", "ms", asked, aim=">= 4x", note=note),
        _row("texts of 20-160 words", "texts/s", written, higher=True, aim=">= 1.8x", note=batch_note),
    ]


def _row(
    what: str, unit: str, found: dict[str, tuple[float, ...]], *, aim: str, note: str, higher: bool = False
) -> Row:
    return Row(
        "embedding",
        what,
        unit,
        Samples(OURS, found[OURS]),
        (Samples(RIVAL, found.get(RIVAL, ())),),
        higher_is_better=higher,
        aim=aim,
        note=note,
    )


def _agreement(ours: Worker, rival: Worker, texts: list[str]) -> str:
    mine = np.array(ours.call("vectors", texts=texts))
    theirs = np.array(rival.call("vectors", texts=texts))
    if mine.shape != theirs.shape:
        raise Unavailable(f"the two embedders do not run the same model: {mine.shape} and {theirs.shape}")
    cosines = (mine * theirs).sum(1)
    return f"cosine between their vectors: mean {cosines.mean():.3f}, lowest {cosines.min():.3f}"
