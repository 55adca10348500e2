"""`llamabda doctor`: does everything work here, and what to do where it does not."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from llamabda import __version__, wiring, wiring_models
from llamabda.cli.console import Console
from llamabda.cli.doctor_languages import languages
from llamabda.cli.finding import Finding, Status
from llamabda.cli.start import wait_for
from llamabda.cpu import available_cpus
from llamabda.errors import LlamabdaError, ModelError
from llamabda.settings import obsolete, settings, unsafe

if TYPE_CHECKING:
    from llamabda.adapters.openai import OpenAiGenerator
    from llamabda.types import Embedding, EmbeddingModel

DEPENDENCY = 5
REINDEX = "run `llamabda reindex`"
ENOUGH_DISK = 1_000_000_000  # bytes: the models, their downloads, and some documents
ENOUGH_MEMORY = 1_000_000_000  # bytes: a server with the demo's models and ten thousand chunks takes 0.7 GB
PACKAGES = ("onnxruntime", "llama-cpp-python", "kreuzberg", "tokenizers", "fastapi", "numpy")


def doctor(_arguments: Namespace, console: Console) -> int:
    """5 when something does not work. Models that are not there yet are not fetched, only mentioned."""
    findings: list[Finding] = []
    for finding in _findings(console):
        findings.append(finding)
        if not console.json:
            console.result(f"{finding.status:<4}  {finding.name:<10}  {finding.detail}")
            if finding.advice:
                console.result(f"      {'':<10}  -> {finding.advice}")
    worst: Status = "ok"
    for status in ("warn", "fail"):
        if any(finding.status == status for finding in findings):
            worst = "warn" if status == "warn" else "fail"
    if console.json:
        console.data({"status": worst, "checks": [asdict(finding) for finding in findings]})
    return DEPENDENCY if worst == "fail" else 0


def _findings(console: Console) -> Iterator[Finding]:
    yield _python()
    yield _versions()
    yield from _settings()
    yield _disk()
    yield _memory()
    yield _sqlite()
    home = _home()
    yield home
    if home.status != "ok":
        return  # nothing below could work
    yield _checked("users", "the accounts can be read", wiring.checks()["users"])
    yield _checked("catalog", "the list of documents can be read", wiring.checks()["catalog"])
    embedder = _embedder(console)
    yield embedder
    yield _vectors()
    if embedder.status == "ok":
        yield _checked("index", "chunks can be searched", wiring.checks()["index"])
        yield languages()
    yield _generator(console)
    if settings().rerank_model:
        yield _reranker(console)
    yield _extractor()


def _python() -> Finding:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {available_cpus()} CPUs"
    return Finding("python", "ok", detail)


def _versions() -> Finding:
    found, missing = [f"llamabda {__version__}"], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if not missing:
        return Finding("packages", "ok", ", ".join(found))
    advice = "install llamabda[local]; llama-cpp-python needs a C++ compiler (`make install` builds it)"
    return Finding("packages", "warn", f"missing: {', '.join(missing)}; found: {', '.join(found)}", advice)


def _settings() -> Iterator[Finding]:
    for warning in obsolete():
        yield Finding("settings", "warn", warning, "remove it from the environment")
    for warning in unsafe():
        yield Finding("settings", "warn", warning, "put TLS before that server, and https into its address")
    file = ".env is read" if os.path.isfile(".env") else "no .env in this folder"
    yield Finding("settings", "ok", f"{file}; home {settings().home_dir}; models in {wiring_models.models_dir()}")


def _home() -> Finding:
    home = settings().home_dir
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as exc:
        return Finding(
            "home", "fail", f"{home} cannot be written: {exc.strerror}", "set LLAMABDA_HOME to a folder of yours"
        )
    return Finding("home", "ok", f"{home} can be written")


def _disk() -> Finding:
    place = next(path for path in (settings().home_dir, *settings().home_dir.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < ENOUGH_DISK:
        return Finding("disk", "warn", f"{_size(free)} free", f"models and documents want {_size(ENOUGH_DISK)}")
    return Finding("disk", "ok", f"{_size(free)} free")


def _memory() -> Finding:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            values = dict(line.split(":", 1) for line in lines)
        free = int(values["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return Finding("memory", "ok", "unknown on this system")
    if free < ENOUGH_MEMORY:
        return Finding("memory", "warn", f"{_size(free)} available", "set MODEL_PATH= (empty) for extracts only")
    return Finding("memory", "ok", f"{_size(free)} available")


def _sqlite() -> Finding:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE t USING fts5(x, tokenize='unicode61')")
    except sqlite3.Error as exc:
        return Finding(
            "sqlite", "fail", f"{sqlite3.sqlite_version} without FTS5: {exc}", "use a Python built with FTS5"
        )
    finally:
        connection.close()
    return Finding("sqlite", "ok", f"{sqlite3.sqlite_version} with FTS5")


def _embedder(console: Console) -> Finding:
    model = wiring.spaces().model()
    name = model.name
    try:
        wiring.prepare_embedder(offline=True, model=model)
    except ModelError as error:
        return _absent(
            "embedder", error, f"{name} is not here yet", "any command that needs it fetches it: `llamabda demo`"
        )

    def works() -> str:
        wait_for(wiring.checks()["embedder"], "loading the embedding model", console)
        vector = wiring.space().embedder.embed_query("Does it work?")
        length = float((vector * vector).sum())
        if not 0.98 < length < 1.02:
            raise ModelError(f"{name} gives vectors of length {length:.3f} and not 1")
        return "ok"

    return _checked("embedder", f"{name} embeds", works)


def _vectors() -> Finding:
    """Whether the documents have vectors of the model that the settings name."""
    wanted, live, documents = wiring.wanted_model(), wiring.embeddings().live(), wiring.embeddings().documents()
    if not documents:
        return Finding("vectors", "ok", "there are no documents yet")
    if live is None:
        return Finding("vectors", "warn", f"the {documents} documents have no vectors", REINDEX)
    if left := wiring.embeddings().left(live.name):
        return Finding("vectors", "warn", f"{left} of {documents} documents lack vectors", REINDEX)
    return _compared(wanted, live.embedding, documents)


def _compared(wanted: EmbeddingModel, live: Embedding, documents: int) -> Finding:
    if live.model == wanted and _prepared_fingerprint(wanted) in (None, live.fingerprint):
        return Finding("vectors", "ok", f"all {documents} documents were indexed with {wanted.name}")
    if live.model == wanted:
        detail = f"the vectors of the {documents} documents were not made by {wanted.name} as it is now"
    elif live.model.name == wanted.name:
        detail = f"EMBED_BACKEND is {wanted.backend}, the {documents} documents were indexed with {live.model.backend}"
    else:
        former = live.model.name or "another one"
        detail = f"EMBED_MODEL_NAME is {wanted.name}, the {documents} documents were indexed with {former}"
    return Finding("vectors", "warn", detail, REINDEX)


def _prepared_fingerprint(model: EmbeddingModel) -> str | None:
    """Of the model's files; None when they are not here, or another library reads them."""
    try:
        file = wiring.prepare_embedder(offline=True, model=model) / "embedder.json"
        return str(json.loads(file.read_text(encoding="utf-8"))["fingerprint"])
    except (LlamabdaError, OSError, ValueError, KeyError):
        return None


