"""The benchmark's tables and picture, from fixed numbers: nothing is measured here."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cold_start, corpus, export, plot, report, reranking
from benchmarks.measure import OURS, Row, Samples, Section, Unavailable, in_turns
from benchmarks.quality import Question
from benchmarks.workers.client import Worker
from benchmarks.workers.loop import memory
from llamabda.settings import settings

FASTER = Row("embedding", "one question", "ms", Samples(OURS, (4.0, 2.0, 3.0)), (Samples("torch", (30.0, 12.0, 13.0)),))
SLOWER = Row(
    "generation",
    "prefill",
    "tokens/s",
    Samples(OURS, (270.0,)),
    (Samples("chat", (180.0,)), Samples("raw", (300.0,))),
    higher_is_better=True,
    aim=">= 0.9x raw",
    note="a | b",
)
ABSENT = Row("start", "import", "s", Samples(OURS, (0.25,)), (Samples("torch", ()),))
REPORT = report.Report(
    {"processor": "Some CPU"}, ("part x failed",), (FASTER, SLOWER, ABSENT), (Section("quality", "t"),)
)


def test_a_ratio_above_one_always_means_that_ours_is_better() -> None:
    assert FASTER.times_better(FASTER.rivals[0]) == pytest.approx(13 / 3)
    assert SLOWER.times_better(SLOWER.rivals[0]) == pytest.approx(1.5)
    assert SLOWER.times_better(SLOWER.rivals[1]) == pytest.approx(0.9)


def test_a_contender_that_took_no_part_has_no_ratio() -> None:
    assert ABSENT.times_better(ABSENT.rivals[0]) is None
    assert report.ABSENT in report.table([ABSENT])[2]


def test_a_table_has_a_line_per_row_and_all_rivals_in_it() -> None:
    head, rule, faster, slower = report.table([FASTER, SLOWER])
    columns = head.count("|")
    assert rule.count("|") == columns
    assert faster == "| one question | **3.00 ms** | 13.0 ms torch | 4.33 |  |  |"
    assert slower == (
        "| prefill | **270 tokens/s** | 180 tokens/s chat<br>300 tokens/s raw | 1.50<br>0.90 | >= 0.9x raw | a \\| b |"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, report.ABSENT),
        (0, "0 s"),
        (0.01234, "0.012 s"),
        (0.9996, "1.00 s"),
        (1.234, "1.23 s"),
        (9.996, "10.0 s"),
        (99.97, "100 s"),
        (12345.6, "12,346 s"),
    ],
)
def test_quantities_show_three_digits(value: float | None, shown: str) -> None:
    assert report.quantity(value, "s") == shown


def test_the_page_holds_machine_failures_parts_and_sections_in_order() -> None:
    page = report.markdown(REPORT)
    places = [page.index(text) for text in ("Some CPU", "part x failed", "## Embedding", "## Start", "## Quality")]
    assert places == sorted(places)


def test_the_json_keeps_every_round() -> None:
    rows = json.loads(report.as_json(REPORT))["rows"]
    assert rows[0]["ours"]["values"] == [4.0, 2.0, 3.0]
    assert rows[0]["times_better"] == {"torch": pytest.approx(13 / 3)}
    assert rows[2]["times_better"] == {"torch": None}


def test_the_picture_shows_every_comparison_and_is_small(tmp_path: Path) -> None:
    assert [label.split("  vs  ")[1] for label, _ in plot.bars(REPORT.rows)] == ["torch", "chat", "raw"]
    assert plot.save([FASTER, SLOWER] * 10, tmp_path / "bench.png")
    picture = (tmp_path / "bench.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 100_000


def test_no_picture_is_made_when_nothing_was_compared(tmp_path: Path) -> None:
    assert not plot.save([ABSENT], tmp_path / "bench.png")
    assert not (tmp_path / "bench.png").exists()


def test_contenders_take_turns_and_every_other_round_goes_backwards() -> None:
    order: list[str] = []

    def contender(name: str) -> Callable[[], float]:
        def work() -> float:
            order.append(name)
            return float(len(order))

        return work

    found = in_turns({name: contender(name) for name in "abc"}, 3)
    assert "".join(order) == "abccbaabc"
    assert found == {"a": (1, 6, 7), "b": (2, 5, 8), "c": (3, 4, 9)}


def test_a_worker_answers_and_says_why_it_stopped() -> None:
    from benchmarks.plan import own_python

    with Worker(own_python(), "onnx_embedder", threads=1) as worker:
        assert worker.call("memory")["rss"] > 1
        with pytest.raises(Unavailable, match=r"no_such_command"):
            worker.call("no_such_command")


def test_memory_is_that_of_this_process() -> None:
    before = memory()["rss"]
    with mmap.mmap(-1, 50_000_000) as pages:  # fresh ones: a bytes object may land in memory that was freed before
        pages.write(b"x" * len(pages))
        assert memory()["rss"] - before > 0.8 * len(pages) / 1e6


def test_without_evaluation_data_the_texts_are_this_projects_own(tmp_path: Path) -> None:
    own = corpus.load(tmp_path)
    assert own.texts(30) == own.texts(30)
    assert all(20 <= len(text.split()) <= 160 for text in own.texts(30))
    assert all(10 <= len(question.split()) <= 20 for question in own.questions)
    assert {number for number, _ in own.windows(40, documents=4)} == {0, 1, 2, 3}


def test_with_evaluation_data_the_texts_are_real_ones(data_dir: Path) -> None:
    real = corpus.load(data_dir)
    assert "scifact" in real.name
    assert len(real.documents) > 2000
    assert all(10 <= len(question.split()) <= 20 for question in real.questions)


def test_the_loss_of_an_export_is_a_share_of_what_the_original_finds() -> None:
    found = {"original": 0.8, "exported": 0.796}
    row = export._row(983, found, "int8")
    assert export.loss_of(row) == pytest.approx(0.005)
    assert "loss 0.50%" in row.note
    assert export.loss_of(export._row(983, {"original": 0.8, "exported": 0.9}, "int8")) < 0
    with pytest.raises(Unavailable):
        export.loss_of(Row("export", "nothing found", "", Samples(OURS, (0.0,)), (Samples("original", (0.0,)),)))


def test_documents_rank_by_their_cosine_alone() -> None:
    questions = [Question("q1", "", relevant=(("b", 1),)), Question("q2", "", relevant=(("a", 2), ("c", 1)))]
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    queries = np.array([[0.6, 0.8], [0.8, 0.6]], np.float32)
    second = (2 / math.log2(3) + 1 / math.log2(4)) / (2 + 1 / math.log2(3))
    assert export.documents_ndcg(["a", "b", "c"], vectors, questions, queries) == pytest.approx((1 + second) / 2)


def test_a_quick_run_keeps_every_judged_document_and_the_same_others() -> None:
    documents = [(str(number), "text") for number in range(5_000)]
    judged = {"3", "4999"}
    kept = export._some(documents, judged)
    assert len(kept) == len(judged) + export.OTHERS
    assert judged <= {key for key, _ in kept}
    assert kept == export._some(documents, judged)


def test_without_a_reranker_its_part_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLAMABDA_DATA", str(tmp_path))
    monkeypatch.delenv("RERANK_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)  # no .env here
    settings.cache_clear()
    try:
        assert reranking.main([]) == 5
    finally:
        settings.cache_clear()
    assert "RERANK_MODEL is not set" in capsys.readouterr().err


EMULATED = """\
23 Nov 2026 09:28:37,715 [INFO] (rapid) exec 'python' (cwd=/opt/llamabda, handler=a.handler)
23 Nov 2026 09:28:40,206 [INFO] (rapid) INIT START(type: on-demand, phase: init)
23 Nov 2026 09:28:42,310 [INFO] (rapid) INIT RTDONE(status: success)
23 Nov 2026 09:28:42,310 [INFO] (rapid) INIT REPORT(durationMs: 2103.812000)
23 Nov 2026 09:28:42,344 [INFO] (rapid) INVOKE RTDONE(status: success, produced bytes: 0, duration: 33.321000ms)
23 Nov 2026 09:28:42,417 [INFO] (rapid) INVOKE RTDONE(status: success, produced bytes: 0, duration: 2.963000ms)
"""


def test_the_emulators_log_tells_one_start_and_two_requests() -> None:
    assert cold_start.reported(EMULATED) == (2103.812, 33.321, 2.963)


@pytest.mark.parametrize(
    "log",
    [
        "",
        "\n".join(EMULATED.splitlines()[:-1]),  # the second request is not reported yet
        EMULATED.replace("INVOKE RTDONE(status: success", "INVOKE RTDONE(status: error"),
        EMULATED + EMULATED,  # it had to be started twice
    ],
)
def test_anything_else_is_no_cold_start(log: str) -> None:
    assert cold_start.reported(log) is None


def test_a_function_has_the_templates_memory_and_its_share_of_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start.os, "cpu_count", lambda: 8)
    assert [function.limits() for function in cold_start.FUNCTIONS] == [
        ["--memory", "1024m", "--cpus", "0.58"],
        ["--memory", "3008m", "--cpus", "1.70"],
        ["--memory", "5120m", "--cpus", "2.00"],
    ]


def test_without_an_engine_the_cold_start_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="no Docker engine"):
        cold_start._emulator()
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1" = info ]\n')  # an engine that has no image
    docker.chmod(0o755)
    with pytest.raises(Unavailable, match=r"no image authfunction:auth.*sam build"):
        cold_start._emulator()
