"""How good are the results? `python -m benchmarks.quality [--only retrieval answers refusals] [--quick] [--json]`.

Everything goes through the use cases that the server uses, over the real index, embedder and generator of the
settings: documents are ingested with the default chunking, each collection as a tenant of its own, into LLAMABDA_HOME
(a second run finds them there; without LLAMABDA_HOME a temporary one is made).

retrieval   nDCG@10 over all test queries of a collection; a document (title, space, text) counts where its best chunk
            stands.
answers     questions over all passages of their collection, mode auto, top_k 3, max_tokens 200.
            Gold words in a text: all words of at least one gold answer occur in it (NFKD, case-folded, without
            diacritics and punctuation). In the reply: in `answer`; in the cited spans: in the citations' texts.
            Cited: the answer ends in a number, and its numbers are exactly those of its citations. Seconds: median, one
            at a time.
refusals    share of questions that are not answered (mode extractive: refusing comes before generating), over other
            documents, over their own, and squad2's unanswerable ones over their own.

Sampling: questions are split into two halves by the SHA-256 of their id; answers and refusals report on the odd half,
drawn with --seed. The bounds of refusal and support were set on the even half. The length of an extract was chosen with
both halves in view, and the fusion's constants on the very queries that retrieval reports.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import statistics
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from llamabda.chunking import Chunking
from llamabda.types import Deadline, Mode, NewDocument, Reply

ROOT = Path(__file__).resolve().parent.parent
RETRIEVAL = ("faquad", "limit-small", "cranfield", "scifact", "xquad-es2en")
ANSWERS = ("faquad", "squad2-dev")
OTHERS = (("squad2-dev", "faquad"), ("squad2-dev", "scifact"), ("squad2-dev", "cranfield"), ("faquad", "squad2-dev"))
QUESTIONS = 100  # per collection, in answers
REFUSED_QUESTIONS = 300  # per pair, in refusals
SECONDS = 25.0  # a question's deadline, the default of ASK_DEADLINE_SECONDS


@dataclass(frozen=True, slots=True)
class Question:
    id: str
    text: str
    answers: tuple[str, ...] = ()
    relevant: tuple[tuple[str, int], ...] = ()  # (document, grade)
    answerable: bool = True

    @property
    def reported(self) -> bool:
        """Of the half that no constant was tuned on."""
        return int(sha256(self.id.encode()).hexdigest(), 16) % 2 == 1


@dataclass(frozen=True, slots=True)
class Retrieval:
    collection: str
    queries: int
    chunks: int
    ndcg: float  # at 10, mean
    milliseconds: float  # per search, median


@dataclass(frozen=True, slots=True)
class Answers:
    collection: str
    questions: int
    gold_in_reply: float
    gold_in_cited: float
    gold_in_extract: float  # of mode extractive, for the same questions
    cited: float
    answered: float
    generated: float  # share of replies that show generated text
    seconds: float
    extract_seconds: float


@dataclass(frozen=True, slots=True)
class Refusals:
    questions_of: str
    documents_of: str
    questions: int
    refused: float


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    data = Path(os.environ.get("LLAMABDA_DATA") or ROOT.parent / "shared" / "data")
    if not data.is_dir():
        print(f"no evaluation data at {data}: set LLAMABDA_DATA to its folder", file=sys.stderr)
        return 5
    with tempfile.TemporaryDirectory(prefix="llamabda-quality-") as home:
        os.environ.setdefault("LLAMABDA_HOME", home)
        report = measured(data, given.only or ["retrieval", "answers", "refusals"], given)
    if given.json:
        print(json.dumps({part: [asdict(row) for row in rows] for part, rows in report.items()}, indent=1))
    else:
        print("\n".join(line for part, rows in report.items() for line in table(part, rows)))
    return 0


def measured(
    data: Path, parts: Sequence[str], given: argparse.Namespace
) -> dict[str, list[Retrieval | Answers | Refusals]]:
    report: dict[str, list[Retrieval | Answers | Refusals]] = {}
    small = {"limit-small", "faquad", "squad2-dev"}
    count = given.questions or (20 if given.quick else QUESTIONS)
    if "retrieval" in parts:
        names = given.collections or [name for name in RETRIEVAL if name in small or not given.quick]
        report["retrieval"] = [retrieval(data, name) for name in names]
    if "answers" in parts:
        report["answers"] = [answers(data, name, count, given.seed) for name in ANSWERS]
    if "refusals" in parts:
        pairs = [(asked, over) for asked, over in OTHERS if not given.quick or over in small]
        count = min(REFUSED_QUESTIONS, 50) if given.quick else REFUSED_QUESTIONS
        own = [(name, name) for name in ANSWERS]
        report["refusals"] = [refusals(data, asked, over, count, given.seed) for asked, over in [*pairs, *own]]
        report["refusals"].append(refusals(data, "squad2-dev", "squad2-dev", count, given.seed, answerable=False))
    return report


def retrieval(data: Path, name: str) -> Retrieval:
    from llamabda import wiring

    chunks = train(data, name)
    gains, times = [], []
    for question in questions(data, name):
        top_k = 40
        while True:
            began = time.perf_counter()
            found = wiring.search()(question.text, tenants=[name], top_k=top_k, deadline=Deadline.after(60))
            times.append(time.perf_counter() - began)
            documents = list(dict.fromkeys(hit.chunk.doc_id for hit in found.hits))
            if len(documents) >= 10 or len(found.hits) < top_k:
                break
            top_k *= 2
        gains.append(ndcg(documents, dict(question.relevant)))
    row = Retrieval(name, len(gains), chunks, statistics.mean(gains), 1000 * statistics.median(times))
    say(f"{name}: nDCG@10 {row.ndcg:.4f}, {row.milliseconds:.1f} ms")
    return row


def answers(data: Path, name: str, count: int, seed: int) -> Answers:
    train(data, name)
    _generator_is_there()
    sample = drawn([q for q in questions(data, name) if q.answerable], count, seed)
    replies, extracts, seconds, extract_seconds = [], [], [], []
    for question in sample:
        began = time.perf_counter()
        replies.append(asked(question, name, "auto"))
        middle = time.perf_counter()
        extracts.append(asked(question, name, "extractive"))
        seconds.append(middle - began)
        extract_seconds.append(time.perf_counter() - middle)
        say(f"{name} {len(replies)}/{len(sample)} {replies[-1].mode} {seconds[-1]:.1f} s", end="\r")
    pairs = list(zip(sample, replies, strict=True))
    row = Answers(
        name,
        len(sample),
        share(gold(q.answers, r.answer) for q, r in pairs),
        share(gold(q.answers, " ".join(c.hit.chunk.text for c in r.citations)) for q, r in pairs),
        share(gold(q.answers, r.answer) for q, r in zip(sample, extracts, strict=True)),
        share(cited(r) for r in replies if r.answered),
        share(r.answered for r in replies),
        share(r.mode == "generated" for r in replies),
        statistics.median(seconds),
        statistics.median(extract_seconds),
    )
    say(f"{name}: gold in reply {row.gold_in_reply:.2f}, in cited spans {row.gold_in_cited:.2f}")
    return row


def refusals(data: Path, of: str, over: str, count: int, seed: int, *, answerable: bool = True) -> Refusals:
    train(data, over)
    sample = drawn([q for q in questions(data, of) if q.answerable == answerable], count, seed)
    refused = share(not asked(question, over, "extractive").answered for question in sample)
    row = Refusals(of if answerable else f"{of} (unanswerable)", over, len(sample), refused)
    say(f"{row.questions_of} over {over}: {refused:.3f} refused")
    return row


def asked(question: Question, tenant: str, mode: Mode) -> Reply:
    from llamabda import wiring

    return wiring.ask()(
        question.text, tenants=[tenant], top_k=3, max_tokens=200, mode=mode, deadline=Deadline.after(SECONDS)
    )


def train(data: Path, name: str) -> int:
    """Ingests a collection that is not there yet; the number of its chunks."""
    from llamabda import wiring

    documents = corpus(data, name)
    there = wiring.catalog().list(name, limit=1).counts.get("ready", 0)
    if there != len(documents):
        began = time.perf_counter()
        for first in range(0, len(documents), 200):
            wiring.ingest().train(name, documents[first : first + 200], chunking=Chunking())
            say(f"{name}: {first}/{len(documents)} documents, {time.perf_counter() - began:.0f} s", end="\r")
    chunks, cursor = 0, None
    while True:
        page = wiring.catalog().list(name, limit=1000, cursor=cursor)
        chunks += sum(document.chunks for document in page.documents)
        cursor = page.next_cursor
        if cursor is None:
            return chunks


def corpus(data: Path, name: str) -> list[NewDocument]:
    if (data / "qa" / name).is_dir():
        return [NewDocument(row["id"], row["text"]) for row in rows(data / "qa" / name / "contexts.jsonl")]
    found = rows(data / "retrieval" / name / "corpus.jsonl")
    texts = [(row["_id"], f"{row.get('title') or ''} {row['text']}".strip()) for row in found]
    return [NewDocument(key, text) for key, text in texts if text]


def questions(data: Path, name: str) -> list[Question]:
    if (data / "qa" / name).is_dir():
        return [
            Question(
                row["id"],
                row["question"],
                tuple(row["answers"]),
                ((row["context_id"], 1),),
                not row["unanswerable"],
            )
            for row in rows(data / "qa" / name / "questions.jsonl")
        ]
    judged: dict[str, list[tuple[str, int]]] = {}
    for line in (data / "retrieval" / name / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        judged.setdefault(query, []).append((document, int(grade)))
    asked_for = rows(data / "retrieval" / name / "queries.jsonl")
    return [
        Question(row["_id"], row["text"], (), tuple(judged[row["_id"]])) for row in asked_for if row["_id"] in judged
    ]


def drawn(found: Sequence[Question], count: int, seed: int) -> list[Question]:
    pool = sorted((q for q in found if q.reported), key=lambda q: q.id)
    return random.Random(seed).sample(pool, min(count, len(pool)))


def ndcg(documents: Sequence[str], relevant: Mapping[str, int]) -> float:
    """Linear gain, at 10."""
    gained = sum(relevant.get(document, 0) / math.log2(at + 2) for at, document in enumerate(documents[:10]))
    grades = sorted(relevant.values(), reverse=True)[:10]
    ideal = sum(grade / math.log2(at + 2) for at, grade in enumerate(grades))
    return gained / ideal if ideal else 0.0


def gold(answers_known: Iterable[str], text: str) -> bool:
    held = set(_normal(text))
    return any((wanted := set(_normal(answer))) and wanted <= held for answer in answers_known)


def cited(reply: Reply) -> bool:
    numbers = [int(n) for n in re.findall(r"\[(\d+)\]", reply.answer)]
    return bool(numbers) and reply.answer.endswith("]") and set(numbers) == {c.n for c in reply.citations}


def table(part: str, found: Sequence[Retrieval | Answers | Refusals]) -> list[str]:
    columns = list(asdict(found[0]))
    lines = [f"### {part}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in found:
        cells = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in asdict(row).values()]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def share(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else math.nan


def say(line: str, *, end: str = "\n") -> None:
    print(line, end=end, file=sys.stderr, flush=True)


def _normal(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"[^\W_]+", "".join(c for c in folded if not unicodedata.combining(c)))


def _generator_is_there() -> None:
    """Waits for the configured model, so that the first answers are not extracts for want of it."""
    from llamabda import wiring
    from llamabda.settings import settings

    while settings().model_path and wiring.checks()["generator"]() == "loading":
        time.sleep(0.1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=("retrieval", "answers", "refusals"), help="default: all three")
    parser.add_argument("--collections", nargs="+", choices=RETRIEVAL, help="of retrieval; default: all")
    parser.add_argument("--questions", type=int, help=f"per collection in answers; default {QUESTIONS}")
    parser.add_argument("--seed", type=int, default=1, help="of the samples")
    parser.add_argument(
        "--quick", action="store_true", help="small collections and samples: a minute, not half an hour"
    )
    parser.add_argument("--json", action="store_true", help="figures as JSON instead of tables")
    return parser


if __name__ == "__main__":
    sys.exit(main())