def _generator(console: Console) -> Finding:
    remote = wiring.remote_generator()
    if remote is not None:
        return _server(remote)
    name = settings().model_path
    if not name:
        return Finding("generator", "ok", "none is configured: answers are extracts")
    try:
        wiring_models.prepare_generator(offline=True)
    except ModelError as error:
        return _absent(
            "generator", error, f"{name} is not here yet", "the first start fetches it; until then, extracts"
        )

    def loads() -> str:
        wait_for(wiring.checks()["generator"], "loading the language model", console)
        return "ok"

    return _checked("generator", f"{name} loads", loads)


def _server(remote: OpenAiGenerator) -> Finding:
    """Of another process: answers are extracts without it, so this is no reason to fail."""
    where = settings().generator_url
    try:
        status = remote.check()
    except LlamabdaError as error:
        return Finding("generator", "warn", error.message, "see GENERATOR_URL in .env.example; until then, extracts")
    detail = f"{remote.name} at {where}, {remote.context_size} tokens of context"
    if status != "ok":
        return Finding("generator", "warn", f"{where} is {status}", "answers are extracts meanwhile")
    return Finding("generator", "ok", detail)


def _reranker(console: Console) -> Finding:
    """Questions are answered without it, so this is no reason to fail."""
    name = settings().rerank_model
    advice = "see RERANK_MODEL in .env.example; until then, hits stay in the order of the search"
    try:
        wiring_models.prepare_reranker(offline=True)
    except ModelError as error:
        if "not in the cache" not in error.message:
            return Finding("reranker", "warn", error.message, advice)
        return Finding("reranker", "warn", f"{name} is not prepared yet", "the first start prepares it, in seconds")
    try:
        wait_for(wiring.checks()["reranker"], "loading the reranker", console)
    except LlamabdaError as error:
        return Finding("reranker", "warn", error.message, advice)
    return Finding("reranker", "ok", f"{name} loads")


def _extractor() -> Finding:
    def reads() -> str:
        wiring.extractor().extract(b"<p>Does it work?</p>", name="page.html")
        return "ok"

    return _checked("extractor", "files can be read", reads)


def _absent(name: str, error: ModelError, detail: str, advice: str) -> Finding:
    """Not in the cache is a state of things; anything else is a fault."""
    if "not in the cache" in error.message:
        return Finding(name, "warn", detail, advice)
    return Finding(name, "fail", error.message, "see EMBED_MODEL_NAME and MODEL_PATH in .env.example")


def _checked(name: str, detail: str, check: Callable[[], str]) -> Finding:
    try:
        check()
    except LlamabdaError as error:
        unclear = "if the cause is unclear, move the home away and try again"
        return Finding(name, "fail", error.message, REINDEX if "llamabda reindex" in error.message else unclear)
    return Finding(name, "ok", detail)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
