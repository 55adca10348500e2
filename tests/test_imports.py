"""The import directions of the house, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "layers" / "shared" / "llamabda"

PURE = {
    "analysis",
    "chunking",
    "citations",
    "claims",
    "costs",
    "cursors",
    "document_language",
    "endpoint",
    "events",
    "file_kinds",
    "filters",
    "fusion",
    "html_text",
    "identifiers",
    "iso639",
    "issuer",
    "jwks_address",
    "jws",
    "language",
    "lookup",
    "pieces",
    "prices",
    "prompt",
    "receipts",
    "rendering",
    "rotation",
    "sentences",
    "succession",
    "support",
    "time_left",
}
VOCABULARY = {"types", "errors"}
# the one library each of these pure modules stands on
ALLOWED_LIBRARIES = {
    "chunking": {"semantic_text_splitter"},
    "analysis": {"snowballstemmer"},
    "jws": {"cryptography", "jwt"},
}
USE_CASES = {
    "ask",
    "auth",
    "draft",
    "ingest",
    "language_check",
    "publication",
    "reindex",
    "reranking",
    "search",
    "spaces",
}
SHARED = {"ports", "aws_failures", "cpu", "exchange", "onnx_session"}  # what adapters have in common
FASTAPI = ("http", "http_")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, *, runtime_only: bool = False, top_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if runtime_only and id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            assert node.module is not None
            if node.module in ("llamabda", "llamabda.adapters", "llamabda.adapters.sqlite"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def own(imported: str) -> str | None:
    return imported.removeprefix("llamabda.") if imported.startswith("llamabda.") else None


@pytest.mark.parametrize("path", [p for p in modules() if name(p) in PURE], ids=name)
def test_pure_modules_import_the_standard_library_and_the_vocabulary_only(path):
    for imported in imports(path):
        inner = own(imported)
        if inner is not None:
            assert inner in VOCABULARY | PURE, f"{name(path)} imports {imported}"
        else:
            top = imported.split(".")[0]
            known = top in sys.stdlib_module_names or top in ALLOWED_LIBRARIES.get(name(path), set())
            assert known, f"{name(path)} imports {imported}"


@pytest.mark.parametrize("path", [p for p in modules() if name(p) in USE_CASES], ids=name)
def test_use_cases_know_neither_adapters_nor_settings_nor_the_environment(path):
    for imported in imports(path):
        inner = own(imported) or ""
        assert not inner.startswith(("adapters", "settings", "wiring", "http", "cli", "demo")), imported
        assert imported.split(".")[0] not in {"fastapi", "starlette", "boto3", "mangum", "sqlite3", "os"}, imported
    assert "os.environ" not in path.read_text("utf-8")


@pytest.mark.parametrize("path", [p for p in modules() if name(p).startswith("adapters.")], ids=name)
def test_adapters_import_neither_each_other_nor_use_cases_nor_settings(path):
    technology = name(path).split(".")[1]
    for imported in imports(path):
        inner = own(imported)
        if inner is None:
            continue
        parts = inner.split(".")
        same = parts[0] == "adapters" and parts[1].split("_child")[0] == technology.split("_child")[0]
        assert same or parts[0] in VOCABULARY | PURE | SHARED, f"{name(path)} imports {imported}"


@pytest.mark.parametrize("path", modules(), ids=name)
def test_the_web_framework_stays_in_http_and_mangum_in_the_functions(path):
    if name(path).startswith(FASTAPI):
        return
    for imported in imports(path, runtime_only=True):
        assert imported.split(".")[0] not in {"fastapi", "starlette", "mangum"}, f"{name(path)} imports {imported}"


@pytest.mark.parametrize("path", sorted((ROOT / "functions").rglob("app.py")), ids=lambda p: p.parent.name)
def test_functions_do_not_import_their_siblings(path):
    source = path.read_text("utf-8")
    if path.parent.name != "local":
        assert "llamabda_functions" not in source
        assert "from .." not in source


HEAVY = ("onnxruntime", "llama_cpp", "kreuzberg", "tokenizers", "torch", "sentence_transformers", "boto3", "onnx")


@pytest.mark.parametrize(
    ("function", "forbidden"),
    [
        ("auth.app", (*HEAVY, "numpy")),
        ("auth.issuer", (*HEAVY, "numpy", "fastapi", "mangum")),
        ("ingest.app", HEAVY),
        ("ask.app", HEAVY),
        ("local.app", HEAVY),
    ],
)
def test_importing_a_function_loads_no_model_library(function, forbidden):
    code = f"import sys, llamabda_functions.{function}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {line.split(".")[0] for line in done.stdout.splitlines()}
    assert loaded & set(forbidden) == set()
