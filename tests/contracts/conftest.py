"""Fixtures for the contract suites."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def gguf() -> Path:
    """The demo's model: `LLAMABDA_TEST_GGUF`, else from the model cache, which is filled when it is empty."""
    given = os.environ.get("LLAMABDA_TEST_GGUF")
    if given:
        return Path(given)
    from llamabda.adapters.llama_cpp import requantize
    from llamabda.catalogue import CATALOGUE
    from llamabda.models import fetch

    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    cache = Path(os.environ.get("LLAMABDA_CACHE") or home / "llamabda") / "models"
    name = "smollm2-135m-instruct"
    kind = CATALOGUE[name].preparation
    return fetch(name, cache=cache, preparations={kind: requantize} if kind else {})


LLAMA_SERVER = Path(__file__).with_name("llama_server.py")
SERVER_CONTEXT = 1024  # tokens
SERVER_KEY = "sk-contract-never-shown"


@pytest.fixture(scope="session")
def llama_server(gguf: Path) -> Iterator[str]:
    """The base address of a real llama.cpp server with the demo's model, which wants SERVER_KEY."""
    pytest.importorskip("xllamacpp", reason="no llama.cpp server for this platform: xllamacpp is not installed")
    process = subprocess.Popen(
        [sys.executable, str(LLAMA_SERVER), str(gguf), str(SERVER_CONTEXT), SERVER_KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address, "the llama.cpp server did not start"
        yield f"{address}/v1"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
