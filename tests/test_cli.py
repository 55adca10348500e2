"""The command line: what it prints where, and how it exits. Real stores, a hand-computable embedder, no model."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from llamabda import wiring, wiring_models
from llamabda.adapters.openai import checkup
from llamabda.background import Background, Once
from llamabda.cli.console import visible
from llamabda.errors import DependencyFailed
from llamabda.models import fetch
from llamabda.settings import GONE, settings
from tests import cross_encoders
from tests.command_line import runner
from tests.fakes import WordEmbedder
from tests.http.conftest import home_at
from tests.playing_server import PlayingServer, writes

REAL_CACHE = wiring_models.cache_dir() / "models"  # before a test sets another
SAMPLES = Path(str(files("llamabda") / "samples"))


@pytest.fixture(scope="module")
def signing_key(tmp_path_factory):
    return tmp_path_factory.mktemp("key") / "key.pem"


@pytest.fixture
def home(tmp_path, signing_key, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    with home_at(folder, signing_key) as home:
        monkeypatch.setattr(wiring, "prepare_embedder", lambda *_args, **_options: Path("unused"))
        yield home


@pytest.fixture
def run(home, capsys):
    """Runs a command: exit code, stdout, stderr."""
    return runner(capsys)


@pytest.fixture
def folder(tmp_path):
    """Documents, some of them no good."""
    root = tmp_path / "documents"
    (root / "sub").mkdir(parents=True)
    (root / ".hidden").mkdir()
    (root / "harbour.md").write_text("# Harbour\n\nThe harbour office opens at eight in the morning.\n", "utf-8")
    (root / "sub" / "café.txt").write_text("The café sells bread on Sundays.\n", "utf-8")
    (root / ".hidden" / "secret.txt").write_text("Nobody reads this.", "utf-8")
    (root / ".dotfile.md").write_text("Nor this.", "utf-8")
    (root / "photo.png").write_bytes(b"\x89PNG" + bytes(50))
    return root


def test_ingest_takes_a_folder_with_ids_as_relative_paths(run, folder):
    code, out, err = run("ingest", str(folder), "--json")
    assert code == 0
    reply = json.loads(out)
    assert [(d["id"], d["state"], d["generation"]) for d in reply["documents"]] == [
        ("harbour.md", "ready", 1),
        ("sub/café.txt", "ready", 1),
    ]
    assert set(reply) == {"documents", "indexed", "chunks", "notices"}
    assert reply["notices"] == []
    assert (reply["indexed"], reply["chunks"]) == (2, 2)
    assert "photo.png" in err
    assert "2 of 2 files, 2 chunks" in err
    assert "chunks/s" in err
    code, out, _ = run("docs", "show", "sub/café.txt", "--json")
    assert json.loads(out)["source"] == "file:sub/café.txt"


PORTUGUESE = "O escritório do porto abre às oito da manhã.\nNos fins de semana o atendimento é feito por telefone.\n"


def test_ingest_says_so_once_when_the_embedder_does_not_know_the_language(run, folder, monkeypatch):
    monkeypatch.setattr(WordEmbedder, "languages", ("en",))
    (folder / "faq.md").write_text(PORTUGUESE, "utf-8")
    (folder / "empty.txt").write_bytes(b"")
    for _ in ("new", "unchanged"):
        _, out, err = run("ingest", str(folder), "--json")
        (notice,) = json.loads(out)["notices"]
        assert notice.startswith("1 of 3 documents is in Portuguese (pt), which sentence-transformers/all-MiniLM-L6-v2")
        assert notice.endswith(
            "Set EMBED_MODEL_NAME=cnmoro/portuguese-multilingual-e5-small, then run `llamabda reindex`"
        )
        assert err.count("Portuguese") == 1
    monkeypatch.setattr(WordEmbedder, "languages", ("en", "pt"))
    _, out, err = run("ingest", str(folder), "--json")
    assert json.loads(out)["notices"] == []
    assert "Portuguese" not in err


def test_ingest_reads_every_promised_format(run):
    code, out, _ = run("ingest", str(SAMPLES), "--json")
    assert code == 0
    assert {Path(d["id"]).suffix for d in json.loads(out)["documents"]} >= {".pdf", ".md", ".html", ".txt"}


def test_ingest_goes_on_after_a_failure_lists_it_and_exits_1(run, folder):
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / "empty.txt").write_bytes(b"")
    code, out, err = run("ingest", str(folder), "--json")
    assert code == 1
    states = {d["id"]: d["state"] for d in json.loads(out)["documents"]}
    assert states == {"broken.pdf": "failed", "empty.txt": "failed", "harbour.md": "ready", "sub/café.txt": "ready"}
    assert "failed: broken.pdf: 'broken.pdf' cannot be read" in err
    assert "failed: empty.txt: 'empty.txt' cannot be read: it is empty" in err
    assert "2 of 4 files" in err


def test_ingest_refuses_to_overwrite_one_file_by_another_of_the_same_run(run, folder):
    code, out, err = run("ingest", str(folder), str(folder / "sub"), str(folder / "sub" / "café.txt"), "--json")
    assert code == 0, err  # the same file named twice is one file
    other = folder.parent / "other"
    other.mkdir()
    (other / "harbour.md").write_text("Another harbour.", "utf-8")
    code, out, err = run("ingest", str(folder), str(other), "--json")
    assert code == 1
    assert "two files would get the id 'harbour.md'" in err
    states = [d["state"] for d in json.loads(out)["documents"] if d["id"] == "harbour.md"]
    assert sorted(states) == ["failed", "unchanged"]


def test_ingest_cuts_as_it_is_told(run, folder):
    (folder / "long.txt").write_text("word " * 200, "utf-8")
    code, out, _ = run("ingest", str(folder / "long.txt"), "--chunk-size", "100", "--chunk-overlap", "0", "--json")
    assert code == 0
    assert json.loads(out)["chunks"] == 10
    code, _, err = run("ingest", str(folder), "--chunk-size", "100", "--chunk-overlap", "100")
    assert code == 2
    assert "chunk_overlap is 100" in err


def test_progress_has_no_control_characters_off_a_terminal(run, folder):
    code, out, err = run("ingest", str(folder))
    assert code == 0
    assert out == ""
    assert "\r" not in err
    assert "\x1b" not in err


def test_ask_answers_with_citations_that_hold(run, folder):
    run("ingest", str(folder))
    code, out, _ = run("ask", "When does the harbour office open?", "--mode", "extractive", "--json")
    assert code == 0
    reply = json.loads(out)
    assert set(reply) == {
        "answer", "answered", "mode", "finish_reason", "citations", "model", "usage", "timings"
    }  # fmt: skip
    assert "eight in the morning" in reply["answer"]
    cited = reply["citations"][0]
    assert set(cited) == {"n", "id", "doc_id", "generation", "score", "text", "meta", "start", "end", "sha256"}
    _, source, _ = run("docs", "show", cited["doc_id"], "--text")
    assert source[cited["start"] : cited["end"]] == cited["text"]
    code, out, err = run("ask", "When does the harbour office open?")
    assert code == 0
    assert "[1] harbour.md, characters 0 to" in out
    assert "sentences of the documents" in err


def test_a_question_that_the_documents_do_not_answer_exits_4(run, folder):
    run("ingest", str(folder))
    code, out, _ = run("ask", "Quantum chromodynamics?", "--json")
    assert code == 4
    reply = json.loads(out)
    assert (reply["answered"], reply["citations"]) == (False, [])


def test_search_finds_and_prints_hits(run, folder):
    run("ingest", str(folder))
    code, out, _ = run("search", "bread on Sundays", "--top-k", "1", "--json")
    assert code == 0
    (hit,) = json.loads(out)["hits"]
    assert (hit["doc_id"], 0 <= hit["score"] <= 1) == ("sub/café.txt", True)
    code, out, _ = run("search", "bread on Sundays")
    assert "sub/café.txt, characters 0 to" in out


def test_search_in_an_empty_home_says_so(run):
    code, out, err = run("search", "anything")
    assert (code, out) == (0, "")
    assert "nothing found" in err


@pytest.mark.parametrize("question", ["", "   ", "\n"])
def test_an_empty_question_is_a_usage_error(run, question):
    code, _, err = run("ask", question)
    assert (code, "the question is empty" in err) == (2, True)


def test_a_question_can_come_from_stdin_and_may_not_be_huge(run, folder, monkeypatch):
    run("ingest", str(folder))
    monkeypatch.setattr(sys, "stdin", io.StringIO("When does the harbour office open?"))
    assert run("ask", "-")[0] == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 10_000_000))
    code, _, err = run("ask", "-")
    assert code == 2
    assert "10,000,000 characters" in err


@pytest.mark.parametrize("question", ["\udcff harbour", "har\x00bour", "\x1b[31mharbour"])
def test_a_question_that_is_no_text_is_survived(run, folder, question):
    run("ingest", str(folder))
    assert run("search", question, "--json")[0] == 0


def test_docs_are_listed_shown_and_removed(run, folder):
    run("ingest", str(folder))
    code, out, _ = run("docs", "list", "--json")
    page = json.loads(out)
    assert [d["id"] for d in page["documents"]] == ["harbour.md", "sub/café.txt"]
    assert page["counts"]["ready"] == 2
    code, out, _ = run("docs", "list", "--limit", "1", "--json")
    cursor = json.loads(out)["next_cursor"]
    code, out, _ = run("docs", "list", "--limit", "1", "--cursor", cursor, "--json")
    assert [d["id"] for d in json.loads(out)["documents"]] == ["sub/café.txt"]
    code, out, err = run("docs", "rm", "harbour.md", "missing")
    assert code == 3
    assert "removed harbour.md" in err
    assert "no document 'missing'" in err
    assert run("docs", "show", "harbour.md")[0] == 3
    code, out, _ = run("docs", "list")
    assert "harbour.md" not in out
    assert "sub/café.txt" in out


def test_tenants_do_not_see_each_other_but_all_see_shared(run, folder):
    mine = "t_" + "a" * 26
    run("ingest", str(folder / "sub"), "--tenant", mine)
    assert json.loads(run("docs", "list", "--json")[1])["documents"] == []
    assert json.loads(run("search", "bread", "--json")[1])["hits"] == []
    assert len(json.loads(run("search", "bread", "--tenant", mine, "--json")[1])["hits"]) == 1
    run("ingest", str(folder / "harbour.md"))
    assert len(json.loads(run("search", "harbour", "--tenant", mine, "--json")[1])["hits"]) == 2
    code, _, err = run("docs", "list", "--tenant", "alice")
    assert code == 2
    assert "tenant 'alice'" in err


def test_users_are_added_listed_disabled_and_enabled(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret123\n"))
    code, out, _ = run("users", "add", "Alice", "--password-stdin", "--json")
    assert code == 0
    added = json.loads(out)
    assert (added["username"], added["tenant"][:2]) == ("alice", "t_")
    assert wiring.auth().login("alice", "secret123").access
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret123\n"))
    assert run("users", "add", "alice", "--password-stdin")[0] == 4
    assert run("users", "disable", "alice")[0] == 0
    (listed,) = json.loads(run("users", "list", "--json")[1])["users"]
    assert listed["disabled"] is True
    assert not any("hash" in key for key in listed)
    assert run("users", "enable", "alice")[0] == 0
    assert json.loads(run("users", "list", "--json")[1])["users"][0]["disabled"] is False
    assert run("users", "disable", "nobody")[0] == 3


@pytest.mark.parametrize(("password", "why"), [("short\n", "8 characters"), ("", "8 characters")])
def test_a_bad_password_is_refused_and_not_repeated(run, monkeypatch, password, why):
    monkeypatch.setattr(sys, "stdin", io.StringIO(password))
    code, out, err = run("users", "add", "bob", "--password-stdin", "--json")
    assert code == 2
    assert why in err
    assert "short" not in out + err


def test_without_a_terminal_the_password_is_not_waited_for(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    code, _, err = run("users", "add", "bob")
    assert code == 2
    assert "--password-stdin" in err


def test_doctor_is_content_with_a_working_home(run):
    code, out, _ = run("doctor", "--json")
    report = json.loads(out)
    checks = {check["name"]: check for check in report["checks"]}
    assert code == 0, report
    assert {"python", "packages", "home", "disk", "memory", "sqlite", "users", "catalog", "embedder", "index"} <= set(
        checks
    )
    assert checks["embedder"]["status"] == "ok"
    assert checks["extractor"]["status"] == "ok"


def test_doctor_compares_the_documents_languages_with_the_embedders(run, folder, monkeypatch):
    def finding() -> tuple[str, str, str]:
        code, out, _ = run("doctor", "--json")
        assert code == 0
        (found,) = [check for check in json.loads(out)["checks"] if check["name"] == "languages"]
        return found["status"], found["detail"], found["advice"]

    assert finding() == ("ok", "no documents yet; the embedder does not say which languages it knows", "")
    monkeypatch.setattr(WordEmbedder, "languages", ("en",))
    (folder / "faq.md").write_text(PORTUGUESE, "utf-8")
    (folder / "numbers.txt").write_text("1 2 3", "utf-8")
    (folder / "history.txt").write_text("The harbour was built by people whose names nobody remembers now.", "utf-8")
    user = wiring.auth().register("bob", "a-long-password")  # whose documents count as well as the shared ones
    run("ingest", str(folder / "history.txt"), "--tenant", user.tenant)
    run("ingest", str(folder / "faq.md"), str(folder / "numbers.txt"))
    advice = "Set EMBED_MODEL_NAME=cnmoro/portuguese-multilingual-e5-small, then run `llamabda reindex`"
    assert finding() == ("warn", "pt 1, en 1, unsure 1; the embedder knows en", advice)
    monkeypatch.setattr(WordEmbedder, "languages", ("pt", "en"))
    assert finding() == ("ok", "pt 1, en 1, unsure 1; the embedder knows pt, en", "")
    monkeypatch.setattr(WordEmbedder, "languages", ("mul",))
    assert finding() == ("ok", "pt 1, en 1, unsure 1; the embedder knows any language", "")


@pytest.mark.parametrize("name", sorted(GONE))
def test_doctor_warns_of_settings_without_effect_and_never_shows_them(run, monkeypatch, name):
    monkeypatch.setenv(name, "very-secret-value")
    code, out, err = run("doctor")
    assert code == 0
    assert f"{name} is set but has no effect" in out
    assert "very-secret-value" not in out + err


def test_doctor_says_what_fails_and_exits_5(run, monkeypatch):
    class Broken(WordEmbedder):
        def embed_query(self, text):
            raise DependencyFailed("the model file is damaged", dependency="embedder")

    monkeypatch.setattr(wiring, "load_embedder", lambda _model: Broken())
    code, out, _ = run("doctor")
    assert code == 5
    assert "fail  embedder    the model file is damaged" in out


def test_a_home_that_cannot_be_made_is_a_clean_failure(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    code, out, err = run("docs", "list", "--home", str(tmp_path / "file" / "home"), "--json")
    assert code == 2
    assert "which cannot be made" in err
    assert json.loads(out)["code"] == "configuration"
    code, out, _ = run("doctor")
    assert code == 5
    assert "-> set LLAMABDA_HOME to a folder of yours" in out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["frobnicate"],
        ["ask"],
        ["ask", "x", "--top-k", "0"],
        ["ask", "x", "--top-k", "many"],
        ["ask", "x", "--mode", "magic"],
        ["docs"],
        ["docs", "list", "--limit", "-1"],
        ["docs", "list", "--cursor", "not ours"],
        ["serve", "--port", "70000"],
        ["ingest"],
        ["users", "add", "not a name!", "--password-stdin"],
    ],
)
def test_usage_errors_exit_2(run, argv):
    code, _, err = run(*argv)
    assert code == 2
    assert "Traceback" not in err


def test_paths_that_do_not_exist_exit_3(run, tmp_path):
    code, _, err = run("ingest", str(tmp_path / "nowhere"))
    assert code == 3
    assert "no file or folder" in err
    (tmp_path / "void").mkdir()
    assert run("ingest", str(tmp_path / "void"))[0] == 3


def test_a_wrong_setting_is_named_and_exits_2(run, monkeypatch):
    from llamabda.settings import settings

    monkeypatch.setenv("PORT", "eighty")
    settings.cache_clear()
    code, _, err = run("docs", "list")
    assert code == 2
    assert "PORT='eighty'" in err
    settings.cache_clear()


def test_an_interruption_exits_130_and_reports_what_was_done(run, folder, monkeypatch):
    class Interrupting(WordEmbedder):
        def embed_documents(self, texts):
            raise KeyboardInterrupt

    monkeypatch.setattr(wiring, "load_embedder", lambda _model: Interrupting())
    code, _, err = run("ingest", str(folder))
    assert code == 130
    assert "0 of 2 files" in err
    assert "interrupted" in err


def test_a_document_cannot_steer_the_terminal(run, folder):
    harmless = "Words that nobody minds. " * 20
    (folder / "evil.txt").write_text(
        f"{harmless}harbour \x1b]0;owned\x07 harbour \x9b31m \u202e reversed harbour", "utf-8"
    )
    run("ingest", str(folder / "evil.txt"))
    _, out, _ = run("search", "harbour")
    assert "owned" in out
    assert not set(out) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert visible("a\tb\nc\x00") == "a b\nc\ufffd"


def command(*argv: str, home: Path, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LLAMABDA_HOME": str(home), "MODEL_PATH": ""}
    return subprocess.run(
        [sys.executable, "-m", "llamabda", *argv], env=environment, capture_output=True, text=True, **options
    )


@pytest.mark.parametrize("argv", [["--help"], ["ingest", "--help"], ["docs", "list", "--help"], ["--version"]])
def test_help_is_quick_to_import_and_needs_no_model_library(argv, tmp_path):
    code = (
        "import sys; from llamabda.cli import main\n"
        f"try: main({argv!r})\nexcept SystemExit as left: assert not left.code\n"
        "heavy = {'numpy', 'fastapi', 'onnxruntime', 'llama_cpp', 'kreuzberg', 'jwt'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "llamabda" in done.stdout


def test_the_command_works_from_any_folder_and_through_a_closed_pipe(tmp_path):
    done = command("docs", "list", "--json", home=tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["documents"] == []
    shell = f'"{sys.executable}" -m llamabda --help | head -n 1'
    piped = subprocess.run(shell, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert piped.returncode == 0
    assert "Traceback" not in piped.stderr


@pytest.mark.parametrize("more_requests", [0, 3, 6, 12, 24])
def test_a_serving_command_says_where_and_how_and_ends_cleanly(tmp_path, more_requests):
    """Also while it loads a model: the interpreter's tear-down would stop that thread inside native code, an abort."""
    from llamabda.demo.client import Client
    from llamabda.demo.server import DemoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_PATH", "")
        with DemoServer(tmp_path) as server:
            process = server._process
            client = Client(server.url)
            while True:
                try:
                    assert client.get("/health") == {"status": "ok"}
                    break
                except DependencyFailed:
                    assert process.poll() is None, server.log.read_text()
            for _ in range(more_requests):  # the stop comes at another moment of the loading
                client.get("/health")
    log = server.log.read_text("utf-8")
    assert process.returncode == 0, log
    assert f"Llamabda listens on {server.url}" in log
    assert f"curl {server.url}/auth/register" in log
    assert "Traceback" not in log


