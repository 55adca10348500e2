"""`python -m benchmarks`: Llamabda beside the naive stack, in one run."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks import (
    cold_start,
    corpus,
    e5,
    embedding,
    export,
    generation,
    leaving,
    login,
    machine,
    opensearch,
    plot,
    quality_part,
    reindex,
    report,
    reranking,
    retrieval,
    server,
    soak,
    start,
)
from benchmarks.measure import Row, Section, Unavailable
from benchmarks.plan import ROOT, Plan, rival_python
from benchmarks.workers.client import Worker
from llamabda import models, wiring, wiring_models
from llamabda.cpu import available_cpus
from llamabda.errors import LlamabdaError
from llamabda.settings import settings

PARTS: dict[str, Callable[[Plan], Iterable[Row | Section]]] = {
    "start": start.run,
    "cold_start": cold_start.run,
    "embedding": embedding.run,
    "export": export.run,
    "e5": e5.run,
    "retrieval": retrieval.run,
    "opensearch": opensearch.run,
    "reranking": reranking.run,
    "generation": generation.run,
    "server": server.run,
    "leaving": leaving.run,
    "login": login.run,
    "soak": soak.run,
    "reindex": reindex.run,
    "quality": quality_part.run,
}
RESULTS = ROOT / "benchmarks" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every part ran; 1: some could not."""
    given = _parser().parse_args(arguments)
    names = tuple(given.only) if given.only else tuple(PARTS)
    notes: list[str] = []
    try:
        plan = _plan(given)
        versions = _rival_versions(plan)
    except (LlamabdaError, Unavailable) as exc:
        print(f"nothing can be measured: {exc}", file=sys.stderr)
        return 1
    if plan.rival_python is None:
        notes.append(
            "The rival's environment is not there: rows of sentence-transformers on torch are not measured. "
            "`python scripts/bench_env.py` makes it."
        )
    rows: list[Row] = []
    sections: list[Section] = []
    failed = False
    for name in names:
        began = time.monotonic()
        try:
            for item in PARTS[name](plan):  # what was found before a failure is kept
                rows.append(item) if isinstance(item, Row) else sections.append(item)
        except (LlamabdaError, Unavailable, OSError) as exc:
            failed = True
            notes.append(f"{name} could not be measured: {exc}")
            plan.say(notes[-1])
            continue
        plan.say(f"{name}: done in {time.monotonic() - began:.0f} s")
    whole = report.Report(machine.describe(versions), tuple(notes), tuple(rows), tuple(sections))
    page = report.markdown(whole)
    print(page)
    folder = given.output or (None if given.quick or given.only else RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bench.md").write_text(page, "utf-8")
        (folder / "bench.json").write_text(report.as_json(whole), "utf-8")
        plot.save(rows, folder / "bench.png")
        plan.say(f"written: bench.md, bench.json, bench.png in {folder}")
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument(
        "--only", action="append", choices=list(PARTS), metavar="PART", help=f"one of {', '.join(PARTS)}"
    )
    parser.add_argument("--rounds", type=int, help="rounds of each comparison (default 5, with --quick 2)")
    parser.add_argument("--rival-python", type=Path, help="interpreter with torch and sentence-transformers")
    parser.add_argument(
        "--output", type=Path, help="folder for the results; by default a whole run writes benchmarks/results"
    )
    return parser


def _plan(given: argparse.Namespace) -> Plan:
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:6.0f} s] {line}", file=sys.stderr, flush=True)

    texts = corpus.load()
    say(f"texts: {texts.name}")
    published = models.fetch(
        settings().embed_model_name, cache=wiring_models.cache_dir() / "models", progress=say, prepared=False
    )
    return Plan(
        quick=given.quick,
        rounds=given.rounds or (2 if given.quick else 5),
        threads=available_cpus(),
        corpus=texts,
        embedder_folder=wiring.prepare_embedder(say, model=wiring.wanted_model()),
        published_folder=published,
        gguf=wiring_models.prepare_generator(say),
        rival_python=rival_python(given.rival_python),
        say=say,
    )


def _rival_versions(plan: Plan) -> dict[str, str]:
    if plan.rival_python is None:
        return {}
    with Worker(plan.rival_python, "torch_embedder", threads=plan.threads) as worker:
        return {str(name): str(value) for name, value in worker.call("versions").items()}


if __name__ == "__main__":
    sys.exit(main())