@pytest.fixture
def use_server(run, monkeypatch):
    def use(url: str) -> None:
        monkeypatch.setenv("GENERATOR_URL", url)
        monkeypatch.setenv("GENERATOR_API_KEY", "hunter2")
        settings.cache_clear()

    return use


def generator_finding(run) -> dict[str, str]:
    code, out, err = run("doctor", "--json")
    assert code == 0
    assert "hunter2" not in out + err
    (finding,) = [check for check in json.loads(out)["checks"] if check["name"] == "generator"]
    return finding


def test_doctor_tells_how_the_language_models_server_is(run, use_server, monkeypatch):
    monkeypatch.setattr(checkup, "FRESH_SECONDS", 0.0)  # two commands are two processes, which this is not
    with PlayingServer(writes("x")).running() as server:
        use_server(server.url)
        finding = generator_finding(run)
        assert (finding["status"], finding["detail"]) == (
            "ok",
            f"a-model at {server.url}, 2048 tokens of context",
        )
    assert generator_finding(run)["status"] == "warn"  # nobody listens any more


def test_doctor_warns_of_a_key_that_travels_unencrypted(run, use_server):
    use_server("http://name.invalid/v1")
    _, out, _ = run("doctor")
    assert "unencrypted" in out
    assert "hunter2" not in out


def test_a_secret_setting_that_is_wrong_is_not_shown(run, use_server):
    use_server("http://me:hunter2@host/v1")
    code, out, err = run("docs", "list")
    assert code == 2
    assert "GENERATOR_URL: Value error, no user name or password in the address" in err
    assert "hunter2" not in out + err


@pytest.fixture
def two_models(monkeypatch):
    """A second embedding model beside the usual one."""

    class Other(WordEmbedder):
        fingerprint = "other-256"

    monkeypatch.setattr(wiring, "load_embedder", lambda model: Other() if model.name == "other" else WordEmbedder())

    def choose(name: str) -> None:
        monkeypatch.setenv("EMBED_MODEL_NAME", name)
        settings.cache_clear()
        for known, provider in list(vars(wiring).items()):
            if isinstance(provider, Once):
                monkeypatch.setattr(wiring, known, Once(provider._make))
        monkeypatch.setattr(wiring, "_space", Background(wiring._loaded_spaces, name="embedder"))

    return choose


def test_reindex_gives_the_documents_vectors_of_another_model(run, folder, home, two_models):
    run("ingest", str(folder))
    total = wiring.embeddings().documents()
    two_models("other")
    code, out, _ = run("doctor", "--json")
    (vectors,) = [check for check in json.loads(out)["checks"] if check["name"] == "vectors"]
    assert (vectors["status"], "llamabda reindex" in vectors["advice"]) == ("warn", True)
    assert "EMBED_MODEL_NAME is other" in vectors["detail"]
    code, out, err = run("reindex", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["documents"], told["adopted"], told["fingerprint"], told["failed"]) == (total, True, "other-256", [])
    assert told["chunks"] >= total
    assert "other answers now" in err
    code, out, _ = run("doctor", "--json")
    (vectors,) = [check for check in json.loads(out)["checks"] if check["name"] == "vectors"]
    assert vectors["status"] == "ok"
    code, out, err = run("reindex", "--json")
    assert (code, json.loads(out)["documents"]) == (0, 0)
    code, out, _ = run("search", "warranty", "--json")
    assert code == 0


def test_reindex_says_what_it_could_not_make(run, folder, home, two_models):
    run("ingest", str(folder))
    (key, *_) = wiring.embeddings().unmade("", limit=1)
    wiring.texts().delete([key])
    two_models("other")
    code, _, err = run("reindex")
    assert code == 1
    assert f"failed: {key.doc_id} of shared: its text is missing: train it again, or delete it" in err
    assert "the former model goes on answering" in err
    code, _, _ = run("search", "warranty", "--json")
    assert code == 0


def published_minilm() -> Path:
    return fetch("sentence-transformers/all-MiniLM-L6-v2", cache=REAL_CACHE, prepared=False)


@pytest.fixture
def use_reranker(run, monkeypatch, tmp_path):
    def use(folder: Path) -> None:
        monkeypatch.setenv("RERANK_MODEL", str(folder))
        monkeypatch.setenv("LLAMABDA_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(wiring, "_reranker", Background(wiring_models.load_reranker, name="reranker"))
        settings.cache_clear()

    return use


def reranker_findings(run) -> list[tuple[str, str]]:
    code, out, _ = run("doctor", "--json")
    assert code == 0, out  # without it questions are answered, too
    return [(f["status"], f["detail"]) for f in json.loads(out)["checks"] if f["name"] == "reranker"]


def test_doctor_tells_how_the_reranker_is(run, use_reranker, tmp_path):
    assert reranker_findings(run) == []
    folder = tmp_path / "cross-encoder"
    use_reranker(folder)
    ((status, detail),) = reranker_findings(run)
    assert status == "warn"
    assert "there is no such folder" in detail
    cross_encoders.random(folder, published_minilm())
    use_reranker(folder)
    assert reranker_findings(run) == [("warn", f"{folder} is not prepared yet")]
    wiring_models.prepare_reranker()
    assert reranker_findings(run) == [("ok", f"{folder} loads")]


def test_a_search_waits_for_the_reranker(run, use_reranker, tmp_path, folder):
    assert run("ingest", str(folder / "harbour.md"))[0] == 0
    use_reranker(cross_encoders.overlap(tmp_path / "cross-encoder", published_minilm()))
    code, _, err = run("search", "harbour")
    assert code == 0, err
    assert wiring._reranker.state == "ready"
    use_reranker(tmp_path / "none")
    code, _, err = run("search", "harbour")
    assert code == 0
    assert "without a reranker" in err
